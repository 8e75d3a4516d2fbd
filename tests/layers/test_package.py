"""A layer is named by its package, held to formulas of its own, described in the API reference, shown in a chapter."""

import re
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest
from references import METHODS
from test_all_layers import each
from torch import nn

from normlib import layers
from tools import notebooks

API = Path(__file__).resolve().parents[2] / "chapters" / "api.md"
CLASSES = {name for name in layers.__all__ if isinstance(getattr(layers, name), type)}
NO_METHOD = {"WSConv2d"}  # a convolution, with tests of its own


def test_every_layer_of_a_file_is_named():
    for module in iter_modules(layers.__path__, f"{layers.__name__}."):
        if module.name.rpartition(".")[2].startswith("_"):
            continue
        own = [v for v in vars(import_module(module.name)).values() if getattr(v, "__module__", "") == module.name]
        made = {v.__name__ for v in own if isinstance(v, type) and issubclass(v, nn.Module)}
        missing = {name for name in made if not name.startswith("_")} - set(layers.__all__)
        assert not missing, f"{module.name}: normlib/layers/__init__.py does not name {sorted(missing)}"


def test_every_layer_has_an_oracle():
    missing = CLASSES - NO_METHOD - {type(each(method)).__name__ for method in METHODS}
    assert not missing, f"tests/layers/references.py: METHODS has no entry for {sorted(missing)}"


@pytest.mark.parametrize("name", layers.__all__)
def test_the_api_reference_describes_it(name):
    listed = [line.partition(":members:")[2] for line in API.read_text(encoding="utf-8").splitlines()]
    names = {part.strip() for line in listed for part in line.split(",")}
    assert name in names, f"chapters/api.md: no automodule has {name} among its :members:"


@pytest.mark.parametrize("name", layers.__all__)
def test_a_chapter_shows_it(name):
    code = [
        cell.source for path in notebooks.numbered() for cell in notebooks.read(path).cells if cell.cell_type == "code"
    ]
    assert any(re.search(rf"\b{name}\b", source) for source in code), f"no chapter's code has {name}"
