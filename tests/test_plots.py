"""Pictures: described, labelled, the same bytes each time, in the page's own ink."""

import io
import re

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from normlib import plots, style

ALT = "One rising line."


def panel():
    ax = plots.panels()
    ax.plot([0, 1, 2], [0, 1, 4], label="BN", **plots.look(0))
    ax.set(xlabel="epoch", ylabel="accuracy", title="A title")
    ax.legend()
    return ax


def test_one_panel_is_bare_and_several_are_a_list_of_separate_figures():
    assert plots.panels().figure is not None
    axes = plots.panels(3)
    assert len({ax.figure for ax in axes}) == 3
    assert tuple(plots.panels(inches=(2, 1)).figure.get_size_inches()) == (2, 1)


def test_the_alternative_text_is_required():
    with pytest.raises(TypeError, match="alt"):
        plots.show(panel())
    for empty in ("", "  \n"):
        with pytest.raises(ValueError, match="alt must say what the figure shows"):
            plots.show(panel(), alt=empty)


def test_no_panel_is_refused():
    with pytest.raises(ValueError, match="axes must hold at least one panel, got none"):
        plots.show(alt=ALT)


@pytest.mark.parametrize("labels", [{"xlabel": ""}, {"ylabel": ""}], ids=str)
def test_an_axis_without_label_is_refused(labels):
    ax = panel()
    ax.set(**labels)
    with pytest.raises(ValueError, match=f"every axis must have a label, got .*{next(iter(labels))[0]} ''"):
        plots.show(panel(), ax, alt=ALT)
    ax.axis("off")
    plots.show(ax, alt=ALT)


def test_two_drawings_have_the_same_bytes():
    first, second = (plots.show(panel(), panel(), alt=ALT, caption="A caption")._repr_mimebundle_() for _ in range(2))
    assert first == second
    assert set(first) == {"text/html", "image/png", "text/plain"}


def test_html_is_described_and_takes_the_pages_ink():
    html = plots.show(panel(), alt='Lines & "bars" <one>', caption="Mean < 1").html
    assert 'role="img"' in html
    assert 'aria-label="Lines &amp; &quot;bars&quot; &lt;one&gt;"' in html
    assert "<figcaption>Mean &lt; 1</figcaption>" in html
    assert "currentColor" in html
    assert style.INK not in html
    assert style.COLORS[0].lower() in html
    assert "http" not in re.sub(r'xmlns(:xlink)?="[^"]*"', "", html)
    assert "<figcaption>" not in plots.show(panel(), alt=ALT).html


def test_all_text_is_in_the_pages_ink():
    """A curve's color stands out at 3 : 1, enough for a line and too little for text."""
    marked = panel()
    plots.band(marked, [0, 1], [[1.0, 2.0], [1.0, 3.0], [1.0, np.nan]], "lost", 1, marker=True, diverged={2: 7})
    plots.points(marked, [0, 1], [[1.0, 5.0], [3.0, 5.0]], 2, "mean")
    marked.legend()
    digits = plots.gallery(np.zeros((2, 8, 8)), ["right", "wrong"], [True, False])
    html = plots.show(panel(), marked, digits, alt=ALT).html
    texts = re.findall(r"<!-- (.+) -->\n<g(.*)>", html)
    assert {"epoch", "A title", "BN", "mean", "right", "wrong", "0.5"} < {text for text, _ in texts}
    assert [text for text, attributes in texts if "style" in attributes] == []


def test_ids_are_unique_and_every_reference_has_its_target():
    other = panel()
    other.plot([0, 2], [4, 0], **plots.look(1))
    html = plots.show(panel(), other, alt=ALT).html
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    references = set(re.findall(r"url\(#([^)]+)\)", html)) | set(re.findall(r'href="#([^"]+)"', html))
    assert references
    assert references <= set(ids)


def test_plain_text_and_png():
    picture = plots.show(panel(), panel(), alt=ALT)
    assert repr(picture) == picture._repr_mimebundle_()["text/plain"] == f"Figure: {ALT}"
    image = np.asarray(Image.open(io.BytesIO(picture.png)).convert("RGB"))
    assert image.shape[1] > image.shape[0]  # side by side
    assert (image[0, 0] == 255).all()  # on white paper
    assert (image < 50).all(2).any()


def test_the_interval_is_students():
    samples = np.random.default_rng(0).normal(size=(6, 3))
    mean, half = plots.interval(samples)
    for i in range(3):
        low, high = stats.t.interval(0.95, 5, samples[:, i].mean(), stats.sem(samples[:, i]))
        assert mean[i] - half[i] == pytest.approx(low)
        assert mean[i] + half[i] == pytest.approx(high)


@pytest.mark.parametrize("samples", [[[1.0, 2.0]], [3.0], []], ids=str)
def test_an_interval_needs_two_samples(samples):
    with pytest.raises(ValueError, match=f"samples must hold at least 2 runs, got {len(samples)}"):
        plots.interval(samples)


def test_a_band_is_the_mean_and_its_interval():
    samples = np.array([[1.0, 2.0], [3.0, 2.0], [2.0, 2.0]])
    ax = plots.panels()
    plots.band(ax, [10, 20], samples, "BN", 3, marker=True)
    (line,) = ax.lines
    assert line.get_label() == "BN"
    assert line.get_color() == style.COLORS[3]
    assert line.get_marker() == style.MARKERS[3]
    np.testing.assert_allclose(line.get_xydata(), [[10, 2], [20, 2]])
    half = stats.t.ppf(0.975, 2) / np.sqrt(3)
    (path,) = ax.collections[0].get_paths()
    at_10 = path.vertices[path.vertices[:, 0] == 10, 1]
    assert (at_10.min(), at_10.max()) == pytest.approx((2 - half, 2 + half))


def test_points_carry_their_intervals():
    ax = plots.panels()
    plots.points(ax, [0, 1], [[1.0, 5.0], [3.0, 5.0]], 2, "GN")
    (container,) = ax.containers
    np.testing.assert_allclose(container.lines[0].get_ydata(), [2, 5])
    low, high = container.lines[2][0].get_segments()[0][:, 1]
    assert high - low == pytest.approx(2 * stats.t.ppf(0.975, 1) * np.sqrt(2) / np.sqrt(2))


def test_looks_differ_and_repeat_after_the_last():
    n = len(style.COLORS)
    assert len({str(plots.look(i)) for i in range(n)}) == n
    assert plots.look(n) == plots.look(0)


def test_the_gallery_crosses_out_what_is_wrong():
    frame = plots.gallery(np.zeros((3, 8, 8)), ["1 is 1", "2 is 3", "4 is 4"], [True, False, True], columns=2)
    small = frame.child_axes
    assert [ax.get_title() for ax in small] == ["1 is 1", "2 is 3", "4 is 4"]
    assert [len(ax.lines) for ax in small] == [0, 1, 0]
    assert plots.show(frame, alt="Digits.").html.count("<image") == 3
    with pytest.raises(ValueError, match="shorter"):
        plots.gallery(np.zeros((2, 8, 8)), ["1"], [True, True])


def test_a_band_shows_what_diverged_and_does_not_average_it():
    nan = np.nan
    samples = np.array([[1.0, 2.0, 3.0], [3.0, 4.0, 5.0], [9.0, nan, nan], [nan, nan, nan]])
    ax = plots.panels()
    plots.band(ax, [1, 2, 3], samples, "BN", 0, diverged={2: 40, 3: 7})
    mean = next(line for line in ax.lines if line.get_label().startswith("BN"))
    assert mean.get_label() == "BN (2 of 4 diverged, first at step 7)"
    np.testing.assert_allclose(mean.get_ydata(), [2, 3, 4])
    (cross,) = (line for line in ax.lines if line.get_marker() == "X")
    assert (cross.get_xdata(), cross.get_ydata()) == ([1], [9])


def test_a_band_of_which_one_run_is_left_has_no_interval():
    ax = plots.panels()
    plots.band(ax, [1, 2], [[1.0, 2.0], [1.0, np.nan]], "BN", 0, diverged={1: 3})
    assert not ax.collections
    np.testing.assert_allclose(ax.lines[-1].get_ydata(), [1, 2])


@pytest.mark.parametrize("diverged", [None, {}, {0: 1, 1: 1}])
def test_a_band_asks_who_diverged(diverged):
    with pytest.raises(ValueError, match=r"diverged must name the 1 of 2 runs"):
        plots.band(plots.panels(), [1, 2], [[1.0, 2.0], [1.0, np.nan]], "BN", 0, diverged=diverged)
