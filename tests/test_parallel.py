"""Trainings side by side give what they give one after another, and what goes wrong in one is said here."""

import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from normlib import parallel
from normlib.datasets import digits
from normlib.layers import BatchRenorm
from normlib.models import MLP
from normlib.parallel import in_parallel
from normlib.training import train

pytestmark = pytest.mark.usefixtures("one_thread")  # as copies have
COPIES = parallel._can_copy()
copied = pytest.mark.skipif(not COPIES, reason="processes are copied on Linux without a GPU only")


def limits(epoch, epochs):
    return 3.0, 5.0


def training(batch_size):
    norm = partial(BatchRenorm, schedule=limits)
    network = partial(MLP, 64, norm_layer=norm)
    return train(network, digits(), seeds=(0, 1), epochs=1, batch_size=batch_size, learning_rate=0.1)


def test_in_copies_as_one_after_another(monkeypatch):
    jobs = {m: partial(training, m) for m in (64, 32, 16)}
    state = torch.random.get_rng_state()
    copies = in_parallel(jobs, processes=2)
    assert torch.equal(torch.random.get_rng_state(), state)
    monkeypatch.setattr(parallel, "_can_copy", lambda: False)
    here = in_parallel(jobs, processes=2)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert list(copies) == list(here) == [64, 32, 16]
    for m in jobs:
        assert torch.equal(copies[m].test_loss, here[m].test_loss)
        for one, other in zip(copies[m].models, here[m].models, strict=True):
            assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())
            assert not one.training
    assert not torch.equal(copies[64].test_loss, copies[32].test_loss)


@copied
def test_tensors_arrive_as_they_were_sent():
    weight = nn.Parameter(torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last))
    sent = {
        "weight": weight,
        "the same": weight,
        "frozen": nn.Parameter(torch.ones(2), requires_grad=False),
        "scalar": torch.tensor(3),
        "short": torch.tensor([1.5, -2], dtype=torch.bfloat16),
        "bool": torch.tensor([True, False]),
        "nothing": torch.empty(0, 3),
        "large": torch.randn(1000, 3),
        "part": torch.arange(6)[2:4],
        "turned": torch.randn(4, 5).t(),
        "one value": torch.ones(1, 3).expand(4, 3),
        "conjugate": torch.tensor([1 + 2j]).conj(),
        "negative": torch.tensor([1 + 2j]).conj().imag,
        "of a gradient": 2 * weight,
    }
    found, column = in_parallel({1: lambda: sent, 2: lambda: torch.randn(9, 5)[:, 1]}, processes=2).values()
    assert found["weight"] is found["the same"]
    for name, value in found.items():
        was = sent[name]
        assert type(value) is type(was), name
        assert (value.dtype, value.requires_grad, value.stride()) == (was.dtype, was.requires_grad, was.stride()), name
        assert torch.equal(value, was), name
    assert column.untyped_storage().nbytes() == 9 * 4  # the rest of the matrix stayed
    for name in ("weight", "large"):
        before = sent[name].detach().clone()
        with torch.no_grad():
            found[name].add_(1)
        assert torch.equal(found[name], before + 1)
        assert torch.equal(sent[name], before)


@copied
def test_what_cannot_be_sent_for_a_reason_of_its_own_is_said():
    class Stubborn:
        def __reduce__(self):
            raise ValueError("I stay here")

    with pytest.raises(RuntimeError, match=r"what 'a' returned cannot be sent.*I stay here"):
        in_parallel({"a": Stubborn, "b": int}, processes=2)


@copied
def test_jobs_run_in_processes_of_their_own_two_at_a_time(tmp_path):
    def meet(own, other):
        (tmp_path / own).touch()
        until = time.monotonic() + 60
        while not (tmp_path / other).exists():
            assert time.monotonic() < until, f"{other} did not start"
            time.sleep(0.01)
        return os.getpid()

    found = in_parallel({"a": lambda: meet("a", "b"), "b": lambda: meet("b", "a"), "c": os.getpid}, processes=2)
    assert len({found["a"], found["b"], os.getpid()}) == 3
    assert found["c"] in (found["a"], found["b"])


@pytest.mark.parametrize("processes", [1, 2])
def test_no_job_feels_another(processes):
    torch.manual_seed(3)
    expected = torch.rand(())
    torch.manual_seed(3)
    found = in_parallel({k: lambda: torch.rand(()) for k in range(4)}, processes=processes)
    assert all(torch.equal(value, expected) for value in found.values())


@copied
def test_copies_end_with_the_process_that_asked(tmp_path):
    """Killed, it can end nobody: they must notice, in the middle of a job."""
    code = f"""
import os, pathlib, time
from normlib.parallel import in_parallel
asked = os.getpid()
def job(kills):
    pathlib.Path({str(tmp_path)!r}, str(os.getpid())).touch()
    while len(os.listdir({str(tmp_path)!r})) < 2:
        time.sleep(0.01)
    if kills:
        os.kill(asked, 9)
    time.sleep(600)
in_parallel({{1: lambda: job(True), 2: lambda: job(False)}}, processes=2)
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=120, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (-9, "")
    left = os.listdir(tmp_path)
    assert len(left) == 2
    until = time.monotonic() + 60
    while any(map(_runs, left)):
        assert time.monotonic() < until, f"of {left} some still run"
        time.sleep(0.05)


def _runs(pid: str) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"  # ended, and nobody has asked how


@pytest.fixture
def interruptible():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts behind it ignores Ctrl-C
    yield
    signal.signal(signal.SIGINT, before)


@copied
@pytest.mark.parametrize("noticed", ["at once", "when the wait ends"])
def test_an_interrupt_is_the_parents_and_ends_the_copies(noticed, interruptible, tmp_path, capfd):
    def job():
        (tmp_path / str(os.getpid())).touch()
        time.sleep(600)

    def interrupt():
        while len(os.listdir(tmp_path)) < 2:
            time.sleep(0.01)
        for pid in os.listdir(tmp_path):  # a terminal and Jupyter signal all of them
            os.kill(int(pid), signal.SIGINT)
        if noticed == "at once":
            os.kill(os.getpid(), signal.SIGINT)
        else:  # this thread's signal interrupts no other's wait, as none does that comes just before the wait begins
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        in_parallel({1: job, 2: job}, processes=2)
    assert not any(map(_runs, os.listdir(tmp_path)))
    assert capfd.readouterr().err == ""


def test_a_job_may_have_jobs():
    def double(n):
        return in_parallel({k: lambda k=k: 2 * k for k in range(n)}, processes=2)

    assert in_parallel({n: partial(double, n) for n in (2, 3)}, processes=2) == {
        2: {0: 0, 1: 2},
        3: {0: 0, 1: 2, 2: 4},
    }


def test_one_process_or_one_job_needs_no_copy():
    assert in_parallel({"a": os.getpid, "b": os.getpid}, processes=1) == {"a": os.getpid(), "b": os.getpid()}
    assert in_parallel({"a": os.getpid}) == {"a": os.getpid()}
    assert in_parallel({}) == {}


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_arrives_as_it_was_raised(processes):
    def fail():
        raise KeyError("digits")

    with pytest.raises(KeyError, match="digits") as caught:
        in_parallel({"good": int, "bad": fail}, processes=processes)
    if processes == 2 and COPIES:
        said = str(caught.value.__cause__)
        assert "'bad' failed" in said
        assert "in fail" in said


@copied
def test_an_error_ends_the_other_jobs(tmp_path):
    def fail():
        while not (tmp_path / "started").exists():
            time.sleep(0.01)
        raise KeyError("digits")

    def wait():
        (tmp_path / "started").touch()
        time.sleep(60)
        (tmp_path / "finished").touch()

    start = time.monotonic()
    with pytest.raises(KeyError):
        in_parallel({"bad": fail, "long": wait}, processes=2)
    assert time.monotonic() - start < 30
    assert not (tmp_path / "finished").exists()


@copied
@pytest.mark.parametrize("result", [lambda: 3, (n for n in range(3))])
def test_what_cannot_be_sent_is_refused_by_name(result):
    with pytest.raises(RuntimeError, match=r"what 'b' returned cannot be sent.*: use named functions"):
        in_parallel({"a": int, "b": lambda: result}, processes=2)


class AwkwardError(Exception):
    """Its pickle cannot be read: what it keeps is one text, what it takes is two."""

    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")


@copied
@pytest.mark.parametrize("attribute", [None, lambda: 3], ids=["cannot be read", "cannot be written"])
def test_an_error_that_cannot_be_sent_is_told(attribute):
    def fail():
        error = AwkwardError("this", "that") if attribute is None else KeyError("digits")
        error.attribute = attribute
        raise error

    said = "AwkwardError: this and that" if attribute is None else "KeyError: 'digits'"
    with pytest.raises(RuntimeError, match=said) as caught:
        in_parallel({"a": int, "b": fail}, processes=2)
    assert "'b' failed" in str(caught.value.__cause__)


@copied
def test_a_copy_warns_as_its_parent_does():
    def old():
        warnings.warn("old", DeprecationWarning, stacklevel=1)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DeprecationWarning, match="old"):
            in_parallel({1: old, 2: int}, processes=2)


@copied
def test_a_process_that_dies_is_named():
    with pytest.raises(RuntimeError, match=r"the process of 'b' died \(exit code 3\)"):
        in_parallel({"a": int, "b": lambda: os._exit(3)}, processes=2)


def test_processes_below_one_are_refused():
    with pytest.raises(ValueError, match="processes must be at least 1 or None, got 0"):
        in_parallel({"a": int}, processes=0)
