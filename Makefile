# Two commands: `make book` reads, `make test` checks. Needs Python 3.10 to 3.13 and make; the rest goes into .venv.
PYTHON ?= python3
PORT ?= 8000
VENV := .venv
BIN := $(VENV)/bin
# The stamp carries the version of Python: another PYTHON makes another environment.
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
STAMP := $(VENV)/.installed-$(VERSION)
COLAB := .venv-colab
COLAB_STAMP := $(COLAB)/.installed-$(VERSION)
HTML := _build/html/index.html
SOURCES := normlib tests tools chapters $(wildcard benchmarks conftest.py)

# Outputs that repeat: no progress bar, no widget with a random id, and one thread a process, the nets being small.
book notebooks test test-processor: export NORMLIB_PROGRESS = 0
book notebooks test test-processor: export NORMLIB_STATIC = 1
book notebooks test test-processor: export OMP_NUM_THREADS = 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help book test lint serve pdf figures lab bench notebooks test-colab test-processor requirements clean python

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 22

python:
	@case "$(VERSION)" in 3.10|3.11|3.12|3.13) ;; *) \
	  echo "PYTHON=$(PYTHON) must be Python 3.10 to 3.13, got '$(VERSION)'; name another: make PYTHON=python3.12" >&2; \
	  exit 1;; esac

$(STAMP): requirements.txt pyproject.toml | python
	@if ! $(BIN)/python -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != "$(VERSION)")' 2>/dev/null; then \
	  rm -rf $(VENV); fi
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -r requirements.txt
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps -e .
	touch $@

book: $(STAMP) ## run every notebook, build the book, write the notebooks for Colab (.venv on the first call)
	@$(BIN)/python -m tools.execute
	$(BIN)/jupyter-book build . -W -n --keep-going
	@$(BIN)/python -m tools.publish
	@echo "Open $(CURDIR)/$(HTML)"

lint: $(STAMP) ## ruff: rules and layout, notebooks included
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

test: lint ## every check: lint, notebooks, the built book, package
	$(BIN)/python -m pytest -n 2 --dist loadfile --nbval --nbval-cell-timeout=120 chapters # kept for the book
	@$(MAKE) book
# Two cores: some wait for a browser; in the order of the folders, where the longest tests do not come last
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder tests

# Colab's versions before those of .venv on the path: what both have alike, such as torch, is installed once.
$(COLAB_STAMP): requirements-colab.txt $(STAMP)
	rm -rf $(COLAB)
	$(PYTHON) -m venv $(COLAB)
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
	  $$($(COLAB)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/book.pth
	$(COLAB)/bin/python -m pip install --disable-pip-version-check --progress-bar off -r requirements-colab.txt
	touch $@

# The stored outputs and every assertion must hold on another processor: vector units of other lengths sum in another
# order, and training amplifies the last digit.
test-processor: $(STAMP) ## run the chapters as on an older processor, whose arithmetic rounds otherwise
	ATEN_CPU_CAPABILITY=default MKL_ENABLE_INSTRUCTIONS=SSE4_2 ONEDNN_MAX_CPU_ISA=SSE41 \
	  $(BIN)/python -m pytest -n 2 --dist loadfile --nbval --nbval-cell-timeout=240 chapters

test-colab: $(COLAB_STAMP) book ## run the published notebooks with Colab's versions, and move their sliders
	$(COLAB)/bin/python -m tools.colab

serve: $(STAMP) $(HTML) ## serve the built book (PORT=8000)
	@echo "http://localhost:$(PORT)/"
	@$(BIN)/python -m http.server --bind localhost --directory _build/html $(PORT)

$(HTML):
	@$(MAKE) book

pdf: book ## the whole book as one PDF, _build/small-batches.pdf (needs a Chromium)
	@$(BIN)/python -m tools.pdf

figures: book ## the drawings of the book as SVG, for slides, into _build/figures
	@$(BIN)/python tools/figures.py

lab: $(STAMP) ## open the chapters in JupyterLab
	$(BIN)/jupyter lab chapters

bench: $(STAMP) ## measure, against the budgets, into _build/bench.json and pages.json
	$(BIN)/python -m benchmarks

notebooks: $(STAMP) ## run the notebooks and store them in their normal form (NB=file ... for some)
	$(BIN)/ruff format $(or $(NB),chapters)
	$(BIN)/python tools/notebooks.py $(NB)

requirements: $(STAMP) ## resolve requirements.in into requirements.txt
	$(BIN)/python -m pip install --disable-pip-version-check --quiet uv
	$(BIN)/uv pip compile --universal --python-version 3.10 --fork-strategy fewest requirements.in \
	  -o requirements.txt --no-emit-index-url

clean: ## remove what was built; the environment stays
	rm -rf _build .pytest_cache .ruff_cache .hypothesis
