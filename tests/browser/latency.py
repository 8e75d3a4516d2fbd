"""How long a slider move takes in a built page; used by the tests and by `make bench`."""

MOVE = """
async ([moves, warm]) => {
  const figures = [...document.querySelectorAll(".nl-explorer.nl-on")];
  const inputs = figures.flatMap((figure) => [...figure.querySelectorAll("input[type=range]")].map((i) => [figure, i]));
  const times = [];
  for (let n = warm ? -inputs.length : 0; n < moves; n++) {
    const [figure, input] = inputs[(n + inputs.length) % inputs.length];
    const next = (Number(input.value) + 1) % (Number(input.max) + 1);
    const start = performance.now();
    input.value = next;
    input.dispatchEvent(new Event("input", { bubbles: true }));
    await figure.normlib.drawn;
    figure.getBoundingClientRect(); // style and layout belong to the move
    const taken = performance.now() - start;
    if (n >= 0) times.push(taken); // the first move of each slider warms it up
    await new Promise((done) => setTimeout(done, 0));
  }
  return times;
}
"""


def measure_slider_latency(page, moves=200, warm=True):
    """Moves the sliders of all Explorers on the open page in turn; returns {"p50": ms, "p95": ms, "moves": n}.

    A move is from the input event to the redrawn, laid-out SVG; warm: each slider is moved once before moves count.
    Raises ValueError where the page has no running Explorer.
    """
    if page.locator(".nl-explorer.nl-on input[type=range]").count() == 0:
        raise ValueError(f"no Explorer runs on {page.url}")
    times = sorted(page.evaluate(MOVE, [moves, warm]))
    return {"p50": times[len(times) // 2], "p95": times[int(0.95 * len(times))], "moves": len(times)}
