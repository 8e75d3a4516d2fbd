"""The one look of every picture in the book: colours, strokes, matplotlib settings.

Each colour has a relative luminance between 0.12 and 0.30, so that it stands out at 3 : 1 or
more from a white page and from the dark theme's, and no two neighbours in the list are
confused under the common colour-vision deficiencies (the hues follow Okabe and Ito, 2008,
darkened where theirs are too light for a white page). Strokes and markers repeat what colour says, for
gray printing.
"""

COLORS = ("#0072B2", "#D55E00", "#009E73", "#B8628F", "#A67600", "#3D8BBF", "#7A7A7A", "#7D6BC4")
DASHES = ((), (6, 2), (2, 2), (8, 2, 2, 2), (1, 2), (10, 3), (4, 1, 1, 1), (3, 3))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

# Ink is black in the drawing and becomes the page's own text colour in HTML (see plots.show).
INK = "#000000"

PANEL_INCHES = (3.6, 2.7)  # one panel fills a phone's width, two stand side by side on a desk

MATPLOTLIB = {
    "figure.figsize": PANEL_INCHES,
    "figure.dpi": 110,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "grid.color": "#7A7A7A",
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titley": 1.0,  # no look for a place beside ticks on top, a sixth of a drawing's time
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "svg.hashsalt": "normlib",
}
