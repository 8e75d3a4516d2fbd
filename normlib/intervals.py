"""Confidence intervals over runs."""

import numpy as np


def half_width(samples) -> np.ndarray:
    """Half-width of the 95 % Student interval of the mean over axis 0; samples has shape (n, ...), n of 2 or more."""
    from scipy import special  # not stats, whose import takes a second

    samples = np.asarray(samples, dtype=float)
    n = len(samples)
    return special.stdtrit(n - 1, 0.975) * samples.std(0, ddof=1) / np.sqrt(n)
