"""A lock file per run: whoever holds it makes the run, and the system lets go of it however the holder ends."""

import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: chapters still load records, only running grids needs locks
    fcntl = None


class Lock:
    """A held lock; `release` removes its file."""

    def __init__(self, path: Path, handle: int):
        self.path, self._handle = path, handle

    def release(self) -> None:
        self.path.unlink(missing_ok=True)  # while it is held: nobody else's file can be meant
        os.close(self._handle)


def acquire(path: Path) -> Lock | None:
    """The lock of this file, or None if it is held, by another process or by this one.

    A file that a dead process left behind is not locked, so it is taken over.

    Raises:
        OSError: the folder cannot be written, or the system has no such locks.
    """
    if fcntl is None:
        raise OSError("running a grid needs the file locks of Linux or macOS; on Windows, run it under WSL")
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(handle, path):
                return Lock(path, handle)
        except BlockingIOError:
            os.close(handle)
            return None
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its holder removed the file between the two calls: what we locked has no name any more


def _is(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False
