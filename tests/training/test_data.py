"""Rows of a data set are sorted into splits, or refused with a message, never with a KeyError."""

import datasets
import pytest

from modeling_stt.training.data import split_rows


def _rows(*clip_ids: str, num_frames: int = 8) -> datasets.Dataset:
    columns = {"clip_id": list(clip_ids), "label": [0] * len(clip_ids), "num_frames": [num_frames] * len(clip_ids)}
    return datasets.Dataset.from_dict(columns)


def test_three_clips_and_a_fold_without_any_are_refused() -> None:
    with pytest.raises(SystemExit, match=r"has no test clips, only train: too few clips or groups .* --fold"):
        split_rows("clip_folder", {"train": _rows("1", "2", "3")})
    with pytest.raises(SystemExit, match="has no train clips, only test"):
        split_rows("clip_folder", {"test": _rows("1")})


def test_validation_is_tested_on_where_there_is_no_test_split() -> None:
    rows = split_rows("afew", {"train": _rows("1"), "validation": _rows("2")})
    assert rows.validation is None and rows.test["clip_id"] == ["2"]
    rows = split_rows("mine", {datasets.Split.TRAIN: _rows("1"), "validation": _rows("2"), "test": _rows("3")})
    assert rows.validation is not None and rows.validation["clip_id"] == ["2"] and rows.test["clip_id"] == ["3"]


def test_clips_without_frames_are_refused_by_name() -> None:
    with pytest.raises(SystemExit, match=r"2 clips of afew have no frame \(a, b\)"):
        split_rows("afew", {"train": _rows("a", "b", num_frames=0), "test": _rows("c")})
