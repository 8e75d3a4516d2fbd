"""The command `normlib` with one grid more: small enough that a test can run it, kill it and run it again."""

import sys

from normlib import cli, experiments

TINY = experiments.Grid(
    name="tiny",
    question="Does it run?",
    axes={
        "method": {"bn": {"norm": "bn", "virtual_batch_size": 25}, "ln": {"norm": "ln", "virtual_batch_size": 25}},
        "rate": {"0.1": {"learning_rate": 0.1, "momentum": 0.9}},
    },
    profiles={
        name: {
            "model": "mlp",
            "dataset": "digits",
            "size": 8,
            "train_images": 500,
            "test_images": 100,
            "epochs": epochs,
            "batch_size": 50,
        }
        for name, epochs in (("short", 3), ("long", 30))
    },
    figure="epochs",
)
experiments.GRIDS["tiny"] = TINY

if __name__ == "__main__":
    sys.exit(cli.main())
