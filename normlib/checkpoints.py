"""State on disk that is whole, or is not there: written to a side file, synced, renamed, and checked by its digest."""

import glob
import hashlib
import io
import os
import tempfile
from pathlib import Path

import torch

_MAGIC = b"normlib checkpoint 1\n"


class CheckpointError(ValueError):
    """A checkpoint that is damaged or belongs to another run; the message names the file."""


def save(path: Path | str, key: str, state: dict) -> None:
    """Store tensors, numbers, strings and containers of them; `key` says what they are the state of.

    Raises:
        OSError: the folder cannot be written, or the disk is full; what was there before is still there.
    """
    path = Path(path)
    buffer = io.BytesIO()
    torch.save({"key": key, "state": state}, buffer)
    payload = buffer.getvalue()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=_prefix(path), suffix=".part", delete=False) as part:
        try:
            part.write(_MAGIC + hashlib.sha256(payload).digest() + payload)
            part.flush()
            os.fsync(part.fileno())
            os.replace(part.name, path)
        except BaseException:
            os.unlink(part.name)
            raise


def remove(path: Path | str) -> None:
    """Delete a checkpoint, and what writers that were killed left of it half-written."""
    path = Path(path)
    for part in path.parent.glob(glob.escape(_prefix(path)) + "*.part"):
        part.unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _prefix(path: Path) -> str:
    """With which the names of its side files begin."""
    return f".{path.name.removeprefix('.')}."


def load(path: Path | str, key: str) -> dict | None:
    """The state stored under `key`; None where there is no file.

    Raises:
        CheckpointError: the file is damaged, or holds the state of something else.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        return None
    digest = content[len(_MAGIC) : len(_MAGIC) + 32]
    payload = content[len(_MAGIC) + 32 :]
    if not content.startswith(_MAGIC) or hashlib.sha256(payload).digest() != digest:
        raise CheckpointError(f"{path}: damaged checkpoint (digest differs)")
    held = torch.load(io.BytesIO(payload), weights_only=True)
    if held["key"] != key:
        raise CheckpointError(f"{path}: checkpoint of another run, {held['key']}, expected {key}")
    return held["state"]
