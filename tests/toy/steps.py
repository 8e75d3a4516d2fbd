"""Mean-only Batch Norm by the five steps of CONTRIBUTING.md, as changes of files that can be made and left out."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHAPTER = "chapters/10_mean_only.ipynb"


@dataclass(frozen=True)
class Change:
    """`text` goes into `file` behind `after`, which stands there once; without `after` it is the file, or its end."""

    file: str
    text: str
    after: str = ""

    def make(self, root: Path) -> None:
        path = root / self.file
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        if self.after:
            assert before.count(self.after) == 1, f"{self.file} has {before.count(self.after)} times {self.after!r}"
        head, mark, tail = before.partition(self.after) if self.after else (before, "", "")
        path.write_text(head + mark + self.text + tail, encoding="utf-8")

    def leave_out(self, root: Path) -> None:
        path = root / self.file
        text = path.read_text(encoding="utf-8")
        assert text.count(self.text) == 1, f"{self.file} has {text.count(self.text)} times {self.text!r}"
        rest = text.replace(self.text, "")
        path.write_text(rest, encoding="utf-8") if rest else path.unlink()


def _lines(*lines: str) -> str:
    """Lines of a Markdown cell, as a notebook's JSON has them."""
    return "".join(f"    {json.dumps(line + chr(10), ensure_ascii=False)},\n" for line in lines)


WRITTEN = """class WrittenMeanOnlyBatchNorm(Written):
    starts = (("running_mean", 0.0),)
    settings = (("momentum", 0.1),)

    def step(self, x):
        mean, _ = moments(x)
        new = {"running_mean": (1 - self.momentum) * self.running_mean + self.momentum * mean}
        return x - per_channel(mean, x), new

    def evaluate(self, x):
        return x - per_channel(self.running_mean, x)


"""
METHOD = """    "mobn": (
        layers.MeanOnlyBatchNorm,
        WrittenMeanOnlyBatchNorm,
        [{}, {"virtual_batch_size": 2, "momentum": 0.3}, {"affine": False}],
    ),
"""
MISTAKE = '''

class MeanDetached(WrittenMeanOnlyBatchNorm):
    """x − sg[μ_B]: every value is right, and no gradient is centered."""

    def step(self, x):
        _, new = super().step(x)
        return x - per_channel(moments(x)[0].detach(), x), new


def test_mean_only_with_a_detached_mean():
    rejected("mobn", MeanDetached)
'''
QUESTIONS = """    "10_mean_only": (
        _ask(
            "What does mean-only Batch Norm pass to two samples of a batch, at values 3 and 8?",
            1,
            ("−1 and 1.", "That takes a division by the deviation, which this layer leaves out.", "The derivation"),
            ("−2.5 and 2.5.", "The mean, 5.5, is subtracted, and nothing else happens.", "The derivation"),
            ("Two zeros.", "Only equal samples become zeros.", "One batch, drawn"),
        ),
        _ask(
            "What becomes of the gradient on its way back?",
            2,
            ("It is divided by the deviation.", "No deviation enters the layer.", "The derivation"),
            ("It vanishes at two samples.", "Batch Norm's does; here their difference passes.", "The derivation"),
            ("Its mean over the batch is removed.", "The mean of the inputs was.", "The derivation"),
        ),
        _ask(
            "What is left to something else?",
            0,
            ("The scale of the activations.", "Nothing here holds it, whatever the weights do.", "Does it pay?"),
            ("Their mean.", "That is what the layer takes out.", "One batch, drawn"),
            ("The difference of two samples.", "It passes unchanged, there and back.", "One batch, drawn"),
        ),
    ),
"""
PAPER = """
@inproceedings{salimans2016weight,
  author    = {Salimans, Tim and Kingma, Diederik P.},
  title     = {Weight Normalization: A Simple Reparameterization to Accelerate Training of Deep Neural Networks},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {29},
  year      = {2016},
  eprint    = {1602.07868},
  archiveprefix = {arXiv}
}
"""
CLAIM = """CH10 = "10_mean_only"


@_entry(
    "MOBN-1",
    "Salimans and Kingma: mean-only Batch Norm centers the gradients that pass back through it.",
    (CH10, "The derivation"),
    scale="float64, 8 samples of 3 channels",
)
def _():
    x, g = _normal(8, 3).requires_grad_(), _normal(8, 3, seed=1)
    (back,) = torch.autograd.grad(layers.MeanOnlyBatchNorm(3).double()(x), x, g)
    yield identity("the gradient's mean over the batch, and 0", back.mean(0), torch.zeros_like(back[0]))


"""
API = """## Mean-only Batch Norm

```{eval-rst}
.. automodule:: normlib.layers.mean_only_batch_norm
   :members: MeanOnlyBatchNorm
   :exclude-members: forward, extra_repr
```

"""

REFERENCES, MISTAKES = "tests/layers/references.py", "tests/layers/test_planted_mistakes.py"
CLAIMS, INTRO = "normlib/experiments/claims.py", "chapters/00_intro.ipynb"
PAPERS = "Papers: Group Norm, Batch Renorm, Momentum and Ghost Batch Norm"
# What stands before a text that goes in.
LAST_OF_API = "   :members: MomentumBatchNorm\n   :exclude-members: forward, extra_repr\n```\n\n"
LAST_WRITTEN = '(var + self.eps).sqrt()), {"running_mean": mean, "running_var": var}\n\n\n'
LAST_METHOD = '            {"batch_size": 8, "lam": 0.5, "affine": False, "eps": 0.1},\n        ],\n    ),\n'
LAST_NAME = '    "mbn": layers.MomentumBatchNorm,\n'
LAST_CONVERSION = '    "mbn": (layers.MomentumBatchNorm, {"batch_size": 2}),\n'
LAST_FIGURE = "| the sentences under it, and the places they lead to |\n"
LAST_CLAIM = '        yield measured(label, ratios, "=", kind="simulated", unit="%", margin=5.0)\n\n\n'
LAST_EXACT = 'EXACT = ("000-2", "000-3", "001-7", "MBN-1"'

STEPS: dict[str, list[Change]] = {
    "1 layer": [
        Change("normlib/layers/mean_only_batch_norm.py", (HERE / "mean_only_batch_norm.py").read_text("utf-8")),
    ],
    "1 package": [
        Change(
            "normlib/layers/__init__.py",
            "from .mean_only_batch_norm import MeanOnlyBatchNorm\n",
            "from .group_norm import GroupNorm, InstanceNorm, LayerNorm\n",
        ),
        Change("normlib/layers/__init__.py", '    "MeanOnlyBatchNorm",\n', '    "LayerNorm",\n'),
    ],
    "1 reference": [Change("chapters/api.md", API, LAST_OF_API)],
    "2 oracle": [Change(REFERENCES, WRITTEN, LAST_WRITTEN), Change(REFERENCES, METHOD, LAST_METHOD)],
    "2 mistake": [
        Change(MISTAKES, "    WrittenMeanOnlyBatchNorm,\n", "    WrittenGroupNorm,\n"),
        Change(MISTAKES, '    "mobn": {},\n', '    "mbn": {"batch_size": 4, "lam": 0.875},\n'),
        Change(MISTAKES, MISTAKE),
    ],
    "3 name": [
        Change("normlib/convert.py", '    "mobn": layers.MeanOnlyBatchNorm,\n', LAST_NAME),
        Change("normlib/convert.py", ' "mobn",', '"bn", "brn", "ln", "in", "gn",'),
    ],
    "3 conversion": [
        Change("tests/test_convert_models.py", '    "mobn": (layers.MeanOnlyBatchNorm, {}),\n', LAST_CONVERSION),
    ],
    "3 folding": [
        Change("tests/test_folding.py", '    "mobn": ("mobn", {}),\n', '    "mbn": ("mbn", {"batch_size": 8}),\n'),
    ],
    "4 contents": [Change("_toc.yml", "      - file: chapters/10_mean_only\n", "      - file: chapters/09_choosing\n")],
    "4 introduction": [
        Change(
            INTRO,
            _lines("| What if the mean alone is taken out? | [Chapter 10](10_mean_only.ipynb) |"),
            _lines("| Which for my task, and how do I change my model? | [Chapter 09](09_choosing.ipynb) |"),
        )
    ],
    "4 instructors": [
        Change(
            "chapters/instructors.md",
            "| One channel of one batch, before and after (10) | What stays? | the distances, at every $m$ |\n",
            LAST_FIGURE,
        )
    ],
    "4 exercises": [Change("normlib/exercises/chapter_10.py", (HERE / "chapter_10.py").read_text("utf-8"))],
    "4 questions": [Change("normlib/questions.py", QUESTIONS, "QUESTIONS: dict[str, tuple[Question, ...]] = {\n")],
    "4 papers": [Change("chapters/references.bib", PAPER)],
    "5 claims": [
        Change(CLAIMS, ', "MOBN-1"', '_PAPERS = ("GN-1", "BRN-1", "BRN-2", "BRN-3", "MBN-1"'),
        Change(CLAIMS, CLAIM, LAST_CLAIM),
        Change(CLAIMS, ", Weight Normalization", PAPERS),
    ],
    "5 page": [Change("chapters/A_claims.ipynb", ", Weight Normalization", f"## {PAPERS}")],
    "5 judged": [Change("tests/experiments/test_claims.py", ', "MOBN-1"', LAST_EXACT)],
}

# What is written in place of the template's words, cell by cell where a cell is told by its beginning.
CELLS = {
    "# A method": r"""# Mean-only Batch Normalization

:::{admonition} Before you start
**Prerequisites** [Chapter 02](02_batch_normalization.ipynb): Batch Norm, forward and backward.
**Time** [reading and running](#running-times).
**Symbols** [the book's notation](#notation).

After this chapter you can

- say what is left of Batch Norm without its division.
:::

## The question

Of the {term}`batch statistics`, what does the mean do alone {cite}`salimans2016weight`?""",
    "## One batch, drawn": r"""## One batch, drawn

A channel has mean 2 and deviation 3. Drag the draw at $m=2$: the two samples keep their distance.""",
    "## The derivation": r"""## The derivation

Over the values of a channel in a batch,

$$
\hat x=x-\mu_\mathcal{B},\qquad y=\gamma\,\hat x+\beta,\qquad \frac{\partial L}{\partial x}=g-\langle g\rangle .
$$ (mean-only-forward)

## The layer in a few lines

For inputs of shape $(N,C)$, held against the package in double precision.""",
    "class Norm(": """class Norm(nn.Module):
    folds = True

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))

    def forward(self, x):
        mean = self.running_mean
        if self.training:
            mean = x.mean(0)
            with torch.no_grad():
                self.running_mean.lerp_(mean, 0.1)
        return self.weight * (x - mean) + self.bias""",
    "## Does it pay?": r"""## Does it pay?

The book's perceptron on 1000 digits, batches of 32, three epochs, five seeds. Nothing holds the scale of
the signal, which torch's initial weights let shrink from layer to layer: neither network should get far.""",
    "### Recorded": """### Recorded

The grid `digits-batch-size`, ten epochs, with Batch Norm: this layer has no recorded run.""",
    "*Then the verdict": r"""The gradient is centered (MOBN-1): reproduced, by {eq}`mean-only-forward`.

## What this does not show

One small network at one learning rate, with weights that nothing standardizes.

## Exercises""",
    "### Exercise 1": """### Exercise 1: the way back (5 minutes)

Write `centered_gradient(x, dy)`: what passes the layer on the way back, for one channel and $\\gamma=1$.""",
    "### Exercise 2": r"""### Exercise 2: predict, then run (5 minutes)

What leaves the layer if all samples of a batch are equal?

:::{dropdown} Answer
$\beta$: the difference from their mean is 0.
:::

### Exercise 3: predict, then run (5 minutes)

What becomes of the output if the weights below are multiplied by 10?

:::{dropdown} Answer
It is ten times as large before $\beta$ is added; Batch Norm would not notice.
:::""",
    "## Further reading": """## Further reading

- {cite}`salimans2016weight`: section 4 has the layer.""",
}
WORDS = {
    "y = (x - x.mean()) / x.std()": "y = x - x.mean()",
    "assert (ahead - behind).mean() > 0.1": "assert max(ahead.mean(), behind.mean()) < 0.5",
    "the normalized network rises faster and is ahead at the end.": "neither network gets far.",
    "from normlib.layers import BatchNorm\n": "from normlib.layers import MeanOnlyBatchNorm\n",
    '{"normlib": BatchNorm, "torch": nn.BatchNorm1d}': '{"normlib": MeanOnlyBatchNorm}',
    "def running_after(batches, momentum): ...\n\n\n# check(running_after)": (
        "def centered_gradient(x, dy): ...\n\n\n# check(centered_gradient)"
    ),
    '# the name of your notebook; these are chapter 02\'s questions\nQuiz("02_batch_normalization")': (
        'Quiz("10_mean_only")'
    ),
}
SOLUTION = "def centered_gradient(x, dy):\n    return dy - dy.mean()\n\n\ncheck(centered_gradient)"


def write_chapter(root: Path) -> None:
    """The template, filled in; its outputs are still those of the template."""
    notebook = json.loads((root / "chapters" / "_template.ipynb").read_text(encoding="utf-8"))
    used = set()
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        for start, text in CELLS.items():
            if source.startswith(start):
                source = text
                used.add(start)
        for old, new in WORDS.items():
            if old in source:
                source = source.replace(old, new)
                used.add(old)
        if re.match(r"def running_after\(.*\):\n", source):
            source = SOLUTION
            used.add("solution")
        cell["source"] = source
    left = {*CELLS, *WORDS, "solution"} - used
    assert not left, f"chapters/_template.ipynb holds no more: {sorted(left)}"
    (root / CHAPTER).write_text(json.dumps(notebook), encoding="utf-8")
