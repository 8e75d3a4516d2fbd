"""Image data as whole tensors: digits (offline), MNIST and CIFAR through torchvision.

Every function returns a `Data`: standardized float32 images (N, C, H, W) and int64 labels, split into train and test.
"""

import hashlib
import os
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Data:
    """A classification data set in memory.

    x_train, x_test: float32 images (N, C, H, W), standardized by the training set's mean and deviation
    per channel; y_train, y_test: int64 labels (N,). black (C,) is what the pixel value 0 has become.
    """

    name: str
    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    num_classes: int = 10
    black: Tensor | None = None

    def subset(self, train: int | None = None, test: int | None = None, seed: int = 0) -> "Data":
        """Keep `train` and `test` random images, drawn without replacement from the given seed."""
        kept = {}
        for part, count in (("train", train), ("test", test)):
            x, y = getattr(self, f"x_{part}"), getattr(self, f"y_{part}")
            if count is None:
                continue
            if not 1 <= count <= len(x):
                raise ValueError(f"{part} must be between 1 and {len(x)} images, got {count}")
            chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:count]
            kept |= {f"x_{part}": x[chosen], f"y_{part}": y[chosen]}
        return replace(self, **kept)

    def validation(self, count: int, seed: int = 0) -> "Data":
        """Put `count` random training images, which leave the training set, in the test set's place: to tune on."""
        if not 1 <= count < len(self.x_train):
            raise ValueError(f"count must be between 1 and {len(self.x_train) - 1} images, got {count}")
        order = torch.randperm(len(self.x_train), generator=torch.Generator().manual_seed(seed))
        held, kept = order[:count], order[count:]
        parts = {"x_train": self.x_train[kept], "y_train": self.y_train[kept]}
        return replace(self, **parts, x_test=self.x_train[held], y_test=self.y_train[held])

    def resized(self, size: int) -> "Data":
        """Interpolate all images bilinearly to size × size pixels."""
        if size < 1:
            raise ValueError(f"size must be at least 1 pixel, got {size}")
        return replace(self, x_train=_resize(self.x_train, size), x_test=_resize(self.x_test, size))

    def to(self, device: torch.device | str) -> "Data":
        """Move all tensors to a device."""
        tensors = ("x_train", "y_train", "x_test", "y_test", "black")
        moved = {name: getattr(self, name).to(device) for name in tensors if getattr(self, name) is not None}
        return replace(self, **moved)


def _resize(x: Tensor, size: int) -> Tensor:
    return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)


def _standardized(name, x_train, y_train, x_test, y_test, num_classes=10) -> Data:
    """Scale images (N, C, H, W) of any number type by the training set's moments."""
    x_train, x_test = x_train.float(), x_test.float()
    mean = x_train.mean((0, 2, 3), keepdim=True)
    x_train, x_test = x_train - mean, x_test - mean
    std = x_train.square().mean((0, 2, 3), keepdim=True).sqrt()
    x_train, x_test = x_train / std, x_test / std
    black = (-mean / std).flatten()
    return Data(name, x_train, y_train.long(), x_test, y_test.long(), num_classes, black)


def _shipped(*parts: str) -> Path | None:
    """A file of scikit-learn's data sets, to be read where it lies: its import takes two seconds."""
    package = find_spec("sklearn")
    file = Path(package.origin).parent.joinpath("datasets", *parts) if package else None
    return file if file and file.exists() else None


def _digits_table() -> np.ndarray:
    """Rows of 64 pixels and the digit."""
    if file := _shipped("data", "digits.csv.gz"):
        return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return np.column_stack((bunch.data, bunch.target))


def digits(size: int = 8, train: int = 1000) -> Data:
    """The 1797 handwritten 8×8 digits that ship with scikit-learn; no network needed.

    Args:
        size: side of the images in pixels, interpolated from 8.
        train: training images; the rest, drawn by a fixed permutation, is the test set.
    """
    table = torch.from_numpy(_digits_table())
    x, y = table[:, :-1].float().view(-1, 1, 8, 8), table[:, -1].long()
    if not 1 <= train < len(x):
        raise ValueError(f"train must be between 1 and {len(x) - 1} images, got {train}")
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y = x[order], y[order]
    data = _standardized("digits", x[:train], y[:train], x[train:], y[train:])
    return data if size == 8 else data.resized(size)


def photographs() -> Tensor:
    """The two photographs that ship with scikit-learn, of a palace and of a flower: uint8, (2, 3, 427, 640)."""
    files = [_shipped("images", name) for name in ("china.jpg", "flower.jpg")]
    if all(files):
        from PIL import Image

        images = [np.asarray(Image.open(file)) for file in files]
    else:
        from sklearn.datasets import load_sample_images

        images = load_sample_images().images
    return torch.from_numpy(np.stack(images)).movedim(-1, 1)


def default_root() -> Path:
    """Where data sets are kept: $NORMLIB_DATA, else data/downloads of a checkout, else ~/.cache/normlib."""
    if os.environ.get("NORMLIB_DATA"):
        return Path(os.environ["NORMLIB_DATA"])
    checkout = Path(__file__).resolve().parent.parent
    if (checkout / "chapters").is_dir():
        return checkout / "data" / "downloads"
    return Path.home() / ".cache" / "normlib"


class DataUnavailableError(FileNotFoundError):
    """A data set is neither on disk nor to be had from the network."""


# md5 of the unpacked files, which torchvision reads without checking
_MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


def _damaged(folder: Path, md5: dict[str, str]) -> list[Path]:
    """Files that are there but are not what they should be."""
    files = [folder / name for name in md5 if (folder / name).exists()]
    return [f for f in files if hashlib.md5(f.read_bytes()).hexdigest() != md5[f.name]]


def _source(name: str):
    """torchvision's class of a data set, the folder of its files and the md5 of each."""
    from torchvision import datasets

    if name == "mnist":
        return datasets.MNIST, "MNIST/raw", _MNIST_MD5
    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    md5 = dict([*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])])
    return kind, kind.base_folder, md5


def fetch(name: str, root: Path | str | None = None) -> None:
    """Have "mnist", "cifar10" or "cifar100" on disk, so that processes started later do not all download it.

    Raises: as `mnist`, where a file is missing.
    """
    kind, folder, md5 = _source(name)
    if not all((Path(default_root() if root is None else root) / folder / file).exists() for file in md5):
        _load(kind, folder, md5, root, download=True)


def _load(kind, folder: str, md5: dict[str, str], root: Path | str | None, download: bool):
    """Both splits of a torchvision data set, fetched if allowed, every file checked by md5."""
    root = default_root() if root is None else Path(root)
    damaged = _damaged(root / folder, md5)
    if damaged and not download:
        names = ", ".join(str(f) for f in damaged)
        raise OSError(f"damaged data file (md5 differs): {names}; delete it or call with download=True")
    for file in damaged:  # torchvision fetches what is missing, and trusts what is not
        file.unlink()
        file.with_name(file.name + ".gz").unlink(missing_ok=True)
    missing = [name for name in md5 if not (root / folder / name).exists()]
    try:
        splits = tuple(kind(str(root), train=train, download=download and bool(missing)) for train in (True, False))
    except (OSError, RuntimeError) as error:
        removed = f" (damaged and removed: {', '.join(map(str, damaged))})" if damaged else ""
        raise DataUnavailableError(
            f"{kind.__name__} is not under {root}{removed} and could not be fetched ({error}). Three ways to get it: "
            f"(1) run again with a network, download=True keeps a copy under {root}; "
            f"(2) point root= or the variable NORMLIB_DATA to a folder that holds {folder}/ in torchvision's layout; "
            "(3) use normlib.datasets.digits(), which needs no download"
        ) from error
    damaged = _damaged(root / folder, md5)
    if damaged:
        raise OSError(f"damaged data file after download (md5 differs): {', '.join(map(str, damaged))}")
    return splits


def mnist(root: Path | str | None = None, size: int = 32, download: bool = True) -> Data:
    """MNIST (LeCun et al., 1998): 60,000 + 10,000 images, padded with background from 28 to `size` pixels.

    Args:
        root: folder in torchvision's layout; None for `default_root()`.
        size: side in pixels, 28 or more.
        download: fetch what is missing or damaged.

    Raises:
        DataUnavailableError: no copy and no network; the message names three ways to get one.
        OSError: a file is damaged and may not be fetched again.
    """
    if size < 28 or size % 2:
        raise ValueError(f"size must be an even number of at least 28 pixels, got {size}")
    train, test = _load(*_source("mnist"), root, download)
    pad = (size - 28) // 2
    x_train, x_test = (F.pad(split.data[:, None], [pad] * 4) for split in (train, test))
    return _standardized("mnist", x_train, train.targets, x_test, test.targets)


def cifar10(root: Path | str | None = None, download: bool = True) -> Data:
    """CIFAR-10 (Krizhevsky, 2009): 50,000 + 10,000 color images of 32×32 pixels in 10 classes.

    Args, errors: as for `mnist`.
    """
    return _cifar("cifar10", root, download)


def cifar100(root: Path | str | None = None, download: bool = True) -> Data:
    """CIFAR-100 (Krizhevsky, 2009): 50,000 + 10,000 color images of 32×32 pixels in 100 classes.

    Args, errors: as for `mnist`.
    """
    return _cifar("cifar100", root, download)


def _cifar(name: str, root: Path | str | None, download: bool) -> Data:
    splits = _load(*_source(name), root, download)
    x_train, x_test = (torch.from_numpy(split.data).permute(0, 3, 1, 2) for split in splits)
    y_train, y_test = (torch.tensor(split.targets) for split in splits)
    return _standardized(name, x_train, y_train, x_test, y_test, len(splits[0].classes))


def crop_flip(x: Tensor, generator: torch.Generator, *, black: Tensor, pad: int = 4) -> Tensor:
    """Each image cropped at random out of itself with a black border, and mirrored with probability ½.

    The augmentation of seed 000, a whole batch in one gather; the result is channels-last.

    Args:
        x: images (N, C, H, W).
        generator: on the CPU, whatever the images' device.
        black: (C,), the value of a black pixel, as in `Data.black`.
        pad: width of the border in pixels.
    """
    N, C, H, W = x.shape
    black = black.view(1, C, 1, 1)
    rows, columns = torch.randint(0, 2 * pad + 1, (2, N, 1), generator=generator)
    mirrored = torch.rand(N, 1, generator=generator) < 0.5
    rows = rows + torch.arange(H)
    columns = columns + torch.where(mirrored, torch.arange(W - 1, -1, -1), torch.arange(W))
    sample, rows, columns = torch.arange(N)[:, None, None], rows[:, :, None], columns[:, None, :]
    padded = F.pad(x - black, [pad] * 4)
    cut = padded[sample.to(x.device), :, rows.to(x.device), columns.to(x.device)]
    return cut.permute(0, 3, 1, 2) + black
