"""For `pytest --nbval`: which outputs of a notebook are compared, and from where chapters import."""

RENDERED = ("text/html", "image/svg+xml")  # beside image/png and the widgets' views, which nbval skips by itself


def pytest_collectstart(collector):
    """Compares text and leaves pictures alone: chapters store only text (tools/notebooks.py)."""
    if getattr(collector, "skip_compare", None):
        collector.skip_compare += RENDERED
