"""Every line the guide can print runs, and every reason it gives leads to a section of the book."""

import json
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from normlib import guide, layers
from normlib.models import ThinResNet

CHAPTERS = Path(__file__).resolve().parents[1] / "chapters"
pytestmark = pytest.mark.usefixtures("one_thread")
ALL = list(guide.situations())


def test_every_situation_has_an_answer_and_every_answer_a_situation():
    chosen = [guide.advise(**s) for s in ALL]
    assert len(chosen) == 5 * 2 * 4 * 2 * 2 * 2
    assert {a.code for a in chosen} == {a.code for a in guide.ADVICE.values()}
    for situation, advice in zip(ALL, chosen, strict=True):
        mixed = any("autocast" in sentence for sentence, *_ in advice.because)
        assert mixed is (situation["precision"] == "mixed")


def test_the_rules():
    def code(**situation):
        return guide.advise(**situation).code

    assert '"gn+ws")' in code()
    assert '"bcn+ws", estimate=True)' in code(m="1", task="dense")
    assert '"gn+ws")' in code(m="32", batches="related")
    assert '"gn+ws")' in code(m="32", batches="related", task="dense")
    assert '"bn+ws")' in code(m="4")
    for m, line in (
        ("1", '"brn", schedule=opening)'),
        ("2", '"bn+ws")'),
        ("8", '"bn+ws")'),
        ("32", "nothing to convert"),
    ):
        assert line in code(m=m, inference="fixed")
    assert '"brn", schedule=opening)' in code(m="8", batches="related", inference="fixed")
    assert '"in")' in code(task="style")
    assert '"ln")' in code(task="sequence", m="32")
    assert '"ln")' in code(task="sequence", inference="fixed")
    assert '"in")' not in code(task="style", inference="fixed")
    for m, frozen in (("4", True), ("8", False)):
        assert ("layer.eval()" in code(m=m, start="tuned")) is frozen
    with pytest.raises(ValueError, match="task must be one of classify, dense"):
        guide.advise(task="speech")


@pytest.mark.parametrize("key", guide.ADVICE)
def test_the_lines_run_and_the_model_trains(key):
    torch.manual_seed(0)
    model = ThinResNet(8, width=8, in_channels=1, norm_layer=nn.BatchNorm2d)
    scope = {"model": model.train(), "epoch": 3, "epochs": 10}
    exec(guide.ADVICE[key].code, scope)
    model = scope["model"]
    norms = [m for m in model.modules() if hasattr(m, "eps") and not isinstance(m, nn.Conv2d)]
    assert norms
    assert all(isinstance(m, nn.BatchNorm2d) is (key in ("bn", "frozen")) for m in norms)
    if key == "frozen":
        assert not any(m.training for m in norms)
        before = [m.running_mean.clone() for m in norms]
    if key == "brn":
        assert {m.r_max > 1 for m in norms} == {True}  # the ramp has begun at epoch 3 of 10
    assert any(isinstance(m, layers.WSConv2d) for m in model.modules()) is ("+ws" in key)
    loss = F.cross_entropy(model(torch.randn(2, 1, 16, 16)), torch.tensor([0, 1]))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    if key == "frozen":
        assert all(map(torch.equal, before, (m.running_mean for m in norms)))


@pytest.mark.parametrize("key", guide.ADVICE)
def test_every_reason_leads_to_a_section(key):
    advice = guide.ADVICE[key]
    assert advice.because
    for _, file, heading in (*advice.because, guide._MIXED):
        cells = json.loads((CHAPTERS / f"{file}.ipynb").read_text(encoding="utf-8"))["cells"]
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
        assert re.search(rf"^##+ {re.escape(heading)}$", text, re.MULTILINE), f"{file} has no “{heading}”"


def test_the_page_looks_up_what_the_rules_say():
    page = guide.Guide()._repr_mimebundle_()["text/html"]
    data = json.loads(re.search(r'class="nl-data">(.*?)</script>', page, re.DOTALL)[1])
    assert data["sizes"] == [len(answers) for _, answers in guide.QUESTIONS.values()]
    for situation in ALL[::7]:
        place = 0
        for name, (_, answers) in guide.QUESTIONS.items():
            place = place * len(answers) + list(answers).index(situation[name])
        shown = data["answers"][data["chosen"][place]]
        assert guide._answer(guide.advise(**situation), links=True) == shown
    assert "</script" not in data["answers"][0]
    assert page == guide.Guide()._repr_mimebundle_()["text/html"]


def test_the_start_can_be_chosen_and_a_wrong_one_is_named():
    assert "set_epoch" in guide.Guide(m="1", inference="fixed")._repr_mimebundle_()["text/html"].split("nl-still")[0]
    with pytest.raises(ValueError, match="m must be one of"):
        guide.Guide(m="3")


def test_in_words_it_lists_every_line():
    words = repr(guide.Guide())
    for advice in guide.ADVICE.values():
        assert all(
            f"    {line}\n" in f"{words}\n"
            for line in advice.code.split("\n")
            if line and "import convert_norm" not in line
        )
    assert all(advice.name in words for advice in guide.ADVICE.values())
    for key, needed in (("brn", "def opening"), ("frozen", "layer.eval()")):
        assert needed in guide.ADVICE[key].code
        assert needed in words  # a line that does not stand alone is shown with the others


# what each `when` says, in the same order
FITS = {
    "bn": lambda m, start, batches, **_: (m == 32 or (start == "tuned" and m >= 8)) and batches == "iid",
    "bn+ws": lambda m, start, batches, inference, **_: (
        start == "scratch" and batches == "iid" and (4 <= m < 32 or (m == 2 and inference == "fixed"))
    ),
    "gn+ws": lambda m, start, batches, inference, **_: (
        start == "scratch" and (m < 4 or batches == "related") and inference == "any"
    ),
    "bcn+ws": lambda m, start, task, batches, inference, **_: (
        start == "scratch" and m < 4 and batches == "iid" and task == "dense" and inference == "any"
    ),
    "brn": lambda m, start, batches, inference, **_: (
        start == "scratch" and (m == 1 or batches == "related") and inference == "fixed"
    ),
    "in": lambda start, task, inference, **_: start == "scratch" and task == "style" and inference == "any",
    "ln": lambda start, task, **_: start == "scratch" and task == "sequence",
    "frozen": lambda m, start, batches, **_: start == "tuned" and (m < 8 or batches == "related"),
}


def test_in_words_the_last_line_that_fits_is_the_answer():
    assert "the last one counts" in repr(guide.Guide())
    assert list(FITS) == list(guide.ADVICE)
    for situation in ALL:
        fitting = [key for key, fits in FITS.items() if fits(**situation | {"m": int(situation["m"])})]
        assert guide.ADVICE[fitting[-1]].code == guide.advise(**situation).code, situation


def test_a_widget_answers_too():
    pytest.importorskip("ipywidgets")
    box = guide.Guide().widget()
    lists = {child.description: child for child in box.children if hasattr(child, "description") and child.description}
    answer = next(child for child in box.children if "<pre" in getattr(child, "value", ""))
    assert "gn+ws" in answer.value
    lists["Task"].value = "sequence"
    assert "&quot;ln&quot;" in answer.value
