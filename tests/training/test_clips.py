"""Clips: what an item holds, that its randomness is the draw's alone, and errors that name clip and file."""

import io
import weakref
from pathlib import Path
from typing import Any

import av
import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from transformers.video_utils import VideoMetadata

from helpers.tiny import NAMES, make_processor, make_rows
from modeling_stt.training import ClipAugment, ClipDataset, ClipDraw, ClipPhotometry, ClipSampler
from modeling_stt.training.options import PHOTOMETRY


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return make_rows(tmp_path_factory.mktemp("clips"), num_clips=6)


def test_a_test_clip_is_what_the_processor_makes_of_its_files(rows: list[dict[str, Any]]) -> None:
    processor = make_processor()
    item = ClipDataset(rows, processor, labels=NAMES)[4]
    expected = processor(rows[4]["frames"], return_tensors="pt")["pixel_values"][0]
    assert torch.equal(item["pixel_values"], expected)
    assert item["labels"] == 1


def test_a_training_clip_has_the_size_and_range_of_a_test_clip(rows: list[dict[str, Any]]) -> None:
    pixel_values = ClipDataset(rows, make_processor(), augment=ClipAugment())[0]["pixel_values"]
    assert pixel_values.shape == (4, 3, 32, 32)
    assert pixel_values.dtype == torch.float32
    assert 0 <= pixel_values.min() < pixel_values.max() <= 1


def test_only_sampled_frames_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A DFEW clip has 77 frames on average and a model reads 16: decoding all would take five times as long."""
    row = make_rows(tmp_path, num_clips=1, num_frames=80)[0]
    opened = []
    open_file = io.FileIO
    monkeypatch.setattr(io, "FileIO", lambda file: opened.append(Path(file)) or open_file(file))
    processor = make_processor()
    ClipDataset([row], processor)[0]
    chosen = processor.sample_frames(VideoMetadata(total_num_frames=80))
    assert [file.name for file in opened] == [f"{index}.jpg" for index in chosen]
    opened.clear()
    ClipDataset([row], processor, augment=ClipAugment())[0]
    assert len(opened) == 4


def test_a_loader_holds_one_batch_at_most(rows: list[dict[str, Any]]) -> None:
    """Whatever the data set's size: no clip outlives its batch."""
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    most = []

    class Watched(ClipDataset):
        def __getitem__(self, draw: ClipDraw | int) -> dict[str, Any]:
            item = super().__getitem__(draw)
            alive.add(item["pixel_values"])
            most.append(len(alive))
            return item

    for _ in DataLoader(Watched(rows * 5, make_processor(), augment=ClipAugment()), batch_size=3):
        pass
    assert len(most) == 30
    assert max(most) == 3


def test_crop_and_flip_are_the_same_for_all_frames(tmp_path: Path) -> None:
    """Of a clip that stands still, every frame stays the same; and over the seeds, crops and flips do differ."""
    pixels = np.random.default_rng(0).integers(0, 255, (3, 40, 60), dtype=np.uint8)
    still = torch.from_numpy(pixels).repeat(5, 1, 1, 1)
    clips = [ClipAugment()(still, (32, 24), seed) for seed in range(8)]
    for clip in clips:
        assert clip.shape == (5, 3, 32, 24)
        assert (clip == clip[:1]).all()
    assert len({clip.numpy().tobytes() for clip in clips}) == 8


def test_flips_come_at_their_rate_and_nothing_else_when_the_crop_is_everything() -> None:
    frames = torch.arange(2 * 3 * 8 * 8, dtype=torch.uint8).reshape(2, 3, 8, 8)
    augment = ClipAugment(scale=(1.0, 1.0), ratio=(1.0, 1.0))
    flipped = [torch.equal(augment(frames, (8, 8), seed), frames.flip(-1)) for seed in range(200)]
    untouched = [torch.equal(augment(frames, (8, 8), seed), frames) for seed in range(200)]
    assert sum(flipped) + sum(untouched) == 200
    assert 70 < sum(flipped) < 130


@pytest.mark.parametrize("ranges", [{"scale": (0.5, 1.2)}, {"scale": (0.9, 0.1)}, {"ratio": (0.0, 1.0)}])
def test_crops_that_cannot_be_are_refused(ranges: dict[str, tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match="must be a range within"):
        ClipAugment(**ranges)


def _colorful_still(num_frames: int = 3, size: int = 48) -> torch.Tensor:
    """A clip that stands still: smooth colours with an edge in the middle."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    image = torch.stack([5 * x, 5 * y, torch.where(x < size // 2, 40, 200)]).clamp(0, 255).to(torch.uint8)
    return image.repeat(num_frames, 1, 1, 1)


@pytest.mark.parametrize("change", PHOTOMETRY)
def test_a_change_of_picture_quality_comes_at_its_rate_and_alike_in_all_frames(change: str) -> None:
    still = _colorful_still()
    whole = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0), "flip_probability": 0.0}

    def draw(probability: float, seed: int) -> torch.Tensor:
        return ClipAugment(**whole, photometry=ClipPhotometry(**{change: probability}))(still, (48, 48), seed)

    assert all(torch.equal(draw(0.0, seed), still) for seed in range(5))
    changed = draw(1.0, 1)
    assert changed.shape == still.shape
    assert changed.dtype == torch.uint8
    assert not torch.equal(changed, still)
    assert torch.equal(changed, draw(1.0, 1))
    if change == "noise":
        assert not torch.equal(changed[0], changed[1])
    else:
        assert (changed == changed[:1]).all()
    assert 8 < sum(not torch.equal(draw(0.5, seed), still) for seed in range(40)) < 32


def test_changes_of_picture_quality_do_what_they_are_called() -> None:
    still = _colorful_still()
    torch.manual_seed(0)

    def detail(clip: torch.Tensor) -> float:
        return clip[..., 1:].float().sub(clip[..., :-1].float()).abs().amax().item()

    gray = ClipPhotometry(gray=1.0)(still)
    assert torch.equal(gray[:, 0], gray[:, 1])
    for change in ("resolution", "blur"):
        assert detail(ClipPhotometry(**{change: 1.0})(still)) < 0.9 * detail(still)
    erased = (ClipPhotometry(erasing=1.0)(still) != still).any(dim=1).float().mean()
    assert 0.01 < erased < 0.2
    noise = ClipPhotometry(noise=1.0)(torch.full((4, 3, 32, 32), 128, dtype=torch.uint8)).float().std()
    assert 1.5 < noise < 16


@pytest.mark.parametrize("probability", [-0.1, 1.5])
def test_a_probability_out_of_range_is_refused(probability: float) -> None:
    with pytest.raises(ValueError, match=f"blur={probability} is the probability of a change"):
        ClipPhotometry(blur=probability)


def test_the_global_random_state_is_left_alone(rows: list[dict[str, Any]]) -> None:
    """Otherwise a model's dropout would depend on its clips' augmentation."""
    photometry = ClipPhotometry(**dict.fromkeys(PHOTOMETRY, 1.0))
    clips = ClipDataset(rows, make_processor(), augment=ClipAugment(photometry=photometry))
    torch.manual_seed(3)
    before = (torch.get_rng_state(), np.random.get_state()[1].tolist())
    clips[0]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]


def test_no_device_is_reseeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.manual_seed reseeds every GPU, and fork_rng(devices=[]) would not undo that."""

    def refuse(seed: int) -> None:
        raise AssertionError("torch.manual_seed was called")

    monkeypatch.setattr(torch, "manual_seed", refuse)
    monkeypatch.setattr(torch.random, "manual_seed", refuse)
    ClipAugment()(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), (4, 4), 0)


def _epochs(clips: ClipDataset, num_epochs: int, batch_size: int, workers: int, **kwargs: Any) -> list[torch.Tensor]:
    sampler = ClipSampler(clips.label_ids, seed=7)
    loader = DataLoader(clips, batch_size, sampler=sampler, num_workers=workers, **kwargs)
    epochs = []
    for epoch in range(num_epochs):
        sampler.set_epoch(epoch)
        epochs.append(torch.cat([batch["pixel_values"] for batch in loader]))
    return epochs


def test_an_epoch_is_the_same_with_any_workers_and_batches_and_epochs_differ(rows: list[dict[str, Any]]) -> None:
    """Persistent workers hold copies of the data set from before the first epoch; the epoch reaches them too."""
    clips = ClipDataset(rows, make_processor(), augment=ClipAugment())
    alone = _epochs(clips, 2, 6, 0)
    persistent = _epochs(clips, 2, 4, 2, persistent_workers=True)
    assert all(torch.equal(a, b) for a, b in zip(alone, persistent, strict=True))
    assert not torch.equal(alone[0].sort(0).values, alone[1].sort(0).values)


def test_a_clip_drawn_twice_in_an_epoch_is_augmented_twice(rows: list[dict[str, Any]]) -> None:
    """The class-balanced sampler repeats the few clips of a rare class; exact copies would add nothing."""
    clips = ClipDataset(rows, make_processor(), augment=ClipAugment())
    first, second = (clips[ClipDraw(0, (7, 0, 1 + position))]["pixel_values"] for position in range(2))
    assert not torch.equal(first, second)


def test_a_draw_that_does_not_count_gets_the_ignored_label(rows: list[dict[str, Any]]) -> None:
    clips = ClipDataset(rows, make_processor())
    filling = clips[ClipDraw(2, (0,), counted=False)]
    assert filling["labels"] == -100
    assert torch.equal(filling["pixel_values"], clips[2]["pixel_values"])


def test_shuffling_time_keeps_the_frames_and_only_changes_their_order(rows: list[dict[str, Any]]) -> None:
    in_order = ClipDataset(rows, make_processor())
    shuffled = ClipDataset(rows, make_processor(), frame_order="shuffled", seed=1)
    moved = 0
    for i in range(len(rows)):
        a, b = in_order[i]["pixel_values"], shuffled[i]["pixel_values"]
        assert sorted(frame.numpy().tobytes() for frame in a) == sorted(frame.numpy().tobytes() for frame in b)
        assert torch.equal(b, shuffled[i]["pixel_values"])
        moved += not torch.equal(a, b)
    assert moved >= 4


def test_frames_are_reversed_and_repeated_for_an_audit(rows: list[dict[str, Any]]) -> None:
    true, turned, still = (
        ClipDataset(rows, make_processor(), frame_order=order)[0]["pixel_values"]
        for order in ("true", "reversed", "repeated")
    )
    assert torch.equal(turned, true.flip(0)) and not torch.equal(turned, true)
    assert torch.equal(still, true[2].expand_as(true))
    with pytest.raises(ValueError, match="frame_order='backwards' is unknown"):
        ClipDataset(rows, make_processor(), frame_order="backwards")


def test_videos_are_read_by_path_and_from_bytes(tmp_path: Path) -> None:
    file = tmp_path / "clip.mp4"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 48, "yuv420p"
        for t in range(12):
            frame = av.VideoFrame.from_ndarray(np.full((48, 48, 3), 20 * t, dtype=np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    row = {"clip_id": "a", "label": 0, "num_frames": 12}
    forms = [str(file), {"path": str(file), "bytes": None}, {"path": None, "bytes": file.read_bytes()}]
    clips = ClipDataset([row | {"video": video} for video in forms], make_processor())
    items = [clips[i]["pixel_values"] for i in range(3)]
    assert items[0].shape == (4, 3, 32, 32)
    assert torch.equal(items[0], items[1])
    assert torch.equal(items[0], items[2])
    assert (items[0].mean(dim=(1, 2, 3)).diff() > 0).all()  # in time order


def _as_dataset(rows: list[dict[str, Any]], names: list[str], **columns: list) -> datasets.Dataset:
    data = {key: [row[key] for row in rows] for key in ("clip_id", "label", "num_frames", "frames")} | columns
    return datasets.Dataset.from_dict(data).cast_column("label", datasets.ClassLabel(names=names))


def test_labels_cross_by_name(rows: list[dict[str, Any]]) -> None:
    """A data set whose classes are ordered otherwise than the model's must not shift them silently."""
    dataset = _as_dataset(rows, ["sad", "angry", "happy"])
    assert ClipDataset(dataset, make_processor()).class_names == ["sad", "angry", "happy"]
    clips = ClipDataset(dataset, make_processor(), labels=NAMES)
    assert clips.class_names == NAMES
    assert clips.label_ids.tolist() == [1, 2, 0, 1, 2, 0]
    assert clips[0]["labels"] == 1
    by_name = [row | {"label": NAMES[row["label"]]} for row in rows]
    assert ClipDataset(by_name, make_processor(), labels=NAMES).label_ids.tolist() == [0, 1, 2, 0, 1, 2]
    with pytest.raises(ValueError, match="Clip 002 has the class 'happy', which is not among"):
        ClipDataset(dataset, make_processor(), labels=["sad", "angry"])


def test_votes_become_a_distribution_in_the_models_order(rows: list[dict[str, Any]]) -> None:
    votes = [[6, 3, 1]] * 5 + [[0, 0, 0]]
    dataset = _as_dataset(rows, ["sad", "angry", "happy"], votes=votes)
    clips = ClipDataset(dataset, make_processor(), labels=NAMES, votes=True)
    torch.testing.assert_close(clips[0]["labels"], torch.tensor([0.1, 0.6, 0.3]))
    assert clips[ClipDraw(0, (0,), counted=False)]["labels"].tolist() == [-100] * 3
    with pytest.raises(ValueError, match="Clip 005 has votes"):
        clips[5]


def test_errors_name_the_clip_and_the_file(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    text = tmp_path / "0.jpg"
    text.write_text("not a picture")
    good = tmp_path / "1.jpg"
    Image.new("RGB", (40, 40)).save(good)
    bad = [
        rows[0] | {"clip_id": "lost", "frames": [str(tmp_path / "9.jpg")]},
        rows[0] | {"clip_id": "text", "frames": [str(text), str(good)]},
        rows[0] | {"clip_id": "none", "frames": []},
    ]
    clips = ClipDataset(bad, make_processor())
    with pytest.raises(FileNotFoundError, match=r"Clip lost: .*9\.jpg"):
        clips[0]
    with pytest.raises(ValueError, match=r"Clip text: .*0\.jpg"):
        clips[1]
    with pytest.raises(ValueError, match=r"Clip none: .*at least one"):
        clips[2]
    with pytest.raises(IndexError):
        clips[3]


def test_rows_that_cannot_be_meant_are_refused(rows: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match="no clip"):
        ClipDataset([], make_processor())
    with pytest.raises(ValueError, match="expected clip_id, label and frames or video"):
        ClipDataset([{"clip_id": "a", "frames": []}], make_processor())
    with pytest.raises(ValueError, match="expected clip_id, label, votes"):
        ClipDataset(rows, make_processor(), labels=NAMES, votes=True)
    with pytest.raises(ValueError, match="Clip 000 has label 7, which is none of"):
        ClipDataset([rows[0] | {"label": 7}], make_processor(), labels=NAMES)
    with pytest.raises(ValueError, match="Clip 000 has label -1"):
        ClipDataset([rows[0] | {"label": -1}], make_processor())
