"""Pictures in the book's one style: panels that wrap on a phone, follow the page's theme, and say what they show.

left, right = plots.panels(2)
plots.band(left, epochs, accuracy, "BN", 0)          # mean and 95 % interval over seeds
plots.show(left, right, alt="Two panels. Left: …")
"""

import hashlib
import html
import io
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from . import style
from .intervals import half_width
from .svg import inline, save


def panels(count: int = 1, *, inches: tuple[float, float] = style.PANEL_INCHES) -> Axes | list[Axes]:
    """Empty axes, each the only one of its own small figure; a single one is returned bare."""
    with matplotlib.rc_context(style.MATPLOTLIB):
        axes = [Figure(figsize=inches, layout="constrained").add_subplot() for _ in range(count)]
    return axes[0] if count == 1 else axes


def look(index: int) -> dict:
    """Colour and dashes of the index-th curve of a figure."""
    n = len(style.COLORS)
    dashes = style.DASHES[index % n]
    return {"color": style.COLORS[index % n], "linestyle": (0, dashes) if dashes else "solid"}


def interval(samples) -> tuple[np.ndarray, np.ndarray]:
    """Mean over axis 0 and half-width of its 95 % Student interval; samples has shape (n, ...), n of 2 or more.

    Raises:
        ValueError: fewer than two samples; an interval over one run means nothing.
    """
    samples = np.asarray(samples, dtype=float)
    if len(samples) < 2:
        raise ValueError(f"samples must hold at least 2 runs, got {len(samples)}")
    return samples.mean(0), half_width(samples)


def band(
    ax: Axes,
    x: Sequence[float],
    samples,
    label: str,
    index: int,
    *,
    marker: bool = False,
    diverged: Mapping[int, int] | None = None,
) -> None:
    """Draw the mean of samples (n, len(x)) as a line and its 95 % interval as a band.

    Runs that diverged (NaN to the end) are no part of either: each is drawn up to where it was lost, marked with a
    cross, and the label says how many there are and when the first was lost.

    Args:
        diverged: `training.History.diverged_at`, seed → step; needed where samples hold NaN.

    Raises:
        ValueError: NaN in samples without `diverged`, or not as many such runs as it names.
    """
    samples = np.asarray(samples, dtype=float)
    lost = np.isnan(samples).any(1)
    diverged = dict(diverged or {})
    if lost.sum() != len(diverged):
        count = f"{lost.sum()} of {len(samples)}"
        raise ValueError(f"diverged must name the {count} runs whose samples hold NaN, got {diverged}")
    line = look(index) | ({"marker": style.MARKERS[index % len(style.MARKERS)]} if marker else {})
    if lost.any():
        label = f"{label} ({lost.sum()} of {len(samples)} diverged, first at step {min(diverged.values())})"
    for run in samples[lost]:
        alive = np.flatnonzero(~np.isnan(run))
        ax.plot(x, run, color=line["color"], linewidth=0.8, alpha=0.6)
        if len(alive):
            ax.plot(x[alive[-1]], run[alive[-1]], color=line["color"], marker="X", linestyle="none")
    kept = samples[~lost]
    if len(kept) > 1:
        mean, half = interval(kept)
        ax.plot(x, mean, label=label, **line)
        ax.fill_between(x, mean - half, mean + half, color=line["color"], alpha=0.2, linewidth=0)
    else:
        ax.plot(x, kept[0] if len(kept) else np.full(len(x), np.nan), label=label, **line)


def points(ax: Axes, positions: Sequence[float], samples, index: int = 0, label: str | None = None) -> None:
    """Draw the mean of samples (n, len(positions)) as a marker and its 95 % interval as an error bar."""
    mean, half = interval(samples)
    color, marker = style.COLORS[index % len(style.COLORS)], style.MARKERS[index % len(style.MARKERS)]
    ax.errorbar(positions, mean, half, color=color, marker=marker, linestyle="none", capsize=3, label=label)


class Picture:
    """Panels ready to be displayed: inline SVG in HTML, a PNG elsewhere, the alternative text in plain text."""

    def __init__(self, axes: Sequence[Axes], alt: str, caption: str):
        figures = [ax.figure for ax in axes]
        with matplotlib.rc_context({"svg.hashsalt": "normlib"}):
            drawings = [save(figure, "svg") for figure in figures]
        parts = []
        for drawing in drawings:
            prefix = "nl-" + hashlib.sha256(drawing).hexdigest()[:8] + "-"
            parts.append(f'<div class="nl-panel">{inline(drawing, prefix)}</div>')
        note = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
        self.alt = alt
        self.html = (
            f'<figure class="nl-figure"><div class="nl-panels" role="img" aria-label="{html.escape(alt)}">'
            f"{''.join(parts)}</div>{note}</figure>"
        )
        self.png = _beside([_pixels(figure) for figure in figures])

    def __repr__(self) -> str:
        return f"Figure: {self.alt}"

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        return {"text/html": self.html, "image/png": self.png, "text/plain": repr(self)}


def _pixels(figure: Figure) -> np.ndarray:
    figure.set_facecolor("white")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def _beside(images: list[np.ndarray]) -> bytes:
    height = max(len(image) for image in images)
    padded = [np.pad(i, ((0, height - len(i)), (0, 0), (0, 0)), constant_values=255) for i in images]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(padded, 1)).save(buffer, "png")
    return buffer.getvalue()


def show(*axes: Axes, alt: str, caption: str = "") -> Picture:
    """The figure made of these panels, for display as a cell's last value.

    Args:
        axes: panels made by `panels`, side by side where the page is wide enough.
        alt: what the figure shows, for a reader who cannot see it: what is drawn and what it says.
        caption: text under the figure: seeds, interval, scale.

    Raises:
        ValueError: no panel, an axis without label, or an empty alt.
    """
    if not axes:
        raise ValueError("axes must hold at least one panel, got none")
    if not alt.strip():
        raise ValueError("alt must say what the figure shows, got an empty text")
    for ax in axes:
        if ax.get_legend():  # drawn outside the style's context; a white box would stand out on a dark page
            ax.get_legend().set_frame_on(False)
        if ax.axison and not (ax.get_xlabel() and ax.get_ylabel()):
            raise ValueError(f"every axis must have a label, got x {ax.get_xlabel()!r}, y {ax.get_ylabel()!r}")
    return Picture(axes, alt, caption)


def gallery(images, titles: Sequence[str], right: Sequence[bool], *, columns: int = 6) -> Axes:
    """A panel of gray images (n, H, W) with a title each; wrong ones are crossed out."""
    rows = -(-len(images) // columns)
    with matplotlib.rc_context(style.MATPLOTLIB):  # made outside, the figure would be a white card on a dark page
        figure = Figure(figsize=(0.62 * columns, 0.85 * rows), layout="constrained")
        frame = figure.add_subplot()
        frame.axis("off")
        for i, (image, title, ok) in enumerate(zip(images, titles, right, strict=True)):
            row, column = divmod(i, columns)
            ax = frame.inset_axes((column / columns, 1 - (row + 1) / rows, 0.92 / columns, 0.72 / rows))
            ax.imshow(image, cmap="gray", interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            ax.set_title(title, fontsize=8, pad=2)
            if not ok:
                ax.plot([0, 1], [0, 1], color=style.COLORS[1], linewidth=1.5, transform=ax.transAxes)
    return frame
