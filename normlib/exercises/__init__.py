"""The exercises' oracles, one module per chapter, and the checks a chapter calls."""

from . import chapter_01, chapter_02  # noqa: F401  (each registers its oracles)
from ._check import agree, check

__all__ = ["agree", "check"]
