"""Data sets without a network: the bundled digits, MNIST and CIFAR from folders of tiny files in their format."""

import hashlib
import pickle
import struct
import subprocess
import sys
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch

from normlib import datasets
from normlib.datasets import DataUnavailableError, cifar10, cifar100, crop_flip, digits, mnist


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Every request fails; the list holds the addresses asked for."""
    asked = []

    def refuse(request, *args, **kwargs):
        asked.append(getattr(request, "full_url", request))
        raise urllib.error.URLError("no network in this test")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return asked


def assert_standardized(data):
    assert data.x_train.dtype == data.x_test.dtype == torch.float32
    assert data.y_train.dtype == data.y_test.dtype == torch.int64
    assert abs(data.x_train.mean()) < 1e-5
    assert abs(data.x_train.square().mean() - 1) < 1e-5


def test_digits_are_all_there_standardized_and_the_same_each_time():
    data, again = digits(), digits()
    assert data.x_train.shape == (1000, 1, 8, 8)
    assert data.x_test.shape == (797, 1, 8, 8)
    assert_standardized(data)
    for name in ("x_train", "y_train", "x_test", "y_test"):
        assert torch.equal(getattr(data, name), getattr(again, name))
    # a fixed permutation of scikit-learn's own order, so that no numbers move from one machine to the next
    assert data.y_train[:10].tolist() == [6, 5, 5, 7, 9, 9, 8, 4, 6, 8]
    everything = torch.cat([data.x_train, data.x_test]).flatten(1)
    assert len(everything.unique(dim=0)) == 1797
    assert torch.bincount(torch.cat([data.y_train, data.y_test])).min() > 170


def test_digits_are_scikit_learns_also_where_it_keeps_them_elsewhere(monkeypatch):
    from sklearn.datasets import load_digits

    bunch = load_digits()
    table = datasets._digits_table()
    assert np.array_equal(table, np.column_stack((bunch.data, bunch.target)))
    monkeypatch.setattr(datasets, "find_spec", lambda name: None)
    assert np.array_equal(datasets._digits_table(), table)


def test_the_photographs_are_those_of_scikit_learn(monkeypatch):
    from sklearn.datasets import load_sample_images

    images = datasets.photographs()
    assert images.shape == (2, 3, 427, 640)
    assert np.array_equal(images.movedim(1, -1), np.stack(load_sample_images().images))
    monkeypatch.setattr(datasets, "find_spec", lambda name: None)
    assert torch.equal(datasets.photographs(), images)


def test_what_chapters_begin_with_imports_neither_scikit_learn_nor_scipy_stats():
    code = """
import sys
from normlib import datasets, plots
from normlib.exercises.chapter_04 import clipped_share
datasets.digits()
datasets.photographs()
plots.interval([[1.0], [2.0]])
clipped_share(4, 3.0)
print([name for name in ("sklearn", "scipy.stats") if name in sys.modules])
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_digits_sizes():
    data = digits(size=32, train=100)
    assert data.x_train.shape == (100, 1, 32, 32)
    assert data.x_test.shape == (1697, 1, 32, 32)
    assert torch.equal(data.y_train, digits().y_train[:100])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: digits(train=0), "train must be between 1 and 1796 images, got 0"),
        (lambda: digits(train=1797), "train must be between 1 and 1796 images, got 1797"),
        (lambda: digits(size=0), "size must be at least 1 pixel, got 0"),
        (lambda: digits().resized(-3), "size must be at least 1 pixel, got -3"),
        (lambda: digits().subset(train=0), "train must be between 1 and 1000 images, got 0"),
        (lambda: digits().subset(test=798), "test must be between 1 and 797 images, got 798"),
        (lambda: mnist(size=26), "size must be an even number of at least 28 pixels, got 26"),
        (lambda: mnist(size=31), "size must be .* got 31"),
    ],
)
def test_refused_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_validation_images_come_from_the_training_set_and_leave_it():
    data = digits()
    tuned = data.validation(100, seed=3)
    assert (len(tuned.x_train), len(tuned.y_train), len(tuned.x_test), len(tuned.y_test)) == (900, 900, 100, 100)
    together = torch.cat([tuned.x_train, tuned.x_test]).flatten(1), torch.cat([tuned.y_train, tuned.y_test])
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(3)).roll(-100)
    assert torch.equal(together[0], data.x_train[order].flatten(1))
    assert torch.equal(together[1], data.y_train[order])
    for count in (0, 1000):
        with pytest.raises(ValueError, match=f"count must be between 1 and 999 images, got {count}"):
            data.validation(count)


def test_subsets():
    data = digits()
    part, again = data.subset(train=50, test=20, seed=3), data.subset(train=50, test=20, seed=3)
    assert (len(part.x_train), len(part.y_train), len(part.x_test), len(part.y_test)) == (50, 50, 20, 20)
    assert torch.equal(part.x_train, again.x_train)
    assert not torch.equal(part.y_train, data.subset(train=50, seed=4).y_train)
    # images and labels stay together
    for image, label in zip(part.x_train[:5], part.y_train[:5], strict=True):
        index = (data.x_train == image).flatten(1).all(1).nonzero().item()
        assert data.y_train[index] == label
    assert torch.equal(data.subset(test=20).x_train, data.x_train)


def test_devices():
    data = digits().to("meta")
    assert {t.device.type for t in (data.x_train, data.y_train, data.x_test, data.y_test)} == {"meta"}


def idx(values):
    """Bytes of an IDX file of unsigned bytes."""
    return struct.pack(">HBB", 0, 8, values.dim()) + struct.pack(f">{values.dim()}i", *values.shape) + bytes(
        values.flatten().tolist()
    )  # fmt: skip


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder with 30 + 10 images in MNIST's format, known to the loader as the real ones."""
    generator = torch.Generator().manual_seed(0)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    md5 = {}
    for part, n in (("train", 30), ("t10k", 10)):
        images = torch.randint(0, 256, (n, 28, 28), generator=generator)
        labels = torch.arange(n) % 10
        for name, values in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            (raw / name).write_bytes(idx(values))
            md5[name] = hashlib.md5((raw / name).read_bytes()).hexdigest()
    monkeypatch.setattr(datasets, "_MNIST_MD5", md5)
    return tmp_path


def test_mnist_is_read_padded_and_standardized(root, no_network):
    data = mnist(root)
    assert data.x_train.shape == (30, 1, 32, 32)
    assert data.x_test.shape == (10, 1, 32, 32)
    assert data.y_test.tolist() == list(range(10))
    assert_standardized(data)
    raw = torch.tensor(list((root / "MNIST/raw/train-images-idx3-ubyte").read_bytes()[16 : 16 + 784])).view(28, 28)
    inner, frame = data.x_train[0, 0, 2:-2, 2:-2], data.x_train[0, 0, 0]
    assert torch.equal(frame, frame[:1].expand(32))  # background
    correlation = torch.corrcoef(torch.stack([raw.flatten().float(), inner.flatten()]))[0, 1]
    assert correlation == pytest.approx(1, abs=1e-5)
    assert mnist(root, size=28).x_train.shape == (30, 1, 28, 28)
    assert no_network == []


def test_the_folder_may_come_from_the_environment(root, monkeypatch):
    monkeypatch.setenv("NORMLIB_DATA", str(root))
    assert datasets.default_root() == root
    assert len(mnist().x_train) == 30
    monkeypatch.setenv("NORMLIB_DATA", "")
    assert datasets.default_root() != root


FILE = "train-labels-idx1-ubyte"


def damage(root):
    path = root / "MNIST" / "raw" / FILE
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    return path


def test_a_damaged_file_is_named_and_refused_where_nothing_may_be_fetched(root, no_network):
    path = damage(root)
    with pytest.raises(OSError, match=f"damaged data file .*{FILE}"):
        mnist(root, download=False)
    assert path.exists()
    assert no_network == []


def test_a_half_downloaded_file_is_damaged(root):
    path = root / "MNIST" / "raw" / FILE
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(OSError, match=FILE):
        mnist(root, download=False)


def test_a_damaged_file_is_fetched_again(root, no_network, capsys):
    damage(root)
    with pytest.raises(DataUnavailableError, match=f"damaged.*{FILE}"):
        mnist(root)
    assert no_network
    capsys.readouterr()


@pytest.mark.parametrize("download", [True, False])
def test_without_a_copy_three_ways_are_named(tmp_path, download, no_network, capsys):
    with pytest.raises(DataUnavailableError) as caught:
        mnist(tmp_path / "nothing", download=download)
    message = str(caught.value)
    for part in ("MNIST", str(tmp_path / "nothing"), "(1)", "download=True", "(2)", "NORMLIB_DATA", "(3)", "digits()"):
        assert part in message
    assert bool(no_network) is download
    capsys.readouterr()


def test_what_the_network_sends_is_checked_too(root, monkeypatch):
    """A mirror that answers with other bytes: refused, not trained on."""
    import torchvision.datasets

    (root / "MNIST" / "raw" / FILE).unlink()
    monkeypatch.setattr(torchvision.datasets.MNIST, "download", lambda self: damage_written(root))
    with pytest.raises(OSError, match=f"damaged data file after download .*{FILE}"):
        mnist(root)


def damage_written(root):
    (root / "MNIST" / "raw" / FILE).write_bytes(idx(torch.zeros(30, dtype=torch.int64)))


@pytest.fixture
def cifar_root(tmp_path, monkeypatch):
    """A folder with 50 + 10 images in CIFAR-10's format, known to the loader as the real ones."""
    from torchvision.datasets import CIFAR10

    rng = np.random.default_rng(0)
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    contents = {name: {"data": rng.integers(0, 256, (10, 3072), np.uint8), "labels": list(range(10))}
                for name, _ in [*CIFAR10.train_list, *CIFAR10.test_list]}  # fmt: skip
    contents[CIFAR10.meta["filename"]] = {"label_names": [str(c) for c in range(10)]}
    md5 = {}
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content))
        md5[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    for part in ("train_list", "test_list"):
        monkeypatch.setattr(CIFAR10, part, [[name, md5[name]] for name, _ in getattr(CIFAR10, part)])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5[CIFAR10.meta["filename"]]})
    return tmp_path


def test_cifar_is_read_and_standardized(cifar_root, no_network):
    data = cifar10(cifar_root)
    assert (data.name, data.num_classes) == ("cifar10", 10)
    assert data.x_train.shape == (50, 3, 32, 32)
    assert data.x_test.shape == (10, 3, 32, 32)
    torch.testing.assert_close(data.x_train.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(data.x_train.square().mean((0, 2, 3)), torch.ones(3))
    # a black pixel before is `black` after
    raw = pickle.loads((cifar_root / "cifar-10-batches-py" / "test_batch").read_bytes())["data"].reshape(10, 3, 32, 32)
    where = torch.from_numpy(raw == 0)
    black = data.black.view(1, 3, 1, 1).expand(10, 3, 32, 32)
    torch.testing.assert_close(data.x_test[where], black[where])


def test_a_damaged_cifar_is_refused(cifar_root, no_network):
    (cifar_root / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"half a file")
    with pytest.raises(OSError, match=r"damaged data file .*data_batch_3"):
        cifar10(cifar_root, download=False)


@pytest.mark.parametrize("load", [cifar10, cifar100])
def test_a_missing_cifar_names_three_ways(tmp_path, no_network, load):
    with pytest.raises(DataUnavailableError, match=r"\(1\).*\(2\).*\(3\)"):
        load(tmp_path, download=False)


def test_crop_flip_moves_and_mirrors_whole_images():
    black = torch.tensor([-2.0, 3.0])
    x = torch.randn(64, 2, 6, 6)
    y = crop_flip(x, torch.Generator().manual_seed(0), black=black, pad=2)
    assert y.shape == x.shape
    assert y.is_contiguous(memory_format=torch.channels_last)
    framed = black.view(1, 2, 1, 1).expand(64, 2, 10, 10).clone()
    framed[:, :, 2:8, 2:8] = x
    found = []
    for image, frame in zip(y, framed, strict=True):
        crops = {
            (row, column, mirrored): frame[:, row : row + 6, column : column + 6].flip(2 if mirrored else ())
            for row in range(5)
            for column in range(5)
            for mirrored in (False, True)
        }
        found.append([k for k, crop in crops.items() if torch.allclose(crop, image, atol=1e-6)])
    assert all(len(f) == 1 for f in found)
    rows, columns, mirrored = (set(part) for part in zip(*(f[0] for f in found), strict=True))
    assert rows == columns == set(range(5))
    assert mirrored == {False, True}
    again = crop_flip(x, torch.Generator().manual_seed(0), black=black, pad=2)
    assert torch.equal(y, again)


def test_fetch_loads_only_what_is_missing(root, no_network, monkeypatch):
    datasets.fetch("mnist", root)
    loaded = []
    monkeypatch.setattr(datasets, "_load", lambda *args, **options: loaded.append(options))
    datasets.fetch("mnist", root)
    assert loaded == []
    (root / "MNIST/raw/t10k-labels-idx1-ubyte").unlink()
    datasets.fetch("mnist", root)
    assert loaded == [{"download": True}]
