"""One finished run, one JSON file: data/runs/GRID/ID.json, where ID is a hash of the configuration.

schema            version of this layout, 1
results_version   version of normlib's numerics; a record of another version is stale
grid, id, config  the configuration, seed included, and its hash
curves            train_loss, train_accuracy, test_loss, test_accuracy, epoch_seconds: one number per epoch; seeds
                  trained together (config's entry "together") share the seconds out
final, best       test accuracy after the last epoch (the headline) and at its best
per_class         test accuracy of each class after the last epoch
diverged_at       null, or the first step at which the loss was not finite; null stands for NaN in curves
environment       device, threads and processes of the run, whether its steps were compiled, versions, commit, times

Beside it, while it is made: .ID.lock, held by the process that makes it, and .ID-V.ckpt, its state after the last epoch
under results version V. A damaged file is renamed to NAME.damaged and made again. data/runs/schema.json says the same
to programs.
"""

import hashlib
import json
import math
import os
import platform
import subprocess
import tempfile
from contextlib import suppress
from datetime import datetime, timezone
from functools import cache
from pathlib import Path

import numpy
import torch
from torch import distributed

SCHEMA = 1
RESULTS_VERSION = 1  # raise it with every change of normlib that alters what a run gives

_CHECKOUT = Path(__file__).resolve().parents[2]
# An installed package has no folder of the book's: there, where the command is given.
RUNS = (_CHECKOUT if (_CHECKOUT / "chapters").is_dir() else Path.cwd()) / "data" / "runs"

CURVES = ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "epoch_seconds")


class RecordError(ValueError):
    """A record that is damaged, incomplete or stale; the message names the file and what is wrong."""


class StaleRecordError(RecordError):
    """A record of another results version: whole, but no evidence about today's normlib."""


def config_id(config: dict) -> str:
    """Twelve hexadecimal digits that depend on the configuration alone."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@cache
def commit() -> str | None:
    """The commit that this process runs, read once, since a long run may see others; None where git knows of none.

    "-dirty" is appended where normlib's files differ from it. A run asks when it starts.
    """
    package = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str | None:
        done = subprocess.run(["git", *arguments], cwd=package, capture_output=True, text=True, check=False)
        return None if done.returncode else done.stdout.strip()

    try:
        head = git("rev-parse", "HEAD")
        if head is None or git("ls-files", "--error-unmatch", "--", __file__) is None:
            return None  # no checkout, or another project's, in which normlib is installed
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".")
    except OSError:  # no git
        return None
    return head + ("-dirty" if changed else "")


def _processor() -> str:
    """The processor's name where the system tells it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()


def environment(device: str, started: datetime) -> dict:
    """Where and with what a run was made."""
    grouped = distributed.is_available() and distributed.is_initialized()
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "processes": distributed.get_world_size() if grouped else 1,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "commit": commit(),
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def write(record: dict, runs: Path = RUNS) -> Path:
    """Validate and store a record; the file appears whole or not at all."""
    folder = Path(runs) / record["grid"]
    path = folder / f"{record['id']}.json"
    validate(record, path)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=1, allow_nan=False) + "\n"
    with tempfile.NamedTemporaryFile("w", dir=folder, prefix=".", suffix=".part", delete=False) as part:
        try:
            part.write(text)
            part.flush()
            os.fsync(part.fileno())
            os.replace(part.name, path)
        except BaseException:
            os.unlink(part.name)
            raise
    path.chmod(0o644)
    return path


def read(path: Path) -> dict:
    """A stored record, checked.

    Raises:
        RecordError: the file is not a whole, current record.
    """
    record = _parse(path)
    validate(record, path)
    return record


def _parse(path: Path):
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=_refuse)
    except ValueError as error:
        raise RecordError(f"{path}: not JSON ({error})") from error


def _is_of(record, profile: str | None) -> bool:
    """Whether a record is of a profile, as far as it can tell; None: of any."""
    config = record.get("config") if isinstance(record, dict) else None
    told = config.get("profile") if isinstance(config, dict) else None
    return profile is None or told is None or told == profile


def set_aside(path: Path) -> Path:
    """Rename a damaged file so that it is kept but never read again; its new path."""
    aside = path.with_name(f"{path.name}.damaged")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.damaged{number}")
    return path.rename(aside)


def validate(record: dict, path: Path) -> None:
    """Raise RecordError unless the record is whole, consistent and of this version."""

    def demand(condition, problem: str) -> None:
        if not condition:
            raise RecordError(f"{path}: {problem}")

    demand(isinstance(record, dict), "not an object")
    keys = {"schema", "results_version", "grid", "id", "config", "curves", "final", "best", "per_class"}
    keys |= {"diverged_at", "environment"}
    demand(set(record) == keys, f"keys must be {sorted(keys)}, got {sorted(record)}")
    demand(record["schema"] == SCHEMA, f"schema must be {SCHEMA}, got {record['schema']}")
    version = record["results_version"]
    if version != RESULTS_VERSION:
        raise StaleRecordError(
            f"{path}: stale: made with results version {version}, now {RESULTS_VERSION}; run it again"
        )
    config, curves = record["config"], record["curves"]
    demand(isinstance(record["per_class"], list), f"per_class must be a list, got {record['per_class']!r}")
    demand(isinstance(record["environment"], dict), "environment must be an object")
    demand(isinstance(config, dict) and isinstance(config.get("epochs"), int), "config must hold the number of epochs")
    demand(record["id"] == config_id(config), "id is not the hash of config")
    demand(Path(path).stem == record["id"], f"file name must be {record['id']}.json")
    demand(isinstance(curves, dict) and set(curves) == set(CURVES), f"curves must be {sorted(CURVES)}")
    diverged = record["diverged_at"] is not None
    for name, values in curves.items():
        demand(isinstance(values, list), f"curve {name} must be a list, got {values!r}")
        demand(diverged or len(values) == config["epochs"], f"curve {name} must have {config['epochs']} epochs")
        demand(all(_finite(v) or (diverged and v is None) for v in values), f"curve {name} holds a value not finite")
        shares = "accuracy" not in name or all(v is None or 0 <= v <= 1 for v in values)
        demand(shares, f"curve {name} must be in [0, 1], got {values}")
    demand(None not in curves["epoch_seconds"], "curve epoch_seconds holds a value not finite")
    for name, values in (("final", [record["final"]]), ("best", [record["best"]]), ("per_class", record["per_class"])):
        demand(all(_finite(v) or (diverged and v is None) for v in values), f"{name} is not finite")
        demand(all(v is None or 0 <= v <= 1 for v in values), f"{name} must be in [0, 1], got {values}")
    demand(diverged or record["final"] == curves["test_accuracy"][-1], "final is not the last test accuracy")
    demand(
        {"device", "torch", "commit", "started", "finished"} <= set(record["environment"]),
        "environment incomplete",
    )


def _refuse(constant: str):
    raise ValueError(f"{constant} is no number")


def _finite(value) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def stored(grid: str, profile: str | None = None, runs: Path = RUNS) -> list[dict]:
    """All records of a grid, checked, in the order of their configuration; errors as of `load`."""
    found = []
    for path in sorted((Path(runs) / grid).glob("*.json")):
        record = _parse(path)
        if not _is_of(record, profile):
            continue
        validate(record, path)
        if record["grid"] != grid:
            raise RecordError(f"{path}: belongs to grid {record['grid']!r}")
        found.append(record)
    if not found:
        raise FileNotFoundError(
            f"no record of grid {grid!r}, profile {profile!r}, under {runs}; make them with: normlib run {grid}"
            + (f" --profile {profile}" if profile else "")
        )
    return sorted(found, key=lambda r: json.dumps(r["config"], sort_keys=True))


def load(grid: str, profile: str | None = None, runs: Path = RUNS):
    """All records of a grid as a pandas.DataFrame, a row per run in the order of their configuration.

    Columns: every configuration entry, `final`, `best`, `per_class`, `diverged_at`, the curves as lists, `seconds` (sum
    of epoch_seconds) and `device`.

    Raises:
        FileNotFoundError: no record; the message says how to make them.
        RecordError: a damaged or stale record of the profile, or one too damaged to tell its profile.
    """
    import pandas

    rows = [
        {
            **r["config"],
            **{k: r[k] for k in ("final", "best", "per_class", "diverged_at")},
            **r["curves"],
            "seconds": sum(r["curves"]["epoch_seconds"]),
            "device": r["environment"]["device"],
        }
        for r in stored(grid, profile, runs)
    ]
    return pandas.DataFrame(rows)
