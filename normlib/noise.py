"""The noise in a batch's mean and variance: exact moments and distributions, samples, and what becomes of it.

Throughout, n independent values of mean μ and variance σ² share a statistic, and

    ξ_μ = (μ_B − μ)/σ,    ξ_σ = σ_B²/σ²    (biased variance, divided by n)

are the batch's mean and variance in the population's units. Momentum Batch Norm (Yong et al., ECCV 2020) calls them so.
"""

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from . import layers


def _count(name: str, value: int, least: int = 1) -> int:
    if isinstance(value, bool) or int(value) != value or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
    return int(value)


def _size(n: float) -> float:
    if isinstance(n, bool) or not 1 <= n < math.inf:
        raise ValueError(f"n must be a number of at least 1, got {n!r}")
    return n


def mean_variance(n: int) -> float:
    """Var ξ_μ = 1/n, for every distribution; E ξ_μ = 0.

    Raises:
        ValueError: n below 1.
    """
    return 1 / _count("n", n)


def variance_moments(n: int, kurtosis: float = 3.0) -> tuple[float, float]:
    """Mean (n−1)/n and variance of ξ_σ.

    Args:
        n: values that share the statistic.
        kurtosis: κ = E(x−μ)⁴/σ⁴ of the values, at least 1; for the normal distribution's, 3, the variance is 2(n−1)/n².

    Raises:
        ValueError: n below 1, or a kurtosis that no distribution has.
    """
    _count("n", n)
    if not kurtosis >= 1:
        raise ValueError(f"kurtosis must be at least 1, got {kurtosis!r}")
    return (n - 1) / n, (n - 1) * ((n - 1) * kurtosis - (n - 3)) / n**3


def mean_cdf(t, n: float) -> np.ndarray:
    """P(ξ_μ ≤ t) for normal values: ξ_μ ~ N(0, 1/n). t and the result have one shape.

    n need not be an integer: an effective number of values (`effective_values`) is none.

    Raises:
        ValueError: n below 1.
    """
    return torch.special.ndtr(torch.as_tensor(t, dtype=torch.float64) * math.sqrt(_size(n))).numpy()


def variance_cdf(t, n: float) -> np.ndarray:
    """P(ξ_σ ≤ t) for normal values: ξ_σ ~ χ²_{n−1}/n; at n = 1 all mass is at 0. t and the result have one shape.

    n need not be an integer, as in `mean_cdf`.

    Raises:
        ValueError: n below 1.
    """
    t = torch.as_tensor(t, dtype=torch.float64)
    if _size(n) == 1:
        return (t >= 0).double().numpy()
    half = torch.full_like(t, (n - 1) / 2)
    return torch.special.gammainc(half, t.clamp(min=0) * n / 2).numpy()


def deviation_mean(n: int) -> float:
    """E √ξ_σ = √(2/n) Γ(n/2)/Γ((n−1)/2) for normal values: a batch's deviation as a share of σ; 0 at n = 1.

    Raises:
        ValueError: n below 1.
    """
    if _count("n", n) == 1:
        return 0.0
    return math.sqrt(2 / n) * math.exp(math.lgamma(n / 2) - math.lgamma((n - 1) / 2))


def sample(m: int, draws: int, rng: np.random.Generator, population=None) -> tuple[np.ndarray, np.ndarray]:
    """ξ_μ and ξ_σ, each of shape (draws,), of batches that are really drawn.

    Args:
        m: samples per batch.
        draws: batches.
        rng: where the randomness comes from.
        population: (P,) or (P, k): P samples of one channel, k values each (the positions of a map), of which whole
            samples are drawn with replacement; μ and σ² are the population's own. None: standard normal, k = 1.

    Raises:
        ValueError: m or draws below 1, or a population that is empty, constant or not finite.
    """
    _count("m", m)
    _count("draws", draws)
    if population is None:
        # blocks bound the memory: 2²² values at a time
        blocks = np.array_split(np.arange(draws), -(-draws * m // (1 << 22)))
        parts = [rng.standard_normal((len(b), m)) for b in blocks if len(b)]
        return np.concatenate([x.mean(1) for x in parts]), np.concatenate([x.var(1) for x in parts])
    x = np.asarray(population, dtype=np.float64)
    if x.size == 0 or not np.isfinite(x).all() or x.std() == 0:
        raise ValueError(f"population must hold finite values that differ, got an array of shape {x.shape}")
    # A batch's mean and variance follow from its samples' first two moments; standardized, they do not cancel.
    x = ((x - x.mean()) / x.std()).reshape(len(x), -1)
    chosen = rng.integers(len(x), size=(draws, m))
    mean = x.mean(1)[chosen].mean(1)
    return mean, np.maximum(np.square(x).mean(1)[chosen].mean(1) - mean**2, 0)


def effective_values(x: Tensor) -> Tensor:
    """How many independent values one sample is worth for a channel's mean: (N, C, *) → (C,).

    The mean over a batch of m independent samples has the variance v/m, v being the variance of one sample's own mean;
    so many independent values as σ²/(v/m) would have the same. The result is σ²/v: 1 without trailing dimensions (up to
    a factor (N−1)/N, σ² being biased), the number of positions if they are independent, less if they agree. It is more
    where the positions' means differ (σ² contains that difference, every sample shares it, so it is no noise) and where
    positions are negatively correlated (their errors cancel). NaN for a constant channel.

    Raises:
        ValueError: fewer than two samples or dimensions.
    """
    if x.dim() < 2 or len(x) < 2:
        raise ValueError(f"x must have the shape (N, C, *) with N of at least 2, got {tuple(x.shape)}")
    values = x.detach().double().flatten(2) if x.dim() > 2 else x.detach().double()[..., None]
    return values.var((0, 2), correction=0) / values.mean(2).var(0, correction=1)


def running_noise(tau: float) -> float:
    """(1−τ)/(1+τ): the settled variance of a running average, as a share of one batch's.

    Args:
        tau: weight of the old value, in [0, 1).

    Raises:
        ValueError: tau outside [0, 1).
    """
    if not 0 <= tau < 1:
        raise ValueError(f"tau must be a number in [0, 1), got {tau!r}")
    return (1 - tau) / (1 + tau)


def running_lag(tau: float) -> float:
    """τ/(1−τ): the steps by which a running average trails a statistic that drifts steadily.

    Args:
        tau: weight of the old value, in [0, 1).

    Raises:
        ValueError: tau outside [0, 1).
    """
    if not 0 <= tau < 1:
        raise ValueError(f"tau must be a number in [0, 1), got {tau!r}")
    return tau / (1 - tau)


def gradient_gain(n: int) -> float:
    """Mean square of σ ∂L/∂x over that of the arriving gradient g, behind Batch Norm over n normal values.

    (n−2)/(n−3) where g does not depend on x: (n−2)/n survives the projection, and E 1/ξ_σ = n/(n−3) multiplies it.
    Infinite at n = 3. 0 at n = 2 exactly at ε = 0, which is not the limit: a small ε gives 3√π/(16√ε) for σ = 1.

    Raises:
        ValueError: n below 2.
    """
    _count("n", n, least=2)
    return 0.0 if n == 2 else math.inf if n == 3 else (n - 2) / (n - 3)


@torch.no_grad()
def recompute_statistics(model: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """Replace running statistics of Batch Norm layers by plain means over the given batches ("Precise BN").

    Layers normalize with each batch's own statistics meanwhile (or virtual batch's, where set), everything else
    (dropout) is in evaluation mode, and weights stay. With a single batch that holds the whole training set, evaluation
    equals training mode on that batch, except that the running variance is the unbiased one.

    Args:
        model: changed in place and returned, in the mode it was in.
        batches: inputs of the model.

    Raises:
        ValueError: no batch, or no Batch Norm layer (torch's or normlib's) with running statistics.
    """
    kinds = (layers.BatchNorm, nn.modules.batchnorm._BatchNorm)
    norms = [module for module in model.modules() if isinstance(module, kinds) and module.running_mean is not None]
    if not norms:
        raise ValueError(
            f"model must hold Batch Norm layers with running statistics, got {type(model).__name__} with none"
        )
    batches = iter(batches)
    first = next(batches, None)
    if first is None:
        raise ValueError("batches must hold at least one batch, got none")
    modes = [(module, module.training) for module in model.modules()]
    momenta = [norm.momentum for norm in norms]
    try:
        model.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over batches
            norm.train()
        model(first)
        for batch in batches:
            model(batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, mode in modes:
            module.training = mode
    return model
