"""The repository's address: where it stands, and the buttons that lead there; without one there is no button."""

import os
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = "published"  # the branch that .github/workflows/book.yml writes: the sources with executed notebooks
COLAB = "https://colab.research.google.com"


def address(root=ROOT):
    """REPOSITORY_URL of the environment, else `repository: url:` of _config.yml; "" where neither is set.

    Raises ValueError unless it has the form https://github.com/OWNER/NAME, which Colab can open.
    """
    settings = yaml.safe_load(
        (root / "_config.yml").read_text(encoding="utf-8")
    )
    place, url = "REPOSITORY_URL", os.environ.get("REPOSITORY_URL", "")
    if not url:
        place, url = (
            "_config.yml: repository: url:",
            (settings.get("repository") or {}).get("url") or "",
        )
    if url and not re.fullmatch(
        r"https://github\.com/[\w.-]+/[\w.-]+(?<!\.git)", url
    ):
        raise ValueError(
            f"{place} must be https://github.com/OWNER/NAME or empty, got {url!r}"
        )
    return url


def colab(url, page):
    """Where Colab opens a page of the book, such as chapters/00_intro."""
    return f"{COLAB}/github{url.removeprefix('https://github.com')}/blob/{PUBLISHED}/{page}.ipynb"


def set_buttons(app, config):
    """Switches the theme's own buttons on; set before the theme reads its options."""
    config.repository_address = address()
    buttons = bool(config.repository_address)
    config.html_theme_options |= {
        "repository_url": config.repository_address,
        "use_repository_button": buttons,
        "use_issues_button": buttons,
        "use_edit_page_button": False,
    }


def add_launch_button(app, page, template, context, doctree):
    """Colab, for what is a notebook. The theme's own would open the branch of the sources, without outputs."""
    url = app.config.repository_address
    if not url or not app.env.doc2path(page).endswith(".ipynb"):
        return
    context["header_buttons"].append(
        {
            "type": "link",
            "tooltip": "Run this chapter on Colab",
            "icon": "fas fa-rocket",
            "label": "colab-button",
            "url": colab(url, page),
        }
    )


def setup(app):
    app.add_config_value("repository_address", "", "html")
    app.connect("config-inited", set_buttons)
    app.connect(
        "html-page-context", add_launch_button, priority=502
    )  # after the theme's
    return {"parallel_read_safe": True, "parallel_write_safe": True}
