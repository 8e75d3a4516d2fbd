"""matplotlib's drawings as bytes that repeat, and as inline SVG that takes the page's colours."""

import io
import re

from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Settings of the reader's that would give a figure back the layout engine that `save` takes from it.
_NO_ENGINE = {"figure.autolayout": False, "figure.constrained_layout.use": False}


def save(figure: Figure, form: str, **options) -> bytes:
    """A figure as "png" or "svg", the same bytes for the same drawing; it stays as laid out for the first SVG."""
    buffer = io.BytesIO()
    with rc_context(_NO_ENGINE):
        if form == "svg" and (engine := figure.get_layout_engine()):
            # as savefig does, which would draw everything once more for it
            canvas, dpi = figure.canvas, figure.dpi
            FigureCanvasSVG(figure)
            figure.dpi = 72  # as in every SVG
            engine.execute(figure)
            figure.set_layout_engine(None)  # "none" would leave one, and with it that dry run
            figure.dpi = dpi
            figure.set_canvas(canvas)
        metadata = {"Software": None} if form == "png" else {"Date": None, "Creator": None}
        figure.savefig(buffer, format=form, metadata=metadata, **options)
    return buffer.getvalue()


def inline(drawing: bytes, prefix: str) -> str:
    """matplotlib's SVG as a light inline element: ink in the page's text colour, no ids but `prefix`ed, used ones."""
    text = drawing.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    used = set(re.findall(r"#([\w-]+)", text))
    text = re.sub(r' id="([^"]+)"', lambda m: f' id="{prefix}{m[1]}"' if m[1] in used else "", text)
    text = re.sub(r"(url\(#|href=\"#)", rf"\g<1>{prefix}", text)
    text = re.sub(r' (d|x|y)="([^"]*)"', lambda m: f' {m[1]}="{_short(m[2])}"', text)
    text = re.sub(r"translate\([^)]*\)", lambda m: _short(m[0]), text)
    text = re.sub(r' transform="rotate\(-?0 [^"]*"', "", text)
    text = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", text)
    text = re.sub(r' (xmlns(:xlink)?|version)="[^"]*"', "", text).replace("#000000", "currentColor")
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r'\1 width="100%"', text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"(<svg[^>]*?)>", r'\1 fill="currentColor" aria-hidden="true">', text, count=1)
    return re.sub(r"\s*\n\s*", "\n", _without_bare_groups(text)).strip()


def _short(numbers: str) -> str:
    return re.sub(r"-?\d+\.\d+", lambda m: f"{float(m[0]):.1f}", " ".join(numbers.split()))


def _without_bare_groups(text: str) -> str:
    """Half of a drawing's elements are groups without an attribute, which a page must build all the same."""
    kept = []

    def keep(tag: re.Match) -> str:
        if tag[0] != "</g>":
            kept.append(tag[0] != "<g>")
            return tag[0] if kept[-1] else ""
        return tag[0] if kept.pop() else ""

    return re.sub(r"<g>|<g [^>]*[^/>]>|</g>", keep, text)
