"""Which values of an (N, C, H·W) tensor share a mean and a variance, as a block that lights up in a cube.

    AxisCube()                                  # as a cell's last value
    index_set("gn", 0, 2, shape=(6, 8, 16), groups=4)

Every method of this book that takes its statistics from the tensor itself cuts it into equal blocks of `a` samples by
`b` channels, over all positions; `index_set` says which block a value lies in, and `AxisCube` draws it. As with the
Explorer there is one description of each drawing and every rendering shows it: ipywidgets with a kernel; native radio
buttons and sliders over inline SVG in the built page (chapters/_static/cube.js switches between drawings made here);
five small cubes on GitHub, in print and without scripts.
"""

import base64
import html
from dataclasses import dataclass

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from . import style, svg
from .interactive import Interactive, embedded, radio_buttons, range_input, unique_id

METHODS = {
    "bn": "Batch Norm",
    "virtual": "Batch Norm, virtual batches",
    "ln": "Layer Norm",
    "in": "Instance Norm",
    "gn": "Group Norm",
}
OPTIONS = {"virtual": "m", "gn": "groups"}  # the number that a method asks for beside the tensor's shape
LABELS = {"m": "virtual batch size m", "groups": "groups G", "sample": "sample", "channel": "channel"}

# One cell in the drawing's units: a step along C or N goes ACROSS to the right and RISE down (C) or up (N).
ACROSS, RISE, DOWN = 16, 8, 7
LIT = style.COLORS[1]
# Opacities of a block's faces: those on the cube's surface, lit from above, and those seen through it.
SURFACE = {"top": 0.9, "left": 0.7, "right": 0.5}
THROUGH = 0.22


@dataclass(frozen=True)
class IndexSet:
    """Values that share one mean and one variance: some samples × some channels × all positions, counted from 0.

    `count` is the number of such sets that make up the tensor, and so the number of means taken.
    """

    samples: range
    channels: range
    positions: int
    count: int

    @property
    def n(self) -> int:
        """The number of values in the set."""
        return len(self.samples) * len(self.channels) * self.positions


def index_set(
    method: str,
    sample: int,
    channel: int,
    *,
    shape: tuple[int, int, int],
    m: int | None = None,
    groups: int | None = None,
) -> IndexSet:
    """The set, in training, of the values at (sample, channel), counted from 0.

    Args:
        method: "bn"; "virtual", Batch Norm over consecutive virtual batches of m samples; "ln", over (C, H, W);
            "in"; "gn", over groups of consecutive channels.
        sample, channel: a position of the tensor.
        shape: (N, C, H·W).
        m: a divisor of N, for "virtual" only.
        groups: a divisor of C, for "gn" only.

    Raises:
        ValueError: an argument outside its range, or m or groups missing where the method needs it.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    N, C, positions = shape
    for name, value, size in (("sample", sample, N), ("channel", channel, C)):
        if value not in range(size):
            raise ValueError(f"{name} must be between 0 and {size - 1}, got {value!r}")
    for name, value, size in (("m", m, N), ("groups", groups, C)):
        if OPTIONS.get(method) == name and value not in _divisors(size):
            raise ValueError(f"{name} must be one of {_divisors(size)} for method {method!r}, got {value!r}")
    a = {"bn": N, "virtual": m}.get(method, 1)
    b = {"ln": C, "gn": C // groups if groups else None}.get(method, 1)
    first, lowest = sample // a * a, channel // b * b
    return IndexSet(range(first, first + a), range(lowest, lowest + b), positions, N // a * (C // b))


class AxisCube(Interactive):
    """The cube, with a control for the method, for its m or G, and for the value whose set lights up.

    Args:
        shape: (N, C, H·W) of the tensor drawn.
        method, m, groups: the method shown first; m and groups also where their sliders start.
        sample, channel: the value followed first, counted from 1 as the reader sees it.
        caption: text under the figure.

    Raises:
        ValueError: as for `index_set`.
    """

    title = "Values that share a mean and a variance in training"
    alt = "A tensor drawn as a block with the axes samples, channels and positions, cut into the sets of the method."

    def __init__(
        self,
        shape: tuple[int, int, int] = (6, 8, 16),
        *,
        method: str = "gn",
        m: int = 2,
        groups: int = 4,
        sample: int = 1,
        channel: int = 3,
        caption: str | None = None,
    ):
        self.shape, self.caption = shape, caption
        N, C, positions = shape
        if min(N, C) < 2 or positions < 1:
            raise ValueError(f"shape must be (N, C, H·W) with N and C of 2 or more, got {shape!r}")
        self.values = {"m": _divisors(N), "groups": _divisors(C)}
        self.values |= {"sample": list(range(1, N + 1)), "channel": list(range(1, C + 1))}
        self.start = {"method": method, "m": m, "groups": groups, "sample": sample, "channel": channel}
        for name in self.values:
            if self.start[name] not in self.values[name]:
                raise ValueError(f"{name} must be one of {self.values[name]}, got {self.start[name]!r}")
        self.at()  # names a wrong method
        self._prepare({"text/plain": repr(self), "image/png": base64.b64encode(self._png()).decode()})

    def at(self, **values) -> IndexSet:
        """The set at one setting of method, m, groups, sample and channel; what is left out stands at its start."""
        v = self.start | values
        return index_set(v["method"], v["sample"] - 1, v["channel"] - 1, shape=self.shape, m=v["m"], groups=v["groups"])

    def readout(self, **values) -> str:
        """What lights up at a setting, in one sentence and its count."""
        v = self.start | values
        lit = self.at(**v)
        option = {"virtual": f" of m = {v['m']}", "gn": f", G = {v['groups']}"}.get(v["method"], "")
        N, C, positions = self.shape
        which = f"{_spell('channel', lit.channels, C)} of {_spell('sample', lit.samples, N)}"
        return (
            f"{METHODS[v['method']]}{option}: the values in {which} share one mean and one variance, "
            f"n = {len(lit.samples)} · {len(lit.channels)} · {positions} = {lit.n} values. "
            f"The tensor has {lit.count} such sets."
        )

    def widget(self):
        """A new ipywidgets VBox: the method's buttons and four sliders over the drawing and its sentence."""
        import ipywidgets

        method = ipywidgets.ToggleButtons(
            options=[(name, key) for key, name in METHODS.items()],
            value=self.start["method"],
            description="method",
            style={"button_width": "auto"},
        )
        sliders = {
            name: ipywidgets.SelectionSlider(
                options=values,
                value=self.start[name],
                description=LABELS[name],
                style={"description_width": "initial"},
                layout={"width": "min(100%, 32rem)"},
            )
            for name, values in self.values.items()
        }
        drawing = ipywidgets.HTML()

        def redraw(_change=None):
            setting = {"method": method.value} | {name: slider.value for name, slider in sliders.items()}
            for name in OPTIONS.values():
                sliders[name].disabled = OPTIONS.get(method.value) != name
            sentence = html.escape(self.readout(**setting))
            drawing.value = (
                f'<div role="img" aria-label="{html.escape(self.alt)} {sentence}" style="max-width:24rem">'
                f'{self._svg(**setting)}</div><p role="status">{sentence}</p>'
            )

        redraw()
        for control in (method, *sliders.values()):
            control.observe(redraw, names="value")
        return self._framed(method, *sliders.values(), drawing)

    def __repr__(self):
        return f"AxisCube: {self.title}. {self.readout()}"

    # ---- what is drawn: polygons and lines in the drawing's units ------------------------------------------------

    def _point(self, n, c, h):
        """Where a corner of cells is drawn: sample 0 in front, channel 0 at the left, position 0 on top."""
        return ACROSS * (c + n), RISE * (c - n + self.shape[0]) + DOWN * h

    def _faces(self, lit: IndexSet):
        """The three visible faces of a block: (name, opacity, whether it lies on the cube's surface, corners)."""
        _, C, H = self.shape
        n0, n1, c0, c1 = lit.samples.start, lit.samples.stop, lit.channels.start, lit.channels.stop
        corners = {
            "left": [(n0, c0, 0), (n0, c1, 0), (n0, c1, H), (n0, c0, H)],
            "right": [(n0, c1, 0), (n1, c1, 0), (n1, c1, H), (n0, c1, H)],
            "top": [(n0, c0, 0), (n0, c1, 0), (n1, c1, 0), (n1, c0, 0)],
        }
        outside = {"left": n0 == 0, "right": c1 == C, "top": True}
        for name, points in corners.items():
            opacity = SURFACE[name] if outside[name] else THROUGH
            yield name, opacity, outside[name], [self._point(*p) for p in points]

    def _lines(self, samples, channels, positions):
        """Lines over the three visible faces at these borders between samples, channels and positions."""
        N, C, H = self.shape
        for n in samples:
            yield [self._point(n, 0, 0), self._point(n, C, 0), self._point(n, C, H)]
        for c in channels:
            yield [self._point(N, c, 0), self._point(0, c, 0), self._point(0, c, H)]
        for h in positions:
            yield [self._point(0, 0, h), self._point(0, C, h), self._point(N, C, h)]

    def _grid(self):
        N, C, H = self.shape
        return list(self._lines(range(N + 1), range(C + 1), range(H + 1)))

    def _cuts(self, lit: IndexSet):
        """The borders between sets, and the cube's own edges."""
        N, C, H = self.shape
        return list(self._lines(range(0, N + 1, len(lit.samples)), range(0, C + 1, len(lit.channels)), (0, H)))

    def _dot(self, sample, channel):
        """The middle of the followed value's column, on top."""
        return self._point(sample - 0.5, channel - 0.5, 0)

    def _texts(self):
        """(text, position, angle in degrees clockwise, size) of the axes' names and the numbers along them."""
        N, C, H = self.shape
        slope = 26.565  # of RISE over ACROSS
        for c in range(C):
            x, y = self._point(0, c + 0.5, H)
            yield str(c + 1), (x - 3, y + 13), 0, 10
        for n in range(N):
            x, y = self._point(n + 0.5, C, H)
            yield str(n + 1), (x + 3, y + 13), 0, 10
        x, y = self._point(0, C / 2, H)
        yield f"C = {C} channels", (x - 12, y + 29), slope, 11
        x, y = self._point(N / 2, C, H)
        yield f"N = {N} samples", (x + 12, y + 29), -slope, 11
        x, y = self._point(0, 0, H / 2)
        yield f"H·W = {H} positions", (x - 7, y), -90, 11

    def _box(self):
        """Left, top, width and height of everything drawn."""
        N, C, H = self.shape
        return -20, -6, ACROSS * (N + C) + 32, RISE * (N + C) + DOWN * H + 40

    # ---- SVG ------------------------------------------------------------------------------------------------------

    def _lit_svg(self, lit: IndexSet) -> str:
        return "".join(
            f'<path d="{_path(points)}Z" fill-opacity="{opacity}"{"" if outside else dash}/>'
            for (_, opacity, outside, points), dash in ((f, ' stroke-dasharray="3 3"') for f in self._faces(lit))
        )

    def _svg(self, **values) -> str:
        v = self.start | values
        lit = self.at(**v)
        x, y = self._dot(v["sample"], v["channel"])
        texts = "".join(
            f'<text x="{tx:g}" y="{ty:g}" font-size="{size}" transform="rotate({angle} {tx:g} {ty:g})">{text}</text>'
            for text, (tx, ty), angle, size in self._texts()
        )
        stroke = 'fill="none" stroke="currentColor"'
        return (
            f'<svg viewBox="{" ".join(map(str, self._box()))}" width="100%" aria-hidden="true" stroke-linejoin="round">'
            f'<g class="nl-lit" fill="{LIT}" stroke="{LIT}" stroke-width="1.5">{self._lit_svg(lit)}</g>'
            f'<path class="nl-cells" d="{_paths(self._grid())}" {stroke} stroke-opacity=".22" stroke-width=".7"/>'
            f'<path class="nl-cuts" d="{_paths(self._cuts(lit))}" {stroke} stroke-width="1.3"/>'
            f'<circle class="nl-dot" cx="{x:g}" cy="{y:g}" r="3.5" fill="#fff" stroke="#000" stroke-width="1.2"/>'
            f'<g fill="currentColor" text-anchor="middle" font-family="system-ui, sans-serif">{texts}</g></svg>'
        )

    def _data(self) -> dict:
        """Every setting, each distinct block, cut and sentence once; see cube.js for how they are put together."""
        blocks: dict[str, int] = {}
        sets: dict[tuple[int, str], int] = {}
        methods, variants = [], []
        for method in METHODS:
            option = OPTIONS.get(method)
            settings = [{option: value} for value in self.values[option]] if option else [{}]
            methods.append({"option": option, "variants": list(range(len(variants), len(variants) + len(settings)))})
            for setting in settings:
                numbers = []
                for sample in self.values["sample"]:
                    for channel in self.values["channel"]:
                        v = {"method": method, "sample": sample, "channel": channel, **setting}
                        block = blocks.setdefault(self._lit_svg(self.at(**v)), len(blocks))
                        numbers.append(sets.setdefault((block, self.readout(**v)), len(sets)))
                variants.append({"cuts": _paths(self._cuts(self.at(**v))), "sets": numbers})
        return {
            "alt": self.alt,
            "methods": methods,
            "variants": variants,
            "sets": list(sets),
            "blocks": list(blocks),
            "dots": [self._dot(s, c) for s in self.values["sample"] for c in self.values["channel"]],
        }

    def _html(self) -> str:
        block = embedded(self._data())
        unique = unique_id(repr(self), block)
        text = html.escape
        methods = radio_buttons(f"{unique}-method", "method", METHODS, self.start["method"], "nl-methods")
        sliders = {
            name: range_input(f"{unique}-{name}", LABELS[name], list(map(str, v)), v.index(self.start[name]), name)
            for name, v in self.values.items()
        }
        stills = "".join(
            f"<div><p>{text(_still_title(key, self.start))}</p>{self._svg(method=key)}</div>" for key in METHODS
        )
        return (
            f'<figure class="nl-interactive nl-cube mathjax_ignore tex2jax_ignore" id="{unique}">'
            f'<p class="nl-title" id="{unique}-title">{text(self.title)}</p>'
            f'<div class="nl-controls" role="group" aria-labelledby="{unique}-title" hidden>'
            f"{methods}{sliders['sample']}{sliders['channel']}"
            f'<div class="nl-option">{sliders["m"]}{sliders["groups"]}</div></div>'
            f'<div class="nl-live" hidden><div class="nl-drawing" role="img" aria-label="{text(self.alt)}">'
            f'{self._svg()}</div><p class="nl-readout" aria-live="polite">{text(self.readout())}</p></div>'
            f'<div class="nl-still" role="img" aria-label="{text(self.alt)} Five small cubes, one per method. '
            f'{text(" ".join(self.readout(method=key) for key in METHODS))}">{stills}</div>{self._figcaption()}'
            f'<script type="application/json" class="nl-data">{block}</script></figure>'
        )

    # ---- PNG ------------------------------------------------------------------------------------------------------

    def _png(self) -> bytes:
        with matplotlib.rc_context(style.MATPLOTLIB):
            figure = Figure(figsize=(11, 2.6), layout="constrained")
            FigureCanvasAgg(figure)
            for ax, key in zip(figure.subplots(1, len(METHODS)), METHODS, strict=True):
                lit = self.at(method=key)
                for _, opacity, outside, points in self._faces(lit):
                    ax.fill(*zip(*points, strict=True), color=LIT, alpha=opacity, linewidth=0)
                    edge = [*points, points[0]]
                    ax.plot(*zip(*edge, strict=True), color=LIT, linewidth=1.2, linestyle="-" if outside else ":")
                for lines, width, alpha in ((self._grid(), 0.5, 0.22), (self._cuts(lit), 1, 1)):
                    for line in lines:
                        ax.plot(*zip(*line, strict=True), color=style.INK, linewidth=width, alpha=alpha)
                ax.plot(
                    *self._dot(self.start["sample"], self.start["channel"]), "o", color="white", mec=style.INK, ms=4
                )
                for text, (x, y), angle, size in self._texts():
                    place = {"ha": "center", "va": "baseline", "rotation_mode": "anchor", "rotation": -angle}
                    ax.text(x, y, text, fontsize=size * 0.6, **place)
                left, top, width, height = self._box()
                ax.set(xlim=(left, left + width), ylim=(top + height, top), aspect="equal")
                ax.set_title(_still_title(key, self.start))
                ax.axis("off")
            return svg.save(figure, "png", facecolor="white", dpi=110)


def _divisors(size: int) -> list[int]:
    return [d for d in range(1, size + 1) if size % d == 0]


def _spell(name: str, part: range, size: int) -> str:
    if len(part) == size:
        return f"all {size} {name}s"
    first, last = part.start + 1, part.stop
    if first == last:
        return f"{name} {first}"
    return f"{name}s {first} {'and' if last == first + 1 else 'to'} {last}"


def _still_title(method: str, start: dict) -> str:
    option = {"virtual": f" of {start['m']}", "gn": f", G = {start['groups']}"}.get(method, "")
    return f"{METHODS[method]}{option}"


def _path(points) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points)


def _paths(lines) -> str:
    return "".join(map(_path, lines))
