"""Runs on a Dask cluster: the same records, each once, though a worker is killed; and no waiting for no cluster."""

import os
import signal
import sys
import time

import pytest

from normlib.experiments import cluster, execute, jobs, read, run

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def local():
    """A scheduler and two worker processes, each with a nanny that starts it anew."""
    with (
        pytest.MonkeyPatch.context() as patch,
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=50
        ) as started,
    ):
        patch.setenv("OMP_NUM_THREADS", "1")
        yield started


def test_every_run_is_recorded_once_though_a_worker_is_killed(local, tiny, tmp_path, monkeypatch, one_thread):
    killed, reported, epochs, submitted = [], [], cluster.Cluster.epochs, []
    submit = cluster.Cluster.submit

    def kill_one(self):
        found = epochs(self)
        reported.extend(found.items())
        if found and not killed:
            pids = self._client.run(os.getpid)
            busy = [address for address, tasks in self._client.processing().items() if tasks]
            killed.append(pids[busy[0]])
            os.kill(killed[0], signal.SIGKILL)
        return found

    def note(self, grid, config, checkpoint):
        submitted.append(config)
        return submit(self, grid, config, checkpoint)

    monkeypatch.setattr(cluster.Cluster, "epochs", kill_one)
    monkeypatch.setattr(cluster.Cluster, "submit", note)
    assert run(tiny, profile="long", seeds=2, scheduler=local.scheduler_address, runs=tmp_path) == 4
    assert len(killed) == 1
    configs = tiny.configs("long", 2)
    assert submitted == configs  # Dask itself tried again
    assert sorted(p.name for p in (tmp_path / "tiny").iterdir()) == sorted(
        jobs.record_path(tmp_path, c).name for c in configs
    )
    made, (here,) = read(jobs.record_path(tmp_path / "tiny", configs[0])), execute("tiny", configs[0])
    for record in (made, here):
        del record["environment"], record["curves"]["epoch_seconds"]
    assert made == here


def test_a_run_nobody_waits_for_ends_within_an_epoch(local, tiny, tmp_path):
    """Ctrl-C, or the death of the process that asked: the workers become free."""
    (config, *_) = tiny.configs("long", 1)
    config["epochs"] = 100_000
    (tmp_path / "tiny").mkdir()
    with cluster.Cluster(local.scheduler_address) as crew:
        crew.submit("tiny", config, tmp_path / "tiny" / ".run.ckpt")
        while not crew.epochs():
            time.sleep(0.05)
    checkpoint = tmp_path / "tiny" / ".run.ckpt"
    last = None
    for _ in range(60):  # an epoch takes a fraction of these two seconds, on any machine
        if last == (last := checkpoint.stat().st_mtime_ns):
            return
        time.sleep(2)
    raise AssertionError("it still trains")


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense://x", "127.0.0.1:99999"])
def test_a_cluster_that_is_not_there_is_an_error_in_seconds(tiny, tmp_path, monkeypatch, address):
    assert cluster.PATIENCE <= 10
    monkeypatch.setattr(cluster, "PATIENCE", 1)
    client, patience = distributed.Client, []
    monkeypatch.setattr(distributed, "Client", lambda *a, **k: patience.append(k["timeout"]) or client(*a, **k))
    with pytest.raises(OSError, match=r"scheduler must be the address of a running Dask scheduler, .*got"):
        run(tiny, seeds=1, scheduler=address, runs=tmp_path)
    assert patience == ([1] if address[-1].isdigit() else [])  # without a port nobody is asked
    assert list(tmp_path.iterdir()) == []


def test_a_cluster_without_workers_is_an_error_in_seconds(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE", 1)
    with (
        distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as empty,
        pytest.raises(OSError, match="has no worker; start some with: dask worker"),
    ):
        run(tiny, seeds=1, scheduler=empty.scheduler_address, runs=tmp_path)


def test_without_dask_the_message_says_what_to_install(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r"pip install 'normlib\[cluster\]'"):
        run(tiny, seeds=1, scheduler="tcp://127.0.0.1:9", runs=tmp_path)
