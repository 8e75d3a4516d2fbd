"""Schedules against the papers' formulas, tables and end points."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normlib.schedules import (
    inference_tau,
    momentum_lambda,
    ramp,
    renorm_limits,
    scaled_learning_rate,
    step_decay,
)

repeatable = settings(derandomize=True, deadline=None, max_examples=100)
sizes = st.integers(1, 64)


@repeatable
@given(st.integers(1, 400), st.integers(2, 300), sizes, sizes)
def test_lambda_as_the_paper_writes_it(t, T, m, m0):
    rho = min(m / m0, 1) ** (1 / T)
    written = rho ** (T / (T - 1) * max(T - t, 0)) - rho**T
    assert momentum_lambda(t, T, m, m0) == pytest.approx(written, abs=1e-12)


@repeatable
@given(st.integers(1, 300), sizes, sizes)
def test_lambda_at_its_ends(T, m, m0):
    assert momentum_lambda(1, T, m, m0) == 0
    for t in (T, T + 1, 10 * T):
        assert momentum_lambda(t, T, m, m0) == (0 if T == 1 else 1 - min(m / m0, 1))


@repeatable
@given(st.integers(2, 100), sizes, sizes)
def test_lambda_grows_with_the_epoch_and_stays_below_1(T, m, m0):
    values = [momentum_lambda(t, T, m, m0) for t in range(1, T + 3)]
    assert values == sorted(values)
    assert 0 <= values[0] <= values[-1] < 1
    assert m < m0 or not any(values)


@pytest.mark.parametrize(
    ("m", "final", "effective", "halfway"),
    [(2, 0.9375, 62, 0.186), (4, 0.875, 60, 0.227), (8, 0.75, 56, 0.248), (16, 0.5, 48, 0.206)],
)
def test_the_table(m, final, effective, halfway):
    assert momentum_lambda(200, 200, m) == final
    assert m * (1 + final) / (1 - final) == effective == 2 * 32 - m
    assert round(momentum_lambda(100, 200, m), 3) == halfway


def test_tau():
    assert inference_tau(32) == 0.9
    assert inference_tau(64) == pytest.approx(0.81)
    assert inference_tau(8, 32, 0.85) == pytest.approx(0.85**0.25)
    assert inference_tau(8, tau0=0) == 0
    values = [inference_tau(m) for m in (1, 2, 4, 8, 16, 32)]
    assert values == sorted(values, reverse=True)  # a smaller batch forgets more slowly


@repeatable
@given(st.floats(-10, 10), st.floats(-5, 5), st.floats(0, 5), st.floats(-3, 3), st.floats(-3, 3))
def test_ramp(position, start, length, low, high):
    value = ramp(position, start, start + length, low, high)
    assert min(low, high) - 1e-9 <= value <= max(low, high) + 1e-9
    if position <= start:
        assert value == low
    elif position >= start + length:
        assert value == high


def test_ramp_is_straight_and_may_be_a_step():
    assert [ramp(p, 2, 6, 1, 3) for p in (2, 3, 4, 5, 6)] == [1, 1.5, 2, 2.5, 3]
    assert (ramp(2, 2, 2, 0, 1), ramp(2.1, 2, 2, 0, 1)) == (0, 1)


def test_renorm_limits_of_the_paper():
    assert renorm_limits(0) == renorm_limits(5_000) == (1, 0)
    assert renorm_limits(15_000) == (1 + 2 * 10 / 35, 2.5)
    assert renorm_limits(25_000)[1] == 5
    assert renorm_limits(40_000) == renorm_limits(math.inf) == (3, 5)
    assert renorm_limits(30, start=20, r_end=40, d_end=30, r_max=2, d_max=1) == (1.5, 1)


def test_learning_rate():
    assert scaled_learning_rate(64) == 0.1
    assert scaled_learning_rate(2) == 0.1 * 2 / 64
    assert scaled_learning_rate(16, base=0.2, reference=32) == 0.1
    steps = [step_decay(epoch) for epoch in (1, 60, 61, 120, 121, 180, 181)]
    assert steps == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01, 0.001])
    assert step_decay(4, every=3, factor=0.5) == 0.5


@pytest.mark.parametrize("bad", [0, -1, math.nan])
@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (momentum_lambda, {"epoch": 1, "total_epochs": 10, "batch_size": 4, "ideal_batch_size": 32}),
        (inference_tau, {"batch_size": 4, "ideal_batch_size": 32}),
        (scaled_learning_rate, {"batch_size": 4, "base": 0.1, "reference": 64}),
        (step_decay, {"epoch": 1, "every": 60}),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_refused(function, arguments, bad):
    function(**arguments)
    for name in arguments:
        with pytest.raises(ValueError, match=f"{name} must be (at least 1|above 0), got {bad}"):
            function(**arguments | {name: bad})


@pytest.mark.parametrize("bad", [1, 1.5, -0.1, math.nan])
def test_refused_tau(bad):
    with pytest.raises(ValueError, match=r"tau0 must be a number in \[0, 1\), got"):
        inference_tau(4, tau0=bad)


def test_refused_ramp():
    with pytest.raises(ValueError, match="end must not be below start = 5, got 4"):
        ramp(1, 5, 4, 0, 1)
