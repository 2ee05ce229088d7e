"""Settings of all tests."""

import os
from pathlib import Path

# Programs started by tests import this checkout first.
os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])

# Set before torch is imported. Tensors in tests are tiny: more threads wait for each other, up to ten times longer.
os.environ.setdefault("OMP_NUM_THREADS", "1")

os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"

import pytest

# Marks of the tests of transformers, see test_transformers_mixins.py.
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
