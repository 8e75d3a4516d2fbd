"""What the interactive figures share: when a widget is wanted, the bundle of renderings, and native controls in HTML.

A figure stands in the built page as `<figure class="nl-interactive …">`, dressed by chapters/_static/interactive.css.
"""

import hashlib
import html
import json
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

STATIC = Path(__file__).resolve().parents[1] / "chapters" / "_static"
# What there is: `KIND.css` and `KIND.js` in STATIC dress and start the figures of class `nl-KIND`.
KINDS = ("explorer", "cube", "design", "guide", "quiz")


class Interactive:
    """A figure with a rendering for each front end; a subclass calls `_prepare` last in its `__init__`.

    It has `title`, `caption`, `widget()` (a new ipywidgets widget) and `_html()` (the built page's fragment).
    """

    def _prepare(self, static: dict[str, str]) -> None:
        """Makes every rendering now: IPython swallows what `_repr_mimebundle_` raises.

        Args:
            static: the renderings by MIME type that need neither a kernel nor a script.
        """
        self._static = dict(static)
        if "google.colab" not in sys.modules:  # which would prefer it to the widget
            self._static["text/html"] = self._html()
        self._widget = self.widget() if kernel_wants_widgets() else None

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        bundle = dict(self._static)
        if self._widget is not None:
            # Written out by hand: ipywidgets 7 has no _repr_mimebundle_ to ask.
            view = {"version_major": 2, "version_minor": 0, "model_id": self._widget.model_id}
            bundle["application/vnd.jupyter.widget-view+json"] = view
        return bundle

    def _framed(self, *children):
        """An ipywidgets VBox of these between the title and the caption."""
        import ipywidgets

        title = ipywidgets.HTML(f"<b>{html.escape(self.title)}</b>")
        caption = [ipywidgets.HTML(f"<small>{html.escape(self.caption)}</small>")] if self.caption else []
        return ipywidgets.VBox([title, *children, *caption])

    def _figcaption(self) -> str:
        return f"<figcaption>{html.escape(self.caption)}</figcaption>" if self.caption else ""


def kernel_wants_widgets() -> bool:
    """Whether a kernel runs this, with ipywidgets, and NORMLIB_STATIC does not forbid them."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return hasattr(shell, "kernel") and not os.environ.get("NORMLIB_STATIC") and bool(find_spec("ipywidgets"))


def embedded(data: dict) -> str:
    """Data as JSON that can stand in a script element."""
    # "<" only ever stands inside a JSON string, where the escape means the same and cannot close the script.
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def unique_id(*content: str) -> str:
    """An id made from what a figure shows, so that two builds are identical."""
    return "nl-" + hashlib.sha256("".join(content).encode()).hexdigest()[:10]


def radio_buttons(unique: str, legend: str, options: Mapping[str, str], start: str, classes: str = "") -> str:
    """A fieldset of native radio buttons, one per option; their values are the options' numbers."""
    buttons = "".join(
        f'<label><input type="radio" name="{unique}" value="{i}" autocomplete="off"'
        f"{' checked' if key == start else ''}> {html.escape(text)}</label>"
        for i, (key, text) in enumerate(options.items())
    )
    kind = f' class="{classes}"' if classes else ""
    return f"<fieldset{kind}><legend>{html.escape(legend)}</legend>{buttons}</fieldset>"


def range_input(unique: str, label: str, texts: Sequence[str], start: int, name: str | None = None) -> str:
    """A native range input over the numbers of `texts`, labelled, with a tick for each value.

    Args:
        start: number of the first value shown.
        name: where a script looks for the slider by a name; then its texts stand in `data-values`.
    """
    last = len(texts) - 1
    # Every value is labelled where the labels fit side by side on a phone (digits are 7 pixels wide), else the ends.
    crowded = sum(7 * len(t) + 8 for t in texts) > 320
    ticks = ""
    for i, text in enumerate(texts):
        wide = ' class="nl-wide"' if i in (0, last) and len(text) > 3 else ""  # would stick out past the track's end
        shown = "" if crowded and 0 < i < last else html.escape(text)
        ticks += f'<span{wide} style="--nl-at:{i / last:.4g}">{shown}</span>'
    label, now = html.escape(label), html.escape(texts[start])
    box = f' data-name="{name}"' if name else ""
    values = f' data-values="{html.escape(" ".join(texts))}"' if name else ""
    return (
        f'<div class="nl-slider"{box}><label for="{unique}">{label}</label> '
        f'<output for="{unique}" aria-live="off">{now}</output>'
        f'<input type="range" id="{unique}" min="0" max="{last}" step="1" value="{start}"{values} autocomplete="off" '
        f'aria-valuetext="{label} {now}"><div class="nl-ticks" aria-hidden="true">{ticks}</div></div>'
    )
