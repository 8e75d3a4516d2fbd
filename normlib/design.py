"""One design space for the methods of this book: which values share a statistic, what it is taken from, and how much
of the gradient flows through it.

    DesignSpace()                               # as a cell's last value
    setting("channel", "history", "whole").name

`setting` says what each of the 90 combinations of the three choices is: a method, a published mistake, something that
nobody is known to have published, or no method, and why. `DesignSpace` lets a reader change one choice at a time, with
ipywidgets where there is a kernel and with native radio buttons in the built page (chapters/_static/design.js); in
print, on GitHub and without scripts, a table of the settings that have a name stands in its place.
"""

import base64
import html
from dataclasses import dataclass
from itertools import product

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from . import style, svg
from .interactive import Interactive, embedded, radio_buttons, unique_id

SETS = {
    "channel": "one channel, the whole batch",
    "virtual": "one channel, m samples of the batch",
    "instance": "one channel, one sample",
    "group": "a group of channels, one sample",
    "sample": "all channels, one sample",
    "block": "a group of channels, the whole batch",
}
SOURCES = {
    "batch": "this step's activations",
    "blend": "history and this step, blended",
    "estimate": "a running estimate, updated first",
    "history": "history alone",
    "weights": "the weights",
}
FLOWS = {
    "whole": "as if all of it were this step's",
    "share": "by this step's share in it",
    "none": "not at all",
}
QUESTIONS = {
    "sets": "values that share a statistic",
    "source": "the statistic comes from",
    "flow": "the gradient flows through it",
}
CHOICES = {"sets": SETS, "source": SOURCES, "flow": FLOWS}
HEADS = {"batch": "this step", "blend": "blend", "estimate": "estimate", "history": "history", "weights": "weights"}
ROWS = {"whole": "as if this step's", "share": "by its share", "none": "not at all"}
MARKS = {"method": "", "mistake": "mistake", "unnamed": "?", "void": "–"}

SAMPLES, CHANNELS = 6, 8  # of the small drawing: 2 samples a virtual batch, 2 channels a group
SHAPES = {
    "channel": (SAMPLES, 1),
    "virtual": (2, 1),
    "instance": (1, 1),
    "group": (1, 2),
    "sample": (1, CHANNELS),
    "block": (SAMPLES, 2),
}
CELL = 13
LIT = style.COLORS[1]

_FORWARD = {
    "batch": "x̂ = (x − μ_B)/s, s² = σ_B² + ε",
    "blend": "x̂ = (x − μ)/s, μ = λ μ_h + (1 − λ) μ_B, s² = λ σ_h² + (1 − λ) σ_B² + ε",
    "estimate": "x̂ = (x − μ)/s, μ = (1 − ρ) μ_h + ρ μ_B, s² = (1 − ρ) σ_h² + ρ ⟨(x − μ_h)²⟩ + ε",
    "history": "x̂ = (x − μ_h)/s, s² = σ_h² + ε",
    "weights": "Ŵ = (W − ⟨W⟩)/s, s² = ⟨(W − ⟨W⟩)²⟩ + ε",
}
_BY_SHARE = {
    "batch": "∂L/∂x = (g − ⟨g⟩ − x̂ ⟨g x̂⟩)/s",
    "blend": "∂L/∂x = (g − (1 − λ) ⟨g⟩ − (1 − λ) ((x − μ_B)/s) ⟨g x̂⟩)/s",
    "estimate": "∂L/∂x = (g − ρ ⟨g⟩ − ρ ((x − μ_h)/s) ⟨g x̂⟩)/s",
    "history": "∂L/∂x = g/s",
    "weights": "∂L/∂W = (g − ⟨g⟩ − Ŵ ⟨g Ŵ⟩)/s",
}

_BATCH = {
    "channel": ("Batch Norm", "BN", "Ioffe and Szegedy, 2015."),
    "virtual": (
        "Batch Norm over virtual batches",
        "BN",
        "What each of several devices computes by itself, and Ghost Batch Norm on one.",
    ),
    "instance": ("Instance Norm", "IN", "Ulyanov, Vedaldi and Lempitsky, 2016."),
    "group": ("Group Norm", "GN", "Wu and He, 2018."),
    "sample": ("Layer Norm", "LN", "Ba, Kiros and Hinton, 2016, as applied to images: over channels and positions."),
    "block": (
        "Batch Group Norm",
        "BGN",
        "Zhou et al., 2020, when their groups are whole channels. Not a layer of normlib; Batch Norm of a reshaped "
        "tensor.",
    ),
}

_EVALUATION = {
    "instance": "The line that torch's InstanceNorm evaluates with under track_running_stats=True: averages over "
    "samples, per channel. In training it takes the sample's own statistics. Online Normalization trains with history "
    "alone and a gradient of its own: chapter 09.",
    "block": "The line that a method over groups of channels evaluates with once it keeps averages. We know of "
    "nobody who trains with it.",
}


@dataclass(frozen=True)
class Setting:
    """What one combination of the three choices is.

    `kind` is "method", "mistake", "unnamed" (nobody is known to train so) or "void"; `name` a title, `short` at most
    eight characters for the map; `forward` and `backward` the formulas, `sentence` where it is from or why it is no
    method.
    """

    kind: str
    name: str
    short: str
    forward: str
    backward: str
    sentence: str


def setting(sets: str, source: str, flow: str) -> Setting:
    """What the setting is.

    Args:
        sets: "channel", "virtual", "instance", "group", "sample" or "block": the values that share a statistic. Where
            the source is "weights", filters stand for samples and input channels for channels.
        source: "batch", "blend" (history with weight λ), "estimate" (the same with 1 − ρ, its squares about the old
            mean), "history" or "weights".
        flow: "whole", "share" or "none": the statistic counts, in the backward pass, as this step's, as what it is,
            with history constant, or as a constant.

    Raises:
        ValueError: an unknown choice.
    """
    for argument, value in zip(CHOICES, (sets, source, flow), strict=True):
        if value not in CHOICES[argument]:
            raise ValueError(f"{argument} must be one of {', '.join(CHOICES[argument])}, got {value!r}")
    kind, name, short, sentence = _about(sets, source, flow)
    backward = {
        "none": f"∂L/∂{'W' if source == 'weights' else 'x'} = g/s",
        "share": _BY_SHARE[source],
        "whole": "∂L/∂x = (g − ⟨g⟩ − x̃ ⟨g x̃⟩)/s, x̃ = (x − μ_B)/√(σ_B² + ε)",
    }[flow]
    if source in ("batch", "weights"):  # all of it is this step's
        backward = _BY_SHARE[source] if flow != "none" else backward
    return Setting(kind, name, short or MARKS[kind], _FORWARD[source], backward, sentence)


def named() -> dict[tuple[str, str, str], str]:
    """Every setting that is a method: (sets, source, flow) → its name."""
    settings = {key: setting(*key) for key in product(*CHOICES.values())}
    return {key: s.name for key, s in settings.items() if s.kind == "method"}


def _about(sets, source, flow) -> tuple[str, str, str, str]:
    """Kind, name, short name ("" for the kind's mark), sentence."""
    per_batch = sets in ("channel", "virtual")
    virtual = ", virtual batches" if sets == "virtual" else ""
    if source == "weights":
        return _about_weights(sets, flow)
    if source == "batch":
        name, short, sentence = _BATCH[sets]
        if flow != "none":
            same = " All of the statistic is this step's, so this and the neighboring setting are one."
            return "method", name, short, sentence + same
        if per_batch:
            return (
                "mistake",
                f"{name} without its gradient",
                "",
                "A published mistake: batch statistics computed where no gradient is recorded. Every value of the "
                "forward pass is right, and what Batch Norm takes out of the gradient stays in.",
            )
        return (
            "void",
            "No method",
            "",
            f"The forward pass of {name} with a backward pass that is not its own: the gradient keeps pushing in two "
            "directions per set along which the output cannot move.",
        )
    if source == "history" and flow != "whole" and sets in ("instance", "block"):
        return "unnamed", "At evaluation only, as far as we know", "", _EVALUATION[sets]
    if source == "history" and sets == "instance":
        return (
            "unnamed",
            "Not published in this form, as far as we know",
            "",
            "Online Normalization (Chiley et al., 2019) trains with history alone, one sample at a time, but with a "
            "gradient of its own, controlled by averages: chapter 09.",
        )
    if sets == "block":
        return (
            "unnamed",
            "Not published, as far as we know",
            "",
            "Nothing forbids a history per group of channels: groups are the same in every step.",
        )
    if not per_batch:
        return (
            "void",
            "No method",
            "",
            "A sample comes by and leaves no history of its own. Averaged over the samples before it, its statistic "
            "would belong to the batch: choose a set that spans it.",
        )
    return _about_history(source, flow, virtual)


def _about_weights(sets, flow) -> tuple[str, str, str, str]:
    if flow == "none":
        return (
            "void",
            "No method",
            "",
            "Standardized weights whose gradient does not know it: it moves W along directions that leave Ŵ as it is.",
        )
    if sets == "sample":
        return (
            "method",
            "Weight Standardization",
            "WS",
            "Qiao et al., 2019: Layer Norm of the weights, each filter taken for a sample. Another normalization "
            "follows, of the activations. All of the statistic is this step's, so this and the neighboring setting "
            "are one.",
        )
    return (
        "unnamed",
        "Not published, as far as we know",
        "",
        "The set read in the weights, where filters stand for samples and input channels for channels.",
    )


def _about_history(source, flow, virtual) -> tuple[str, str, str, str]:
    if source == "history":
        if flow == "whole":
            return (
                "method",
                f"Batch Renorm without bounds{virtual}",
                "BRN",
                "Ioffe, 2017, with r and d unclipped. The bounds r_max and d_max lead from here back to Batch Norm, "
                "which is r_max = 1, d_max = 0.",
            )
        return (
            "method",
            "Frozen Batch Norm",
            "frozen",
            "The line that every method on batch statistics uses at evaluation, and in fine-tuning with averages that "
            "stand still. With averages that move it is Batch Renorm whose r and d lost their stop-gradient.",
        )
    if source == "blend" and flow == "share":
        return "method", f"Momentum Batch Norm{virtual}", "MBN", "Yong et al., 2020. At λ = 0 it is Batch Norm."
    if source == "estimate" and flow == "none":
        return (
            "method",
            f"Batch-Channel Norm's running estimate{virtual}",
            "BCN",
            "Qiao et al., 2019: the first half of their layer for micro-batches. Its second half is Group Norm.",
        )
    near = {
        ("blend", "whole"): "Forward Momentum Batch Norm; backward Batch Renorm, whose r and d would be drawn to 1 and "
        "0 by a blend in place of bounds.",
        ("blend", "none"): "Batch-Channel Norm's running estimate but for one detail: its squares are taken about the "
        "old mean.",
        ("estimate", "whole"): "Forward Batch-Channel Norm's running estimate, backward Batch Renorm.",
        ("estimate", "share"): "Momentum Batch Norm with λ = 1 − ρ but for one detail: the squares are taken about the "
        "old mean.",
    }[source, flow]
    return "unnamed", "Not published, as far as we know", "", near


class DesignSpace(Interactive):
    """The three choices as controls, the values that share a statistic, and a map of what is where.

    Args:
        sets, source, flow: the setting shown first.
        caption: text under the figure.

    Raises:
        ValueError: as for `setting`.
    """

    title = "Three choices, and the method they make"
    alt = "A small grid of samples by channels, in which the values that share a statistic are filled."

    def __init__(
        self, sets: str = "channel", source: str = "batch", flow: str = "share", *, caption: str | None = None
    ):
        self.start, self.caption = {"sets": sets, "source": source, "flow": flow}, caption
        setting(sets, source, flow)
        self._prepare({"text/plain": repr(self), "image/png": base64.b64encode(self._png()).decode()})

    def __repr__(self):
        return f"DesignSpace: {self.title}. Shown first: {setting(**self.start).name}"

    def widget(self):
        """A new ipywidgets VBox: a row of buttons per choice over the drawing, the map and what the setting is."""
        import ipywidgets

        controls = {
            name: ipywidgets.RadioButtons(
                options=[(label, key) for key, label in CHOICES[name].items()],
                value=self.start[name],
                description="",
                layout={"width": "auto"},
            )
            for name in CHOICES
        }
        shown = ipywidgets.HTML()

        def redraw(_change=None):
            now = {name: control.value for name, control in controls.items()}
            what = setting(**now)
            lines = "<br>".join(map(html.escape, (what.forward, what.backward)))
            shown.value = (
                f'<div style="max-width:16rem">{self._svg(now["sets"], now["source"])}</div>{_map(**now)}'
                f'<p role="status"><b>{html.escape(what.name)}</b><br>{lines}<br>{html.escape(what.sentence)}</p>'
            )

        redraw()
        for control in controls.values():
            control.observe(redraw, names="value")
        rows = [
            ipywidgets.VBox([ipywidgets.HTML(html.escape(QUESTIONS[name])), control])
            for name, control in controls.items()
        ]
        return self._framed(ipywidgets.HBox(rows, layout={"flex_flow": "row wrap"}), shown)

    # ---- the built page ------------------------------------------------------------------------------------------

    def _svg(self, sets: str, source: str) -> str:
        """The drawing for one index set, its axes named for activations or for weights."""
        width, height = CHANNELS * CELL, SAMPLES * CELL
        down, across = _axes(source)
        label = 'fill="currentColor" font-size="11" text-anchor="middle" font-family="system-ui, sans-serif"'
        return (
            f'<svg viewBox="-18 -1 {width + 20} {height + 18}" width="100%" aria-hidden="true">'
            f'<path class="nl-lit" d="{_lit(sets)}" fill="{LIT}" fill-opacity=".8"/>'
            f'<path d="{_grid()}" fill="none" stroke="currentColor" stroke-opacity=".35" stroke-width=".8"/>'
            f'<text class="nl-across" x="{width / 2:g}" y="{height + 13}" {label}>{across}</text>'
            f'<text class="nl-down" x="-7" y="{height / 2:g}" transform="rotate(-90 -7 {height / 2:g})" {label}>'
            f"{down}</text></svg>"
        )

    def _data(self) -> dict:
        """Everything design.js puts in place; settings in the order of the three lists, the last changing fastest."""
        return {
            "alt": self.alt,
            "lit": [_lit(sets) for sets in SETS],
            "axes": [_axes(source) for source in SOURCES],
            "settings": [
                [s.kind, s.short, s.name, s.forward, s.backward, s.sentence]
                for s in (setting(*key) for key in product(*CHOICES.values()))
            ],
        }

    def _html(self) -> str:
        block = embedded(self._data())
        unique = unique_id(repr(self), block)
        text = html.escape
        controls = "".join(
            radio_buttons(f"{unique}-{name}", QUESTIONS[name], CHOICES[name], self.start[name]) for name in CHOICES
        )
        now = setting(**self.start)
        return (
            f'<figure class="nl-interactive nl-design mathjax_ignore tex2jax_ignore" id="{unique}">'
            f'<p class="nl-title" id="{unique}-title">{text(self.title)}</p>'
            f'<div class="nl-controls" role="group" aria-labelledby="{unique}-title" hidden>{controls}</div>'
            f'<div class="nl-live" hidden><div class="nl-both"><div class="nl-drawing" role="img" '
            f'aria-label="{text(self.alt)} {text(SETS[self.start["sets"]])}">'
            f"{self._svg(self.start['sets'], self.start['source'])}</div>{_map(**self.start)}</div>"
            f'<div class="nl-readout" aria-live="polite"><p class="nl-name">{text(now.name)}</p>'
            f'<p class="nl-forward">{text(now.forward)}</p><p class="nl-backward">{text(now.backward)}</p>'
            f'<p class="nl-sentence">{text(now.sentence)}</p></div></div>'
            f'<div class="nl-still" role="group" aria-label="{text(_still_alt())}">{_table()}</div>{self._figcaption()}'
            f'<script type="application/json" class="nl-data">{block}</script></figure>'
        )

    # ---- GitHub and print ----------------------------------------------------------------------------------------

    def _png(self) -> bytes:
        """The six index sets, each with the methods that use it."""
        with matplotlib.rc_context(style.MATPLOTLIB):
            figure = Figure(figsize=(11, 2.7), layout="constrained")
            FigureCanvasAgg(figure)
            for ax, (sets, label) in zip(figure.subplots(1, len(SETS)), SETS.items(), strict=True):
                samples, channels = SHAPES[sets]
                for n, c in product(range(samples), range(channels)):
                    ax.fill([c, c + 1, c + 1, c], [n, n, n + 1, n + 1], color=LIT, alpha=0.8, linewidth=0)
                for n in range(SAMPLES + 1):
                    ax.plot([0, CHANNELS], [n, n], color=style.INK, linewidth=0.5, alpha=0.4)
                for c in range(CHANNELS + 1):
                    ax.plot([c, c], [0, SAMPLES], color=style.INK, linewidth=0.5, alpha=0.4)
                ax.set(xlim=(-0.2, CHANNELS + 0.2), ylim=(SAMPLES + 0.2, -0.2), aspect="equal")
                ax.set_title(label.replace(", ", ",\n"))
                ax.text(CHANNELS / 2, SAMPLES + 0.6, "\n".join(_shorts(sets)), ha="center", va="top", fontsize=8)
                ax.axis("off")
            return svg.save(figure, "png", facecolor="white", dpi=110)


def _shorts(sets: str) -> list[str]:
    """The methods that use an index set, by their short names, each once."""
    return list(dict.fromkeys(setting(*key).short for key in named() if key[0] == sets))


def _still_alt() -> str:
    """What both still forms, the PNG and the table, show."""
    return "The methods by the values that share a statistic. " + " ".join(
        f"{label.capitalize()}: {', '.join(_shorts(sets))}." for sets, label in SETS.items()
    )


def _axes(source: str) -> tuple[str, str]:
    return ("filters", "input channels") if source == "weights" else ("samples", "channels")


def _lit(sets: str) -> str:
    samples, channels = SHAPES[sets]
    return f"M0 0H{channels * CELL}V{samples * CELL}H0Z"


def _grid() -> str:
    lines = [f"M0 {n * CELL}H{CHANNELS * CELL}" for n in range(SAMPLES + 1)]
    return "".join(lines + [f"M{c * CELL} 0V{SAMPLES * CELL}" for c in range(CHANNELS + 1)])


def _map(sets: str, source: str, flow: str) -> str:
    """The fifteen settings of one index set as a table, the present one marked."""
    head = "".join(f'<th scope="col">{HEADS[s]}</th>' for s in SOURCES)
    rows = ""
    for f in FLOWS:
        cells = ""
        for s in SOURCES:
            what, here = setting(sets, s, f), (s, f) == (source, flow)
            mark, mine = (' aria-current="true"', "outline:2px solid") if here else ("", "")
            cells += f'<td class="nl-{what.kind}"{mark} style="{mine}">{html.escape(what.short)}</td>'
        rows += f'<tr><th scope="row">{ROWS[f]}</th>{cells}</tr>'
    corner = "<td></td>"
    return f'<table class="nl-map"><thead><tr>{corner}{head}</tr></thead><tbody>{rows}</tbody></table>'


def _table() -> str:
    """The settings that have a name, a row each."""
    head = "".join(f'<th scope="col">{html.escape(text)}</th>' for text in ("setting", *QUESTIONS.values()))
    rows = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th>'
        + "".join(f"<td>{html.escape(CHOICES[c][k])}</td>" for c, k in zip(CHOICES, key, strict=True))
        + "</tr>"
        for key, name in named().items()
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
