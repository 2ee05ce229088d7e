"""A few cases of each kind of `fuzz.py`. The long run is by hand, see docs/robustness.md."""

import sys

import pytest
from fuzz import fuzz

from helpers.copies import COPIES

NUM_CASES = {"videos": 30, "trees": len(COPIES), "payloads": 40}


@pytest.mark.skipif(sys.platform == "win32", reason="cases run in forked processes, and trees have links")
@pytest.mark.parametrize("kind", NUM_CASES)
def test_damaged_and_hostile_inputs_are_answered_or_refused_by_name(kind: str) -> None:
    found = fuzz([kind], num_cases=NUM_CASES[kind], seed=1)[kind]
    assert found["num_cases"] == NUM_CASES[kind]
    assert found["failures"] == {}
    outcomes = {outcome for counts in found["outcomes"].values() for outcome in counts}
    assert {"refused"} < outcomes, "some cases are answered, and some refused"
