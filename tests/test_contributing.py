"""CONTRIBUTING.md's five steps, taken: a method added by them passes the suite, and no step can be left out unnoticed.

The method is mean-only Batch Norm (tests/toy); everything happens in a copy of the repository.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from toy.steps import CHAPTER, STEPS, write_chapter

from tools import notebooks

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
COPIED = ("normlib", "tests", "tools", "chapters", "_config.yml", "_toc.yml", "conftest.py", "pyproject.toml")
LAYER = "tests/layers/test_package.py"
NOTEBOOKS = "tests/test_notebooks.py"
CLAIMS = "tests/experiments/test_claims.py"
# What to leave out, the tests to run without it, which of them fails, and what it says.
LEFT_OUT = {
    "step 1": (["1 layer"], LAYER, "", "No module named 'normlib.layers.mean_only_batch_norm'"),
    "step 1, the package": (
        [part for part in STEPS if part != "1 layer"],
        LAYER,
        "test_every_layer_of_a_file_is_named",
        r"__init__.py does not name \['MeanOnlyBatchNorm'\]",
    ),
    "step 1, the API reference": (
        ["1 reference"],
        LAYER,
        "test_the_api_reference_describes_it[MeanOnlyBatchNorm]",
        "api.md: no automodule has MeanOnlyBatchNorm",
    ),
    "step 2": (
        ["2 oracle", "2 mistake"],
        LAYER,
        "test_every_layer_has_an_oracle",
        r"METHODS has no entry for \['MeanOnlyBatchNorm'\]",
    ),
    "step 3": (
        ["3 name", "3 conversion", "3 folding"],
        "tests/test_convert.py",
        "test_every_layer_has_a_name_and_every_name_is_described",
        r"_METHODS has no name for \['MeanOnlyBatchNorm'\]",
    ),
    "step 3, the conversion's tests": (
        ["3 conversion"],
        "tests/test_convert_models.py",
        "test_every_name_is_tried",
        "'mobn'",
    ),
    "step 3, the folding's tests": (
        ["3 folding"],
        "tests/test_folding.py",
        "test_every_layer_that_folds_is_tried",
        r"NORMS has no entry for \['MeanOnlyBatchNorm'\]",
    ),
    "step 4": (
        [*(part for part in STEPS if part[0] == "4"), CHAPTER],
        LAYER,
        "test_a_chapter_shows_it[MeanOnlyBatchNorm]",
        "no chapter's code has MeanOnlyBatchNorm",
    ),
    "step 4, the table of contents": (
        ["4 contents"],
        NOTEBOOKS,
        "test_every_chapter_but_the_template_is_in_the_table_of_contents",
        r"_toc.yml: no line for \['10_mean_only'\]",
    ),
    "step 4, the introduction": (
        ["4 introduction"],
        NOTEBOOKS,
        "test_the_introduction_leads_to_every_chapter",
        r"has no row for \['10_mean_only.ipynb'\]",
    ),
    "step 4, the instructors' page": (
        ["4 instructors"],
        "tests/test_instructors.py",
        "test_every_figure_has_its_title_in_its_chapter",
        "'10'",
    ),
    "step 4, the questions": (
        ["4 questions"],
        "tests/test_quiz.py",
        "test_every_chapter_ends_with_its_quiz",
        "'10_mean_only'",
    ),
    "step 4, the papers": (
        ["4 papers"],
        "tests/test_publish.py",
        "test_nothing_that_only_sphinx_reads_is_left[10_mean_only.ipynb]",
        "citation of 'salimans2016weight', which has no entry",
    ),
    "step 5": (
        ["5 claims", "5 page", "5 judged"],
        CLAIMS,
        "test_every_chapter_on_a_method_has_a_claim_to_test",
        r"no claim leads to \['10_mean_only'\]",
    ),
    "step 5, the page": (
        ["5 page"],
        CLAIMS,
        "test_the_page_of_claims_has_a_section_for_every_source"
        "[Papers: Group Norm, Batch Renorm, Momentum and Ghost Batch Norm, Weight Normalization]",
        "Weight Normalization",
    ),
}
MARKS = ("mobn", "mean_only", "MeanOnly")  # in the names of the tests that are the method's
GUARDS = {name.partition("[")[0] for _, _, name, _ in LEFT_OUT.values() if name and not any(m in name for m in MARKS)}
# The layer has one path, not torch's kernel beside it; and one backend that recomputes is enough.
TWICE = ("kernel", "aot_eager and not decomp")


@pytest.fixture(scope="module")
def suite():
    """Runs tests in a folder: (folder, arguments of pytest) → {test: None, or the message of its failure}."""
    command = [sys.executable, str(ROOT / "tests" / "toy" / "several.py")]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=kept | notebooks.ENVIRONMENT, **pipe) as process:

        def run(folder, *arguments):
            print(json.dumps({"folder": str(folder), "arguments": arguments}), file=process.stdin, flush=True)
            return json.loads(process.stdout.readline())

        yield run
        process.kill()  # to end by itself takes torch seconds


@pytest.fixture(scope="module")
def extended(suite, tmp_path_factory):
    """A copy of the repository with the method in it; `suite` imports what it needs while the chapter runs."""
    root = tmp_path_factory.mktemp("contributing") / "copy"
    root.mkdir()
    made = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / name, ignore=made)
        else:
            shutil.copy(ROOT / name, root / name)
    (root / "data").mkdir()
    (root / "data" / "runs").symlink_to(ROOT / "data" / "runs")  # read, and 11 MB
    for changes in STEPS.values():
        for change in changes:
            change.make(root)
    write_chapter(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(root))  # whose normlib the kernel imports
        failed = notebooks.main([str(root / CHAPTER)])
    changed = ("00_intro.ipynb", "A_claims.ipynb")
    failed |= notebooks.main(["--no-run", *(str(root / "chapters" / name) for name in changed)])
    assert not failed
    return root


def test_the_method_is_in_the_layout_of_the_house(extended):
    files = sorted({change.file for changes in STEPS.values() for change in changes if change.file.endswith(".py")})
    for command in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *command, *files, CHAPTER]
        done = subprocess.run(command, cwd=extended, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_method_passes_the_suite(extended, suite):
    files = {file for _, file, _, _ in LEFT_OUT.values()} | {"tests/test_floors.py", "tests/test_glossary.py"}
    files |= {"tests/layers/test_all_layers.py", "tests/layers/test_planted_mistakes.py"}
    chosen = " or ".join((*MARKS, *sorted(GUARDS)))
    done = suite(extended, *sorted(files), "-k", f"({chosen}) and not ({' or '.join(TWICE)})")
    failed = {test: message for test, message in done.items() if message}
    assert not failed, "\n\n".join(f"{test}\n{message}" for test, message in failed.items())
    ran = "\n".join(done)
    for expected in (
        "test_contract[fused-mobn virtual_batch_size=2 momentum=0.3]",
        "test_compiled_without_a_graph_break[fused-mobn-aot_eager_decomp_partition]",
        "test_every_statistic_is_a_buffer_and_can_be_reset[mobn]",
        "test_mean_only_with_a_detached_mean",
        "test_imports_go_down[layers/mean_only_batch_norm.py]",
        "test_hooks_are_kept_and_can_be_removed[mobn]",
        "test_folded_is_each_alone[mobn-MLP]",
        "test_a_chapter_opens_with_a_link_to_the_notation[10_mean_only.ipynb]",
        "TestChapter::test_is_stored_in_the_normal_form[10_mean_only.ipynb]",
        "test_a_row_leads_to_a_section_of_the_book[MOBN-1]",
        "test_what_arithmetic_settles_is_reproduced[MOBN-1]",
        *GUARDS,
    ):
        assert expected in ran, f"{expected} did not run"


@pytest.mark.parametrize("what", LEFT_OUT)
def test_what_is_left_out_is_reported(extended, suite, tmp_path, what):
    parts, file, name, message = LEFT_OUT[what]
    folder = tmp_path / "copy"
    shutil.copytree(extended, folder, symlinks=True)
    for part in parts:
        if part == CHAPTER:
            (folder / CHAPTER).unlink()
            continue
        for change in STEPS[part]:
            change.leave_out(folder)
    test = f"{file}::{name}" if name else file
    done = suite(folder, test)
    assert list(done) == [test]
    assert re.search(message, done[test] or "passed"), done[test]


def test_the_text_names_the_files_that_the_method_changes():
    steps = re.findall(r"^\d\. \*\*", TEXT, re.M)
    assert len(steps) == 5
    named = set(re.findall(r"`((?:[\w.]+/)*[\w.]+\.(?:py|ipynb|md|yml|bib))`", TEXT))
    missing = {file for file in named if "NN" not in file and "NAME" not in file and not (ROOT / file).exists()}
    assert not missing, f"CONTRIBUTING.md names files that do not exist: {sorted(missing)}"
    unnamed = {change.file for changes in STEPS.values() for change in changes} - named
    assert unnamed == {"normlib/layers/mean_only_batch_norm.py", "normlib/exercises/chapter_10.py"}
