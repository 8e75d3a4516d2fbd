"""`virtual_batch_size` is data parallelism: four processes under DistributedDataParallel against one."""

import os
import tempfile
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from compare import assert_same, normal, randomize
from torch import distributed, nn
from torch.multiprocessing import spawn
from torch.nn.parallel import DistributedDataParallel

from normlib.layers import BatchChannelNorm, BatchNorm, BatchRenorm, MomentumBatchNorm

WORLD, PER_DEVICE, STEPS, WIDTH = 4, 3, 2, 4
X, DY = normal(WORLD * PER_DEVICE, 2, 5, 5), normal(WORLD * PER_DEVICE, 3, seed=1)


def momentum(features, **options):
    layer = MomentumBatchNorm(features, PER_DEVICE, **options)
    layer.momentum_lambda = 0.6
    return layer


KINDS = {
    "bn": BatchNorm,
    "brn": lambda features, **options: BatchRenorm(features, r_max=1.5, d_max=0.5, momentum=0.3, **options),
    "bcn": lambda features, **options: BatchChannelNorm(features, 2, **options),
    "bcn-estimate": lambda features, **options: BatchChannelNorm(features, 2, estimate=True, **options),
    "mbn": momentum,
}


def network(kind, **options):
    """A small convolutional network with two normalizations, the same in every process."""
    layers = [
        nn.Conv2d(2, WIDTH, 3, bias=False),
        KINDS[kind](WIDTH, **options),
        nn.ReLU(),
        nn.Conv2d(WIDTH, WIDTH, 2, bias=False),
        KINDS[kind](WIDTH, **options),
        nn.Flatten(),
        nn.Linear(WIDTH * 4, 3),
    ]
    model = nn.Sequential(*layers).double()
    return randomize(model)


def train(model, x, dy, average=None):
    """Some steps of gradient descent: all gradients of each step, and the buffers at the end."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    record = {}
    for step in range(STEPS):
        optimizer.zero_grad()
        (model(x) * dy).sum(1).mean().backward()
        for name, parameter in model.named_parameters():
            record[f"step {step} {name.removeprefix('module.')}"] = parameter.grad.clone()
        optimizer.step()
        for name, buffer in model.named_buffers():
            if average and buffer.is_floating_point():
                distributed.all_reduce(buffer)
                buffer /= WORLD
            record[f"step {step} {name.removeprefix('module.')}"] = buffer.clone()
    return record


def work(rank, folder):
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"  # no port to collide on
    distributed.init_process_group(
        "gloo", init_method=meeting, rank=rank, world_size=WORLD, timeout=timedelta(minutes=10)
    )
    part = slice(rank * PER_DEVICE, (rank + 1) * PER_DEVICE)
    records = {}
    for kind in KINDS:
        parallel = DistributedDataParallel(network(kind), broadcast_buffers=False)
        records[kind] = train(parallel, X[part], DY[part], average=True)
    if rank == 0:
        torch.save(records, Path(folder) / "records.pt")
    distributed.barrier()
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def records():
    """What four processes computed, each with its own statistics."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
        patch.setenv("OMP_NUM_THREADS", "1")
        spawn(work, (folder,), nprocs=WORLD)
        return torch.load(Path(folder) / "records.pt", weights_only=True)


@pytest.mark.parametrize("kind", KINDS)
def test_four_devices_are_one_with_virtual_batches(records, kind):
    one = network(kind, virtual_batch_size=PER_DEVICE)
    assert_same(train(one, X, DY), records[kind], 1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_batch_is_something_else(records, kind):
    """Statistics over all, the meaning of SyncBatchNorm: the comparison above would notice the difference."""
    with pytest.raises(AssertionError, match="off by"):
        assert_same(train(network(kind), X, DY), records[kind], 1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_without_virtual_batches_statistics_are_over_all(kind):
    """SyncBatchNorm on four devices is one device with the concatenated batch, in one virtual batch or none."""
    whole, one_virtual = network(kind), network(kind, virtual_batch_size=len(X))
    assert_same(train(whole, X, DY), train(one_virtual, X, DY), 1e-11)
    if kind == "bn":
        torch_layers = network("bn")
        for place in (1, 4):
            layer = nn.BatchNorm2d(WIDTH).double()
            layer.load_state_dict(torch_layers[place].state_dict())
            torch_layers[place] = layer
        assert_same(train(network("bn"), X, DY), train(torch_layers, X, DY), 1e-11)
