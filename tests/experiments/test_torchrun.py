"""One run on the processes of torchrun: the record one process would make, from half the batch each."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import run_tiny

from normlib.experiments import execute, jobs, read, records, torchrun


def launch(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", run_tiny.__file__]
    return subprocess.run(
        [*command, "run", "tiny", "--runs", str(folder), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
    )


def test_two_processes_make_the_records_of_one(tiny, tmp_path, one_thread):
    (bn, ln) = tiny.configs("short", 1)
    damaged = jobs.record_path(tmp_path / "tiny", bn).with_name(
        f".{records.config_id(bn)}-{records.RESULTS_VERSION}.ckpt"
    )
    damaged.parent.mkdir()
    damaged.write_bytes(b"half a check")
    done = launch(tmp_path, "--seeds", "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"2 run(s) recorded under {tmp_path / 'tiny'}\ntiny, profile short.") == 1
    assert "damaged checkpoint" in done.stderr
    for config in (bn, ln):
        together, (alone,) = read(jobs.record_path(tmp_path / "tiny", config)), execute("tiny", config)
        assert together["environment"]["processes"] == 2
        assert alone["environment"]["processes"] == 1
        # sums in another order, whose rounding grows from step to step, and at once where it crosses a ReLU's kink
        seen, expected = together["curves"], alone["curves"]
        assert seen["train_loss"][0] == pytest.approx(expected["train_loss"][0], rel=1e-3)
        for curve in ("train_loss", "test_loss"):
            assert seen[curve] == pytest.approx(expected[curve], rel=0.2)
    assert {p.suffix for p in damaged.parent.iterdir()} == {".json", ".damaged"}


def test_a_run_that_needs_the_whole_batch_at_once_is_refused(tiny, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    bn, ln = tiny.configs("short", 1)
    for fine in (bn, ln, ln | {"virtual_batch_size": 50}, bn | {"virtual_batch_size": 5}):
        torchrun.check(fine)
    for wrong in (bn | {"virtual_batch_size": 50}, bn | {"virtual_batch_size": 10}, ln | {"batch_size": 25}):
        with pytest.raises(ValueError, match="batch_size must be a multiple of 2 processes × "):
            torchrun.check(wrong)
    with pytest.raises(ValueError, match=r"50 samples of a layer's statistics, got 50 \(bn\); run this one without"):
        torchrun.check({k: v for k, v in bn.items() if k != "virtual_batch_size"})


@pytest.mark.parametrize(
    "wrong",
    [{"norm": "brn"}, {"norm": "mbn"}, {"norm": "bcn+ws", "norm_options": {"estimate": True}}],
    ids=lambda wrong: wrong["norm"],
)
def test_a_layer_that_trains_with_running_statistics_is_refused(tiny, monkeypatch, wrong):
    monkeypatch.setenv("WORLD_SIZE", "2")
    (bn, _) = tiny.configs("short", 1)
    bn["virtual_batch_size"] = 5
    torchrun.check(bn | {"norm": "bcn+ws"})
    with pytest.raises(ValueError, match=r"norm must be .* got ") as refused:
        torchrun.check(bn | wrong)
    assert repr(wrong["norm"]) in str(refused.value)


def test_outside_torchrun_nothing_is_launched(monkeypatch):
    assert not torchrun.launched()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "one")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not torchrun.launched()
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert torchrun.launched()
