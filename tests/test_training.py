"""The training loop: reproducible, honest about failures, silent where nobody watches."""

import math
import os
import sys
from datetime import timedelta
from functools import partial

import pytest
import torch
from torch import distributed, nn
from torch.multiprocessing import spawn

from normlib import checkpoints, training
from normlib.checkpoints import CheckpointError
from normlib.convert import norm_factory
from normlib.datasets import Data, crop_flip, digits
from normlib.layers import BatchNorm, BatchRenorm
from normlib.models import MLP, LeNet5, StridedCNN, ThreeBlockCNN
from normlib.training import classwise, first, predict, shuffled, train

CURVES = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Models this small lose time to a second thread, most of all where other work is waiting."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data():
    return digits().subset(train=320, test=200)


def mlp():
    return MLP(64, width=16, depth=2, norm_layer=BatchNorm)


SETTINGS = {"epochs": 2, "batch_size": 16, "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 1e-4}


def assert_same_history(a, b, **tolerance):
    for name in CURVES:
        torch.testing.assert_close(getattr(a, name), getattr(b, name), equal_nan=True, **tolerance)


@pytest.mark.parametrize("together", [True, False])
def test_the_seeds_determine_everything(data, together):
    histories = []
    for unrelated in (1, 2):
        torch.manual_seed(unrelated)
        histories.append(train(mlp, data, seeds=[3, 4], together=together, **SETTINGS))
    first, second = histories
    assert_same_history(first, second, rtol=0, atol=0)
    for a, b in zip(first.models, second.models, strict=True):
        for name, value in a.state_dict().items():
            assert torch.equal(value, b.state_dict()[name])
    assert not torch.equal(first.train_loss[0], first.train_loss[1])


@pytest.mark.parametrize("options", [{}, {"virtual_batch_size": 4}, {"momentum": None}], ids=str)
def test_together_is_one_by_one(data, options):
    def build():
        return MLP(64, width=16, depth=2, norm_layer=lambda C: BatchNorm(C, **options))

    settings = SETTINGS | {"epochs": 1, "learning_rate": 0.05}
    alone = train(build, data, seeds=[0, 1, 2], together=False, **settings)
    together = train(build, data, seeds=[0, 1, 2], together=True, **settings)
    # float32 sums in another order, over 20 steps; accuracies move by whole samples
    torch.testing.assert_close(together.train_loss, alone.train_loss, rtol=1e-4, atol=0)
    torch.testing.assert_close(together.test_loss, alone.test_loss, rtol=1e-3, atol=0)
    torch.testing.assert_close(together.train_accuracy, alone.train_accuracy, rtol=0, atol=2 / 320)
    for a, b in zip(together.models, alone.models, strict=True):
        for name, value in a.state_dict().items():
            torch.testing.assert_close(value, b.state_dict()[name], rtol=1e-2, atol=1e-3)


def test_models_that_differ_are_trained_one_by_one(data):
    def build():
        return MLP(64, width=16, depth=1, activation=(nn.ReLU, nn.Tanh)[torch.initial_seed() % 2])

    seeds = [0, 1]
    alone = train(build, data, seeds=seeds, together=False, **SETTINGS)
    assert_same_history(train(build, data, seeds=seeds, **SETTINGS), alone, rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"together must be None or False .* got True"):
        train(build, data, seeds=seeds, together=True, **SETTINGS)


def test_models_that_share_what_they_train_are_refused(data):
    shared = nn.Linear(64, 8)
    for together in (None, False):
        with pytest.raises(ValueError, match="build must make each seed a model of its own"):
            train(
                lambda: nn.Sequential(nn.Flatten(), shared, nn.Linear(8, 10)),
                data,
                seeds=[0, 1],
                together=together,
                **SETTINGS,
            )
    train(lambda: nn.Sequential(nn.Flatten(), shared, nn.Linear(8, 10)), data, seeds=[0], **SETTINGS)


def test_a_seed_alone_is_the_same_as_among_others(data):
    alone = train(mlp, data, seeds=[4], **SETTINGS)
    among = train(mlp, data, seeds=[3, 4], together=False, **SETTINGS)
    assert torch.equal(alone.train_loss[0], among.train_loss[1])


def test_the_history_describes_the_models(data):
    history = train(mlp, data, seeds=[5, 6], **SETTINGS)
    assert history.seeds == [5, 6]
    assert len(history.epoch_seconds) == 2
    assert min(history.epoch_seconds) > 0
    assert history.diverged_at == {}
    for name in CURVES:
        assert getattr(history, name).shape == (2, 2)
        assert getattr(history, name).dtype == torch.float64
    for model, accuracy in zip(history.models, history.test_accuracy[:, -1], strict=True):
        assert not model.training
        right = (predict(model, data.x_test).argmax(1) == data.y_test).double().mean()
        assert right == pytest.approx(accuracy.item())
        count = next(m for m in model.modules() if isinstance(m, BatchNorm)).num_batches_tracked
        assert count == 2 * (320 // 16)


def test_digits_are_learnt():
    history = train(lambda: MLP(64, norm_layer=BatchNorm), digits(), seeds=range(3), epochs=4, batch_size=64,
                    learning_rate=0.2)  # fmt: skip
    assert history.test_accuracy[:, -1].min() > 0.9
    assert (history.train_loss[:, -1] < 0.3 * history.train_loss[:, 0]).all()


@pytest.mark.parametrize("together", [True, False])
def test_only_the_last_epoch_can_be_tested(together):
    def history(**options):
        build = partial(MLP, 64, norm_layer=BatchNorm)
        return train(build, digits(), seeds=(0, 1), epochs=3, batch_size=64, learning_rate=0.2, **options)

    each, last = history(together=together), history(together=together, test_every_epoch=False)
    for name in ("train_loss", "train_accuracy"):
        assert torch.equal(getattr(last, name), getattr(each, name))
    for name in ("test_loss", "test_accuracy"):
        assert getattr(last, name)[:, :2].isnan().all()
        assert torch.equal(getattr(last, name)[:, 2], getattr(each, name)[:, 2])


@pytest.mark.parametrize(
    ("build", "size", "groups"),
    [
        (partial(StridedCNN, 4, 1, strides=(2,)), 17, [1, 1]),  # of large images
        (partial(StridedCNN, 4, 1, strides=(2,)), 16, [2]),  # folded
        (LeNet5, 32, [1, 1]),
    ],
    ids=["large", "small", "LeNet5"],
)
def test_a_convolutional_net_is_trained_one_by_one_unless_images_are_small(monkeypatch, build, size, groups):
    made, train_group = [], training._train_group

    def watched(models, *args, **options):
        made.append(len(models))
        return train_group(models, *args, **options)

    monkeypatch.setattr(training, "_train_group", watched)
    history = train(
        build, digits(size=size).subset(train=64, test=10), seeds=[0, 1], epochs=1, batch_size=32, learning_rate=0.1
    )
    assert made == groups
    assert history.train_loss.isfinite().all()


# One step by hand


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(10, 64))

    def forward(self, x):
        return x.flatten(1) @ self.weight.T


def test_autocast_lowers_the_forward_pass_and_nothing_else(data):
    seen = set()

    def build():
        model = mlp()
        for layer in model.modules():
            if isinstance(layer, nn.Linear):
                layer.register_forward_hook(lambda layer, x, y: seen.add((layer.training, y.dtype)))
        return model

    lowered, usual = (train(build, data, autocast=kind, **SETTINGS) for kind in (torch.bfloat16, None))
    assert seen == {(True, torch.bfloat16), (True, torch.float32), (False, torch.float32)}
    assert {p.dtype for p in lowered.models[0].parameters()} == {torch.float32}
    assert not torch.equal(lowered.train_loss, usual.train_loss)
    torch.testing.assert_close(lowered.train_loss, usual.train_loss, rtol=0.1, atol=0)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's compiler does
@pytest.mark.parametrize("seeds", [[0], [0, 1]], ids=["one", "folded"])
@pytest.mark.parametrize("norm", ["bn", "mbn"])
def test_compiled_steps_give_the_same(data, monkeypatch, seeds, norm):
    """By a compiler that takes a second, not a minute; of Momentum Batch Norm, whose λ moves, over several epochs."""
    modes, compiler = [], torch.compile

    def quick(net, mode):
        modes.append(mode)
        return compiler(net, backend="aot_eager", fullgraph=True)

    monkeypatch.setattr(torch, "compile", quick)
    layer = norm_factory(norm, **({"batch_size": 4} if norm == "mbn" else {}))
    build = partial(MLP, 64, width=16, depth=2, norm_layer=layer)
    settings = SETTINGS | {"epochs": 12, "sampler": first(2), "virtual_batch_size": 4, "seeds": seeds}
    compiled = train(build, data, compiled=True, **settings)
    assert modes == ["default"]
    assert_same_history(compiled, train(build, data, **settings), rtol=1e-4, atol=1e-4)


def test_compiled_is_for_what_folds(data):
    def build():
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Softplus())

    with pytest.raises(ValueError, match="compiled must be False for models trained together that do not fold"):
        train(build, data, seeds=[0, 1], compiled=True, **SETTINGS)


def test_one_step_is_gradient_descent_on_the_mean_loss(data):
    small = data.subset(train=8)
    history = train(Linear, small, epochs=1, batch_size=8, learning_rate=0.5)
    assert history.train_loss.item() == pytest.approx(math.log(10), rel=1e-6)
    residual = torch.full((8, 10), 0.1) - nn.functional.one_hot(small.y_train, 10)
    gradient = residual.T @ small.x_train.flatten(1) / 8
    torch.testing.assert_close(history.models[0].weight.detach(), -0.5 * gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
def test_the_schedule_scales_the_learning_rate(data, seeds):
    asked = []

    def schedule(epoch, epochs):
        asked.append((epoch, epochs))
        return 1.0 if epoch == 1 else 0.0

    options = {"seeds": seeds, "batch_size": 16, "learning_rate": 0.1}
    stopped = train(Linear, data, epochs=3, schedule=schedule, **options)
    assert asked == [(1, 3), (2, 3), (3, 3)]
    assert torch.equal(stopped.test_loss[:, 0], stopped.test_loss[:, 1])
    one = train(Linear, data, epochs=1, **options)
    assert torch.equal(stopped.models[-1].weight, one.models[-1].weight)


class Scheduled(nn.Module):
    calls = []  # noqa: RUF012  (shared by copies on purpose)

    def set_epoch(self, epoch, epochs):
        self.calls.append((epoch, epochs))

    def forward(self, x):
        return x


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
def test_modules_are_told_the_epoch(data, seeds, monkeypatch):
    monkeypatch.setattr(Scheduled, "calls", [])
    train(lambda: nn.Sequential(Scheduled(), Linear()), data, seeds=seeds, **SETTINGS)
    assert set(Scheduled.calls) == {(1, 2), (2, 2)}
    assert Scheduled.calls == sorted(Scheduled.calls)


def test_a_sampler_chooses_the_batches(data):
    seen = []

    def first_eight(labels, batch_size, generator):
        assert torch.equal(labels, data.y_train)
        assert isinstance(generator, torch.Generator)
        seen.append(batch_size)
        return [torch.arange(8), torch.arange(8)]

    history = train(mlp, data, sampler=first_eight, **SETTINGS)
    assert seen == [16, 16]
    assert next(m for m in history.models[0].modules() if isinstance(m, BatchNorm)).num_batches_tracked == 4


def test_shuffled_uses_each_sample_at_most_once():
    batches = list(shuffled(torch.zeros(10), 3, torch.Generator().manual_seed(0)))
    assert [len(b) for b in batches] == [3, 3, 3]
    assert len(torch.cat(batches).unique()) == 9
    again = list(shuffled(torch.zeros(10), 3, torch.Generator().manual_seed(0)))
    assert all(torch.equal(a, b) for a, b in zip(batches, again, strict=True))


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
def test_a_frozen_parameter_stays_and_the_others_learn(data, seeds):
    def build():
        model = mlp()
        model[1].linear.weight.requires_grad_(False)
        return model

    history = train(build, data, seeds=seeds, **SETTINGS)
    for seed, model in zip(seeds, history.models, strict=True):
        torch.manual_seed(seed)
        fresh = build()
        assert torch.equal(model[1].linear.weight, fresh[1].linear.weight)
        assert not torch.equal(model[2].linear.weight, fresh[2].linear.weight)


def test_dropout_is_on_in_training_and_off_in_evaluation(data):
    history = train(lambda: nn.Sequential(nn.Flatten(), nn.Dropout(1.0), Linear()), data, seeds=[0, 1], **SETTINGS)
    torch.testing.assert_close(history.train_loss, torch.full((2, 2), math.log(10), dtype=torch.float64))


# Divergence


class Explodes(Linear):
    """Its loss is NaN from the given training step on, in the seeds whose weights start below 0."""

    def __init__(self, at):
        super().__init__()
        self.at = at
        self.register_buffer("steps", torch.tensor(0))
        self.register_buffer("sick", torch.rand(()) < 0.5)

    def forward(self, x):
        if self.training:
            self.steps += 1
        broken = self.sick & (self.steps > self.at)
        return super().forward(x) * torch.where(broken, torch.nan, 1.0)


def sick(seed):
    torch.manual_seed(seed)
    return bool(Explodes(0).sick)


SICK = next(seed for seed in range(100) if sick(seed))
WELL = next(seed for seed in range(100) if not sick(seed))


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("order", [(SICK, WELL), (WELL, SICK)], ids=["first", "last"])
def test_a_diverged_seed_is_reported_and_the_others_go_on(data, together, order):
    steps = 320 // 16
    options = SETTINGS | {"epochs": 3, "together": together}
    history = train(lambda: Explodes(steps + 4), data, seeds=order, **options)
    assert history.diverged_at == {SICK: steps + 4}  # counted from 0
    assert len(history.epoch_seconds) == 3
    s, w = order.index(SICK), order.index(WELL)
    for name in CURVES:
        curve = getattr(history, name)
        assert curve[s, 0].isfinite()
        assert curve[s, 1:].isnan().all()
    healthy = train(Linear, data, seeds=[WELL], **options | {"together": False})
    for name in CURVES:
        torch.testing.assert_close(getattr(history, name)[w], getattr(healthy, name)[0], rtol=1e-5, atol=1e-6)


def test_a_seed_that_breaks_in_the_very_last_step_has_diverged(data):
    """The last loss is finite, the weights it leaves behind are not."""

    def build():
        model = Linear()
        model.weight.register_hook(lambda gradient: gradient * (1e39 if len(seen) == 20 else 1))
        model.register_forward_pre_hook(lambda module, x: seen.append(1) if module.training else None)
        return model

    seen = []
    history = train(build, data, **SETTINGS | {"epochs": 1})
    assert history.diverged_at == {0: 20}
    assert history.test_loss.isnan().all()
    assert history.test_accuracy.isnan().all()


# Bad arguments


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": []}, r"seeds must be distinct and at least one, got \[\]"),
        ({"seeds": [1, 1]}, r"seeds must be distinct .* got \[1, 1\]"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be between 1 and 320 training images, got 0"),
        ({"batch_size": 321}, "batch_size must be between 1 and 320 training images, got 321"),
        ({"virtual_batch_size": 0}, "virtual_batch_size must be an integer of at least 1, got 0"),
        ({"virtual_batch_size": 4.0}, "virtual_batch_size must be an integer of at least 1, got 4.0"),
        ({"virtual_batch_size": True}, "virtual_batch_size must be an integer of at least 1, got True"),
        ({"autocast": torch.float16}, "autocast must be torch.bfloat16 or None, got torch.float16"),
    ],
    ids=str,
)
def test_refused_arguments(data, changes, message):
    with pytest.raises(ValueError, match=message):
        train(mlp, data, **SETTINGS | changes)


def test_an_error_in_the_model_passes_through(data):
    with pytest.raises(ValueError, match="at least 2 values per channel"):
        train(mlp, data, **SETTINGS | {"batch_size": 1})


# Side effects


def test_silent_where_output_is_captured(data, capfd, monkeypatch):
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    train(mlp, data, label="a label", **SETTINGS)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.filterwarnings("ignore:IProgress not found")
def test_silent_in_a_notebook_that_is_checked(data, capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    monkeypatch.setenv("NORMLIB_PROGRESS", "0")
    train(mlp, data, **SETTINGS)
    assert capfd.readouterr() == ("", "")
    monkeypatch.delenv("NORMLIB_PROGRESS")
    train(mlp, data, label="a label", **SETTINGS)
    assert "a label" in capfd.readouterr().err  # the same bar, watched


def test_predict_keeps_the_mode_and_the_order(data):
    model = mlp().train()
    logits = predict(model, data.x_test, batch=7)
    assert model.training
    assert not logits.requires_grad
    torch.testing.assert_close(logits, predict(model.eval(), data.x_test))
    assert not model.training
    model[1].norm.train()
    predict(model, data.x_test)
    assert [m for m in model.modules() if m.training] == [model[1].norm]


def test_data_is_left_alone(data):
    before = data.x_train.clone()
    train(mlp, data, **SETTINGS)
    assert torch.equal(data.x_train, before)
    assert isinstance(data, Data)


def batches(sampler, labels, size, seed=0):
    return list(sampler(labels, size, torch.Generator().manual_seed(seed)))


def test_classwise_batches_hold_few_classes_evenly():
    labels = torch.arange(600) % 6
    drawn = batches(classwise(2), labels, 20)
    assert len(drawn) == 30
    for batch in drawn:
        counts = labels[batch].bincount(minlength=6)
        assert sorted(counts.tolist()) == [0, 0, 0, 0, 10, 10]
        assert len(batch.unique()) == 20
    assert {int(c) for batch in drawn for c in labels[batch]} == set(range(6))
    assert any(len(labels[b][:10].unique()) == 2 for b in drawn)  # not one class after the other
    for a, b in zip(drawn, batches(classwise(2), labels, 20), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(drawn[0], batches(classwise(2), labels, 20, seed=1)[0])


def test_classwise_repeats_no_sample_before_its_class_is_through():
    labels = torch.tensor([0, 1] * 50)
    drawn = torch.cat(batches(classwise(2), labels, 10))
    assert sorted(drawn.tolist()) == list(range(100))


@pytest.mark.parametrize(
    ("sampler", "labels", "size", "message"),
    [
        (classwise(3), [0, 1] * 10, 6, "classes must be at most 2, the classes of the labels, got 3"),
        (classwise(2), [0, 1] * 10, 5, "batch_size must be a multiple of classes = 2, got 5"),
        (classwise(2), [0, 2] * 10, 4, "labels must hold at least 2 samples of each class, got 0 of class 1"),
        (first(9), [0, 1] * 10, 4, "steps must be at most 5, the batches of an epoch, got 9"),
    ],
)
def test_samplers_refuse(sampler, labels, size, message):
    with pytest.raises(ValueError, match=message):
        batches(sampler, torch.tensor(labels), size)


@pytest.mark.parametrize("call", [lambda: classwise(0), lambda: first(0)])
def test_samplers_refuse_at_once(call):
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        call()


def test_first_is_the_beginning_of_an_epoch():
    labels = torch.zeros(40)
    for a, b in zip(batches(first(3), labels, 8), batches(shuffled, labels, 8)[:3], strict=True):
        assert torch.equal(a, b)


def test_virtual_batches_are_set_on_every_layer_that_has_them(data):
    history = train(mlp, data, seeds=[0, 1], virtual_batch_size=4, **SETTINGS)
    expected = train(
        lambda: MLP(64, width=16, depth=2, norm_layer=partial(BatchNorm, virtual_batch_size=4)),
        data,
        seeds=[0, 1],
        **SETTINGS,
    )
    assert_same_history(history, expected, rtol=0, atol=0)
    assert all(m.virtual_batch_size == 4 for m in history.models[1].modules() if isinstance(m, BatchNorm))
    for name in ("none", "ln"):  # nothing to set, nothing wrong
        train(lambda n=name: MLP(64, 16, 1, norm_layer=norm_factory(n)), data, virtual_batch_size=4, **SETTINGS)


def colored():
    """Digits as three-channel images of 16×16 pixels."""
    small = digits(size=16).subset(train=96, test=40)
    x_train, x_test = (x * torch.tensor([1.0, 0.5, -1.0]).view(1, 3, 1, 1) for x in (small.x_train, small.x_test))
    return Data("colored", x_train, small.y_train, x_test, small.y_test, black=torch.tensor([-1.0, -0.5, 1.0]))


def test_convolutions_on_color_images_run_channels_last():
    seen = []

    class Watched(BatchNorm):
        def forward(self, x):
            seen.append(x.is_contiguous(memory_format=torch.channels_last))
            return super().forward(x)

    data = colored()
    augment = partial(crop_flip, black=data.black, pad=2)
    build = partial(ThreeBlockCNN, 4, norm_layer=Watched)
    history = train(build, data, epochs=1, batch_size=32, learning_rate=0.1, augment=augment)
    assert seen
    assert all(seen)
    assert history.models[0][0][0].weight.is_contiguous(memory_format=torch.channels_last)


class StopError(Exception):
    """Somebody pulled the plug."""


def interrupted(epoch):
    if epoch == 2:
        raise StopError


def dropping(norm="mbn", **options):
    return ThreeBlockCNN(4, norm_layer=norm_factory(norm, **options))


class Last(nn.Linear):
    """A classifier of a class that `fold` does not know."""

    def __init__(self):
        super().__init__(16, 10)


@pytest.mark.parametrize(
    ("build", "seeds"),
    [
        (dropping, [5]),
        (dropping, [5, 6]),
        (lambda **options: nn.Sequential(*list(dropping(**options))[:-1], Last()), [5, 6]),
    ],
    ids=["alone", "folded", "vectorised"],
)
def test_training_goes_on_from_a_checkpoint_as_if_nothing_had_happened(tmp_path, build, seeds):
    """With momentum, dropout, augmentation, a schedule, and layers whose state changes with the epoch."""
    data = colored()
    settings = SETTINGS | {
        "epochs": 4,
        "schedule": lambda epoch, epochs: 1 / epoch,
        "batch_size": 8,
        "learning_rate": 0.02,
    }
    settings |= {"augment": partial(crop_flip, black=data.black, pad=2), "seeds": seeds}
    settings["together"] = True
    build = partial(build, batch_size=8)
    file = tmp_path / "state"
    with pytest.raises(StopError):
        train(build, data, checkpoint=file, on_epoch=interrupted, **settings)
    assert [p.name for p in tmp_path.iterdir()] == ["state"]
    epochs = []
    resumed = train(build, data, checkpoint=file, on_epoch=epochs.append, **settings)
    assert epochs == [3, 4]
    straight = train(build, data, **settings)
    assert_same_history(resumed, straight, rtol=0, atol=0)
    for expected, model in zip(straight.models, resumed.models, strict=True):
        for name, value in expected.state_dict().items():
            assert torch.equal(value, model.state_dict()[name]), name
    assert len(resumed.epoch_seconds) == 4


def test_a_diverged_run_stays_diverged_when_it_goes_on(data, tmp_path):
    options = SETTINGS | {"epochs": 3, "learning_rate": 1e30, "checkpoint": tmp_path / "state"}
    build = partial(MLP, 64, 16, 2)
    first_time = train(build, data, **options)
    again = train(build, data, **options)
    assert again.diverged_at == first_time.diverged_at
    assert len(first_time.diverged_at) == 1
    assert_same_history(again, first_time)


def spoil(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def truncate(file):
    file.write_bytes(file.read_bytes()[:1000])


@pytest.mark.parametrize("harm", [spoil, truncate])
def test_a_damaged_checkpoint_is_refused(data, tmp_path, harm):
    file = tmp_path / "state"
    train(mlp, data, checkpoint=file, **SETTINGS)
    harm(file)
    with pytest.raises(CheckpointError, match=r"state: damaged checkpoint"):
        train(mlp, data, checkpoint=file, **SETTINGS)


def test_removing_a_checkpoint_takes_what_killed_writers_left_of_it_and_nothing_else(tmp_path, monkeypatch):
    path, other = tmp_path / ".a[1].ckpt", tmp_path / ".a[1].ckpt2"
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *names: None)  # as if killed just before it
        checkpoints.save(path, "a", {})
        checkpoints.save(other, "b", {})
    assert len(list(tmp_path.iterdir())) == 2
    checkpoints.save(path, "a", {})
    checkpoints.remove(path)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(f"{other.name}.")
    checkpoints.remove(path)


@pytest.mark.parametrize(
    "other",
    [{"learning_rate": 0.2}, {"momentum": 0.5}, {"weight_decay": 0.0}, {"virtual_batch_size": 8}],
    ids=str,
)
def test_the_checkpoint_of_another_run_is_refused(data, tmp_path, other):
    file = tmp_path / "state"
    options = SETTINGS | {"epochs": 1}
    train(mlp, data, checkpoint=file, **options)
    with pytest.raises(CheckpointError, match="another run"):
        train(mlp, data, checkpoint=file, **options | other)


def test_the_checkpoint_of_another_network_or_other_data_is_refused(data, tmp_path):
    file = tmp_path / "state"
    options = SETTINGS | {"epochs": 1, "checkpoint": file}
    train(mlp, data, **options)
    with pytest.raises(CheckpointError, match="another run"):
        train(lambda: MLP(64, width=8, depth=2, norm_layer=BatchNorm), data, **options)
    with pytest.raises(CheckpointError, match="another run"):
        train(mlp, data.subset(train=160), **options)


def test_a_state_that_does_not_fit_is_refused_by_name(data, tmp_path, monkeypatch):
    file = tmp_path / "state"
    train(mlp, data, checkpoint=file, **SETTINGS)
    load = checkpoints.load
    monkeypatch.setattr(checkpoints, "load", lambda path, key: load(path, key) | {"net": {}})
    with pytest.raises(CheckpointError, match=r"state: not the state of this network \(.*Missing key"):
        train(mlp, data, checkpoint=file, **SETTINGS)


def test_a_vectorised_checkpoint_holds_what_is_trained_and_no_more(data):
    net = training._Vectorised([TWO["vectorised"]() for _ in range(2)])
    state = TWO["vectorised"]().state_dict()
    assert {n: v.shape for n, v in net.state_dict().items()} == {n: (2, *v.shape) for n, v in state.items()}


def test_a_checkpoint_is_of_seeds_trained_together(data, tmp_path):
    with pytest.raises(ValueError, match=r"checkpoint is for seeds trained together, got seeds \[0, 1\] one after"):
        train(mlp, data, seeds=[0, 1], together=False, checkpoint=tmp_path / "state", **SETTINGS)


def one_of_two(rank, folder):
    torch.set_num_threads(1)
    timeout = timedelta(seconds=60)
    distributed.init_process_group("gloo", f"file://{folder}/meeting", timeout, world_size=2, rank=rank)
    data = digits().subset(train=320, test=200)
    kept = {}
    for name, build in TWO.items():
        history = train(build, data, seeds=[0, 1], augment=CROP, **SETTINGS)
        kept[name] = history.test_loss, history.train_loss, [m.state_dict() for m in history.models]
    # stopped after an epoch, and gone on with; in the same masks of dropout, each process its own
    settings = SETTINGS | {"seeds": [0, 1], "together": True, "checkpoint": folder / "checkpoint"}
    straight = train(masked, data, **settings | {"checkpoint": None})
    with pytest.raises(StopError):
        train(masked, data, on_epoch=stopped_together, **settings)
    resumed = train(masked, data, **settings)
    assert_same_history(resumed, straight, rtol=0, atol=0)
    torch.save(kept, folder / f"{rank}")
    distributed.destroy_process_group()


def stopped_together(epoch):
    distributed.barrier()  # process 0 has written the checkpoint
    raise StopError


def masked():
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))


class OwnBatchNorm(BatchNorm):
    """A subclass, which is vectorised instead."""


CROP = partial(crop_flip, black=torch.full((1,), -1.0), pad=1)
TWO = {"folded": mlp, "vectorised": partial(MLP, 64, width=16, depth=2, norm_layer=OwnBatchNorm)}


def test_two_processes_are_virtual_batches_of_half_the_size(data, tmp_path):
    """With augmented images, folded and vectorised; what else is compared there, see `one_of_two`."""
    spawn(one_of_two, (tmp_path,), nprocs=2)
    one, two = (torch.load(tmp_path / str(rank)) for rank in (0, 1))
    for way, build in TWO.items():
        here = train(
            build, data, seeds=[0, 1], virtual_batch_size=SETTINGS["batch_size"] // 2, augment=CROP, **SETTINGS
        )
        (test_loss, train_loss, states), other = one[way], two[way]
        torch.testing.assert_close(train_loss, here.train_loss, rtol=1e-4, atol=0)
        torch.testing.assert_close(test_loss, here.test_loss, rtol=1e-3, atol=0)
        for state, model, twin in zip(states, here.models, other[2], strict=True):
            for name, value in model.state_dict().items():
                torch.testing.assert_close(state[name], value, rtol=2e-3, atol=2e-4, msg=name)
                assert torch.equal(state[name], twin[name]), name


@pytest.mark.parametrize("layer", ["folds", "does not fold"])
def test_every_trained_model_has_the_schedule_of_the_last_epoch(data, layer):
    class Own(BatchRenorm):
        """A subclass, which is vectorised instead."""

    kind = partial(
        BatchRenorm if layer == "folds" else Own, schedule=lambda epoch, epochs: (1.0 + epoch, float(epochs))
    )
    history = train(lambda: MLP(64, 16, 1, norm_layer=kind), data, seeds=[0, 1], **SETTINGS)
    for model in history.models:
        assert (model[1].norm.r_max, model[1].norm.d_max) == (3.0, 2.0)
