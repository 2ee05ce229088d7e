"""What all tests share."""

import os
from pathlib import Path

# The programs that tests start find this checkout first, and whatever else was told to be on the path.
os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])

# Before torch is imported. Tensors here are tiny: more threads only wait for each other, tenfold on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"

import pytest

# Marks of transformers' own tests, see test_transformers_mixins.py.
TRANSFORMERS_MARKS = (
    "accelerate_tests",
    "flash_attn_test",
    "flash_attn_3_test",
    "flash_attn_4_test",
    "is_training_test",
    "slow",
    "torch_compile_test",
)


def pytest_configure(config: pytest.Config) -> None:
    for mark in TRANSFORMERS_MARKS:
        config.addinivalue_line("markers", f"{mark}: a mark of transformers' own tests")
