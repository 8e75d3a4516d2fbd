"""Headless Chromium, its pages watched for errors and for anything that leaves the disk."""

import os

import pytest
from watch import start_figures, watched

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
    """`page_factory(width=1280, theme="light")` opens a page for one test, see `watched`."""
    pages = []

    def make(**options):
        pages.append(watched(browser, **options))
        return pages[-1]

    yield make
    for page in pages:
        page.context.close()


@pytest.fixture
def open_page(page_factory, address):
    """`open_page(**options)` opens the module's page `address` and waits until all its figures have started."""

    def make(**options):
        page = page_factory(**options)
        page.goto(address)
        start_figures(page)
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
