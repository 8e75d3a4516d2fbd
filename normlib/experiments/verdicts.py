"""From measured numbers to a verdict on a claim, by rule.

A claim is put as one or more questions with a sign: which difference does it say is positive? Each is answered by a
measurement with a 95 % interval, or by an identity in float64. The claim's verdict follows from the answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .report import interval

MARGIN = 1.0  # percentage points of accuracy that the book calls "level"
EXACT = 1e-12

CLAIMED = ("+", "-", "--", ">=", "=", "within", "identity", "none")
ANSWERS = ("supported", "contradicted", "undecided", "no record yet")
VERDICTS = ("reproduced", "reproduced in part", "corrected", "not reproduced", "undecided", "not testable here")


@dataclass(frozen=True)
class Part:
    """One question that a claim answers, and what was measured.

    Attributes:
        label: what is measured, in words; a difference is written "a − b".
        claimed: "+" the claim says it is above 0; "-" below 0; "--" below 0 by more than `margin`; ">=" not below 0, by
            more than `margin`; "=" level, within `margin` of 0; "within" the same of a number without sampling error;
            "identity" two tensors are equal, and `estimate` is their largest difference; "none" nothing, the number
            is shown for comparison.
        estimate, half: mean and half-width of the 95 % Student interval over n; NaN where there are too few.
        n: seeds, draws or repetitions; 0 where no record is there yet.
        kind: "recorded", "live", "simulated" or "float64".
        unit: printed behind the numbers.
        margin: for "--", ">=", "=" and "within".
        left_out: runs that diverged and have no final accuracy.
    """

    label: str
    claimed: str
    estimate: float
    half: float
    n: int
    kind: str
    unit: str = "points"
    margin: float = MARGIN
    left_out: int = 0

    def __post_init__(self):
        if self.claimed not in CLAIMED:
            raise ValueError(f"claimed must be one of {', '.join(CLAIMED)}, got {self.claimed!r}")

    @property
    def answer(self) -> str:
        """One of ANSWERS; "undecided" where the interval contains both what was claimed and what was not."""
        if self.claimed == "identity":
            return "supported" if self.estimate <= EXACT else "contradicted"
        if self.n == 0:
            return "no record yet"
        if self.claimed == "within":
            return "supported" if abs(self.estimate) < self.margin else "contradicted"
        if self.half != self.half or self.claimed == "none":
            return "undecided"
        low, high = self.estimate - self.half, self.estimate + self.half
        # That an interval contains 0 proves no equality: it must lie within the margin.
        edge = self.margin
        for_it = {"+": low > 0, "-": high < 0, "--": high < -edge, ">=": low > -edge, "=": max(-low, high) < edge}
        against = {"+": high < 0, "-": low > 0, "--": low > -edge, ">=": high < 0, "=": low > 0 or high < 0}
        if against[self.claimed]:
            return "contradicted"
        return "supported" if for_it[self.claimed] else "undecided"

    def text(self) -> str:
        """The measurement in one line of Markdown."""
        if self.claimed == "identity":
            found = "equal to 1e-12" if self.estimate <= EXACT else f"differ by up to {self.estimate:.2g}"
            return f"{self.label}: **{found}** ({self.kind}) — {self.answer}"
        if self.n == 0:
            return f"{self.label}: no record yet"
        unit = f" {self.unit}" if self.unit else ""
        if self.half != self.half:
            number = f"{self.estimate:+.1f}".replace("-", "−")
            return f"{self.label}: **{number}**{unit} (n = {self.n}, no interval; {self.kind}) — undecided"
        digits = 1 if self.half >= 0.5 or abs(self.estimate) >= 100 else 2 if self.half >= 0.05 else 3
        error = f" ± {self.half:.{digits}f}" if self.kind != "float64" or self.n > 1 else ""
        number = f"{self.estimate:+.{digits}f}{error}".replace("-", "−")
        count = f"n = {self.n}, " if error else ""
        lost = f"; {self.left_out} diverged and left out" if self.left_out else ""
        ending = "" if self.claimed == "none" else f" — {self.answer}"
        return f"{self.label}: **{number}**{unit} ({count}{self.kind}{lost}){ending}"


def measured(label: str, values, claimed: str, kind: str, **more) -> Part:
    """A part from one value per seed; NaN stands for a run that diverged.

    Args:
        values: anything numpy makes a vector of, empty where no record is there.
        claimed, kind, more: as in `Part`.
    """
    values = np.asarray(values, dtype=np.float64).ravel()
    kept = values[~np.isnan(values)]
    mean, half = interval(kept)
    return Part(label, claimed, mean, half, len(kept), kind, left_out=len(values) - len(kept), **more)


def identity(label: str, a, b) -> Part:
    """A part that says two float64 tensors are equal.

    Raises:
        ValueError: they are not float64, or of different shapes.
    """
    import torch

    a, b = torch.as_tensor(a), torch.as_tensor(b)
    if not a.dtype == b.dtype == torch.float64 or a.shape != b.shape:
        raise ValueError(f"{label}: two float64 tensors of one shape, got {a.dtype} {a.shape}, {b.dtype} {b.shape}")
    return Part(label, "identity", (a - b).abs().max().item(), 0.0, 1, "float64", unit="")


def verdict(parts: Sequence[Part], correction: str | None) -> str:
    """One of VERDICTS.

    reproduced          every part supported
    corrected           some part contradicted, and the book says what holds instead
    reproduced in part  some part supported, another not
    not reproduced      some part contradicted, none supported
    undecided           nothing supported or contradicted: the intervals contain 0
    not testable here   no part has a measurement
    """
    answers = [part.answer for part in parts if part.claimed != "none"]
    known = [answer for answer in answers if answer != "no record yet"]
    if not known:
        return "not testable here"
    if all(answer == "supported" for answer in answers):
        return "reproduced"
    if "contradicted" in known and correction:
        return "corrected"
    if "supported" in known:
        return "reproduced in part"
    return "not reproduced" if "contradicted" in known else "undecided"
