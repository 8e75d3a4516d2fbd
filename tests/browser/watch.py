"""A page whose problems are kept."""


def start_figures(page):
    """Starts the interactive figures of the page, which else start when they come near the window, and waits for them.

    Raises playwright's TimeoutError if one does not start.
    """
    page.evaluate("() => dispatchEvent(new KeyboardEvent('keydown', { key: 'Tab' }))")  # for the keyboard all start
    page.wait_for_function("() => document.querySelectorAll('.nl-interactive:not(.nl-on)').length === 0")


def watched(browser, width=1280, theme="light", height=900):
    """A page of its own context; `page.problems` collects what went wrong on it.

    Problems are console errors and warnings, uncaught exceptions, and requests for anything but file:, data: and
    blob: addresses. The theme is set as a reader's earlier choice is remembered by the book's theme.
    """
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme)
    context.set_default_timeout(120_000)  # ms: how fast a page is, `make bench` says
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
