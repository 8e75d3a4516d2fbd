"""Worker processes: they report, they come back when killed, and none outlives the process that started it."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import pytest
import run_tiny

from normlib.experiments import RunWarning, execute, jobs, read, run, workers

SCRIPT = str(Path(run_tiny.__file__))


def until(condition, seconds=300):
    """What `condition` returns as soon as it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError(f"not within {seconds} s")


def workers_of(pid: int) -> list[psutil.Process]:
    """The worker processes of a runner."""
    try:
        children = psutil.Process(pid).children()
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    except psutil.Error:  # ended meanwhile
        return []


def command(folder: Path, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, SCRIPT, "run", "tiny", "--runs", str(folder), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
        # a shell that started the tests in the background left Ctrl-C ignored
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def test_a_real_worker_makes_the_records_and_a_killed_one_is_replaced(tiny, tmp_path, monkeypatch):
    reported, killed = [], []
    epochs = workers.Processes.epochs

    def kill_at_the_first_epoch(self):
        found = epochs(self)
        reported.extend(found.items())
        if found and not killed:
            killed.extend(workers_of(os.getpid()))
            killed[0].kill()
        return found

    monkeypatch.setattr(workers.Processes, "epochs", kill_at_the_first_epoch)
    with pytest.warns(RunWarning, match="a worker died; what it was at goes on from its last epoch: bn 0"):
        assert run(tiny, profile="long", seeds=1, runs=tmp_path) == 2
    assert not workers_of(os.getpid())
    assert len(killed) == 1
    for config in tiny.configs("long", 1):
        path = jobs.record_path(tmp_path / "tiny", config)
        assert read(path)["environment"]["threads"] == 1
        seen = [epoch for name, epoch in reported if name == path.stem]
        assert seen == sorted(set(seen))  # none was trained twice
        assert seen[-1] == config["epochs"]
    assert len(list((tmp_path / "tiny").iterdir())) == 2


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_workers_end_with_their_runner(tmp_path, how):
    runner = command(tmp_path, "--profile", "long")
    folder = tmp_path / "tiny"
    until(lambda: list(folder.glob(".*.ckpt")))
    (worker,) = workers_of(runner.pid)
    if how == signal.SIGINT:
        os.killpg(runner.pid, how)  # as a terminal does: the whole group
    else:
        os.kill(runner.pid, how)
    _, messages = runner.communicate()
    psutil.wait_procs([worker], timeout=120)
    assert not worker.is_running()
    if how == signal.SIGINT:
        assert runner.returncode == 130
        assert messages == "normlib: interrupted; the same command goes on from the last finished epoch\n"
        assert not list(folder.glob(".*.lock"))
    assert list(folder.glob(".*.ckpt"))


def test_ten_kills_at_random_moments_change_nothing(tiny, tmp_path, one_thread):
    """Runner or worker, now at an epoch, now at any moment of the start; then the same command ends the work."""
    moments = random.Random(0)
    folder = tmp_path / "tiny"

    def state():
        found = {}
        for path in [*folder.glob(".*.ckpt"), *folder.glob("*.json")]:
            with suppress(FileNotFoundError):  # a checkpoint whose record is written
                found[path] = path.stat().st_mtime_ns
        return found

    runner, kills = None, []
    while len(kills) < 10:
        if runner is None:
            runner = command(tmp_path, "--profile", "long", "--seeds", "1")
        blind, target = moments.random() < 0.3, moments.choice(["runner", "worker", "worker"])
        before = state()
        if not blind:
            until(lambda before=before: state() != before)
        time.sleep(moments.uniform(0, 1 if blind else 0.05))
        assert runner.poll() is None, f"ended after {kills}: {runner.communicate()}"
        if target == "worker" and (found := workers_of(runner.pid)):
            found[0].kill()
            found[0].wait()
        else:
            target = "runner"
            runner.kill()
            runner.communicate()
            runner = None
        kills.append(target)
    if runner is None:
        runner = command(tmp_path, "--profile", "long", "--seeds", "1")
    output, messages = runner.communicate()
    assert runner.returncode == 0, messages
    assert {"runner", "worker"} <= set(kills)
    for config in tiny.configs("long", 1):
        made, (undisturbed,) = read(jobs.record_path(folder, config)), execute("tiny", config)
        for record in (made, undisturbed):
            del record["environment"], record["curves"]["epoch_seconds"]
        assert made == undisturbed
    names = sorted(jobs.record_path(folder, config).name for config in tiny.configs("long", 1))
    # a record's side file, which only the runner writes, stays if it is killed in that moment, until an hour is over
    assert sorted(p.name for p in folder.iterdir() if p.suffix != ".part" or ".ckpt." in p.name) == names
    assert "recorded under" in output


def test_two_runners_share_a_grid(tiny, tmp_path):
    """Neither makes what the other does, and together they make everything."""
    pair = [command(tmp_path, "--profile", "long", "--seeds", "2") for _ in range(2)]
    outputs = [process.communicate()[0] for process in pair]
    assert [process.returncode for process in pair] == [0, 0]
    made = [int(output.split()[0]) for output in outputs]
    assert sum(made) == 4
    assert len([read(p) for p in (tmp_path / "tiny").glob("*.json")]) == 4
    assert len(list((tmp_path / "tiny").iterdir())) == 4
