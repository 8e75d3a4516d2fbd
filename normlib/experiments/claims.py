"""Every claim of the seeds and of the papers beside them: what it says, what was measured, and the verdict by rule.

    from normlib.experiments import claims
    print(claims.card(claims.judge("002-1")))

A claim is one entry below: a function that reads records (or evaluates an identity in float64, or trains a small
network for some seconds) and gives `verdicts.Part`s. No number that we measured stands in this file, and what
corrections say of their own lines is held to them by tests/experiments/test_claims.py. `IDS` is the list of what must
have a verdict; an entry without a place in it, or a place without an entry, raises when the module is imported.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .. import datasets, layers, models, noise
from ..convert import norm_factory
from ..schedules import inference_tau, momentum_lambda, renorm_limits
from ..training import classwise, predict, train
from . import records
from .grids import GRIDS
from .report import highest, summarize
from .verdicts import MARGIN, VERDICTS, Part, identity, measured, verdict

_COUNTS = {"000": 11, "001": 7, "002": 3, "003": 5, "004": 8}  # claims of each seed
_PAPERS = ("GN-1", "BRN-1", "BRN-2", "BRN-3", "MBN-1", "GBN-1")
IDS = (*(f"{seed}-{i}" for seed, count in _COUNTS.items() for i in range(1, count + 1)), *_PAPERS)
SOURCES = {
    "000": "Seed 000, a reproduction of Momentum Batch Norm",
    "001": "Seed 001, a blog post on Batch Norm and Group Norm",
    "002": "Seed 002, a reproduction of Batch Renorm's figure 2",
    "003": "Seed 003, a review of Batch Norm with LeNet-5 on MNIST",
    "004": "Seed 004, a summary of Weight Standardization and Batch-Channel Norm",
    "papers": "Papers: Group Norm, Batch Renorm, Momentum and Ghost Batch Norm",
}


def _strided(grid: str) -> str:
    """The scale of a grid on the strided network, from its own settings."""
    used = GRIDS[grid].profiles["cpu"]
    images = f"{used['train_images']:,} images, {'' if used['augment'] else 'none '}augmented"
    return (
        f"CIFAR-10 ({images}), seven strided convolutions of width {used['width']}, {used['epochs']} epochs, "
        f"statistics over m of {used['batch_size']} samples"
    )


STRIDED, STRIDED_PLAIN = _strided("ws-bcn"), _strided("mbn-fig4")
STRIDED_BOTH = STRIDED_PLAIN.replace("CIFAR-10", "CIFAR-10 and CIFAR-100 each", 1)
PERCEPTRON = "digits, perceptron of five layers of 64 units"
TUNED = "digits: chapter 08's network, each method at each m at its own rate, chosen on other seeds"
STEPS_OF_M = f"{PERCEPTRON}, 10 epochs in steps of m images at rate 0.2·m/64"
LENET = "MNIST, LeNet-5, batch 64"


@dataclass(frozen=True)
class Claim:
    """What is claimed, where the book deals with it, and how it is measured; `measure()` gives Parts."""

    id: str
    text: str
    where: tuple[tuple[str, str], ...]  # (notebook without suffix, its heading)
    scale: str
    measure: Callable[[], Iterable[Part]]
    correction: str | None = None
    note: str | None = None

    @property
    def source(self) -> str:
        """A key of SOURCES."""
        seed = self.id.partition("-")[0]
        return seed if seed in SOURCES else "papers"

    def __reduce__(self):
        """From one process to another, and into a copy, by its id: `measure` has no name of its own."""
        return _claim, (self.id,)


@dataclass(frozen=True)
class Judged:
    """A claim with its parts measured."""

    claim: Claim
    parts: tuple[Part, ...]

    @property
    def verdict(self) -> str:
        """One of verdicts.VERDICTS."""
        return verdict(self.parts, self.claim.correction)


CLAIMS: dict[str, Claim] = {}


def _claim(name: str) -> Claim:
    return CLAIMS[name]


def judge(name: str) -> Judged:
    """Measure a claim.

    Raises:
        KeyError: no such claim.
        RecordError: a record it reads is damaged or stale.
    """
    claim = CLAIMS[name]
    return Judged(claim, tuple(claim.measure()))


def card(judged: Judged) -> str:
    """A claim as Markdown: verdict, claim, scale and place in the book, and a line per part."""
    claim = judged.claim
    headings: dict[str, list[str]] = {}
    for file, heading in claim.where:
        headings.setdefault(file, []).extend([f"“{heading}”"] if heading else [])
    places = "; ".join(", ".join([f"[chapter {f[:2]}]({f}.ipynb)", *found]) for f, found in headings.items())
    lines = [f"**{claim.id} · {judged.verdict}**", "", f"*{claim.text}*", ""]
    lines += [f"- {part.text()}" for part in judged.parts if part.answer != "no record yet"]
    missing = [part.label for part in judged.parts if part.answer == "no record yet"]
    lines += [f"- No record yet: {'; '.join(missing)}"] if missing else []
    if judged.verdict == "corrected":
        lines.append(f"- *Instead:* {claim.correction}")
    if claim.note:
        lines.append(f"- {claim.note}")
    lines += ["", f"Scale: {claim.scale}. In the book: {places}.", ""]
    return "\n".join(lines)


class Page(str):
    """Markdown that a notebook renders, and prints as it is where it cannot."""

    def _repr_markdown_(self) -> str:
        return str(self)

    def __repr__(self) -> str:
        return str(self)


def page(judged: Iterable[Judged], source: str) -> Page:
    """The cards of one source, a key of SOURCES."""
    return Page("\n".join(card(j) for j in judged if j.claim.source == source))


def summary(judged: Iterable[Judged]) -> Page:
    """Each verdict with the claims that got it.

    Raises:
        ValueError: not every claim of IDS is judged.
    """
    judged = list(judged)
    complete((j.claim.id for j in judged), IDS)
    found = {v: [j.claim.id for j in judged if j.verdict == v] for v in VERDICTS}
    return Page("\n".join(f"- **{name}** ({len(ids)}): {', '.join(ids)}" for name, ids in found.items() if ids))


def _entry(name: str, text: str, *where: tuple[str, str], scale: str, correction: str | None = None, note=None):
    def register(measure):
        if name in CLAIMS or name not in IDS:
            raise ValueError(f"{name}: a second entry, or not in IDS")
        CLAIMS[name] = Claim(name, text, where, scale, measure, correction, note)
        return measure

    return register


# ---- what the entries read ------------------------------------------------------------------------------------------


@cache
def _runs(grid: str, profile: str, folder: Path):
    """The records of a grid as it is now, or None."""
    try:
        return summarize(GRIDS[grid], profile, folder).runs
    except FileNotFoundError:
        return None


def read(grid: str, profile: str, epochs: tuple[int, int] | None = None, curve: str = "test_accuracy", **labels):
    """{seed: accuracy in %} of the runs with these labels, final or averaged over epochs first to last, counted from 1.

    A loss, if `curve` is one, stays as it is. Empty where there is no record; NaN for a run that diverged.
    """
    frame = _runs(grid, profile, records.RUNS)
    if frame is None:
        return {}
    for axis, label in labels.items():
        frame = frame[frame[axis] == label]
    scale = 100 if curve.endswith("accuracy") else 1
    out = {}
    for row in frame.to_dict("records"):
        if row["diverged"]:
            out[row["seed"]] = math.nan
            continue
        first, last = epochs or (len(row[curve]), len(row[curve]))
        out[row["seed"]] = scale * float(np.mean(row[curve][first - 1 : last]))
    return out


def minus(a: dict, b: dict) -> dict:
    """Differences over the seeds that both have."""
    return {seed: a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())}


def _recorded(label: str, values: dict, claimed: str, **more) -> Part:
    return measured(label, list(values.values()), claimed, "recorded", **more)


# ---- what is trained here, a second each -----------------------------------------------------------------------------


@cache
def _digits():
    return datasets.digits()


class _Linear(nn.Linear):
    """Weights centered (Eq. 11 of the WS paper), scaled (Eq. 12), both or neither."""

    center = scale = False

    def forward(self, x):
        centered = self.weight - self.weight.mean(1, keepdim=True)
        weight = centered if self.center else self.weight
        if self.scale:
            weight = weight / (centered.square().mean(1, keepdim=True) + 1e-5).sqrt()
        return F.linear(x, weight, self.bias)


class _Centered(_Linear):
    center = True


class _Scaled(_Linear):
    scale = True


class _Standardized(_Linear):
    center = scale = True


class _Lp(nn.Module):
    """x − ⟨x⟩ over the p-norm average of x, with batch statistics throughout (Santurkar et al., 2018)."""

    def __init__(self, channels: int, p: int):
        super().__init__()
        self.p = p
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        size = (x.abs().pow(self.p).mean(0) + 1e-5).pow(1 / self.p)
        return self.weight * (x - x.mean(0)) / size + self.bias


class _Attached(layers.BatchRenorm):
    """Unbounded and without stop-gradient r and d make Batch Renorm a line of running statistics, in training too."""

    folds = True

    def forward(self, x):
        if not self.training or self.r_max == 1:
            return super().forward(x)
        mean, std = self.running_mean.clone(), self.running_std.clone()
        with torch.no_grad():
            super().forward(x)  # moves the running statistics
        return self.weight * (x - mean) / std + self.bias


def _then_open(epoch: int, epochs: int) -> tuple[float, float]:
    """Batch Renorm's bounds: none after the first epoch, which is Batch Norm."""
    return (1.0, 0.0) if epoch == 1 else (math.inf, math.inf)


_NORMS = {
    "none": None,
    "bn": norm_factory("bn"),
    "gn": norm_factory("gn", num_groups=8),
    "brn": partial(
        layers.BatchRenorm, schedule=lambda epoch, _: renorm_limits(epoch - 1, start=0.5, r_end=4, d_end=2.5)
    ),
    "brn-open": partial(layers.BatchRenorm, schedule=_then_open),
    "brn-attached": partial(_Attached, schedule=_then_open),
    "l1": partial(_Lp, p=1),
    "l2": partial(_Lp, p=2),
}


def _mlp(
    norm: str,
    linear: type[nn.Linear] = nn.Linear,
    gain: float | None = None,
    depth: int = 5,
    activation=nn.ReLU,
    bias: bool = True,
):
    """The book's perceptron; gain: hidden weights N(0, gain²/inputs), biases 0, None for torch's initialization.

    bias: of the hidden linear layers; WS does not center it.
    """
    model = models.MLP(64, depth=depth, norm_layer=_NORMS[norm], activation=activation)
    hidden = [block.linear for block in list(model)[1:-1]]
    if gain is not None:
        for layer, g in [(layer, gain) for layer in hidden] + [(model[-1], 1)]:
            nn.init.normal_(layer.weight, std=g / math.sqrt(layer.in_features))
            nn.init.zeros_(layer.bias)
    for layer in hidden:
        layer.__class__ = linear
        if not bias:
            layer.bias = None
    return model


@cache
def _train(norm: str, *, m: int | None = None, rate: float, epochs: int, batch: int, classes: int = 0, **network):
    """A History of ten seeds on digits; m: samples per statistic; classes: of each batch, 0 for random batches."""
    return train(
        partial(_mlp, norm, **network),
        _digits(),
        seeds=range(10),
        epochs=epochs,
        batch_size=batch,
        virtual_batch_size=m,
        learning_rate=rate,
        test_every_epoch=False,
        **({"sampler": classwise(classes)} if classes else {}),
    )


def _final(history) -> dict:
    return dict(zip(history.seeds, (100 * history.test_accuracy[:, -1]).tolist(), strict=True))


def _least(label: str, values: list[float]) -> Part:
    """The claim that all of some computed numbers are above 0."""
    return Part(f"{label} (above 0)", "+", min(values), half=0.0, n=1, kind="float64", unit="")


def _live(label: str, values: dict, claimed: str, **more) -> Part:
    return measured(label, list(values.values()), claimed, "live", **more)


def _normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---- seed 000: Momentum Batch Norm -----------------------------------------------------------------------------------

CH01, CH02, CH03 = "01_why_normalize", "02_batch_normalization", "03_noise_and_batch_size"
CH04, CH05 = "04_batch_renormalization", "05_layer_instance_group"
CH06, CH07, CH08 = "06_weight_standardization", "07_momentum_batch_norm", "08_side_by_side"


@_entry(
    "000-1",
    "Small batches raise the noise in batch statistics; Batch Norm's noise depends on the batch size alone.",
    (CH03, "Theory"),
    (CH03, "How many independent values?"),
    scale="batches drawn from a normal and a uniform population, 10 × 20,000",
    correction="the mean's noise, for independent values, is set by their number alone; the variance's depends on the "
    "kurtosis too, and a convolution's on how alike its positions are (chapter 03).",
)
def _():
    def variances(m, population=None):
        rngs = [np.random.default_rng((m, seed)) for seed in range(10)]
        return np.array([[xi.var() for xi in noise.sample(m, 20_000, rng, population)] for rng in rngs]).T

    uniform = np.linspace(-1, 1, 2001)
    (mean2, _), (mean8, var8) = variances(2), variances(8)
    flat_mean, flat_var = variances(8, uniform)
    more = {"kind": "simulated", "unit": ""}
    yield measured("Var ξ_μ at m = 2 − at m = 8", mean2 - mean8, "+", **more)
    label = "uniform − normal values, m = 8"
    yield measured(f"Var ξ_μ of {label}", flat_mean - mean8, "=", margin=0.01, **more)
    yield measured(f"Var ξ_σ of {label}", flat_var - var8, "=", margin=0.01, **more)


@_entry(
    "000-2",
    "λ(t) starts where Momentum Batch Norm equals Batch Norm and grows with the epoch; it is constant within an epoch.",
    (CH07, "The method"),
    scale="the schedule over 200 epochs, and the layer, in float64",
)
def _():
    x = _normal(8, 4) * 2 + 1
    layer = layers.MomentumBatchNorm(4, batch_size=8).double()
    layer.set_epoch(1, 200)
    yield identity("first epoch, MBN and BN", layer(x), layers.BatchNorm(4).double()(x))
    lambdas = [momentum_lambda(t, 200, 8) for t in range(1, 201)]
    yield _least("smallest step of λ from one epoch to the next", [b - a for a, b in pairwise(lambdas)])
    layer.set_epoch(100, 200)
    seen = []
    for seed in range(5):
        layer(_normal(8, 4, seed=seed))
        seen.append(float(layer.momentum_lambda))
    seen = torch.tensor(seen, dtype=torch.float64)
    yield identity("λ over five steps of one epoch", seen, seen[:1].expand(5))


@_entry(
    "000-3",
    "A smaller batch gives a larger τ, which keeps the noise of the inference statistics in check.",
    (CH03, "The rule of Momentum Batch Norm"),
    scale="running means of independent normal values, theory for a settled average, m from 2 to 32",
    note="Trained networks: chapter 03, under the same heading, for two batch sizes and two epochs; chapter 07, where "
    "the rule's τ at m = 4 evaluates the networks of λ(t), T = 8, worse than τ = 0.9 does, and better where the whole "
    "projection is put into their gradient.",
)
def _():
    sizes = (2, 4, 8, 16, 32)
    taus = [inference_tau(m) for m in sizes]
    yield _least("smallest fall of τ from one m to the next", [a - b for a, b in pairwise(taus)])

    def spread(tau):
        noises = [noise.running_noise(tau(m)) / m for m in sizes]
        return 100 * (max(noises) / min(noises) - 1)

    at = {"half": 0.0, "n": 1, "kind": "float64", "unit": "%"}
    label = "variance of the running mean, m from 2 to 32: its largest over its smallest, minus 1"
    yield Part(f"{label}: with the rule", "within", spread(inference_tau), **at)
    yield Part(f"{label}: with τ = 0.9 throughout", "none", spread(lambda m: 0.9), **at)


def _fig4(dataset, method, m, epochs=None):
    return read("mbn-fig4", "cpu", epochs, dataset=dataset, method=method, m=str(m))


_ADDED = (
    "On CIFAR-10, Batch Norm and Momentum Batch Norm got their fourth and fifth seed at m = 2 and 8 because three had "
    "left m = 2 unresolved, all others by plan (what that changed: chapter 07)."
)


_DATA = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}


def _own_rate(method, m):
    """Digits: {seed: accuracy} of seeds 5 to 19 at the rate best on seeds 0 to 4; a run that diverged guesses, 10 %."""
    runs = {}
    for rate in GRIDS["all-methods"].axes["rate"]:
        found = read("all-methods", "short", method=method, m=str(m), rate=rate)
        runs[rate] = {seed: 10.0 if math.isnan(accuracy) else accuracy for seed, accuracy in found.items()}
    if any(set(run) < set(range(10)) for run in runs.values()):
        return {}
    best = runs[highest({rate: sum(run[seed] for seed in range(5)) / 500 for rate, run in runs.items()})]
    return {seed: best[seed] for seed in sorted(best) if seed >= 5}


def _photos(method, m):
    """CIFAR-10 at each method's own rate: {seed: accuracy}."""
    at = partial(read, "all-methods", "cpu", method=method)
    return at(m=str(m)) or at(m="any")


@_entry(
    "000-4",
    "Figure 4: at batch 16 and 32 Batch Norm is slightly better than Momentum Batch Norm, or level.",
    (CH07, "The claims"),
    (CH08, "The claims"),
    scale=f"{STRIDED_BOTH}, in place of ResNet-18 and 200 epochs; {TUNED}",
    note="At m = 32 the method's own rule makes λ zero: in training it is Batch Norm there, at equal rates, and only "
    "the averages that evaluation uses differ. (On digits each has its own rate, and at m = 32 they chose two.) The "
    "test of the claim is m = 16.",
)
def _():
    for dataset, name in _DATA.items():
        for m in (16, 32):
            gap = minus(_fig4(dataset, "bn", m), _fig4(dataset, "mbn", m))
            yield _recorded(f"{name}, m = {m}: BN − MBN", gap, ">=")
    for m in (16, 32):
        gap = minus(_own_rate("bn", m), _own_rate("mbn", m))
        yield _recorded(f"digits, m = {m}: BN − MBN", gap, ">=")


@_entry(
    "000-5",
    "Figure 4: at the smallest batch Momentum Batch Norm beats Batch, Layer, Instance and Group Norm.",
    (CH07, "The claims"),
    (CH08, "The claims"),
    scale=f"{STRIDED_BOTH}, m = 2, on CIFAR-10 also m = 1, in place of ResNet-18 and 200 epochs; {TUNED}",
    note="Layer, Instance and Group Norm were run in steps of 32 images only. Chapter 08's record is the setting of "
    f"figure 4's at m = 2, made a second time, in part on a processor that rounds otherwise. {_ADDED}",
)
def _():
    for dataset, name in _DATA.items():
        for other in ("bn", "ln", "in", "gn"):
            gap = minus(_fig4(dataset, "mbn", 2), _fig4(dataset, other, 2))
            yield _recorded(f"{name}: MBN − {other.upper()}", gap, "+")
    for other in ("bn", "ln", "in", "gn"):
        gap = minus(_own_rate("mbn", 1), _own_rate(other, 1))
        yield _recorded(f"digits, m = 1: MBN − {other.upper()}", gap, "+")
        for m in (1, 2):
            gap = minus(_photos("mbn", m), _photos(other, m))
            yield _recorded(f"CIFAR-10, chapter 08's record, m = {m}: MBN − {other.upper()}", gap, "+")


@_entry(
    "000-6",
    "Momentum Batch Norm's advantage grows as the batch shrinks.",
    (CH07, "The claims"),
    (CH08, "The claims"),
    scale=f"{STRIDED_BOTH}, in place of ResNet-18 and 200 epochs; {TUNED}",
    note=_ADDED,
)
def _():
    for dataset, name in _DATA.items():
        lead = {m: minus(_fig4(dataset, "mbn", m), _fig4(dataset, "bn", m)) for m in (2, 8, 32)}
        for small, large in ((2, 8), (8, 32)):
            yield _recorded(
                f"{name}: lead over BN at m = {small} − at m = {large}", minus(lead[small], lead[large]), "+"
            )
    lead = {m: minus(_photos("mbn", m), _photos("bn", m)) for m in (1, 2)}
    yield _recorded("CIFAR-10, chapter 08's record: lead over BN at m = 1 − at m = 2", minus(lead[1], lead[2]), "+")
    lead = {m: minus(_own_rate("mbn", m), _own_rate("bn", m)) for m in (1, 4, 16)}
    for small, large in ((1, 4), (4, 16)):
        yield _recorded(f"digits: lead over BN at m = {small} − at m = {large}", minus(lead[small], lead[large]), "+")


@_entry(
    "000-7",
    "Figure 5: at batch 8 Momentum Batch Norm ends above the others and still gains in the last epochs.",
    (CH07, "The claims"),
    scale=f"{STRIDED_BOTH}, in place of ResNet-18 and 200 epochs; the rate falls after epoch 6",
    note="The gain is from the first epoch at the lower rate to the last. Any method that still rises has one: what is "
    f"claimed is that it is Momentum Batch Norm's own. {_ADDED}",
)
def _():
    for (dataset, name), (m, claimed) in product(_DATA.items(), ((8, "+"), (2, "none"))):
        where = f"{name}, m = {m}" if claimed == "+" else f"for comparison, {name}, m = {m}"
        for other in ("bn", "ln", "in", "gn"):
            gap = minus(_fig4(dataset, "mbn", m), _fig4(dataset, other, m))
            yield _recorded(f"{where}: MBN − {other.upper()}", gap, claimed)
        gain = {k: minus(_fig4(dataset, k, m), _fig4(dataset, k, m, (7, 7))) for k in ("mbn", "bn")}
        yield _recorded(f"{where}: gain after the drop, MBN − BN", minus(gain["mbn"], gain["bn"]), claimed)


_AT_TWO = "The claim's batch of 8 was run on plain 7 alone; m = 2, where less noise should help most, stands in for it."


def _over_networks(epochs=None):
    """{seed: MBN − BN, mean over the networks}, of the seeds that have run on all of them."""
    leads = []
    for network in GRIDS["mbn-fig6a"].profiles["cpu"]["axes"]["network"]:
        at = partial(read, "mbn-fig6a", "cpu", epochs=epochs, network=network, m="2")
        leads.append(minus(at(method="mbn"), at(method="bn")))
    seeds = set.intersection(*(set(lead) for lead in leads))
    return {seed: float(np.mean([lead[seed] for lead in leads])) for seed in sorted(seeds)}


@_entry(
    "000-8",
    "Figure 6a: on CIFAR-100, five networks, batch 8 and 16, Momentum Batch Norm is behind early and ahead late.",
    (CH07, "The claims"),
    scale="CIFAR-100 (10,000 images), three thin ResNets and two plain nets, m = 2, 8 epochs; mean of the five",
    note=_AT_TWO.removesuffix(".") + ", and for 16.",
)
def _():
    yield _recorded("m = 2 in place of 8 and 16, epochs 1 and 2: MBN − BN", _over_networks((1, 2)), "-")
    yield _recorded("m = 2 in place of 8 and 16, last epoch: MBN − BN", _over_networks(), "+")


@_entry(
    "000-9",
    "Figure 6b: Momentum Batch Norm beats Batch Norm on all networks at batch 8.",
    (CH07, "The claims"),
    scale="CIFAR-100 (10,000 images), three thin ResNets and two plain nets, m = 2, 8 epochs",
    note=_AT_TWO,
)
def _():
    for network in GRIDS["mbn-fig6b"].profiles["cpu"]["axes"]["network"]:
        at = partial(read, "mbn-fig6b", "cpu", network=network)
        yield _recorded(f"{network}, m = 2 in place of 8: MBN − BN", minus(at(method="mbn"), at(method="bn")), "+")
    gap = minus(_fig4("cifar100", "mbn", 8), _fig4("cifar100", "bn", 8))  # the network of figure 4
    yield _recorded("plain 7, m = 8: MBN − BN", gap, "+")


@_entry(
    "000-10",
    "At small batches Batch Norm's ResNet-50 falls below its ResNet-34, as noise accumulates with depth; under "
    "Momentum Batch Norm the drop is minor.",
    (CH07, "The claims"),
    (CH03, "What it does to an output"),
    scale="CIFAR-100 (10,000 images), thin ResNet-20 and ResNet-8, and plain nets of 13 and 7 layers, in place of "
    "ResNet-50 and 34, m = 2, 8 epochs",
    note="That it is noise that accumulates is not measured by these lines; chapter 03 follows the noise through the "
    "layers of one network.",
)
def _():
    for deep, shallow in (("thin ResNet-20", "thin ResNet-8"), ("plain 13", "plain 7")):
        drop = {}
        for method in ("bn", "mbn"):
            at = partial(read, "mbn-fig6b", "cpu", method=method)
            drop[method] = minus(at(network=deep), at(network=shallow))
        what = f"{deep} − {shallow}"
        yield _recorded(f"BN: {what}", drop["bn"], "-")
        enough = {seed: gap + MARGIN for seed, gap in drop["mbn"].items()}
        yield _recorded(f"MBN: {what}, plus the point that still counts as minor", enough, "+")
        yield _recorded(f"{what}, BN less MBN", minus(drop["bn"], drop["mbn"]), "-")


@_entry(
    "000-11",
    "Crop-and-flip augmentation and cross-entropy are needed to come near the paper's numbers.",
    (CH07, "The claims"),
    scale="no run at the paper's size (ResNet-18, 200 epochs) is recorded: how near one comes cannot be said",
)
def _():
    return ()


# ---- seed 001: Batch Norm and Group Norm -----------------------------------------------------------------------------


def _mnist(method, optimizer, **more):
    return read("lenet-mnist", "full", method=method, optimizer=optimizer, **more)


_READINGS = ("momentum 0.9", "rate 0.9")


@_entry(
    "001-1",
    "Batch Norm makes training faster and more stable, allows a higher learning rate, and makes saturating deep "
    "networks trainable.",
    (CH01, "Ten sigmoid layers, trained"),
    (CH02, "Recorded, on all of MNIST"),
    scale=f"{LENET}; digits, ten sigmoid layers of 64 units, 5 epochs",
    note="Chapter 01 tunes both sides: with a larger gain the plain sigmoid network learns too, later and less well. "
    "“More stable” has no line: the seed does not say of what.",
)
def _():
    for reading in _READINGS:
        gap = minus(*(_mnist(method, reading, epochs=(1, 1)) for method in ("bn", "none")))
        yield _recorded(f"faster: after the first epoch ({reading}), BN − none", gap, "+")
    at = partial(read, "lenet-rates", "full", rate="2.7")
    yield _recorded("higher rate: learning rate 2.7, BN − none", minus(at(method="bn"), at(method="none")), "+")
    runs = [
        _final(_train(norm, rate=0.3, epochs=5, batch=64, gain=1, depth=10, activation=nn.Sigmoid))
        for norm in ("bn", "none")
    ]
    yield _live("ten sigmoid layers, Glorot's gain: BN − none", minus(*runs), "+")


@cache
def _sharpness(norm: str, gain: float) -> dict:
    """{seed: log of the largest change of gradient per length of step along the gradient}, at initialization."""
    x, y = (t[:256] for t in (_digits().x_train, _digits().y_train))
    out = {}
    for seed in range(10):
        torch.manual_seed(seed)
        model = _mlp(norm, gain=gain)
        parameters = list(model.parameters())
        start = [p.detach().clone() for p in parameters]

        def gradient(model=model, parameters=parameters):
            return torch.cat([g.flatten() for g in torch.autograd.grad(F.cross_entropy(model(x), y), parameters)])

        here, betas = gradient(), []
        for step in (0.05, 0.1, 0.2, 0.4):
            nn.utils.vector_to_parameters(torch.cat([w.flatten() for w in start]) - step * here, parameters)
            betas.append((gradient() - here).norm() / (step * here.norm()))
        out[seed] = max(betas).log().item()
    return out


@_entry(
    "001-2",
    "The reason is a smoother optimization landscape, and other normalizations (L1, L2) share it.",
    (CH01, "A smoother loss surface?"),
    (CH01, "Is it the variance?"),
    scale=f"{PERCEPTRON}; β, the change of the gradient per step along it, at initialization; 4 epochs, rate 0.1",
    correction="whether Batch Norm's surface is the smoother one depends on the initial weights, and it trains far "
    "better where it is the rougher one (last line); L1 and L2 normalization share what it does (chapter 01).",
    note="Chapter 01 measures over four epochs, and finds L1 and L2 normalization to train as Batch Norm does.",
)
def _():
    he, default = math.sqrt(2), 1 / math.sqrt(3)
    for norm, gain, name in (("bn", he, "He's"), ("bn", default, "torch's"), ("l1", he, "He's"), ("l2", he, "He's")):
        gap = minus(_sharpness("none", gain), _sharpness(norm, gain))
        yield _live(f"{name} gain: log β, none − {norm.upper()} (above 0, the latter is smoother)", gap, "+", unit="")
    gap = minus(*(_final(_train(norm, gain=default, rate=0.1, epochs=4, batch=64)) for norm in ("bn", "none")))
    yield _live("torch's gain, test accuracy: BN − none", gap, "none")


def _perceptron(method, m):
    return read("digits-batch-size", "short", method=method, m=str(m))


@_entry(
    "001-3",
    "Batch Norm wants a batch of at least 32.",
    (CH05, '"At least 32"?'),
    (CH03, "The claims of this chapter"),
    (CH08, "The claims"),
    scale=f"{STEPS_OF_M}; {STRIDED_PLAIN}",
    correction="on the perceptron, under its rate rule, nothing happens at 32: a loss of more than a point is excluded "
    "at 16, undecided at 8 and large at 4; what counts is not the number of samples alone: with wide maps a network "
    "trains at 2 (chapter 03).",
)
def _():
    for m in (16, 8, 4, 2):
        gap = minus(_perceptron("bn", m), _perceptron("bn", 32))
        yield _recorded(f"perceptron, loses more than a point: BN at m = {m} − at m = 32", gap, "--")
    for m in (8, 2):
        at = partial(read, "gn-batch-size", "cpu", method="bn")
        gap = minus(at(m=str(m)), at(m="32"))
        yield _recorded(f"CIFAR-10, loses more than a point: BN at m = {m} − at m = 32", gap, "--")


class _RowReader(nn.Module):
    """A tanh network over the rows of a digit, with one set of statistics, or one per step; γ and β shared by all."""

    def __init__(self, norm, steps: int = 1):
        super().__init__()
        self.input, self.hidden = nn.Linear(8, 64, bias=False), nn.Linear(64, 64)
        nn.init.orthogonal_(self.hidden.weight)
        self.norms = nn.ModuleList(norm(64, affine=False) for _ in range(steps))
        self.scale, self.shift = nn.Parameter(torch.ones(64)), nn.Parameter(torch.zeros(64))
        self.classify = nn.Linear(64, 10)

    def forward(self, x):
        rows = self.input(x.squeeze(1))
        h = torch.zeros_like(rows[:, 0])
        for t in range(rows.shape[1]):
            h = self.norms[t % len(self.norms)](rows[:, t] + self.hidden(h))
            h = torch.tanh(self.scale * h + self.shift)
        return self.classify(h)


@_entry(
    "001-4",
    "Batch Norm for convolutional networks, Layer Norm for recurrent ones.",
    (CH05, "Recurrent networks"),
    (CH05, "Recorded, on CIFAR-10"),
    scale="recurrent: digits read row by row, 64 units, batch 32, 4 epochs, 20 seeds (the chapter has 10); "
    f"convolutional: {STRIDED_PLAIN}",
)
def _():
    for m in (8, 32):
        at = partial(read, "gn-batch-size", "cpu", m=str(m))
        yield _recorded(f"convolutional, m = {m}: BN − LN", minus(at(method="bn"), at(method="ln")), "+")
    rule = {"seeds": range(20), "epochs": 4, "batch_size": 32, "learning_rate": 0.1}
    ln, one, each = (
        _final(train(partial(_RowReader, *kind), _digits(), **rule))
        for kind in ((layers.LayerNorm,), (layers.BatchNorm,), (layers.BatchNorm, 8))
    )
    yield _live("recurrent, m = 32: LN − BN with one set of statistics", minus(ln, one), "+")
    yield _live("recurrent, m = 32: LN − BN with statistics per step", minus(ln, each), "+")


@_entry(
    "001-5",
    "Instance Norm is Batch Norm at batch size 1; it is worse in most tasks and better where contrast should be "
    "discarded.",
    (CH05, "When two of them are one"),
    (CH05, "What Instance Norm cannot see"),
    (CH05, "Recorded, on CIFAR-10"),
    scale=f"float64; {STRIDED_PLAIN}",
    correction="the two are one in training only: at evaluation Batch Norm uses running statistics, Instance Norm the "
    "image's own.",
    note="Where contrast should be discarded: the last line is what Instance Norm cannot see; two photographs told "
    "apart under changed contrast are trained in chapter 05, “What Instance Norm cannot see”.",
)
def _():
    x = _normal(4, 6, 5, 5) * 3 + 7
    bn = nn.BatchNorm2d(6, affine=False, momentum=None).double()
    one_by_one = torch.cat([bn(sample) for sample in x.split(1)])
    yield identity("IN and BN at N = 1, training", one_by_one, F.instance_norm(x))
    yield identity("IN and BN at N = 1, evaluation", bn.eval()(x), F.instance_norm(x))
    for m in (8, 32):
        at = partial(read, "gn-batch-size", "cpu", m=str(m))
        yield _recorded(f"CIFAR-10: IN − BN at m = {m}", minus(at(method="in"), at(method="bn")), "-")
    same = [F.instance_norm(t, eps=0.0) for t in (x, 0.25 * x + 1)]
    yield identity("IN of an image and of its version at a quarter of the contrast, ε = 0", *same)


@_entry(
    "001-6",
    "Group Norm with G = C is Instance Norm, with G = 1 Layer Norm; it is better than both. Instance Norm is Layer "
    "Norm per channel.",
    (CH05, "When two of them are one"),
    (CH05, "Recorded, on CIFAR-10"),
    scale=f"float64; {STRIDED_PLAIN}, G = 8 of 32 channels",
)
def _():
    x = _normal(4, 6, 5, 5) * 3 + 7
    yield identity("GN with G = C, and IN", F.group_norm(x, 6), F.instance_norm(x))
    yield identity("GN with G = 1, and LN over (C, H, W)", F.group_norm(x, 1), F.layer_norm(x, x.shape[1:]))
    each = F.layer_norm(x.reshape(-1, 1, 5, 5), (1, 5, 5)).view(x.shape)
    yield identity("IN, and LN of each channel alone", each, F.instance_norm(x))
    at = partial(read, "gn-batch-size", "cpu", m="32")  # none of the three has a batch statistic
    for other in ("in", "ln"):
        yield _recorded(f"CIFAR-10: GN − {other.upper()}", minus(at(method="gn"), at(method=other)), "+")


@_entry(
    "001-7",
    "Evaluation uses statistics gathered over training by a moving average.",
    (CH02, "Two functions in one layer"),
    scale="float64, twenty batches",
    note="Only methods with batch statistics have two modes; Layer, Instance and Group Norm have one.",
)
def _():
    torch_layer = nn.BatchNorm1d(3).double()
    mean, var = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    for seed in range(20):
        x = _normal(8, 3, seed=seed) * 2 + 1
        torch_layer(x)
        mean, var = 0.9 * mean + 0.1 * x.mean(0), 0.9 * var + 0.1 * x.var(0)
    with torch.no_grad():
        out = torch_layer.eval()(x)
    yield identity(
        "torch's Batch Norm at evaluation, and moving averages by hand", out, (x - mean) / (var + 1e-5).sqrt()
    )


# ---- seed 002: Batch Renorm's figure 2 -------------------------------------------------------------------------------

_THREE_BLOCKS = "CIFAR-10, three blocks of two convolutions of width 16 to 64, 100 epochs of 25 steps of 64 images"
_MICROBATCHES = (2, 16)  # m; the seed does not say its own


def _renorm(m, method, first, last, curve="test_accuracy"):
    ours, theirs = (read("brn-fig2", "cpu", (first, last), curve, method=name, m=str(m)) for name in (method, "bn"))
    return minus(ours, theirs)


@_entry(
    "002-1",
    "Figure 2: Batch Renorm's validation accuracy is above Batch Norm's early in training.",
    (CH04, "Seed 002: is Batch Renorm ahead early?"),
    scale=_THREE_BLOCKS,
    note="The seed's validation accuracy is test accuracy here. Before its ramp starts Batch Renorm trains as Batch "
    "Norm does, so that a lead there could come from its "
    "running averages alone. From its start on: chapter 04, “Recorded, on CIFAR-10”.",
)
def _():
    for m, (curve, claimed) in product(_MICROBATCHES, (("test_accuracy", "+"), ("train_accuracy", "none"))):
        kind = "for comparison, train" if claimed == "none" else "test"
        for start, first, last in ((20, 1, 20), (20, 21, 40), (50, 1, 50)):
            gap = _renorm(m, f"brn-{start}", first, last, curve)
            yield _recorded(f"m = {m}: {kind}, ramp from {start}, epochs {first} to {last}: BRN − BN", gap, claimed)


@_entry(
    "002-2",
    "The two converge past epoch 70 of 100.",
    (CH04, "Verdicts"),
    scale=_THREE_BLOCKS,
    note="The seed's figure is of validation accuracy. Neither convergence nor its absence is resolved at m = 16.",
)
def _():
    for m, start, curve in product(_MICROBATCHES, (20, 50, 0), ("train_accuracy", "test_accuracy")):
        gap = _renorm(m, f"brn-{start}", 70, 100, curve)
        claimed = "=" if start and curve == "test_accuracy" else "none"
        kind = ("" if claimed == "=" else "for comparison, ") + curve.partition("_")[0]
        label = f"m = {m}: {kind}, ramp from {start}, epochs 70 to 100: BRN − BN"
        yield _recorded(label + ("" if start else ", no setting of the seed's"), gap, claimed)


@_entry(
    "002-3",
    "The setting: statistics per microbatch, “across N & C”; r_max → 3, d_max → 5, α = 0.01; the ramp starts at epoch "
    "20 (or 50: the seed says both).",
    (CH04, "Verdicts"),
    scale=f"float64; {_THREE_BLOCKS}",
    correction="the moments are taken over the microbatch and the positions, per channel; the two starts are two "
    "settings, and the start decides when the curves can part (last lines).",
)
def _():
    x = _normal(8, 4, 3, 3)
    y = layers.BatchNorm(4, affine=False, eps=1e-30, virtual_batch_size=4).double()(x)

    def by(*dims):
        parts = [(p - p.mean(dims, keepdim=True)) / p.std(dims, correction=0, keepdim=True) for p in x.split(4)]
        return torch.cat(parts)

    yield identity("statistics per microbatch, over (M, H, W)", y, by(0, 2, 3))
    yield identity("statistics per microbatch, over (M, C)", y, by(0, 1))
    found = torch.tensor([*renorm_limits(100, start=20, r_end=100, d_end=100)], dtype=torch.float64)
    yield identity("r_max and d_max where our ramp ends, and 3 and 5", found, torch.tensor([3.0, 5.0]).double())
    alpha = torch.tensor([layers.BatchRenorm(4).momentum], dtype=torch.float64)
    yield identity("α of our runs, and 0.01", alpha, torch.full_like(alpha, 0.01))
    for start in (20, 50):
        gap = _renorm(2, f"brn-{start}", 21, 40, "train_accuracy")
        yield _recorded(f"m = 2: train, epochs 21 to 40, ramp from {start}: BRN − BN", gap, "none")


# ---- seed 003: LeNet on MNIST ----------------------------------------------------------------------------------------


@_entry(
    "003-1",
    "LeNet reaches 98 % on MNIST without Batch Norm and 98 % with it.",
    (CH02, "Recorded, on all of MNIST"),
    scale=f"{LENET}, 10 epochs",
)
def _():
    for reading in _READINGS:
        for method, name in (("none", "without"), ("bn", "with")):
            values = {seed: accuracy - 98 for seed, accuracy in _mnist(method, reading).items()}
            yield _recorded(f"{reading}, {name}: test accuracy − 98 %", values, "+")


@_entry(
    "003-2",
    "Batch Norm brings no visible benefit there (speed, learning rate, regularization): the net is too shallow.",
    (CH02, "Recorded, on all of MNIST"),
    scale=f"{LENET}, 10 epochs; at rate 2.7, 3 epochs; near 99 %, level means within 0.1 points",
    note="“The net is too shallow” is a cause that no line tests: the depth was not varied. Nor is regularization: "
    "training and test loss are of other statistics and times, so that their difference is shown and not judged.",
)
def _():
    for reading in _READINGS:
        none, bn = (partial(_mnist, method, reading) for method in ("none", "bn"))
        yield _recorded(f"{reading}, at the end: BN − none", minus(bn(), none()), "=", margin=0.1)
        early = minus(bn(epochs=(1, 1)), none(epochs=(1, 1)))
        yield _recorded(f"{reading}, speed: after the first epoch, BN − none", early, "=", margin=0.1)
        gaps = []
        for run in (none, bn):
            test, seen = run(curve="test_loss"), run(curve="train_loss")
            gaps.append({seed: 100 * (test[seed] - seen[seed]) for seed in test})
        # of other statistics and times besides, so no measure of regularization alone (chapter 02)
        label = f"{reading}, test minus training loss, none − BN"
        yield _recorded(label, minus(*gaps), "none", unit="hundredths of a nat")
    at = partial(read, "lenet-rates", "full", rate="2.7")
    yield _recorded("learning rate 2.7: BN − none", minus(at(method="bn"), at(method="none")), "=")


@_entry(
    "003-3",
    "A hand-written Batch Norm and torch's differ neither in accuracy nor in running time.",
    (CH02, "Recorded, on all of MNIST"),
    scale=f"{LENET}, 10 epochs; running time: the median epoch of each recorded run, on a CPU that did other work too",
    note="The times of these records are therefore rough. Chapter 02 times both layers in turn, on your machine.",
)
def _():
    for reading in _READINGS:
        gap = minus(_mnist("written-out", reading), _mnist("torch-bn", reading))
        yield _recorded(f"{reading}: written out − torch's", gap, "=", margin=0.1)
    table = records.load("lenet-mnist", "full", records.RUNS)
    table["time"] = table["epoch_seconds"].map(np.median)
    for reading in _READINGS:
        times = table[table["optimizer"] == reading].pivot(index="seed", columns="method", values="time")
        ratio = 100 * (times["written-out"] / times["torch-bn"] - 1)
        label = f"{reading}: running time of written out over torch's, minus 1"
        yield measured(label, ratio, "=", "recorded", unit="%", margin=10.0)


@_entry(
    "003-4",
    "[Without Batch Norm] the lower per-class accuracies are in the classes the seed calls “8” and “10”.",
    (CH02, "Recorded, on all of MNIST"),
    scale=f"{LENET}, 10 epochs; accuracy on these digits minus that on the others",
    correction="MNIST's classes are 0 to 9. Of the two ways to read “8” and “10”, as the digits 8 and 9 or, counted "
    "from one, 7 and 9, as pairs five seeds resolve the second alone, with momentum 0.9 only. Digit by digit they find "
    "9 low with momentum 0.9, and with rate 0.9 the digits 8 and 6, of which the seed does not name 6; of twenty such "
    "comparisons one may be chance.",
)
def _():
    table = records.load("lenet-mnist", "full", records.RUNS)
    numbers = torch.arange(len(table["per_class"].iloc[0]), dtype=torch.float64)[-1:]
    yield identity("the last class's number, and 10", numbers, torch.tensor([10.0], dtype=torch.float64))
    for reading in _READINGS:
        rows = table[(table["optimizer"] == reading) & (table["method"] == "none")].sort_values("seed")
        per_class = 100 * np.stack(rows["per_class"])
        for pair in ((8, 9), (7, 9), *((digit,) for digit in range(per_class.shape[1]))):
            others = [digit for digit in range(per_class.shape[1]) if digit not in pair]
            gap = per_class[:, pair].mean(1) - per_class[:, others].mean(1)
            label = f"{reading}: {' and '.join(map(str, pair))} − the others"
            yield measured(label, gap, "-" if len(pair) == 2 else "none", "recorded")


@_entry(
    "003-5",
    "Large weights make activations saturate and gradients vanish; scaling each mini-batch keeps the distributions "
    "stable.",
    (CH01, "Saturation"),
    scale="twenty random tanh layers of 64 units at initialization, batch 128, gains 8, 1 and 1/4, 10 draws",
    correction="saturation grows with the weights, but so does the gradient, which vanishes where they are small (gain "
    "1/4); with normalization neither depends on the weights' scale.",
)
def _():
    def propagate(gain, normalized, seed):
        """Share of saturated units; log₁₀ of the gradient at the first layer over that at the last."""
        generator = torch.Generator().manual_seed(seed)
        draw = partial(torch.randn, generator=generator, dtype=torch.float64)
        h, a = draw(128, 64), []
        units = []
        for _ in range(20):
            product = (h @ (gain / 8 * draw(64, 64)).T).requires_grad_()
            a.append(product)
            h = (product - product.mean(0)) / product.std(0, correction=0) if normalized else product
            h = torch.tanh(h)
            units.append(h.detach())
        first, last = torch.autograd.grad((h * draw(128, 64)).sum(), (a[0], a[-1]))
        share = 100 * (torch.stack(units).abs() > 0.95).double().mean().item()
        return share, math.log10(first.norm() / last.norm())

    at = {
        key: np.array([propagate(*key, seed) for seed in range(10)]).T
        for key in ((8, False), (1, False), (0.25, False), (8, True), (1, True))
    }
    plain, normed = (at[8, kind] - at[1, kind] for kind in (False, True))
    more = {"kind": "simulated"}
    yield measured("share of saturated units, gain 8 − gain 1", plain[0], "+", **more)
    orders = {"unit": "orders of magnitude"} | more
    yield measured("gradient at the first layer over the last, gain 8 − gain 1", plain[1], "-", **orders)
    yield measured("gradient at the first layer over the last, gain 1/4", at[0.25, False][1], "none", **orders)
    yield measured("share of saturated units, normalized, gain 8 − gain 1", normed[0], "=", **more)
    label = "gradient at the first layer over the last, normalized, gain 8 − gain 1"
    yield measured(label, normed[1].round(9) + 0.0, "none", **orders)  # rounding's sign is no result


# ---- seed 004: Weight Standardization and Batch-Channel Norm ---------------------------------------------------------


def _ws(method, m):
    return read("ws-bcn", "cpu", method=method, m=str(m))


def _ws_gap(a, b, m, claimed, runs=_ws, where="CIFAR-10"):
    names = [name.upper().replace("-ESTIMATE", " (estimates)") for name in (a, b)]
    return _recorded(f"{where}, m = {m}: {' − '.join(names)}", minus(runs(a, m), runs(b, m)), claimed)


@_entry(
    "004-1",
    "Batch Norm is best at large batches and fails at micro-batches because its estimates are unreliable.",
    (CH05, "Recorded, on CIFAR-10"),
    (CH06, "Recorded, on CIFAR-10"),
    (CH08, "The claims"),
    (CH03, "What it does to a gradient"),
    scale=f"m = 32: {STRIDED_PLAIN}; else {STRIDED}; {STEPS_OF_M}",
    note="The “because” is not measured by these lines: with two values per statistic the gradient is gone too, "
    "however reliable the estimates (chapter 03, “What it does to a gradient”). BN+WS is Batch Norm still, and no "
    "rival.",
)
def _():
    at = partial(read, "gn-batch-size", "cpu", m="32")
    for other in ("gn", "ln", "in"):
        yield _recorded(f"CIFAR-10, m = 32: BN − {other.upper()}", minus(at(method="bn"), at(method=other)), "+")
    for other in ("brn", "gn+ws", "bcn+ws", "bcn-estimate+ws"):
        yield _ws_gap("bn", other, 32, "+", _photos, "CIFAR-10, own rates")
    yield _ws_gap("bn", "bn+ws", 32, "none", _photos, "for comparison, CIFAR-10, own rates")
    yield _ws_gap("bn+ws", "gn+ws", 8, "+")
    yield _recorded("perceptron, m = 32: BN − LN", minus(_perceptron("bn", 32), _perceptron("ln", 32)), "+")
    yield _ws_gap("bn", "gn", 1, "-")
    yield _recorded("perceptron, m = 2: BN − LN", minus(_perceptron("bn", 2), _perceptron("ln", 2)), "-")


def _relu_inputs(model):
    found, h = [], model[0](_digits().x_test)
    for block in list(model)[1:-1]:
        found.append(block.norm(block.linear(h)))
        h = block.activation(found[-1])
    return [z.detach() for z in found]


@cache
def _last_layer(norm, linear, trained: bool):
    """Of the last hidden layer, ten seeds: percent of units never on; median distance in degrees from a constant."""
    if trained:
        models = _train(norm, rate=0.4, epochs=3, batch=64, linear=linear, bias=False).models
    else:
        models = []
        for seed in range(10):
            torch.manual_seed(seed)
            models.append(_mlp(norm, linear, bias=False))
    dead, distance = [], []
    for model in models:
        z = _relu_inputs(model)[-1]
        dead.append(100 * (z <= 0).all(0).double().mean().item())
        angle = torch.atan2(z.std(0, correction=0), -z.mean(0)).rad2deg()
        distance.append(torch.minimum(angle, 180 - angle).median().item())
    return dict(enumerate(dead)), dict(enumerate(distance))


@_entry(
    "004-2",
    "Batch Norm succeeds because of a smooth landscape and because it avoids elimination singularities.",
    (CH06, "How far from the singularities?"),
    (CH06, "Pushing the statistics away"),
    scale=f"{PERCEPTRON}, GN with 8 groups, batch 64, 3 epochs at rate 0.4; smoothness at initialization",
    correction="Batch Norm does avoid them; that this, or smoothness, is why it succeeds was not found, and its "
    "surface is the smoother one at some initializations only.",
)
def _():
    dead = [_last_layer(norm, nn.Linear, True)[0] for norm in ("bn", "gn")]
    yield _live("avoids: units of the last layer never on, BN − GN", minus(*dead), "-")
    for name, gain in (("He's", math.sqrt(2)), ("torch's", 1 / math.sqrt(3))):
        gap = minus(_sharpness("none", gain), _sharpness("bn", gain))
        yield _live(f"smooth: log β at {name} gain, none − BN", gap, "+", unit="")


@_entry(
    "004-3",
    "Weight Standardization lowers the Lipschitz constants of loss and gradient.",
    (CH06, "What it does to the Lipschitz constants"),
    scale="one softmax layer, 200 inputs as they leave a ReLU, 10 draws; float64",
    correction="centering, a projection, cannot raise them, and here lowers the gradient and the largest curvature at "
    "the weights drawn; with scaling, which magnifies such small weights, the gradient is larger, and there is no such "
    "constant at all: at a tenth of the weights it is ten times as large.",
)
def _():
    def center(w):
        return w - w.mean(1, keepdim=True)

    def standardize(w):
        return center(w) / center(w).std(1, correction=0, keepdim=True)

    slopes, bends, both = [], [], []
    for seed in range(10):
        torch.manual_seed(seed)
        x, target = torch.randn(200, 20, dtype=torch.float64).relu(), torch.randint(5, (200,))
        w = 0.1 * torch.randn(5, 20, dtype=torch.float64)

        def loss(w, how, x=x, target=target):
            return F.cross_entropy(x @ how(w).T, target)

        def norms(w, how, loss=loss):
            hessian = torch.func.hessian(loss)(w, how).view(w.numel(), -1)
            return torch.func.grad(loss)(w, how).norm().item(), torch.linalg.eigvalsh(hessian).abs().max().item()

        (a, b), (c, d) = norms(w, center), norms(center(w), lambda w: w)
        slopes.append(math.log(a / c))
        bends.append(math.log(b / d))
        plain = torch.func.grad(loss)(w, lambda w: w)
        both.append(math.log(torch.func.grad(loss)(w, standardize).norm() / plain.norm()))
    at_w, at_tenth = (torch.func.grad(loss)(scale * w, standardize) for scale in (1.0, 0.1))
    more = {"kind": "simulated", "unit": ""}
    yield measured("log of the gradient's norm, centered − plain", slopes, "-", **more)
    yield measured("log of the largest curvature, centered − plain", bends, "-", **more)
    yield measured("log of the gradient's norm, both operations − plain", both, "-", **more)
    ratio = (at_tenth.norm() / at_w.norm()).item()
    label = "both operations: length of the gradient at W/10 over that at W"
    yield Part(label, "none", ratio, 0.0, 1, "float64", unit="")


_HALVES = {"centered": _Centered, "scaled": _Scaled, "both": _Standardized}


@_entry(
    "004-4",
    "Of WS's two operations, subtracting the mean gives most of the gain, dividing by the deviation some.",
    (CH06, "Which half does the work?"),
    scale=f"{PERCEPTRON}, GN with 8 groups, batch 64, rate 0.1, 3 epochs: early training",
    note="One rate, at which ten seeds may not resolve a gain of both operations together; chapter 06 averages three.",
)
def _():
    runs = {
        name: _final(_train("gn", rate=0.1, epochs=3, batch=64, linear=kind, bias=False))
        for name, kind in ({"GN": nn.Linear} | _HALVES).items()
    }
    for name in ("centered", "scaled", "both"):
        yield _live(f"GN, weights {name} − GN", minus(runs[name], runs["GN"]), "+" if name != "both" else "none")
    yield _live("centered − scaled", minus(runs["centered"], runs["scaled"]), "+")


@_entry(
    "004-5",
    "WS brings GN's channel statistics nearer to BN's (zero mean, unit variance), away from singularities.",
    (CH06, "How far from the singularities?"),
    scale=f"{PERCEPTRON}, GN with 8 groups; last hidden layer, test digits, before and after 3 epochs at rate 0.4",
)
def _():
    for trained, when in ((False, "before training"), (True, "after it")):
        ws, gn = (_last_layer("gn", linear, trained) for linear in (_Standardized, nn.Linear))
        label = f"{when}: median distance from a constant unit, GN + WS − GN"
        yield _live(label, minus(ws[1], gn[1]), "+", unit="degrees")
    yield _live("after it: units never on, GN + WS − GN", minus(ws[0], gn[0]), "-")


@_entry(
    "004-6",
    "WS gives BN-like results at very small batches.",
    (CH06, "Recorded, on CIFAR-10"),
    (CH08, "The claims"),
    scale=f"{STRIDED}; and the same without augmentation (10,000 images), each method at its own rate",
    note="Every run has 32 images per step; that GN+WS ignores m is by construction, and small steps are not tested. "
    "In the first record m = 8 is the largest, and BN's rate may not suit it (chapter 06); the other's rates were "
    "chosen on held-out images.",
)
def _():
    for other in ("bn", "bn+ws"):
        gap = minus(_ws("gn+ws", 1), _ws(other, 8))
        yield _recorded(f"CIFAR-10: GN+WS at any m − {other.upper()} at m = 8", gap, ">=")
    for m, other in product((8, 32), ("bn", "bn+ws")):
        gap = minus(_photos("gn+ws", 1), _photos(other, m))
        yield _recorded(f"the same, not augmented: GN+WS at any m − {other.upper()} at m = {m}", gap, ">=")


@_entry(
    "004-7",
    "BCN is channel normalization of BN's output; for micro-batches BN uses running estimates; both parts help each "
    "other.",
    (CH06, "For micro-batches: running estimates"),
    (CH06, "Recorded, on CIFAR-10"),
    scale=f"float64; {STRIDED}, the estimate-based form with WS",
)
def _():
    x = _normal(8, 6, 3, 3)
    both = layers.BatchChannelNorm(6, 2, affine=False).double()
    by_hand = F.group_norm(F.batch_norm(x, None, None, training=True), 2)
    yield identity("BCN, and GN of BN's output", both(x), by_hand)
    for m in (1, 2, 8):
        yield _ws_gap("bcn-estimate+ws", "bn+ws", m, "+")
        yield _ws_gap("bcn-estimate+ws", "gn+ws", m, "+")


@_entry(
    "004-8",
    "At small batches BN with channel normalization trains better than either.",
    (CH06, "Recorded, on CIFAR-10"),
    (CH06, "Both parts, and each alone"),
    (CH08, "The claims"),
    scale=f"{STRIDED}; and the same without augmentation (10,000 images), each method at its own rate; all with WS",
)
def _():
    for form in ("bcn+ws", "bcn-estimate+ws"):
        for m in (1, 2):
            for other in ("bn+ws", "gn+ws"):
                yield _ws_gap(form, other, m, "+")
                yield _ws_gap(form, other, m, "+", _photos, "CIFAR-10, none augmented")


# ---- the papers ------------------------------------------------------------------------------------------------------


@_entry(
    "GN-1",
    "Wu and He: Group Norm's error is flat while Batch Norm's climbs below 16 images per GPU (ImageNet, top-1 error at "
    "32, 16, 8, 4 and 2: Batch Norm 23.6, 23.7, 24.8, 27.3 and 34.7 %, Group Norm 24.1, 24.2, 24.0, 24.2 and 24.1 %).",
    (CH05, "Recorded, on CIFAR-10"),
    scale=f"float64; {STRIDED_PLAIN}; {STEPS_OF_M}",
    note="That GN does not depend on the batch is an identity of the layer; how its training fares in small steps has "
    "no line. On the perceptron m sets the step and the rate too, which Layer Norm shares.",
)
def _():
    x = _normal(8, 6, 3, 3)
    yield identity(
        "GN of a batch, and of its samples one by one",
        F.group_norm(x, 2),
        torch.cat([F.group_norm(s, 2) for s in x.split(1)]),
    )
    at = partial(read, "gn-batch-size", "cpu", method="bn")
    for small, large in (("8", "32"), ("2", "8")):
        yield _recorded(f"CIFAR-10: BN at m = {small} − at m = {large}", minus(at(m=small), at(m=large)), "-")
    for m in (8, 4, 2):
        leads = [minus(_perceptron("bn", k), _perceptron("ln", k)) for k in (m, 16)]
        yield _recorded(f"perceptron: lead of BN over LN at m = {m} − at m = 16", minus(*leads), "-")


_MICRO = {"rate": 0.1, "epochs": 5, "batch": 32}


@_entry(
    "BRN-1",
    "Ioffe: at microbatches of 4, Batch Renorm recovers half of what Batch Norm loses (Inception-v3: Batch Norm at 32 "
    "78.3 %, at 4 74.2 %, Batch Renorm at 4 76.5 %).",
    (CH04, "Microbatches of four"),
    scale=f"{PERCEPTRON}, steps of 32 samples, 5 epochs; the bounds open between 10 and 80 % of them",
    note="Chapter 04 trains for 10 epochs.",
)
def _():
    large, small, renorm = (_final(_train(norm, m=m, **_MICRO)) for norm, m in (("bn", 32), ("bn", 4), ("brn", 4)))
    yield _live("BN loses: m = 32 − m = 4", minus(large, small), "+")
    half = {seed: (large[seed] + small[seed]) / 2 for seed in large}
    yield _live("BRN at m = 4 − half-way between the two", minus(renorm, half), ">=")


@_entry(
    "BRN-2",
    "Ioffe: Batch Renorm survives batches that are not iid.",
    (CH04, "Batches that are not iid"),
    scale=f"{PERCEPTRON}, batches of 32 samples of two classes, 5 epochs",
)
def _():
    bn, renorm = (_final(_train(norm, classes=2, **_MICRO)) for norm in ("bn", "brn"))
    yield _live("batches of two classes: BRN − BN", minus(renorm, bn), "+")
    random = _final(_train("bn", m=32, **_MICRO))
    yield _live("BRN with two classes − BN with random batches", minus(renorm, random), "none")


@_entry(
    "BRN-3",
    "Ioffe: no gradient may flow through r and d: where it does, training suffers.",
    (CH04, "Backward: why stop the gradient?"),
    scale=f"float64, no bounds, running statistics 0 and 1; {PERCEPTRON}, batches of 32, Batch Norm in the first of 5 "
    "epochs, then no bounds",
    note="Whether it ruins training depends on its length and on the batch: in batches of 16, over ten epochs, it does "
    "(chapter 04, at the same place).",
)
def _():
    x, g = _normal(8, 3).requires_grad_(), _normal(8, 3, seed=1)
    mean, std = x.mean(0), (x.var(0, correction=0) + 1e-5).sqrt()
    attached = (x - mean) / std * std + mean  # r = σ_B/σ and d = (μ_B − μ)/σ with μ = 0, σ = 1, not detached
    (without,) = torch.autograd.grad(attached, x, g)
    layer = layers.BatchRenorm(3, affine=False, r_max=math.inf, d_max=math.inf).double()
    (with_stop,) = torch.autograd.grad(layer(x), x, g)
    yield identity("without: the gradient, and that of a layer with constant statistics", without, g)
    x_hat = ((x - mean) / std).detach()
    derived = g - g.mean(0) - x_hat * (g * x_hat).mean(0)
    yield identity("with: the gradient, and Batch Norm's projection", with_stop, derived)
    runs = [_final(_train(norm, rate=0.1, epochs=5, batch=32)) for norm in ("brn-open", "brn-attached")]
    yield _live("batches of 32: with stop-gradient − without", minus(*runs), "+")


@_entry(
    "MBN-1",
    "Yong et al.: Momentum Batch Norm's noise in the mean has (1 − λ)/(1 + λ) of Batch Norm's variance.",
    (CH07, "How much noise is left?"),
    scale="10 chains of 40,000 batches of m = 4 normal values, the first 200 left out",
)
def _():
    for weight in (0.5, 0.875):
        ratios = []
        for seed in range(10):
            means = np.random.default_rng(seed).standard_normal((40_200, 4)).mean(1)
            average, kept = 0.0, np.empty_like(means)
            for i, mean in enumerate(means):
                average = weight * average + (1 - weight) * mean
                kept[i] = average
            ratios.append(100 * (kept[200:].var() / (1 / 4) / ((1 - weight) / (1 + weight)) - 1))
        label = f"λ = {weight}: measured over predicted variance, minus 1"
        yield measured(label, ratios, "=", kind="simulated", unit="%", margin=5.0)


@_entry(
    "GBN-1",
    "Hoffer et al.: statistics over ghost batches, small parts of a large batch, improve generalization.",
    (CH03, "Does the noise help?"),
    scale=f"{PERCEPTRON}, 75 steps of 256 samples at rate 0.4; evaluated with the statistics of the whole training set",
)
def _():
    found = {}
    for m in (256, 8):
        found[m] = {}
        for seed, model in enumerate(_train("bn", m=m, rate=0.4, epochs=25, batch=256).models):
            for layer in model.modules():
                if isinstance(layer, layers.BatchNorm):
                    layer.virtual_batch_size = None
            noise.recompute_statistics(model, [_digits().x_train])
            logits, truth = predict(model, _digits().x_test), _digits().y_test
            hits = 100 * (logits.argmax(1) == truth).double().mean().item()
            found[m][seed] = F.cross_entropy(logits, truth).item(), hits

    def gap(i):
        return minus(*({seed: pair[i] for seed, pair in found[m].items()} for m in (8, 256)))

    yield _live("test loss, ghost batches of 8 − one of 256", gap(0), "-", unit="nats")
    yield _live("test accuracy, ghost batches of 8 − one of 256", gap(1), "+")


def complete(rows: Iterable[str], ids: Iterable[str]) -> None:
    """Raise ValueError unless there is a row for every claim and a claim for every row."""
    odd = set(rows) ^ set(ids)
    if odd:
        raise ValueError(f"claims without a row, or rows without a claim: {', '.join(sorted(odd))}")


complete(CLAIMS, IDS)
