"""What a grid will cost, from what it has cost."""

import time

import pytest

from normlib.experiments import costs, records


def test_the_records_most_alike_are_asked(tiny, tmp_path, make_record):
    bn, ln, bn1, ln1 = tiny.configs("short", 2)
    assert costs.recorded("tiny", [bn, ln1], tmp_path) == [None, None]
    records.write(make_record("tiny", bn, seconds=2.0), tmp_path)
    assert costs.recorded("tiny", [bn1, ln1], tmp_path) == [6.0, 6.0]  # 3 epochs; for want of LN, BN's
    records.write(make_record("tiny", ln, seconds=4.0), tmp_path)
    assert costs.recorded("tiny", [bn1, ln1, ln1 | {"rate": "0.3"}], tmp_path) == [6.0, 12.0, 12.0]
    assert costs.recorded("tiny", tiny.configs("long", 1), tmp_path) == [None, None]


def test_evaluation_counts_and_damaged_records_do_not(tiny, tmp_path, make_record):
    bn, _, bn1, _ = tiny.configs("short", 2)
    record = make_record("tiny", bn, seconds=2.0)
    record["environment"] |= {"started": "2030-01-01T00:00:00+00:00", "finished": "2030-01-01T00:01:00+00:00"}
    path = records.write(record, tmp_path)
    assert costs.recorded("tiny", [bn1], tmp_path) == [60.0]
    path.write_text("{")
    assert costs.recorded("tiny", [bn1], tmp_path) == [None]


def test_one_epoch_is_measured(tiny, monkeypatch):
    (config, _) = tiny.configs("long", 1)
    monkeypatch.setattr(costs, "PATIENCE", 300)  # a busy machine
    start = time.perf_counter()
    seconds = costs.measured("tiny", config)
    assert seconds > 0
    assert seconds / config["epochs"] < time.perf_counter() - start  # an epoch, of several and the start of a worker
    monkeypatch.setattr(costs, "PATIENCE", 0.1)
    assert costs.measured("tiny", config) is None


def test_data_that_are_not_there_are_an_error(tiny, monkeypatch, tmp_path):
    monkeypatch.setenv("NORMLIB_DATA", str(tmp_path))
    monkeypatch.setattr(costs, "Processes", InThisProcess)
    with pytest.raises(OSError, match="cifar"):
        costs.measured("tiny", tiny.configs("short", 1)[0] | {"dataset": "cifar10", "size": 32})


class InThisProcess:
    def __init__(self, count, work):
        self.work = work

    def submit(self, *job):
        self.job = job
        return self

    def result(self, patience):
        return self.work(*self.job)

    def stop(self):
        self.job = None
