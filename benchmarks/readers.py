"""What a reader of the built book waits for: weight, requests, sliders, Lighthouse's scores; on a desk and a phone.

Pages are served as a static host does, compressed and cacheable. To be a phone, this machine is slowed by a factor that
Lighthouse's index of its power gives, taken at the start. Lighthouse runs through `npx`, which fetches it once; without
npx its columns stay empty, and the factor is 4.
"""

import functools
import gzip
import http.server
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tools.browser import chromium

from .pairs import Skipped

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build" / "html"
TARGET = ROOT / "_build" / "pages.json"
OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
LIGHTHOUSE = "lighthouse@12.8.2"
SCORES = ("performance", "accessibility", "best-practices")
LEAST = 95  # of 100, for each score
HEADER = f"{'page':40} {'profile':8}{'weight':>10}{'req.':>5}{'first':>9}{'p50':>9}{'p95':>9}  perf. acc. best"
# Lighthouse's index of a phone in the middle of the market: that of a fast desk computer, 1500 to 2000, over the four
# times by which it slows every machine unless told (its docs/throttling.md, which asks slower ones to calibrate).
PHONE = 1750 / 4
TEXT = ("text/", "application/javascript", "application/json", "image/svg+xml")


@dataclass(frozen=True)
class Profile:
    """A window in CSS pixels, in which sliders are timed; Lighthouse's index of the processor, None for this machine's;
    the options nearest to that of Lighthouse, and of its browser's window."""

    width: int
    height: int
    power: float | None
    lighthouse: tuple[str, ...]
    window: tuple[str, ...] = ()


PROFILES = {
    "desktop": Profile(1350, 940, None, ("--preset=desktop",)),
    # Lighthouse gets a narrow window, Chromium's least, and does not pretend one: with its screen of 412 a headless
    # Chromium without a GPU first painted after 0.3, 1.2 or 2.3 s, also a page without style, scripts or figures.
    "phone": Profile(
        412,
        823,
        PHONE,
        ("--form-factor=mobile", "--screenEmulation.disabled"),
        ("--window-size=500,910", "--force-device-scale-factor=1.75"),
    ),
}


@dataclass(frozen=True)
class Measured:
    """A page in a profile, how many times the processor was slowed for it; kB over the wire and requests; ms from the
    start of loading until the first slider, scrolled to at once, has drawn its first move, ms a move afterwards (both
    None without sliders); Lighthouse's scores of 100, and its index of this machine's power in that run (both None
    without it)."""

    page: str
    profile: str
    slowdown: float
    kilobytes: float
    requests: int
    first_response: float | None
    p50: float | None
    p95: float | None
    scores: dict[str, int | None] | None
    power: float | None = None


def measure(pages: list[str] | None = None) -> list[Measured]:
    """Measures pages of the built book, named as in `_build/html` (None: all), and writes `_build/pages.json`.

    Raises:
        Skipped: no built book, no such page, or no browser.
    """
    found = sorted(str(p.relative_to(HTML)) for p in (*HTML.glob("*.html"), *HTML.glob("chapters/*.html")))
    found = [name for name in found if name != "index.html"]  # it only leads to the introduction
    if not found:
        raise Skipped("no built book: run `make book` first")
    if missing := set(pages or ()) - set(found):
        raise Skipped(f"pages must be among {', '.join(found)}, got {', '.join(sorted(missing))}")
    try:
        path = chromium()
    except FileNotFoundError as error:
        raise Skipped(str(error)) from error
    from playwright.sync_api import sync_playwright

    rows = []
    with _served(HTML) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=OPTIONS)
        slowdowns = _slowdowns(f"{address}/{found[-1]}", path)
        print(HEADER)
        for page in pages or found:
            for name, profile in PROFILES.items():
                url, slowdown = f"{address}/{page}", slowdowns[name]
                seen = _seen(browser, url, profile, slowdown)
                report = _lighthouse(url, profile, path, slowdown)
                power = report and report["environment"]["benchmarkIndex"]
                rows.append(Measured(page, name, slowdown, **seen, scores=report and _scores(report), power=power))
                print(line(rows[-1]), flush=True)
        browser.close()
    part = TARGET.with_suffix(".part")
    part.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    part.replace(TARGET)
    return rows


def line(row: Measured) -> str:
    """A row of the table; scores below LEAST are marked."""
    number = lambda value, unit: "–" if value is None else f"{value:.0f} {unit}"  # noqa: E731
    times = "".join(f"{number(t, 'ms'):>9}" for t in (row.first_response, row.p50, row.p95))
    scores = "".join(
        f"{'–' if v is None else v:>5}{' ' if (v or 0) >= LEAST else '!'}" for v in (row.scores or {}).values()
    )
    return f"{row.page:40} {row.profile:8}{row.kilobytes:7.0f} kB{row.requests:5}{times} {scores}".rstrip()


def _slowdowns(url: str, path: str) -> dict[str, float]:
    """How many times each profile's processor is slower than this one, by the median of three looks at a page."""
    looks = [_lighthouse(url, PROFILES["desktop"], path, 1) for _ in range(3)]
    found = [look["environment"]["benchmarkIndex"] for look in looks if look]
    if not found:
        return {name: 4 if profile.power else 1 for name, profile in PROFILES.items()}
    index = statistics.median(found)
    out = {name: times_slower(index, profile.power) for name, profile in PROFILES.items()}
    print(f"Lighthouse's index of this processor: {index:.0f}; slowed for the phone {out['phone']} times")
    return out


def times_slower(index: float, power: float | None) -> float:
    """How many times a processor of Lighthouse's `index` is to be slowed to have that of `power`.

    1 where power is None, and where the processor is the slower one as it is.
    """
    return 1 if power is None else max(1, round(index / power, 1))


def _seen(browser, url: str, profile: Profile, slowdown: float) -> dict:
    sys.path.insert(0, str(ROOT / "tests" / "browser"))
    from latency import measure_slider_latency
    from watch import start_figures

    with browser.new_context(viewport={"width": profile.width, "height": profile.height}) as context:
        page = context.new_page()
        session = context.new_cdp_session(page)
        session.send("Emulation.setCPUThrottlingRate", {"rate": slowdown})
        session.send("Network.enable")
        weights: list[float] = []
        session.on("Network.loadingFinished", lambda event: weights.append(event["encodedDataLength"]))
        page.goto(url, wait_until="commit")
        first = p50 = p95 = None
        page.wait_for_load_state("domcontentloaded")
        if page.locator(".nl-explorer").count():
            page.locator(".nl-explorer").first.scroll_into_view_if_needed()
            page.wait_for_selector(".nl-explorer.nl-on")
            measure_slider_latency(page, moves=1, warm=False)
            first = page.evaluate("performance.now()")  # counted from the start of loading
            start_figures(page)
            latency = measure_slider_latency(page)
            p50, p95 = latency["p50"], latency["p95"]
        page.wait_for_load_state("networkidle")
    return {
        "kilobytes": round(sum(weights) / 1000, 1),
        "requests": len(weights),
        "first_response": first,
        "p50": p50,
        "p95": p95,
    }


def _lighthouse(url: str, profile: Profile, path: str, slowdown: float) -> dict | None:
    """Lighthouse's report from one run, None where there is none."""
    if shutil.which("npx") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "report.json"
        command = ["npx", "--yes", LIGHTHOUSE, url, "--quiet", "--output=json", f"--output-path={target}"]
        command += [f"--only-categories={','.join(SCORES)}", *profile.lighthouse]
        command += [f"--throttling.cpuSlowdownMultiplier={slowdown}"]
        command += [f"--chrome-flags=--headless=new {' '.join((*OPTIONS, *profile.window))}"]
        try:
            subprocess.run(command, env=os.environ | {"CHROME_PATH": path}, check=True, timeout=300)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            print(f"{url}: no scores, {error}", flush=True)
            return None
        return json.loads(target.read_text(encoding="utf-8"))


def _scores(report: dict) -> dict[str, int | None]:
    """Scores of 100; that of performance scatters by some points with what else the machine does."""
    # null where an audit could not be made
    scores = {name: report["categories"][name]["score"] for name in SCORES}
    return {name: None if score is None else round(100 * score) for name, score in scores.items()}


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    """The address of a server for a folder."""
    handler = functools.partial(_Compressed, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("localhost", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://localhost:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Compressed(http.server.SimpleHTTPRequestHandler):
    """Text is sent compressed, everything may be kept for ten minutes, connections serve for several requests: GitHub
    Pages does all three."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or a body would wait for the receipt of its headers

    def do_GET(self):
        path = Path(self.translate_path(self.path))
        path = path / "index.html" if path.is_dir() else path
        if not path.is_file():
            return self.send_error(404)
        kind = self.guess_type(path)
        compress = kind.startswith(TEXT)
        body = _packed(path) if compress else path.read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "max-age=600")
        if compress:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Not a line per request."""


@functools.cache
def _packed(path: Path) -> bytes:
    return gzip.compress(path.read_bytes())
