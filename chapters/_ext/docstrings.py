"""Reads normlib's plain docstrings as reStructuredText: `name` is code, indented formulas stay as they are."""

import re


def translate(app, what, name, obj, options, lines):
    """Runs before Sphinx's own reading of Args and Raises."""
    formula = False
    out = []
    for line in lines:
        indented = line.startswith("    ")
        if what == "module" and indented and not formula and not out[-1:][0]:
            out += ["::", ""]
        formula = what == "module" and (indented or (formula and not line))
        if not formula:
            line = re.sub(
                r"(?<!`)`([^`]+)`(?!`)", r"``\1``", line.replace("*", r"\*")
            )
        out.append(line)
    lines[:] = out


def setup(app):
    app.connect("autodoc-process-docstring", translate, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
