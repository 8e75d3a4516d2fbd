"""The exercises' oracles, one module per chapter, and the checks a chapter calls."""

from importlib import import_module
from pkgutil import iter_modules

from ._check import agree, check

for _module in iter_modules(__path__):
    if _module.name.startswith("chapter_"):
        import_module(f"{__name__}.{_module.name}")  # registers its oracles

__all__ = ["agree", "check"]
