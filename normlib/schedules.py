"""What changes over training, as plain functions of numbers: λ, τ, r_max and d_max, the learning rate.

Epochs are counted from 1. Sources: Momentum Batch Norm (Yong et al., ECCV 2020), Batch Renorm (Ioffe, 2017,
arXiv 1702.03275).
"""


def _positive(name: str, value) -> None:
    if not value > 0:
        raise ValueError(f"{name} must be above 0, got {value!r}")


def momentum_lambda(epoch: int, total_epochs: int, batch_size: int, ideal_batch_size: int = 32) -> float:
    """Weight λ in [0, 1) of the history in Momentum Batch Norm's training statistics.

        λ(t) = ρ^(T/(T−1) · max(T − t, 0)) − ρ^T,   ρ = min(m/m₀, 1)^(1/T)

    λ(1) = 0, λ(t) = 1 − m/m₀ from t = T on, and λ ≡ 0 where m ≥ m₀. T = 1, for which the formula divides by
    zero, gives λ = 0: the first epoch is plain Batch Norm for every T.

    Args:
        epoch: t, from 1; beyond total_epochs λ keeps its final value.
        total_epochs: T, not necessarily the length of training.
        batch_size: m, the number of samples the layer normalizes over.
        ideal_batch_size: m₀; 32 in the paper.

    Raises:
        ValueError: an epoch or total_epochs below 1, or a size not above 0.
    """
    for name, value in (("epoch", epoch), ("total_epochs", total_epochs)):
        if not value >= 1:
            raise ValueError(f"{name} must be at least 1, got {value!r}")
    _positive("batch_size", batch_size)
    _positive("ideal_batch_size", ideal_batch_size)
    share, T = min(batch_size / ideal_batch_size, 1.0), total_epochs
    if T == 1:
        return 0.0
    # ρ^x = share^(x/T)
    return share ** (max(T - epoch, 0) / (T - 1)) - share


def inference_tau(batch_size: int, ideal_batch_size: int = 32, tau0: float = 0.9) -> float:
    """Weight τ = τ₀^(m/m₀) of the old value in Momentum Batch Norm's running averages (torch's momentum is 1 − τ).

    τ₀ is 0.9 in seed 000's text and 0.85 in its code.

    Raises:
        ValueError: a size not above 0, or tau0 outside [0, 1).
    """
    _positive("batch_size", batch_size)
    _positive("ideal_batch_size", ideal_batch_size)
    if not 0 <= tau0 < 1:
        raise ValueError(f"tau0 must be a number in [0, 1), got {tau0!r}")
    return tau0 ** (batch_size / ideal_batch_size)


def ramp(position: float, start: float, end: float, low: float, high: float) -> float:
    """low up to start, high from end on, a straight line between.

    Raises:
        ValueError: end before start.
    """
    if end < start:
        raise ValueError(f"end must not be below start = {start}, got {end}")
    if position <= start:
        return low
    if position >= end:
        return high
    return low + (high - low) * (position - start) / (end - start)


def renorm_limits(
    step: float,
    *,
    start: float = 5_000,
    r_end: float = 40_000,
    d_end: float = 25_000,
    r_max: float = 3.0,
    d_max: float = 5.0,
) -> tuple[float, float]:
    """Batch Renorm's (r_max, d_max) at a training step: (1, 0), plain Batch Norm, until start, then ramps.

    Defaults are the paper's, in steps; the straight line between its end points is the usual reading of
    "gradually relaxed". Any unit serves, epochs for instance, if all arguments have it.
    """
    return ramp(step, start, r_end, 1.0, r_max), ramp(step, start, d_end, 0.0, d_max)


def scaled_learning_rate(batch_size: int, base: float = 0.1, reference: int = 64) -> float:
    """base · m / reference: 0.1 · m/64 as in Momentum Batch Norm's experiments; m is the whole step's batch."""
    _positive("batch_size", batch_size)
    _positive("base", base)
    _positive("reference", reference)
    return base * batch_size / reference


def step_decay(epoch: int, every: int = 60, factor: float = 0.1) -> float:
    """factor^k after k · every whole epochs: the learning rate's multiplier in seed 000.

    Raises:
        ValueError: an epoch below 1, or `every` not above 0.
    """
    if not epoch >= 1:
        raise ValueError(f"epoch must be at least 1, got {epoch!r}")
    _positive("every", every)
    return factor ** ((epoch - 1) // every)
