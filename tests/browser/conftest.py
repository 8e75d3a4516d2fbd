"""Headless Chromium, its pages watched for errors and for anything that leaves the disk."""

import os

import pytest

from tools.browser import chromium


@pytest.fixture(scope="session")
def browser():
    try:
        path = chromium()
    except FileNotFoundError as error:
        if os.environ.get("NORMLIB_REQUIRE_BROWSER") == "1":
            pytest.fail(str(error))
        pytest.skip(str(error))
    from playwright.sync_api import sync_playwright

    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=options)
        yield launched
        launched.close()


@pytest.fixture
def page_factory(browser):
    """`page_factory(width=1280, theme="light")` opens a page; `page.problems` collects what went wrong on it.

    Problems are console errors and warnings, uncaught exceptions, and requests for anything but file:, data: and
    blob: addresses. The theme is set as a reader's earlier choice is remembered by the book's theme.
    """
    contexts = []

    def make(width=1280, theme="light", height=900):
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme)
        contexts.append(context)
        context.add_init_script(f"for (const key of ['mode', 'theme']) localStorage.setItem(key, '{theme}')")
        page = context.new_page()
        page.problems = problems = []
        page.on("pageerror", lambda error: problems.append(f"exception: {error}"))
        page.on("console", lambda m: m.type in ("error", "warning") and problems.append(f"{m.type}: {m.text}"))
        page.on("requestfailed", lambda request: problems.append(f"failed: {request.url}"))

        def watch(request):
            if not request.url.startswith(("file:", "data:", "blob:")):
                problems.append(f"left the disk: {request.url}")

        page.on("request", watch)
        return page

    yield make
    for context in contexts:
        context.close()


@pytest.fixture
def open_page(page_factory, address):
    """`open_page(**options)` opens the module's page `address` and waits until all its figures have started."""

    def make(**options):
        page = page_factory(**options)
        page.goto(address)
        page.wait_for_selector(".nl-on")
        page.wait_for_function("document.querySelectorAll('.nl-interactive:not(.nl-on)').length === 0")
        return page

    return make


@pytest.fixture
def unscripted(browser, address):
    """The module's page `address` in a browser that runs no scripts."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    yield page
    context.close()


@pytest.fixture
def on_paper(open_page):
    """The module's page `address` as it is printed; on the screen its still forms are hidden."""
    page = open_page()
    assert not page.locator(".nl-still").first.is_visible()
    page.emulate_media(media="print")
    return page
