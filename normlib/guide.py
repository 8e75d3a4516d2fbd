"""Which normalization for which situation, as a figure to answer questions in.

    Guide()                                        # as a cell's last value
    advise(m="2", task="dense").code               # the lines to paste

`advise` is the whole of it: rules from a situation to an `Advice`, each with what stands behind it. `Guide` shows the
same in two runtimes: ipywidgets with a kernel; native radio buttons in the built page, for which every situation's
answer is worked out when the book is built (chapters/_static/guide.js only looks it up).
"""

import html
from dataclasses import dataclass, replace
from itertools import product

from .interactive import Interactive, embedded, radio_buttons, unique_id

QUESTIONS: dict[str, tuple[str, dict[str, str]]] = {
    "m": (
        "Samples per device",
        {"1": "1", "2": "2 or 3", "4": "4 to 7", "8": "8 to 31", "32": "32 or more"},
    ),
    "start": ("Weights", {"scratch": "from scratch", "tuned": "from a network trained with Batch Norm"}),
    "task": (
        "Task",
        {
            "classify": "classification",
            "dense": "detection, segmentation",
            "style": "images whose contrast should not matter",
            "sequence": "recurrent network",
        },
    ),
    "batches": ("Batches", {"iid": "random samples", "related": "related samples: few classes, one video"}),
    "inference": (
        "At inference",
        {
            "any": "each sample's own statistics will do",
            "fixed": "a fixed line per channel, to fold into a convolution",
        },
    ),
    "precision": ("Arithmetic", {"single": "float32", "mixed": "mixed, float16 or bfloat16"}),
}


@dataclass(frozen=True)
class Advice:
    """What to paste, and why.

    when: the situations it is for, in words. because: (sentence, notebook without suffix, its heading). caution: what
    may go wrong. code: Python that runs where `model`, `epoch` (from 1) and `epochs` are defined.
    """

    when: str
    name: str
    code: str
    because: tuple[tuple[str, str, str], ...]
    caution: tuple[str, ...] = ()


def _lines(call: str, imports: str = "convert_norm", before: str = "", after: str = "") -> str:
    return f"from normlib.convert import {imports}\n{before}\nmodel = convert_norm(model, {call})\n{after}"


CH04, CH05, CH06 = "04_batch_renormalization", "05_layer_instance_group", "06_weight_standardization"
CH08, CH09 = "08_side_by_side", "09_choosing"
_GROUPS = "Where maps end at one position, a group of few channels has few values: pass a smaller num_groups."
_WS = (
    "At one and two samples per statistic, Group Norm with standardized weights is ahead of Batch Norm with them; at "
    "eight it is behind.",
    CH06,
    "Recorded, on CIFAR-10",
)
_ALONE = ("A sample's output depends on no other sample.", CH05, "One formula, other index sets")
_RAMP = """from normlib.schedules import renorm_limits


def opening(epoch, epochs):
    return renorm_limits(epoch - 1, start=0.1 * epochs, d_end=0.5 * epochs, r_end=0.8 * epochs)

"""
_FREEZE = """from torch import nn

# nothing to convert; after every model.train():
for layer in model.modules():
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        layer.eval()
"""

# Where several fit a situation, the last one is `_choose`'s: so the list can be read without the figure.
ADVICE = {
    "bn": Advice(
        "32 samples or more, or 8 and more in fine-tuning, and the batches are random",
        "Batch Norm, as it is",
        "# nothing to convert",
        (
            (
                "On a perceptron, the hardest case here, Batch Norm at 8 samples loses about a point against 32, at 4 "
                "more than eight; behind Layer Norm it falls between 8 and 4.",
                CH05,
                '"At least 32"?',
            ),
        ),
        (
            "Fine-tuning was measured at 32 and at 8 samples, where it is ahead of frozen statistics (chapter 09).",
            "From scratch standardized weights may help here too: at 32 samples they did on photographs, by some three "
            "points after a short training; on digits none was resolved at 32, about one gained at 64, and at "
            "128 and 256, in 56 and 24 steps, five and eleven (chapter 08).",
            "Check evaluation before you change the layer: recomputed statistics cost a few hundred forward passes.",
        ),
    ),
    "bn+ws": Advice(
        "from scratch, 4 to 31 random samples, or 2 or 3 where inference must be a fixed line",
        "Batch Norm and standardized weights",
        _lines('"bn+ws"'),
        (
            (
                "On photographs, each at a rate of its own, Batch Norm with standardized weights is ahead of Group "
                "Norm with them, of Batch Norm without and of Batch Renorm at 4 and 8 samples per statistic; at 2 of "
                "the last two, and behind the first.",
                CH08,
                "The same on photographs",
            ),
        ),
        (
            "On digits, each at its own rate, it was ahead of Group Norm with standardized weights at 8 and of Batch "
            "Norm at 2 and 8, by one or two points; no other of these differences was resolved at 2 to 16.",
            "For inference fold both: the standardized weights are constants, and so are the running statistics.",
        ),
    ),
    "gn+ws": Advice(
        "from scratch, fewer than 4 samples or related ones, and nothing need be folded",
        "Group Norm and standardized weights",
        _lines('"gn+ws"'),
        (
            _WS,
            _ALONE,
            ("ResNets on digits and on photographs, converted and trained.", CH09, "A migration"),
        ),
        (
            _GROUPS,
            "At two samples its lead over Batch Norm with standardized weights is two to four points on photographs, "
            "and on digits no difference was resolved (chapter 08).",
            "On photographs “bcn+ws” by estimates was ahead of it by one or two points, on digits the two were not "
            "told apart; a step of it takes more time and memory (same place).",
        ),
    ),
    "bcn+ws": Advice(
        "from scratch, fewer than 4 random samples, detection or segmentation, and nothing need be folded",
        "Batch-Channel Norm by running estimates, and standardized weights",
        _lines('"bcn+ws", estimate=True'),
        (
            (
                "With estimates, accuracy hardly depends on the samples per statistic, down to one.",
                CH06,
                "Recorded, on CIFAR-10",
            ),
            (
                "Its authors report the form with batch statistics, synchronized over devices, ahead of Group Norm "
                "with standardized weights on VOC segmentation; of this form no such number is known to us.",
                CH09,
                "What stands behind it",
            ),
        ),
        (
            "It adds parameters: make the optimizer afterwards. On CIFAR-10 its lead over “gn+ws” was resolved at 2 in "
            "two of two records, at 1 in one; at 4, on photographs, it was a point behind “bn+ws” (chapter 08).",
        ),
    ),
    "brn": Advice(
        "from scratch, a single sample or related ones, and inference must be a fixed line",
        "Batch Renorm, its bounds opened during training",
        _lines(
            '"brn", schedule=opening',
            "convert_norm, set_epoch",
            _RAMP,
            "# before every epoch, counted from 1:\nset_epoch(model, epoch, epochs)\n",
        ),
        (
            ("Batches of two classes: far ahead of Batch Norm.", CH04, "Batches that are not iid"),
            (
                "At one sample, on photographs, it is ahead of “bn+ws”, which folds too.",
                CH08,
                "The same on photographs",
            ),
        ),
        (
            "At one sample, on photographs, Momentum Batch Norm, a fixed line too, was eleven points ahead of it; on "
            "digits the two were not told apart.",
            "At one sample it was some forty points behind “gn+ws” on digits, and it refuses layers with one "
            "position: give up the fixed line if you can.",
            "With two values per statistic the backward pass is still Batch Norm's (“What it does not repair” there).",
            "The ramp is given in shares of training; it must be told every epoch.",
        ),
    ),
    "in": Advice(
        "from scratch, contrast should not matter, and nothing need be folded",
        "Instance Norm",
        _lines('"in"'),
        (
            (
                "It cannot see an image's contrast: ahead of Batch and Layer Norm at contrast 1/4, under a tint of "
                "Layer Norm alone; behind both where contrast stayed or was halved.",
                CH05,
                "What Instance Norm cannot see",
            ),
        ),
        ("Where contrast tells anything, that is lost. It refuses layers with one position.",),
    ),
    "ln": Advice(
        "from scratch, a recurrent network",
        "Layer Norm",
        _lines('"ln"'),
        (
            (
                "No statistics per step, no longest length. At 32 samples it was ahead of Batch Norm with one average "
                "by about two points; from Batch Norm with statistics per step it was not told apart.",
                CH05,
                "Recurrent networks",
            ),
            _ALONE,
        ),
        (
            "Call it step by step, on inputs of shape (N, C): on (N, C, T) it averages over time as well, later steps "
            "included.",
            "It has no fixed line to fold. A recurrent network with one was not measured here.",
        ),
    ),
    "frozen": Advice(
        "fine-tuning with fewer than 8 samples or related ones",
        "Batch Norm, put into eval() after every model.train()",
        _FREEZE,
        (
            (
                "At two samples per statistic a network with frozen statistics trains where Batch Norm and Batch "
                "Renorm fail; in batches of two classes it is ahead of Batch Norm in the mean, if not surely.",
                CH09,
                "Fine-tuning with frozen statistics",
            ),
        ),
        (
            "Frozen, the layer is a fixed line and normalizes nothing: take a smaller learning rate.",
            "At four samples per statistic, and in batches of two classes, “brn” with r_max=3, d_max=5 was not told "
            "apart from it (same place).",
            "New data whose statistics are far from the old ones were not tested.",
        ),
    ),
}
_STILL = "Without the figure, in words; where several lines fit, the last one counts:"
_MIXED = (
    "Under autocast the line is the same: statistics are taken and kept in float32, whatever the input.",
    CH09,
    "In half precision",
)


def advise(
    m: str = "2",
    start: str = "scratch",
    task: str = "classify",
    batches: str = "iid",
    inference: str = "any",
    precision: str = "single",
) -> Advice:
    """The rules; each argument is a key of its question in QUESTIONS.

    Raises:
        ValueError: an answer that is not one of the question's.
    """
    given = {"m": m, "start": start, "task": task, "batches": batches}
    given |= {"inference": inference, "precision": precision}
    for name, value in given.items():
        if value not in QUESTIONS[name][1]:
            raise ValueError(f"{name} must be one of {', '.join(QUESTIONS[name][1])}, got {value!r}")
    advice = ADVICE[_choose(m, start, task, batches, inference)]
    return replace(advice, because=(*advice.because, _MIXED)) if precision == "mixed" else advice


def _choose(m: str, start: str, task: str, batches: str, inference: str) -> str:
    few, related, fixed = m in ("1", "2", "4"), batches == "related", inference == "fixed"
    if start == "tuned":
        return "frozen" if few or related else "bn"
    if task == "sequence":
        return "ln"
    if task == "style" and not fixed:
        return "in"
    if fixed and (m == "1" or related):
        return "brn"
    if task == "dense" and m in ("1", "2") and not (related or fixed):
        return "bcn+ws"
    if related or (m in ("1", "2") and not fixed):
        return "gn+ws"
    return "bn" if m == "32" else "bn+ws"


def situations():
    """Every combination of answers, the last question's changing fastest."""
    for values in product(*(answers for _, answers in QUESTIONS.values())):
        yield dict(zip(QUESTIONS, values, strict=True))


class Guide(Interactive):
    """The questions, and the answer to them.

    Args:
        caption: text under the figure.
        start: answers shown first, as for `advise`.
    """

    title = "Which normalization?"

    def __init__(self, caption: str | None = None, **start: str):
        self.caption = caption
        self.start = next(situations()) | {"m": "2"} | start
        advise(**self.start)  # names a wrong answer
        self._prepare({"text/plain": repr(self)})

    def widget(self):
        """A new ipywidgets VBox: a drop-down list per question over the answer."""
        import ipywidgets

        lists = {
            name: ipywidgets.Dropdown(
                options=[(text, key) for key, text in answers.items()],
                value=self.start[name],
                description=question,
                style={"description_width": "initial"},
                layout={"width": "min(100%, 36rem)"},
            )
            for name, (question, answers) in QUESTIONS.items()
        }
        answer = ipywidgets.HTML()

        def redraw(_change=None):
            advice = advise(**{name: box.value for name, box in lists.items()})
            answer.value = f'<div role="status">{_answer(advice, links=False)}</div>'

        redraw()
        for box in lists.values():
            box.observe(redraw, names="value")
        return self._framed(*lists.values(), answer)

    def __repr__(self) -> str:
        lines = [f"{self.title} {_STILL}"]
        for advice in ADVICE.values():
            code = [line for line in advice.code.split("\n") if line]
            lines.append(f"- {advice.when}: {advice.name}")
            lines += [f"    {line}" for line in (code[1:] if len(code) == 2 else code)]
        return "\n".join(lines)

    def _html(self) -> str:
        texts: dict[str, int] = {}
        chosen = [texts.setdefault(_answer(advise(**s), links=True), len(texts)) for s in situations()]
        sizes = [len(answers) for _, answers in QUESTIONS.values()]
        data = embedded({"sizes": sizes, "chosen": chosen, "answers": list(texts)})
        unique = unique_id(self.title, repr(self.start), data)
        fields = "".join(
            radio_buttons(f"{unique}-{name}", question, answers, self.start[name])
            for name, (question, answers) in QUESTIONS.items()
        )
        still = "".join(
            f"<dt>{html.escape(a.when)}</dt><dd>{html.escape(a.name)}<pre>{html.escape(a.code.strip())}</pre></dd>"
            for a in ADVICE.values()
        )
        return (
            f'<figure class="nl-interactive nl-guide mathjax_ignore tex2jax_ignore" id="{unique}">'
            f'<p class="nl-title" id="{unique}-title">{self.title}</p>'
            f'<div class="nl-controls" role="group" aria-labelledby="{unique}-title" hidden>{fields}</div>'
            f'<div class="nl-live" aria-live="polite" hidden>{_answer(advise(**self.start), links=True)}</div>'
            f'<div class="nl-still"><p>{_STILL}</p><dl>{still}</dl></div>{self._figcaption()}'
            f'<script type="application/json" class="nl-data">{data}</script></figure>'
        )


def _answer(advice: Advice, *, links: bool) -> str:
    """An advice as HTML; links lead to the pages of the built book."""
    reasons = ""
    for sentence, file, heading in advice.because:
        place = f"chapter {file[:2]}"
        place = f'<a href="{file}.html">{place}</a>' if links else place
        reasons += f"<li>{html.escape(sentence)} ({place}, “{html.escape(heading)}”)</li>"
    cautions = "".join(f"<li>Mind: {html.escape(sentence)}</li>" for sentence in advice.caution)
    # A list of code is focusable, so that it can be scrolled by keyboard where it is wider than the page.
    code = f'<pre tabindex="0">{html.escape(advice.code.strip())}</pre>'
    return f"<p><b>{html.escape(advice.name)}</b></p>{code}<ul>{reasons}{cautions}</ul>"
