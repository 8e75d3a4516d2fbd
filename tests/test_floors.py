"""normlib is built in floors; no module imports from a floor above its own, nor from a neighbour on floor 5."""

import ast
from pathlib import Path

import pytest

import normlib

PACKAGE = Path(normlib.__file__).parent
FLOORS = {
    "style": 1,
    "svg": 1,
    "interactive": 1,
    "intervals": 1,
    "layers": 1,
    "schedules": 1,
    "convert": 2,
    "noise": 2,
    "models": 2,
    "datasets": 2,
    "folding": 2,
    "checkpoints": 1,
    "training": 3,
    "experiments": 4,
    "parallel": 4,
    "explorer": 5,
    "plots": 5,
    "cube": 5,
    "design": 5,
    "guide": 5,
    "questions": 1,
    "quiz": 5,
    "exercises": 5,
    "cli": 6,
}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def part(name: str) -> str:
    """normlib.layers.batch_norm → layers"""
    return name.split(".")[1]


def imports(source: str, name: str, is_package: bool) -> set[str]:
    """Full names of normlib's modules that the source of module `name` imports, at any depth of the code."""
    package = name if is_package else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            base = ".".join(filter(None, (base, node.module)))
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return {f for f in found if f.startswith("normlib.")}


def test_every_part_has_a_floor():
    assert {part(f"normlib.{p.relative_to(PACKAGE).with_suffix('').parts[0]}") for p in MODULES} <= set(FLOORS)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    is_package = parts[-1] == "__init__"
    name = ".".join(parts[:-1] if is_package else parts)
    above = {i for i in imports(path.read_text(), name, is_package) if FLOORS[part(i)] > FLOORS[part(name)]}
    assert not above, f"{name} (floor {FLOORS[part(name)]}) imports {sorted(above)}"


def test_the_package_itself_imports_nothing():
    assert not imports((PACKAGE / "__init__.py").read_text(), "normlib", True)


def test_imports_are_found_in_every_form():
    source = """
import normlib.training
from normlib import cli
from ..experiments import run
from . import _checks
def later():
    from ..plots import show
"""
    found = imports(source, "normlib.layers.batch_norm", False)
    assert found == {
        "normlib.training", "normlib.cli", "normlib.experiments.run", "normlib.layers._checks", "normlib.plots.show"
    }  # fmt: skip
    found = imports("from .batch_norm import BatchNorm", "normlib.layers", True)
    assert found == {"normlib.layers.batch_norm.BatchNorm"}
