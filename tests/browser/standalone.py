"""A page with interactive figures of one kind and nothing else, as it is opened from disk."""

import shutil
from pathlib import Path

from normlib import explorer
from normlib.interactive import STATIC, Interactive

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Figures</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<script>document.documentElement.dataset.theme = localStorage.getItem("theme") || "light"</script>
<style>
body {{ margin: 16px; font-family: sans-serif }}
html[data-theme="light"] {{ --pst-color-text-base: #222832; background: #fff }}
html[data-theme="dark"] {{ --pst-color-text-base: #ced6dd; background: #14181e }}
</style>{head}</head><body>{body}</body></html>"""


def write_page(folder: Path, kind: str, *figures: Interactive) -> str:
    """Writes the page and what figures of this kind load; returns its address."""
    static = folder / "_static"
    static.mkdir()
    for name in ("interactive.css", "interactive.js", f"{kind}.css", f"{kind}.js"):
        shutil.copyfile(STATIC / name, static / name)
    scripts = ["interactive.js", f"{kind}.js"]
    if kind == "explorer":
        explorer.write_assets(static)
    head = "".join(f'<link rel="stylesheet" href="_static/{name}">' for name in ("interactive.css", f"{kind}.css"))
    head += "".join(f'<script src="_static/{name}" defer></script>' for name in scripts)
    body = "".join(figure._repr_mimebundle_()["text/html"] for figure in figures)
    (folder / "index.html").write_text(PAGE.format(head=head, body=body), encoding="utf-8")
    return (folder / "index.html").as_uri()
