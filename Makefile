# Two commands: `make demo` and `make test`. Each sets up all it needs in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

.PHONY: demo test test-lowest lint format clean

$(INSTALLED): setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

# Draws synthetic faces, trains a small STT on them with and without the compact loss, classifies a video.
demo: $(INSTALLED)
	$(BIN)/python examples/demo.py --output_dir demo

test: $(INSTALLED) lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=auto

# The tests at the lowest versions that setup.py states, in an environment of their own (several GB: torch with CUDA).
LOWEST := .venv-lowest

test-lowest: $(LOWEST)/installed
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest --numprocesses=auto

$(LOWEST)/installed: setup.py
	$(PYTHON) -m venv $(LOWEST)
	grep -oE '"[a-z0-9-]+>=[0-9.]+' setup.py | sed 's/"//; s/>=/==/' > $(LOWEST)/floors.txt
	$(LOWEST)/bin/python -m pip install --quiet --editable '.[dev]' --constraint $(LOWEST)/floors.txt
	touch $@

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) demo build *.egg-info
