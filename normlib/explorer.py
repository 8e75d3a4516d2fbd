"""One function of a few sliders, shown wherever the chapter is read.

    Explorer(compute, sliders={"m": [1, 2, 4, 8]}, title=..., x_label=..., y_label=..., alt=...)

`compute` is called once at every combination of slider values when the Explorer is made. All renderings draw from
that one grid, rounded to four significant digits, so they cannot disagree:

- with a kernel: ipywidgets sliders and a matplotlib drawing;
- in the built HTML: native range inputs and a Vega chart;
- on GitHub, in print, without scripts: small multiples over the first slider.

`NORMLIB_STATIC=1` in the environment leaves the widget out: the book's build sets it, because Sphinx would store every
widget's state, with random ids, in the page that never shows it.
"""

import base64
import html
import math
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from numbers import Real
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from . import style, svg
from .interactive import STATIC, Interactive, embedded, range_input, unique_id

MAX_POINTS = 5000  # grid points of one Explorer: more makes a page too heavy and a build too slow
MAX_PANELS = 6  # small multiples in the still picture
KINDS = ("area", "bars", "step", "line", "points")  # drawn in this order, the last on top
SCALES = ("linear", "log")
LINE_WIDTH = 2  # pixels, in the built page
FONT = '-apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif'  # measured with; drawn in the page's own
# style.MARKERS as SVG paths in a box from -1 to 1: Vega's own shapes lack two of them, and the legend draws them too.
SHAPES = {
    "o": "M1,0A1,1,0,1,1,-1,0A1,1,0,1,1,1,0Z",
    "s": "M-.9,-.9H.9V.9H-.9Z",
    "^": "M0,-1L1,.8H-1Z",
    "D": "M0,-1L1,0L0,1L-1,0Z",
    "v": "M0,1L1,-.8H-1Z",
    "P": "M-.35,-1H.35V-.35H1V.35H.35V1H-.35V.35H-1V-.35H-.35Z",
    "X": "M-1,-.5L-.5,-1L0,-.5L.5,-1L1,-.5L.5,0L1,.5L.5,1L0,.5L-.5,1L-1,.5L-.5,0Z",
    "*": "M0,-1L.27,-.31L.95,-.31L.4,.1L.59,.81L0,.38L-.59,.81L-.4,.1L-.95,-.31L-.27,-.31Z",
}
# The Vega expression that writes a number as _number does.
TICK = (
    "datum.value && (abs(datum.value) < 1e-4 || abs(datum.value) >= 1e6)"
    " ? replace(replace(format(datum.value, '.6~e'), 'e+', 'e'), 'e-', 'e−') : format(datum.value, '.6~g')"
)
TINY = 1e-250  # magnitudes below are stored as 0
MISSING = 0xFFFFFF  # NaN in the packed form


@dataclass(frozen=True)
class Slider:
    """The ordered values of one slider (at least two, all numbers or strings), its label and its initial value.

    `label` defaults to the slider's name, `start` to the first value.
    """

    values: Sequence
    label: str | None = None
    start: object = None


class Explorer(Interactive):
    """Curves that follow sliders, with a kernel, without one, and on paper.

    compute: called with one keyword argument per slider; returns `{label: (x, y)}`, with the same labels in the same
        order at every grid point. x and y are one-dimensional and finite; NaN in y is a gap.
    sliders: `{name: values}` or `{name: Slider(values, label=..., start=...)}`; a name is a Python identifier.
    title, x_label, y_label, alt: plain text. `alt` says what the figure shows to a reader who cannot see it.
    x_scale, y_scale: "linear" or "log" (then every drawn value must be positive).
    x_range, y_range: None fixes the axis to the extent of the whole grid, so that curves move and axes do not;
        `(low, high)` fixes it there; "free" fits it again at every setting.
    x_ticks, y_ticks: values to label, in place of the automatic ones.
    styles: `{label: "line" | "step" | "points" | "bars" | "area"}`, "line" where not given. For "step" and "bars"
        (histograms) x holds the bin edges, one more than y, or the bin centers, which are turned into edges half-way
        between neighbours. "bars" and "area" stand on 0, or on the foot of a logarithmic axis.
    caption: text under the figure. readout: called like `compute`, returns one sentence with the numbers at that
        setting, announced to screen readers.

    Raises ValueError naming the argument, its value and what is allowed; what `compute` raises passes through.
    """

    def __init__(
        self,
        compute: Callable[..., Mapping],
        *,
        sliders: Mapping[str, Sequence | Slider],
        title: str,
        x_label: str,
        y_label: str,
        alt: str,
        x_scale: str = "linear",
        y_scale: str = "linear",
        x_range: tuple[float, float] | str | None = None,
        y_range: tuple[float, float] | str | None = None,
        x_ticks: Sequence[float] | None = None,
        y_ticks: Sequence[float] | None = None,
        styles: Mapping[str, str] | None = None,
        caption: str | None = None,
        readout: Callable[..., str] | None = None,
    ):
        for name, text in (("title", title), ("x_label", x_label), ("y_label", y_label), ("alt", alt)):
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"{name} must be a non-empty string, got {text!r}")
        self.title, self.x_label, self.y_label, self.alt = title, x_label, y_label, alt
        self.caption = caption
        self.sliders = _read_sliders(sliders)
        self.x_axis = _Axis("x", x_scale, x_range, x_ticks)
        self.y_axis = _Axis("y", y_scale, y_range, y_ticks)
        self._fill_grid(compute, readout, dict(styles or {}))
        self.x_axis.fit(self._extent(0), padded="points" in self.styles.values())
        self.y_axis.fit(self._extent(1), padded=True, base=bool({"bars", "area"} & set(self.styles.values())))
        png, self._still_svg = self._still()
        pictures = {"text/plain": repr(self), "image/png": base64.b64encode(png).decode()}
        self._prepare(pictures)

    def at(self, **values) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """The curves `{label: (x, y)}` at one grid point, exactly as every rendering shows them.

        Sliders left out stand at their start. Raises ValueError for an unknown slider or a value it does not have.
        """
        arrays = self._points[self._index(values)]
        return {
            label: (self._arrays[arrays[2 * i]].copy(), self._arrays[arrays[2 * i + 1]].copy())
            for i, label in enumerate(self.labels)
        }

    def readout(self, **values) -> str:
        """The sentence with the numbers at one grid point; empty where none was asked for."""
        return self._readouts[self._index(values)] if self._readouts else ""

    def figure(self, **values) -> Figure:
        """The matplotlib drawing at one grid point, as the live widget shows it."""
        with matplotlib.rc_context(style.MATPLOTLIB):
            figure = Figure(figsize=(6.4, 3.1))
            FigureCanvasAgg(figure)
            # A fixed frame stands still while the curves move, and draws twice as fast as a fitted one.
            self._draw(figure.add_axes((0.1, 0.17, 0.88, 0.73)), self.at(**values))
        return figure

    def widget(self):
        """A new ipywidgets VBox: one SelectionSlider per slider over the drawing and the readout."""
        import ipywidgets

        sliders = [
            ipywidgets.SelectionSlider(
                options=[(text, i) for i, text in enumerate(s.texts)],
                index=s.start,  # not value=0, which leaves the shown label empty
                description=s.label,
                style={"description_width": "initial"},
                layout={"width": "min(100%, 32rem)"},
            )
            for s in self.sliders
        ]
        drawing, readout = ipywidgets.HTML(), ipywidgets.HTML()

        def redraw(_change=None):
            values = {s.name: s.values[slider.index] for s, slider in zip(self.sliders, sliders, strict=True)}
            drawing.value = self._drawing(**values)
            readout.value = f'<p role="status">{html.escape(self.readout(**values))}</p>' if self._readouts else ""

        redraw()
        for slider in sliders:
            slider.observe(redraw, names="index")
        return self._framed(*sliders, drawing, readout)

    def __repr__(self):
        sliders = "; ".join(f"{s.name} in {', '.join(s.texts)}" for s in self.sliders)
        return f"Explorer: {self.title} ({sliders})"

    # ---- the grid ------------------------------------------------------------------------------------------------

    def _fill_grid(self, compute, readout, styles):
        """Fills `labels`, `styles` and the grid: distinct arrays, and each point as their numbers [x, y, x, y, ...]."""
        self.labels, self._arrays, self._points, self._readouts = None, [], [], []
        self._packed: dict[bytes, int] = {}
        for values in product(*(s.values for s in self.sliders)):
            setting = {s.name: v for s, v in zip(self.sliders, values, strict=True)}
            where = ", ".join(f"{k}={v!r}" for k, v in setting.items())
            curves = compute(**setting)
            if not isinstance(curves, Mapping) or not curves:
                raise ValueError(f"compute({where}) must return {{label: (x, y)}}, got {curves!r}")
            if self.labels is None:
                self.labels = [str(label) for label in curves]
                _check_styles(styles, self.labels)
                self.styles = {label: styles.get(label, "line") for label in self.labels}
            elif (found := [str(label) for label in curves]) != self.labels:
                raise ValueError(f"compute({where}) must return the labels {self.labels}, as before, got {found}")
            point = []
            for label, pair in curves.items():
                x, y = self._check_curve(pair, str(label), f"compute({where})[{label!r}]")
                point += [self._store(x), self._store(y)]
            self._points.append(point)
            if readout is not None:
                sentence = readout(**setting)
                if not isinstance(sentence, str):
                    raise ValueError(f"readout({where}) must return a string, got {sentence!r}")
                self._readouts.append(sentence)

    def _check_curve(self, pair, label, what):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise ValueError(f"{what} must be a pair (x, y), got {type(pair).__name__}")
        x, y = (np.asarray(a, dtype=float) for a in pair)
        if x.ndim != 1 or y.ndim != 1 or y.size == 0:
            raise ValueError(f"{what}: x and y must be one-dimensional and not empty, got {x.shape} and {y.shape}")
        binned = self.styles[label] in ("step", "bars")
        if x.size != y.size and not (binned and x.size == y.size + 1):
            allowed = "as long as y, or one longer (bin edges)" if binned else "as long as y"
            raise ValueError(f"{what}: x must be {allowed}, got {x.size} and {y.size}")
        if not np.isfinite(x).all() or np.isinf(y).any():
            raise ValueError(f"{what}: x must be finite, y finite or NaN")
        for axis, a in ((self.x_axis, x), (self.y_axis, y)):
            if axis.scale == "log" and (a < TINY).any():
                lowest = np.nanmin(a)
                raise ValueError(f"{what}: {axis.name} must be > 0 where {axis.name}_scale is 'log', got {lowest}")
        if binned and (np.diff(x) <= 0).any():
            raise ValueError(f"{what}: bins must ascend in x, got {x.tolist()}")
        if binned and x.size == y.size:
            if x.size < 2:
                raise ValueError(f"{what}: x must hold at least 2 bin centers, or be the bin edges, got {x.size}")
            x = _edges(x, self.x_axis.scale)
        return x, y

    def _store(self, array) -> int:
        """The number of this array in the pool, after rounding to four significant digits."""
        packed, rounded = _pack(array)
        if packed not in self._packed:
            self._packed[packed] = len(self._arrays)
            self._arrays.append(rounded)
        return self._packed[packed]

    def _index(self, values) -> int:
        unknown = sorted(set(values) - {s.name for s in self.sliders})
        if unknown:
            raise ValueError(f"no slider is named {unknown[0]!r}; the sliders are {[s.name for s in self.sliders]}")
        index = 0
        for s in self.sliders:
            value = values.get(s.name, s.values[s.start])
            if not isinstance(value, str | Real) or value not in s.values:
                raise ValueError(f"{s.name} must be one of {list(s.values)}, got {value!r}")
            index = index * len(s.values) + s.values.index(value)
        return index

    def _extent(self, coordinate) -> tuple[float, float]:
        used = {i for point in self._points for i in point[coordinate::2]}
        values = np.concatenate([self._arrays[i] for i in used])
        if np.isnan(values).all():
            raise ValueError("compute must return at least one y that is not NaN")
        return float(np.nanmin(values)), float(np.nanmax(values))

    # ---- matplotlib: the live drawing and the still picture ------------------------------------------------------

    def _look(self, label):
        i = self.labels.index(label)
        n = len(style.COLORS)
        return style.COLORS[i % n], style.DASHES[(i + i // n) % n], style.MARKERS[(i + i // n) % n]

    @staticmethod
    def _pixels(dashes) -> list[float]:
        """Dashes in units of the line's width, as matplotlib reads them, turned into pixels for SVG and Vega."""
        return [LINE_WIDTH * d for d in dashes]

    def _draw(self, ax, curves, labelled=True):
        foot = self.y_axis.foot
        for label in sorted(self.labels, key=lambda name: KINDS.index(self.styles[name])):
            (x, y), kind, (color, dashes, marker) = curves[label], self.styles[label], self._look(label)
            line = {"color": color, "linestyle": (0, dashes) if dashes else "-"}
            if kind == "bars":
                floor = np.full_like(y, foot)  # one collection: a patch for each bar takes a millisecond
                corners = [[x[:-1], floor], [x[:-1], y], [x[1:], y], [x[1:], floor]]
                bars = PolyCollection(np.moveaxis(corners, -1, 0), alpha=0.45, **_edge(color))
                bars.sticky_edges.y.append(foot)
                ax.add_collection(bars)
                ax.autoscale_view()  # which a collection does not ask for
            elif kind == "step":
                ax.plot(np.repeat(x, 2)[1:-1], np.repeat(y, 2), **line)
            elif kind == "points":
                ax.plot(x, y, marker=marker, color=color, linestyle="none")
            else:
                if kind == "area":
                    ax.fill_between(x, y, foot, color=color, alpha=0.25, linewidth=0)
                ax.plot(x, y, **line)
        ax.margins(x=0)
        self.x_axis.apply(ax)
        self.y_axis.apply(ax)
        ax.grid(False, axis="x")
        if labelled:
            ax.set_xlabel(self.x_label)
            ax.set_title(self.y_label, loc="left")

    def _handles(self):
        for label in self.labels:
            color, dashes, marker = self._look(label)
            kind = self.styles[label]
            if kind == "bars":
                yield Patch(alpha=0.45, label=label, **_edge(color))
            elif kind == "points":
                yield Line2D([], [], color=color, marker=marker, linestyle="none", label=label)
            else:
                yield Line2D([], [], color=color, linestyle=(0, dashes) if dashes else "-", label=label)

    def _still(self) -> tuple[bytes, bytes]:
        """Small multiples over the first slider, the others at their start, as PNG and SVG; same grid, same bytes."""
        first = self.sliders[0]
        n = len(first.values)
        chosen = sorted({round(i * (n - 1) / (min(n, MAX_PANELS) - 1)) for i in range(min(n, MAX_PANELS))})
        columns = min(3, len(chosen))
        rows = -(-len(chosen) // columns)
        text = {"svg.fonttype": "none", "path.simplify_threshold": 0.3}
        with matplotlib.rc_context({**style.MATPLOTLIB, **text}):
            width = 2.5 * columns
            keys = max(1, int(width / (0.6 + 0.07 * max(map(len, self.labels)))))  # legend columns that fit
            fixed = ", ".join(f"{s.label}: {s.texts[s.start]}" for s in self.sliders[1:])
            lines = bool(fixed) + (-(-len(self.labels) // keys) if len(self.labels) > 1 else 0)
            height = 1.75 * rows + 0.2 * lines + 0.35
            figure = Figure(figsize=(width, height))
            FigureCanvasAgg(figure)
            figure.set_layout_engine("constrained", rect=(0, 0, 1, 1 - 0.2 * lines / height))
            axes = figure.subplots(rows, columns, squeeze=False).ravel()
            for ax, i in zip(axes, chosen, strict=False):
                self._draw(ax, self.at(**{first.name: first.values[i]}), labelled=False)
                ax.set_title(f"{first.label}: {first.texts[i]}", loc="left")
            for ax in axes[len(chosen) :]:
                ax.set_axis_off()
            figure.supxlabel(self.x_label, fontsize=9)
            figure.supylabel(self.y_label, fontsize=9)
            if fixed:
                figure.text(0.05 / width, 1 - 0.05 / height, fixed, va="top")
            if len(self.labels) > 1:
                top = 1 - 0.2 * bool(fixed) / height
                place = {"loc": "upper left", "bbox_to_anchor": (0, top), "borderaxespad": 0.2}
                figure.legend(handles=list(self._handles()), ncols=keys, handlelength=3, **place)
            drawing = svg.save(figure, "svg")
            # The PNG is opaque: GitHub's dark theme would swallow black ink.
            return svg.save(figure, "png", facecolor="white", dpi=130), drawing

    def _drawing(self, **values) -> str:
        """The live widget's picture: inline SVG with the alternative text, its ink in the page's own colour."""
        with matplotlib.rc_context({**style.MATPLOTLIB, "svg.fonttype": "none"}):
            drawing = svg.inline(svg.save(self.figure(**values), "svg"), "nl-live-")
        label = html.escape(f"{self.alt} {self.readout(**values)}".strip())
        return f'{self._legend()}<div role="img" aria-label="{label}" style="max-width:46rem">{drawing}</div>'

    # ---- HTML: native inputs and a Vega view ---------------------------------------------------------------------

    def _legend(self) -> str:
        if len(self.labels) == 1:
            return ""
        keys = []
        for label in self.labels:
            color, dashes, marker = self._look(label)
            kind = self.styles[label]
            if kind == "points":
                drawn = f'<path transform="translate(14 6) scale(4.5)" fill="{color}" d="{SHAPES[marker]}"/>'
            elif kind == "bars":
                drawn = (
                    f'<rect x="3" y="1.5" width="22" height="9" fill="{color}" fill-opacity=".45" stroke="{color}"/>'
                )
            else:
                dash = f' stroke-dasharray="{" ".join(map(str, self._pixels(dashes)))}"' if dashes else ""
                area = (
                    f'<rect y="6" width="28" height="6" fill="{color}" fill-opacity=".25"/>' if kind == "area" else ""
                )
                drawn = f'{area}<path d="M0 6H28" stroke="{color}" stroke-width="{LINE_WIDTH}"{dash}/>'
            keys.append(
                '<span class="nl-key" style="display:inline-block;margin-right:1.25em">'
                f'<svg width="28" height="12" viewBox="0 0 28 12" aria-hidden="true">{drawn}</svg> '
                f"{html.escape(label)}</span>"
            )
        return f'<div class="nl-legend">{"".join(keys)}</div>'

    def _html(self) -> str:
        data = {
            "labels": self.labels,
            "kinds": [self.styles[label] for label in self.labels],
            "sliders": [{"label": s.label, "texts": s.texts, "start": s.start} for s in self.sliders],
            "arrays": [base64.b64encode(packed).decode() for packed in self._packed],
            "points": self._points,
            "readouts": self._readouts,
            "alt": self.alt,
            "vega": self._vega(),
        }
        block = embedded(data)
        unique = unique_id(self.title, block)
        text = html.escape
        controls = "".join(range_input(f"{unique}-{s.name}", s.label, s.texts, s.start) for s in self.sliders)
        still = svg.inline(self._still_svg, f"{unique}-")
        first = self.sliders[0]
        still_alt = text(f"{self.alt} Small multiples over {first.label}.")
        readout = f'<p class="nl-readout" aria-live="polite">{text(self.readout())}</p>' if self._readouts else ""
        return (
            f'<figure class="nl-interactive nl-explorer mathjax_ignore tex2jax_ignore" id="{unique}">'
            f'<div class="nl-head"><p class="nl-title" id="{unique}-title">{text(self.title)}</p>'
            '<button type="button" class="nl-reset" hidden disabled>Reset</button></div>'
            f'<div class="nl-controls" role="group" aria-labelledby="{unique}-title" hidden>{controls}</div>'
            f'<div class="nl-live" hidden>{self._legend()}<p class="nl-y-label">{text(self.y_label)}</p>'
            f'<div class="nl-chart" role="img" aria-label="{text(f"{self.alt} {self.readout()}".strip())}"></div>'
            f'<p class="nl-x-label">{text(self.x_label)}</p></div>{readout}'
            f'<div class="nl-still" role="img" aria-label="{still_alt}">{still}</div>{self._figcaption()}'
            f'<script type="application/json" class="nl-data">{block}</script></figure>'
        )

    def _vega(self) -> dict:
        """The chart as a Vega specification, one empty data set per kind of mark, filled by explorer.js."""
        kinds = [kind for kind in KINDS if kind in self.styles.values()]
        looks = [self._look(label) for label in self.labels]
        ranges = {
            "color": [color for color, _, _ in looks],
            "dash": [self._pixels(dashes) or [1, 0] for _, dashes, _ in looks],
            "shape": [SHAPES[marker] for _, _, marker in looks],
        }
        by_label = {name: {"scale": name, "field": "c"} for name in ranges}
        x, x2, y = ({"scale": axis, "field": field} for axis, field in (("x", "x"), ("x", "x2"), ("y", "y")))
        foot, drawn = {"scale": "y", "value": self.y_axis.foot}, "isValid(datum.y)"  # not NaN

        def one_by_label(kind, mark, **look):
            """A mark of connected points, of each label's own."""
            size = {side: {"field": {"group": side}} for side in ("width", "height")}
            own = {"type": mark, "clip": True, "from": {"data": "own"}, "sort": {"field": "datum.i"}}
            own["encode"] = {"update": {"x": x, "y": y, "defined": {"signal": drawn}, **look}}
            facet = {"facet": {"name": "own", "data": kind, "groupby": ["c"]}}
            return {"type": "group", "from": facet, "encode": {"update": size}, "marks": [own]}

        def many(kind, mark, **look):
            """A mark for each value, which keeps its element from one setting to the next: quicker than a new one."""
            update = {"x": x, "y": y, **look}
            return {"type": mark, "key": "key", "from": {"data": f"{kind} drawn"}, "encode": {"update": update}}

        def value(constant):
            return {"value": constant}

        line = {
            "stroke": by_label["color"],
            "strokeDash": by_label["dash"],
            "strokeWidth": value(LINE_WIDTH),
            "strokeCap": value("butt"),
            "strokeJoin": value("round"),
        }
        filled = {"fill": by_label["color"], "y2": foot}
        edge = {"stroke": by_label["color"], "strokeWidth": value(1)}
        dot = {"fill": by_label["color"], "shape": by_label["shape"], "size": value(64)}
        marks = {
            "area": [
                one_by_label("area", "area", fillOpacity=value(0.25), **filled),
                one_by_label("area", "line", **line),
            ],
            "bars": [{"clip": True} | many("bars", "rect", x2=x2, fillOpacity=value(0.45), **filled, **edge)],
            "step": [one_by_label("step", "line", **line)],
            "line": [one_by_label("line", "line", **line)],
            "points": [many("points", "symbol", **dot)],
        }
        single = [{"type": "filter", "expr": drawn}]
        ink = {f"{part}Color": "currentColor" for part in ("label", "tick", "domain", "grid")}
        return {
            "width": 640,
            "height": 300,
            "background": "transparent",
            "padding": {"left": 0, "top": 6, "right": 6, "bottom": 2},
            "autosize": {"type": "fit", "contains": "padding"},
            "config": {
                "axis": {**ink, "labelFont": FONT, "labelFontSize": 12, "gridOpacity": 0.15, "domainOpacity": 0.6},
            },
            "data": [{"name": kind} for kind in kinds]
            + [{"name": f"{k} drawn", "source": k, "transform": single} for k in kinds if k in ("bars", "points")],
            "scales": [
                self.x_axis.vega_scale([0, {"signal": "width"}], kinds),
                self.y_axis.vega_scale([{"signal": "height"}, 0], kinds),
                *({"name": n, "type": "ordinal", "domain": self.labels, "range": v} for n, v in ranges.items()),
            ],
            "axes": [
                self.y_axis.vega_axis(grid=True, gridScale="x", labels=False),
                self.x_axis.vega_axis(labelFlush=True, domain=True, ticks=True),
                self.y_axis.vega_axis(),
            ],
            "marks": [mark for kind in kinds for mark in marks[kind]],
        }


class _Axis:
    """Scale, range and ticks of one axis, given to matplotlib and to Vega alike."""

    def __init__(self, name, scale, wanted, ticks):
        if scale not in SCALES:
            raise ValueError(f"{name}_scale must be one of {SCALES}, got {scale!r}")
        given = isinstance(wanted, tuple | list) and len(wanted) == 2
        if wanted is not None and wanted != "free" and not (given and -math.inf < wanted[0] < wanted[1] < math.inf):
            raise ValueError(f"{name}_range must be None, 'free' or (low, high) with low < high, got {wanted!r}")
        if scale == "log" and given and wanted[0] <= 0:
            raise ValueError(f"{name}_range must be > 0 where {name}_scale is 'log', got {wanted!r}")
        self.name, self.scale, self.wanted = name, scale, wanted
        self.ticks = None if ticks is None else [float(t) for t in ticks]
        if scale == "log" and self.ticks is not None and min(self.ticks, default=1) <= 0:
            raise ValueError(f"{name}_ticks must be > 0 where {name}_scale is 'log', got {list(ticks)!r}")

    def fit(self, extent, *, padded, base=False):
        """Sets `range` (None where free) and `foot`, the value on which bars and areas stand (0 on a linear axis)."""
        self.base = base
        low, high = extent
        if isinstance(self.wanted, tuple | list):
            self.range = (float(self.wanted[0]), float(self.wanted[1]))
        elif self.scale == "log":
            grow = (high / low) ** 0.05 if padded else 1.0
            grow = 2.0 if low == high else grow
            self.range = (low / grow, high * grow)
        else:
            if base:
                low, high = min(low, 0.0), max(high, 0.0)
            grow = 0.05 * (high - low) if padded else 0.0
            grow = 0.5 if low == high else grow
            self.range = (
                low if base and low == 0 else low - grow,
                high if base and high == 0 else high + grow,
            )
        self.foot = self.range[0] if self.scale == "log" else 0.0
        self.range = None if self.wanted == "free" else self.range

    def apply(self, ax):
        axis = getattr(ax, f"{self.name}axis")
        getattr(ax, f"set_{self.name}scale")(self.scale)
        if self.range is not None:
            getattr(ax, f"set_{self.name}lim")(self.range)
        if self.scale == "log":
            axis.set_major_locator(LogLocator(10, numticks=6))
            axis.set_minor_locator(NullLocator())
        if self.ticks is not None:
            axis.set_major_locator(FixedLocator(self.ticks))
        axis.set_major_formatter(FuncFormatter(lambda value, _: _number(value)))

    def vega_scale(self, space: list, kinds: list[str]) -> dict:
        """Vega's scale onto `space`, over the data sets of these kinds where the range is free."""
        scale = {
            "name": self.name,
            "type": self.scale,
            "range": space,
            "domain": self.range,
            "nice": self.range is None,
        }
        if self.range is None:
            fields = [{"data": kind, "field": self.name} for kind in kinds]
            if self.name == "x" and "bars" in kinds:
                fields.append({"data": "bars", "field": "x2"})
            scale["domain"] = {"fields": [*fields, [self.foot]] if self.base else fields}
        return scale | ({"zero": self.base} if self.scale == "linear" else {})

    def vega_axis(self, *, labels: bool = True, grid: bool = False, domain: bool = False, ticks: bool = False, **more):
        """Vega's axis, which writes numbers as matplotlib's does."""
        if self.ticks is not None:
            more["values"] = self.ticks
        else:
            more["tickCount"] = {"signal": "width / 75"} if self.name == "x" else 5
        if labels:
            more |= {"labelOverlap": "greedy", "encode": {"labels": {"update": {"text": {"signal": TICK}}}}}
        orient = "bottom" if self.name == "x" else "left"
        shown = {"labels": labels, "grid": grid, "domain": domain, "ticks": ticks}
        return {"scale": self.name, "orient": orient, **shown, **more}


# ---- helpers -----------------------------------------------------------------------------------------------------


def write_assets(folder: str | os.PathLike) -> None:
    """Writes vega.js, interactive.js, explorer.js and two style sheets, all that Explorers load, into `folder`.

    Vega is bundled from vl-convert's own copy; nothing is fetched. Load the scripts in this order.
    """
    import vl_convert

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # vl-convert names its built-in modules by address; the `vega` it offers ready-made is null in 1.9.0.
    module = f"https://cdn.jsdelivr.net/npm/vega@{vl_convert.get_vega_version()}/+esm"
    bundle = vl_convert.javascript_bundle(f'import * as V from "{module}"; window.vega = V;')
    # The bundle declares one-letter globals: a function keeps them off the page.
    (folder / "vega.js").write_text(f"(function () {{\n{bundle}\n}})();\n", encoding="utf-8")
    for name in ("interactive.js", "interactive.css", "explorer.js", "explorer.css"):
        if (STATIC / name) != (folder / name).resolve():
            shutil.copyfile(STATIC / name, folder / name)


def _read_sliders(sliders):
    if not isinstance(sliders, Mapping) or not sliders:
        raise ValueError(f"sliders must map at least one name to its values, got {sliders!r}")
    read = []
    for name, slider in sliders.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"sliders: a name must be a Python identifier, got {name!r}")
        if not isinstance(slider, Slider):
            slider = Slider(slider)
        if isinstance(slider.values, str) or not isinstance(slider.values, Sequence | np.ndarray):
            raise ValueError(f"sliders[{name!r}] must be an ordered sequence of values, got {slider.values!r}")
        values = [v.item() if isinstance(v, np.generic) else v for v in slider.values]
        if len(values) < 2:
            raise ValueError(f"sliders[{name!r}] must have at least 2 values, got {values!r}")
        for value in values:
            number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
            if not number and not isinstance(value, str):
                raise ValueError(f"sliders[{name!r}] must hold finite numbers or strings, got {value!r}")
        texts = [v if isinstance(v, str) else _number(v) for v in values]
        if len(set(texts)) < len(texts):
            raise ValueError(f"sliders[{name!r}] must hold values that differ (to six digits), got {values!r}")
        start = values[0] if slider.start is None else slider.start
        if start not in values:
            raise ValueError(f"sliders[{name!r}]: start must be one of {values!r}, got {start!r}")
        label = name if slider.label is None else slider.label
        read.append(SimpleNamespace(name=name, label=label, values=values, texts=texts, start=values.index(start)))
    points = math.prod(len(s.values) for s in read)
    if points > MAX_POINTS:
        raise ValueError(f"sliders span {points} grid points; at most {MAX_POINTS} are allowed")
    return read


def _check_styles(styles, labels):
    for label, kind in styles.items():
        if label not in labels:
            raise ValueError(f"styles: no curve is labelled {label!r}; the labels are {labels}")
        if kind not in KINDS:
            raise ValueError(f"styles[{label!r}] must be one of {sorted(KINDS)}, got {kind!r}")


def _pack(array) -> tuple[bytes, np.ndarray]:
    """Four significant digits of each number in 24 bits (15 for the digits, 9 for the exponent), and the rounded array.

    Magnitudes below TINY become 0; above 1e250 nothing is plotted, so it is refused.
    """
    packed, rounded = bytearray(), np.empty(array.shape)
    for i, value in enumerate(array.tolist()):
        if math.isnan(value):
            code, rounded[i] = MISSING, math.nan
        else:
            digits, exponent = f"{value if abs(value) >= TINY else 0.0:.3e}".split("e")
            if int(exponent) > 250:
                raise ValueError(f"compute must return magnitudes below 1e250, got {value!r}")
            digits, exponent = int(digits.replace(".", "")), int(exponent) - 3
            code, rounded[i] = (digits + 10000) << 9 | exponent + 256, float(f"{digits}e{exponent}")
        packed += code.to_bytes(3, "big")
    return bytes(packed), rounded


def _edges(centers, scale) -> np.ndarray:
    """Bin edges half-way between the centers (in the logarithm on a log axis), the end bins symmetric."""
    c = np.log(centers) if scale == "log" else centers
    middle = (c[1:] + c[:-1]) / 2
    edges = np.concatenate([[2 * c[0] - middle[0]], middle, [2 * c[-1] - middle[-1]]])
    return np.exp(edges) if scale == "log" else edges


def _number(value) -> str:
    """A number as every rendering writes it on a tick or beside a slider: six digits, a true minus, 1e-5."""
    return re.sub(r"e([+-])0*", lambda m: "e" + m[1].replace("+", ""), f"{value:g}").replace("-", "−")


def _edge(color) -> dict:
    return {"facecolor": color, "edgecolor": color, "linewidth": 0.8}
