"""Checks for the exercises: the reader's function against an oracle, case by case."""

from collections.abc import Callable, Sequence

import torch

_ORACLES: dict[str, tuple[Callable, Callable[[], list[tuple]]]] = {}


# The last digits of a sum depend on the processor; a verdict, which the notebooks store, must not.
_ROUNDING = 1e-14


def exercise(name: str, cases: Callable[[], list[tuple]]):
    """Register the decorated function as the oracle of an exercise; `cases()` returns lists of arguments."""

    def register(oracle: Callable) -> Callable:
        _ORACLES[name] = (oracle, cases)
        return oracle

    return register


def check(function: Callable, name: str | None = None, *, tolerance: float = 1e-9) -> None:
    """Compare `function` with the oracle of the exercise and print a line per case.

    Args:
        function: the reader's solution; its name chooses the exercise unless `name` does.
        name: the exercise.
        tolerance: largest absolute difference, relative to the oracle's largest value, that counts as close.

    Prints, per case, the input's shape and "exact" (to 1e-14), "close" or "wrong" with the largest difference;
    then whether all cases pass. What `function` raises passes through.

    Raises:
        ValueError: an unknown exercise (the message lists the known ones).
    """
    name = function.__name__ if name is None else name
    if name not in _ORACLES:
        raise ValueError(f"name must be one of {', '.join(sorted(_ORACLES))}, got {name!r}")
    oracle, cases = _ORACLES[name]
    good = True
    for number, arguments in enumerate(cases(), start=1):
        expected = _tensors(oracle(*arguments))
        got = _tensors(function(*arguments))
        verdict, fine = _compare(got, expected, tolerance)
        good &= fine
        print(f"case {number} ({', '.join(map(_describe, arguments))}): {verdict}")
    print("all cases pass" if good else "not yet")


def _tensors(result) -> list[torch.Tensor]:
    results = result if isinstance(result, (tuple, list)) else [result]
    return [torch.as_tensor(r, dtype=torch.float64).detach() for r in results]


def _compare(got: Sequence[torch.Tensor], expected: Sequence[torch.Tensor], tolerance: float) -> tuple[str, bool]:
    if len(got) != len(expected):
        return f"wrong: {len(expected)} results expected, got {len(got)}", False
    worst = torch.zeros((), dtype=torch.float64)  # Python's max would lose a NaN
    for g, e in zip(got, expected, strict=True):
        if g.shape != e.shape:
            return f"wrong: shape {tuple(e.shape)} expected, got {tuple(g.shape)}", False
        if e.numel():
            worst = torch.maximum(worst, (g - e).abs().max() / e.abs().max().clamp(min=1e-300))
    if worst <= _ROUNDING:
        return "exact", True
    if worst <= tolerance:  # False for NaN
        return "close", True
    return f"wrong, largest relative difference {worst:.1e}", False


def _describe(argument) -> str:
    if isinstance(argument, torch.Tensor):
        return "×".join(map(str, argument.shape)) or "scalar"
    if isinstance(argument, (list, tuple)):
        return f"{len(argument)} of {_describe(argument[0])}"
    return repr(argument)


def agree(what: str, ours: torch.Tensor, theirs: torch.Tensor, tolerance: float = 1e-12) -> None:
    """Print that two tensors agree to `tolerance` (largest absolute difference), or raise AssertionError."""
    difference = (ours - theirs).abs().max().item()
    assert difference <= tolerance, f"{what}: differ by {difference:.1e}, more than {tolerance:g}"
    print(f"{what}: agree to {tolerance:g}")
