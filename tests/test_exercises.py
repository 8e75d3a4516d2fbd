"""What a reader's solution is told."""

import pytest
import torch

from normlib.exercises import _check, check


@pytest.fixture(autouse=True)
def tasks(monkeypatch):
    """Two exercises of the test's own, in place of the book's."""
    monkeypatch.setattr(_check, "_ORACLES", {})

    @_check.exercise("double", lambda: [(torch.tensor([1.0, 2.0], dtype=torch.float64),), (torch.zeros(2, 3),)])
    def double(x):
        return 2 * x

    @_check.exercise("moments", lambda: [(torch.arange(4.0, dtype=torch.float64), 1)])
    def moments(x, k):
        return x.mean(), x.var()


def verdicts(capsys, function, name=None, **options):
    """What `check` prints, line by line."""
    check(function, name, **options)
    return capsys.readouterr().out.splitlines()


def test_exact(capsys):
    def double(x):
        return x + x

    assert verdicts(capsys, double) == ["case 1 (2): exact", "case 2 (2×3): exact", "all cases pass"]


def test_close(capsys):
    def nearly(x):
        return 2 * x * (1 + 1e-12)

    assert verdicts(capsys, nearly, "double") == ["case 1 (2): close", "case 2 (2×3): exact", "all cases pass"]
    assert verdicts(capsys, nearly, "double", tolerance=1e-13)[-1] == "not yet"


def test_wrong_values_with_the_largest_difference(capsys):
    assert verdicts(capsys, lambda x: 3 * x, "double") == [
        "case 1 (2): wrong, largest relative difference 5.0e-01",
        "case 2 (2×3): exact",
        "not yet",
    ]


def test_wrong_shape_and_count(capsys):
    assert verdicts(capsys, lambda x: x.sum(), "double")[0] == "case 1 (2): wrong: shape (2,) expected, got ()"
    wrong = verdicts(capsys, lambda x, k: x.mean(), "moments")
    assert wrong == ["case 1 (4, 1): wrong: 2 results expected, got 1", "not yet"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_answers_are_wrong(capsys, value):
    for function, name in (
        (lambda x: torch.full_like(x, value), "double"),
        (lambda x: torch.cat([2 * x[:1], torch.full_like(x[1:], value)]), "double"),
        (lambda x, k: (x.mean(), value), "moments"),
        (lambda x, k: (value, x.var()), "moments"),
    ):
        *cases, last = verdicts(capsys, function, name)
        assert last == "not yet"
        assert all("wrong" in case for case in cases)


def test_numbers_and_tuples_are_taken_as_results(capsys):
    assert verdicts(capsys, lambda x, k: (1.5, 5 / 3), "moments")[-1] == "all cases pass"
    answer = [torch.tensor(1.5, requires_grad=True), 5 / 3]
    assert verdicts(capsys, lambda x, k: answer, "moments")[-1] == "all cases pass"


def test_an_exception_of_the_solution_is_the_readers_to_see():
    def double(x):
        raise NotImplementedError("your code here")

    with pytest.raises(NotImplementedError, match="your code here"):
        check(double)


def test_an_unknown_exercise_lists_the_known():
    with pytest.raises(ValueError, match="name must be one of double, moments, got 'triple'"):
        check(lambda x: x, "triple")
