# `make demo` and `make test` are the commands of the README. Each sets up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=auto

# Tests of single functions: no training, no other process, no browser.
FAST := tests/test_configuration_stt.py tests/test_load_dataset.py tests/hub/test_card.py tests/training/test_losses.py \
	tests/training/test_metrics.py tests/training/test_results.py tests/training/test_sampler.py \
	tests/training/test_war_uar.py tests/timeline/test_limits.py tests/timeline/test_tracks.py \
	tests/timeline/test_windows.py

.PHONY: demo weights test test-fast test-lowest lint format clean

$(INSTALLED): setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

# Renders faces, fine-tunes the shipped weights on them with and without the compact loss, classifies a video.
demo: $(INSTALLED)
	$(BIN)/python examples/demo.py --output_dir demo

# Makes the weights of modeling_stt/pretrained, in about 40 minutes on two cores (the sum of its parts); resumes if interrupted.
weights: $(INSTALLED)
	$(BIN)/python examples/train_rendered.py --output_dir runs/rendered --bf16 True --use_cpu True

test: $(INSTALLED) lint
	$(PYTEST)

test-fast: $(INSTALLED) lint
	$(PYTEST) $(FAST)

# The tests at the lowest versions that setup.py allows, in a separate environment (several GB: torch with CUDA).
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
