"""A lock has one holder, and none once its holder is gone."""

import subprocess
import sys
import threading

import pytest

from normlib.experiments import locks

# The module alone, without torch: a quick start, and proof that the lock needs nothing else.
HOLD = f"""
import importlib.util, sys, pathlib
spec = importlib.util.spec_from_file_location("locks", {locks.__file__!r})
locks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(locks)
lock = locks.acquire(pathlib.Path(sys.argv[1]))
print("held" if lock else "refused", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def hold():
    """Start another process that asks for a lock and keeps it."""
    started = []

    def start(path):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return process, process.stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_one_holder_at_a_time(tmp_path):
    path = tmp_path / ".run.lock"
    lock = locks.acquire(path)
    assert path.exists()
    assert locks.acquire(path) is None
    lock.release()
    assert not path.exists()
    again = locks.acquire(path)
    assert again is not None
    again.release()


def test_another_process_is_kept_out_until_it_is_our_turn(tmp_path, hold):
    path = tmp_path / ".run.lock"
    lock = locks.acquire(path)
    assert hold(path)[1] == "refused"
    lock.release()
    assert hold(path)[1] == "held"
    assert locks.acquire(path) is None


def test_a_killed_holder_leaves_a_file_that_is_taken_over(tmp_path, hold):
    path = tmp_path / ".run.lock"
    holder, answer = hold(path)
    assert answer == "held"
    holder.kill()
    holder.wait()
    assert path.exists()
    lock = locks.acquire(path)
    assert lock is not None
    lock.release()


def test_a_file_removed_between_opening_and_locking_is_not_taken_for_the_lock(tmp_path, monkeypatch):
    path = tmp_path / ".run.lock"
    first, real, calls = locks.acquire(path), locks.fcntl.flock, []

    def flock(handle, operation):
        if not calls:  # the holder lets go just now
            first.release()
        calls.append(handle)
        real(handle, operation)

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    lock = locks.acquire(path)
    assert len(calls) == 2
    assert path.exists()
    assert locks.acquire(path) is None
    lock.release()


def test_many_threads_never_hold_it_together(tmp_path):
    path, inside, most = tmp_path / ".run.lock", [], []

    def work():
        held = 0
        while held < 50:  # however often it is refused
            lock = locks.acquire(path)
            if lock:
                inside.append(1)
                most.append(len(inside))
                inside.pop()
                lock.release()
                held += 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 200


def test_a_folder_that_is_not_there_or_a_system_without_locks(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        locks.acquire(tmp_path / "nowhere" / ".run.lock")
    monkeypatch.setattr(locks, "fcntl", None)
    with pytest.raises(OSError, match="Linux or macOS"):
        locks.acquire(tmp_path / ".run.lock")
