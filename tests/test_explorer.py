"""The Explorer without a browser: one grid, the same numbers in every rendering, and every wrong input named."""

import base64
import hashlib
import itertools
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.collections import PolyCollection

from normlib import explorer as module
from normlib.explorer import MAX_POINTS, STATIC, Explorer, Slider, write_assets

TEXT = {"title": "A title", "x_label": "x", "y_label": "y", "alt": "What is shown."}
X = np.linspace(-2, 3, 11)


def parabola(a, kind):
    y = a * X**2 / 3
    return {
        "curve": (X, y),
        "gap": (X, np.where(X > 1, np.nan, -y)),
        "bins": (np.arange(5.0), [a, 2, 3, len(kind)]),
        "centers": ([0.5, 1.5, 2.5], [1, a, 2]),
        "under": (list(X), list(y / 7)),
        "dots": (X + a, y),
    }


STYLES = {"bins": "bars", "centers": "step", "under": "area", "dots": "points"}
SLIDERS = {"a": Slider([1, 2.5, 1e-5], label="factor a", start=2.5), "kind": ["one", "two & three"]}


def make(compute=parabola, **changes):
    options = {"sliders": SLIDERS, "styles": STYLES, "readout": lambda a, kind: f"a is {a}, {kind}"}
    return Explorer(compute, **{**TEXT, **options, **changes})


@pytest.fixture(scope="module")
def explorer():
    return make()


def settings(explorer):
    names = [s.name for s in explorer.sliders]
    for values in itertools.product(*(s.values for s in explorer.sliders)):
        yield dict(zip(names, values, strict=True))


def same(left, right):
    assert list(left) == list(right)
    for label in left:
        for a, b in zip(left[label], right[label], strict=True):
            np.testing.assert_array_equal(a, b, err_msg=label)


def embedded(html):
    return json.loads(re.search(r'<script type="application/json" class="nl-data">(.*?)</script>', html)[1])


def decode(text):
    """The packed numbers, read with exact decimal arithmetic and nothing of the module's."""
    packed = base64.b64decode(text)
    codes = [int.from_bytes(packed[i : i + 3], "big") for i in range(0, len(packed), 3)]
    return [math.nan if c == 2**24 - 1 else float(f"{c // 512 - 10000}e{c % 512 - 256}") for c in codes]


# ---- one grid, the same numbers everywhere ---------------------------------------------------------------------------


def test_at_gives_what_compute_returned_to_four_significant_digits(explorer):
    for values in settings(explorer):
        wanted = parabola(**values)
        wanted["centers"] = ([0, 1, 2, 3], wanted["centers"][1])
        found = explorer.at(**values)
        assert list(found) == list(wanted)
        for label, pair in wanted.items():
            for a, b in zip(found[label], pair, strict=True):
                np.testing.assert_array_equal(a, [float(f"{v:.4g}") for v in b], err_msg=label)


def test_at_uses_the_start_and_hands_out_copies(explorer):
    same(explorer.at(), explorer.at(a=2.5, kind="one"))
    explorer.at()["curve"][1][:] = 0
    assert explorer.at()["curve"][1].any()


def test_html_holds_the_same_numbers_at_every_grid_point(explorer):
    data = embedded(explorer._repr_mimebundle_()["text/html"])
    arrays = [decode(a) for a in data["arrays"]]
    for values, point, sentence in zip(settings(explorer), data["points"], data["readouts"], strict=True):
        pairs = zip(point[::2], point[1::2], strict=True)
        curves = {label: (arrays[i], arrays[j]) for label, (i, j) in zip(data["labels"], pairs, strict=True)}
        same(curves, explorer.at(**values))
        assert sentence == explorer.readout(**values) == f"a is {values['a']}, {values['kind']}"


def test_live_drawing_holds_the_same_numbers_at_every_grid_point(explorer):
    for values in settings(explorer):
        (ax,) = explorer.figure(**values).axes
        curves = explorer.at(**values)
        lines = [line.get_xydata().T for line in ax.get_lines()]
        for label in ("curve", "gap", "under", "dots"):
            assert any(np.array_equal(line, np.array(curves[label]), equal_nan=True) for line in lines), label
        edges, heights = curves["centers"]
        stairs = np.array([np.repeat(edges, 2)[1:-1], np.repeat(heights, 2)])
        assert any(np.array_equal(line, stairs) for line in lines)
        edges, heights = curves["bins"]
        (bars,) = (c for c in ax.collections if type(c) is PolyCollection)
        boxes = [(*path.vertices[:, 0][[0, 2]], path.vertices[1, 1]) for path in bars.get_paths()]
        assert boxes == list(zip(edges[:-1], edges[1:], heights, strict=True))


def test_widget_redraws_at_every_grid_point(explorer):
    import ipywidgets

    box = explorer.widget()
    sliders = [child for child in box.children if isinstance(child, ipywidgets.SelectionSlider)]
    drawing, readout = [child for child in box.children if isinstance(child, ipywidgets.HTML)][1:]
    assert [(s.description, s.label) for s in sliders] == [("factor a", "2.5"), ("kind", "one")]
    for indices in itertools.product(range(3), range(2)):
        values = {}
        for s, slider, i in zip(explorer.sliders, sliders, indices, strict=True):
            slider.index = i
            values[s.name] = s.values[i]
        assert drawing.value == explorer._drawing(**values)
        assert explorer.readout(**values).replace("&", "&amp;") in readout.value
    assert 'aria-label="What is shown. a is' in drawing.value
    assert len({explorer._drawing(**values) for values in settings(explorer)}) == 6


@given(st.lists(st.floats(-1e200, 1e200) | st.just(math.nan), min_size=1))
def test_packing_keeps_four_significant_digits_of_any_number(values):
    packed, rounded = module._pack(np.array(values))
    wanted = [float(f"{0 if abs(v) < 1e-250 else v:.4g}") for v in values]
    np.testing.assert_array_equal(rounded, wanted)
    np.testing.assert_array_equal(decode(base64.b64encode(packed)), wanted)


def test_bin_centres_become_edges_half_way_on_either_scale():
    np.testing.assert_allclose(module._edges(np.array([1.0, 2.0, 4.0]), "linear"), [0.5, 1.5, 3, 5])
    np.testing.assert_allclose(module._edges(np.array([1.0, 4.0, 16.0]), "log"), [0.5, 2, 8, 32])


# ---- the renderings --------------------------------------------------------------------------------------------------


def test_bundle_without_a_kernel(explorer):
    bundle = explorer._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html", "image/png"}
    assert bundle["text/plain"] == "Explorer: A title (a in 1, 2.5, 1e−5; kind in one, two & three)"
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    assert "http" not in bundle["text/html"], "the fragment must hold no address"
    assert bundle["text/html"].count("<script") == 1


def test_another_process_makes_the_same_bytes(explorer):
    code = (
        "import hashlib, sys; sys.path.insert(0, sys.argv[1]); import test_explorer as here;"
        "print(hashlib.sha256(repr(here.make()._repr_mimebundle_()).encode()).hexdigest())"
    )
    folder = str(Path(__file__).parent)
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    other = subprocess.run(
        [sys.executable, "-c", code, folder], capture_output=True, text=True, check=True, env=environment
    )
    assert other.stdout.strip() == hashlib.sha256(repr(explorer._repr_mimebundle_()).encode()).hexdigest()


def test_ids_differ_between_explorers_and_are_unique_within_one(explorer):
    html, other = explorer._repr_mimebundle_()["text/html"], make(title="Another")._repr_mimebundle_()["text/html"]
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert not set(ids) & set(re.findall(r' id="([^"]+)"', other))
    for target in re.findall(r'(?:url\(#|href="#|for="|aria-labelledby=")([\w-]+)', html):
        assert target in ids


def test_controls_are_labelled_and_announce_the_value(explorer):
    html = explorer._repr_mimebundle_()["text/html"]
    assert html.count('<input type="range"') == 2
    assert 'aria-valuetext="factor a 2.5"' in html
    for unique, label in re.findall(r'<label for="([^"]+)">([^<]+)</label>', html):
        assert f'id="{unique}"' in html
        assert label in ("factor a", "kind")


def test_text_is_escaped():
    html = make(title="a < b </script>", caption="<b>", alt='say "x"')._repr_mimebundle_()["text/html"]
    assert html.count("</script>") == 1
    assert "a &lt; b" in html
    assert "<b>" not in html
    assert embedded(html)["alt"] == 'say "x"'


def test_a_large_grid_stays_light():
    rng = np.random.default_rng(0)
    x = np.linspace(0, 1, 200)
    grid = {"m": list(range(8)), "n": list(range(10))}
    noise = make(lambda m, n: {k: (x, rng.random(200)) for k in "abc"}, sliders=grid, styles={}, readout=None)
    assert len(noise._repr_mimebundle_()["text/html"].encode()) < 300_000


def test_axes_are_fixed_to_the_whole_grid_unless_free():
    def line(a):
        return {"l": ([0, 1], [0, a])}

    fixed = make(line, sliders={"a": [1, 10]}, styles={}, readout=None)
    limits = [fixed.figure(a=a).axes[0].get_ylim() for a in (1, 10)]
    assert limits[0] == limits[1] == (-0.5, 10.5)
    free = make(line, sliders={"a": [1, 10]}, styles={}, readout=None, y_range="free", x_range=(-1, 2))
    assert free.figure(a=1).axes[0].get_ylim()[1] < 2 < free.figure(a=10).axes[0].get_ylim()[1]
    assert free.figure(a=1).axes[0].get_xlim() == (-1, 2)
    free = make(line, sliders={"a": [1, 10]}, styles={"l": "bars"}, readout=None, y_range="free")
    for a in (1, 10):
        low, high = free.figure(a=a).axes[0].get_ylim()
        assert low == 0
        assert a < high < 1.2 * a


def test_log_axes_take_ticks():
    def line(a):
        return {"l": ([1, 2, 4, 8], [a, a / 10, a / 100, a / 1e6]), "h": ([1, 2, 4, 8], [a, a, a, a])}

    log = make(
        line, sliders={"a": [1, 10]}, styles={"h": "bars"}, readout=None, x_scale="log", y_scale="log", x_ticks=[1, 8]
    )
    (ax,) = log.figure(a=1).axes
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "8"]
    assert min(path.vertices[:, 1].min() for path in ax.collections[0].get_paths()) == log.y_axis.foot > 0


def test_assets_are_complete_identical_and_self_contained(tmp_path):
    write_assets(tmp_path / "a")
    write_assets(tmp_path / "b")
    names = ["explorer.css", "explorer.js", "interactive.css", "interactive.js", "vega.js"]
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == names
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert (tmp_path / "a" / "explorer.js").read_bytes() == (STATIC / "explorer.js").read_bytes()
    vega = (tmp_path / "a" / "vega.js").read_text(encoding="utf-8")
    assert vega.startswith("(function () {")
    assert "jsdelivr" not in vega
    assert len(vega) > 500_000


# ---- wrong input -----------------------------------------------------------------------------------------------------


def test_an_exception_inside_compute_and_readout_passes_through():
    def broken(a, kind):
        raise ZeroDivisionError("inside")

    with pytest.raises(ZeroDivisionError, match="inside"):
        make(broken)
    with pytest.raises(ZeroDivisionError, match="inside"):
        make(readout=broken)


GOOD = ([0, 1], [0, 1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"title": " "}, "title must be a non-empty string, got ' '"),
        ({"alt": None}, "alt must be a non-empty string, got None"),
        ({"sliders": {}}, r"sliders must map at least one name.* got \{\}"),
        ({"sliders": {"a b": [1, 2]}}, "identifier, got 'a b'"),
        ({"sliders": {"a": [1]}}, r"sliders\['a'\] must have at least 2 values, got \[1\]"),
        ({"sliders": {"a": []}}, r"at least 2 values, got \[\]"),
        ({"sliders": {"a": "abc"}}, "ordered sequence of values, got 'abc'"),
        ({"sliders": {"a": {1, 2}}}, "ordered sequence of values, got {1, 2}"),
        ({"sliders": {"a": [1, 2, 1]}}, r"hold values that differ .* got \[1, 2, 1\]"),
        ({"sliders": {"a": [1, None]}}, "finite numbers or strings, got None"),
        ({"sliders": {"a": [False, True]}}, "finite numbers or strings, got False"),
        ({"y_range": 5}, "y_range must be .* got 5"),
        ({"sliders": {"a": [1, math.inf]}}, "finite numbers or strings, got inf"),
        ({"sliders": {"a": Slider([1, 2], start=3)}}, r"start must be one of \[1, 2\], got 3"),
        ({"sliders": {"a": range(80), "b": range(80)}}, f"6400 grid points; at most {MAX_POINTS}"),
        ({"x_scale": "sqrt"}, r"x_scale must be one of \('linear', 'log'\), got 'sqrt'"),
        ({"y_range": (1, 1)}, r"y_range must be None, 'free' or \(low, high\).* got \(1, 1\)"),
        ({"y_range": "fixed"}, "y_range must be .* got 'fixed'"),
        ({"y_range": (0, 1), "y_scale": "log"}, r"y_range must be > 0 .* got \(0, 1\)"),
        ({"x_ticks": [0, 1], "x_scale": "log"}, r"x_ticks must be > 0 .* got \[0, 1\]"),
        ({"styles": {"z": "line"}}, r"no curve is labelled 'z'; the labels are \['l'\]"),
        ({"styles": {"l": "pie"}}, r"styles\['l'\] must be one of .* got 'pie'"),
        ({"readout": lambda a: 1}, r"readout\(a=1\) must return a string, got 1"),
    ],
)
def test_wrong_options_are_named(changes, message):
    options = {"sliders": {"a": [1, 2]}, "styles": {}, "readout": None, **changes}
    with pytest.raises(ValueError, match=message):
        make(lambda **values: {"l": GOOD}, **options)


@pytest.mark.parametrize(
    ("curves", "options", "message"),
    [
        (lambda a: {}, {}, r"compute\(a=1\) must return .* got \{\}"),
        (lambda a: [GOOD], {}, r"compute\(a=1\) must return"),
        (lambda a: {"l" * a: GOOD}, {}, r"compute\(a=2\) must return the labels \['l'\], as before, got \['ll'\]"),
        (lambda a: {"l": [0, 1, 2]}, {}, r"compute\(a=1\)\['l'\] must be a pair"),
        (lambda a: {"l": ([0, 1], [0])}, {}, "x must be as long as y, got 2 and 1"),
        (lambda a: {"l": ([0, 1, 2], [0])}, {"styles": {"l": "bars"}}, r"one longer \(bin edges\), got 3 and 1"),
        (lambda a: {"l": ([0], [1])}, {"styles": {"l": "step"}}, "at least 2 bin centers"),
        (lambda a: {"l": ([1, 0], [1, 1])}, {"styles": {"l": "bars"}}, r"bins must ascend in x, got \[1.0, 0.0\]"),
        (lambda a: {"l": ([0, 1], [math.nan, 0])}, {"y_scale": "log"}, "y must be > 0 .* got 0"),
        (lambda a: {"l": ([], [])}, {}, "one-dimensional and not empty"),
        (lambda a: {"l": ([[0]], [[1]])}, {}, r"one-dimensional and not empty, got \(1, 1\)"),
        (lambda a: {"l": ([0, math.nan], [0, 1])}, {}, "x must be finite"),
        (lambda a: {"l": ([0, 1], [0, math.inf])}, {}, "y finite or NaN"),
        (lambda a: {"l": ([0, 1], [0, 1e260])}, {}, "magnitudes below 1e250, got 1e"),
        (lambda a: {"l": ([0, 1], [math.nan] * 2)}, {}, "at least one y that is not NaN"),
        (lambda a: {"l": ([0, 1], [1, 1])}, {"x_scale": "log"}, "x must be > 0 where x_scale is 'log', got 0"),
        (lambda a: {"l": ([0, 1], [1, -1])}, {"y_scale": "log"}, "y must be > 0 where y_scale is 'log', got -1"),
    ],
)
def test_wrong_curves_are_named(curves, options, message):
    with pytest.raises(ValueError, match=message):
        make(curves, **{"sliders": {"a": [1, 2]}, "styles": {}, "readout": None, **options})


def test_values_outside_the_grid_are_named(explorer):
    with pytest.raises(ValueError, match=r"a must be one of \[1, 2.5, 1e-05\], got 3"):
        explorer.at(a=3, kind="one")
    with pytest.raises(ValueError, match=r"no slider is named 'b'; the sliders are \['a', 'kind'\]"):
        explorer.figure(b=1)
    with pytest.raises(ValueError, match="kind must be one of"):
        explorer.readout(kind=np.array([1, 2]))
