"""Confidence intervals over runs."""

import numpy as np


def half_width(samples) -> np.ndarray:
    """Half-width of the 95 % Student interval of the mean over axis 0; samples has shape (n, ...), n of 2 or more."""
    from scipy import stats

    samples = np.asarray(samples, dtype=float)
    n = len(samples)
    return stats.t.ppf(0.975, n - 1) * samples.std(0, ddof=1) / np.sqrt(n)
