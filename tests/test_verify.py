"""dataset_scripts/verify.py: each way in which a copy can be wrong fails the check that is there for it, and no other.

On a small tree in DFEW's layout whose own counts stand for the published ones, so that the untouched tree passes.
"""

import io
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from dataset_scripts import dfew
from dataset_scripts import verify as verify_module
from dataset_scripts.rendered_faces import MARKER
from dataset_scripts.verify import Report, verify
from helpers import afew_trees, ferv39k_trees, mafw_trees
from helpers import dfew_trees as trees
from helpers.dfew_trees import IDS, LABELS

FULL = Path("Clip") / "clip_224x224"
LISTS = Path("EmoLabel_DataSplit")
LONG_CLIP = "00003"  # six frames, of which the first, fourth and last are probed


def counts_of(clip_ids: list[int]) -> dict[str, int]:
    counts = Counter(LABELS[clip_id] for clip_id in clip_ids)
    return {name: counts[label] for label, name in enumerate(trees.CLASS_NAMES, start=1)}


@pytest.fixture
def tree(tmp_path: Path, monkeypatch) -> Path:
    published = {}
    for fold in range(1, 6):
        train, test = trees.fold_members(LABELS, fold)
        published[f"fold_{fold}"] = {"train": counts_of(train), "test": counts_of(test)}
    monkeypatch.setattr(dfew.DFEW, "PUBLISHED", published)
    monkeypatch.setattr(dfew, "NUM_SHORT_CLIPS", len(IDS))
    return trees.write_dfew(tmp_path / "DFEW")


def look(root: Path, **options) -> Report:
    return verify("dfew", root, progress=False, **options)


def texts(report: Report, outcome: str) -> dict[str, str]:
    """Name → text of the checks with an outcome."""
    return {check.name: check.text for check in report.checks if check.outcome == outcome}


# --- A copy as it should be -----------------------------------------------------------------------------------------


def test_untouched_copy_is_comparable(tree):
    report = look(tree)
    assert report.comparable is True
    assert {check.outcome for check in report.checks} == {"ok"}
    assert len({check.name for check in report.checks}) == len(report.checks) >= 14  # folds of one mind are one line
    assert report.configurations == [f"fold_{fold}" for fold in range(1, 6)]
    assert report.counts == report.published
    assert report.num_frames == {"min": 3, "median": 5, "max": 6, "short": 42}
    assert report.picture_sizes == {"8×8": 42}
    assert report.sources["fold_1"]["labels"] == "1 … 7 in the lists"
    assert report.sources["fold_1"]["clips_on_disk"] == len([*IDS, *trees.UNLABELED])


@pytest.mark.parametrize("deep", [False, True])
def test_report_is_the_same_every_time(tree, deep):
    """It goes into results.json, which two runs must agree on: no times, no order of threads."""
    reports = [look(tree, num_workers=number, deep=deep) for number in (1, 8, 3)]
    assert reports[0] == reports[1] == reports[2]
    text = json.dumps(reports[0].to_dict(), allow_nan=False)
    assert json.loads(text) == json.loads(json.dumps(reports[1].to_dict()))
    assert json.loads(text)["comparable"] is True
    assert json.loads(text)["checks"][0]["configurations"] == reports[0].configurations


def test_folds_share_the_looks_at_their_clips(tree, monkeypatch):
    seen = []
    look_at = verify_module.look_at
    monkeypatch.setattr(verify_module, "look_at", lambda path, **more: seen.append(path) or look_at(path, **more))
    look(tree)
    assert sorted(seen) == sorted(str(tree / FULL / f"{clip_id:05d}") for clip_id in IDS)


def test_text_names_the_tree_the_numbers_and_the_verdict(tree):
    shutil.rmtree(tree / FULL / "00001")
    lines = str(look(tree, frames="full")).splitlines()
    assert lines[0] == f"dfew in {tree}: fold_1 … fold_5, frames=full"
    assert any(re.fullmatch(r"  fold_1 test +2 +2 +2 +2 +2 +2 +2 +14", line) for line in lines)
    assert "  picture sizes    8×8 (41 clips)" in lines
    assert any(re.fullmatch(r"failed +clips on disk +1 of 42 clips are not on disk: 00001", line) for line in lines)
    assert lines[-1] == "Numbers from this copy are NOT comparable with papers: 1 failed, 1 warning."


def test_label_base_given_and_lists_of_either_base(tree):
    trees.write_splits(tree / LISTS, base=0)
    report = look(tree, label_base=0)
    assert report.comparable
    assert report.sources["fold_1"]["labels"] == "0 … 6 in the lists"


def test_folds_by_rule_without_lists(tree):
    shutil.rmtree(tree / LISTS)
    report = look(tree)
    assert report.comparable
    assert report.sources["fold_1"]["labels"] == "rebuilt by rule from annotation.xlsx"


def test_annotation_is_read_once_for_all_folds_and_again_when_it_changed(tree, monkeypatch):
    # Reading DFEW's own takes three seconds, which ten readings would make half a minute of.
    opened = []
    load_workbook = dfew.openpyxl.load_workbook
    monkeypatch.setattr(dfew.openpyxl, "load_workbook", lambda *a, **o: opened.append(a) or load_workbook(*a, **o))
    shutil.rmtree(tree / LISTS)
    assert look(tree).comparable
    assert len(opened) == 1
    trees.write_annotation(tree / "Annotation" / "annotation.xlsx", dict.fromkeys(trees.LABELS, 1))
    assert not look(tree).comparable
    assert len(opened) == 2


def test_copy_without_annotation_and_one_fold_alone(tree):
    shutil.rmtree(tree / "Annotation")
    report = look(tree, configurations=["fold_2"])
    assert report.comparable
    assert report.configurations == list(report.counts) == ["fold_2"]
    assert not {"annotation.xlsx", "test folds"} & texts(report, "ok").keys()


# --- Clips that are not as they should be ---------------------------------------------------------------------------


def frame(tree: Path, place: int, clip: str = LONG_CLIP) -> Path:
    return tree / FULL / clip / trees.full_names(int(clip))[place]


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


def empty_clip(tree: Path) -> None:
    for path in (tree / FULL / LONG_CLIP).iterdir():
        path.unlink()


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"


@pytest.mark.parametrize(
    ("spoil", "name", "message"),
    [
        (lambda tree: shutil.rmtree(tree / FULL / LONG_CLIP), "clips on disk", "1 of 42 .*: 00003"),
        (empty_clip, "empty clips", "1 of 42 .*/00003 has no frame"),
        (lambda tree: frame(tree, 1).write_bytes(b""), "readable", "1 frames of .*/00003 are empty .*_00002.jpg"),
        (lambda tree: cut_off(frame(tree, 0)), "readable", "00003_00001.jpg is cut off"),
        (lambda tree: cut_off(frame(tree, 3)), "readable", "00003_00009.jpg is cut off"),
        (lambda tree: cut_off(frame(tree, 5)), "readable", "00003_00100.jpg is cut off"),
        (lambda tree: frame(tree, 0).write_text("<html>"), "readable", r"00003_00001.jpg is broken \(not a picture\)"),
        (lambda tree: frame(tree, 0).write_text(POINTER), "Git LFS", "1 of 42 .*00003_00001.jpg"),
        (lambda tree: trees.write_frames(tree / FULL / LONG_CLIP, ["x.jpg"]), "frame order", "x.jpg has no frame num"),
        (
            lambda tree: trees.write_frames(tree / FULL / LONG_CLIP, ["00003_00001.png"]),
            "frame order",
            "two frames with the same number",
        ),
        (
            lambda tree: trees.write_frames(tree / FULL / LONG_CLIP, ["00003_00001 (7).jpg"]),
            "frame order",
            r"00003 has 00003_00001 \(7\).jpg among frames like 00003_0",
        ),
        (
            lambda tree: trees.write_frames(tree / FULL / LONG_CLIP, ["00004_00007.jpg"]),
            "frame order",
            "00003 has 00004_00007.jpg among .* of another clip",
        ),
    ],
)
def test_spoilt_clip_fails_its_check(tree, spoil, name, message):
    spoil(tree)
    report = look(tree)
    assert report.comparable is False
    assert texts(report, "failed").keys() == {name}
    assert re.search(message, texts(report, "failed")[name])


def test_all_spoilt_clips_are_counted_and_a_few_named(tree):
    for clip_id in IDS[:7]:
        shutil.rmtree(tree / FULL / f"{clip_id:05d}")
    wanted = "7 of 42 clips are not on disk: 00001, 00002, 00003, 00004, 00005 and 2 more"
    assert texts(look(tree), "failed") == {"clips on disk": wanted}


def test_frame_that_is_not_probed_is_decoded_only_with_deep(tree):
    cut_off(frame(tree, 1))
    assert look(tree).comparable
    assert "00003_00002.jpg is cut off" in texts(look(tree, deep=True), "failed")["readable"]


def test_picture_with_its_ends_but_not_its_middle_is_found_with_deep(tree):
    """Its header and end marker are there, so only decoding finds it."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)).save(buffer, "PNG")
    path = frame(tree, 0)
    path.write_bytes(buffer.getvalue()[:1000] + buffer.getvalue()[-12:])
    assert look(tree).comparable
    assert "00003_00001.jpg is broken" in texts(look(tree, deep=True), "failed")["readable"]


def test_padding_after_the_end_of_a_picture_is_accepted(tree):
    frame(tree, 0).write_bytes(frame(tree, 0).read_bytes() + bytes(500))
    assert look(tree, deep=True).comparable


def test_16f_clip_needs_16_frames(tree):
    trees.write_16f(tree / "Clip" / "clip_224x224_16f")
    assert look(tree, frames="16f").comparable
    (tree / "Clip" / "clip_224x224_16f" / "00005" / "9.jpg").unlink()
    assert texts(look(tree, frames="16f"), "failed") == {"frames per clip": "1 clips do not have 16 frames: 00005 15"}


def save(path: Path, size: tuple[int, int]) -> None:
    Image.new("L", size).save(path)


@pytest.mark.parametrize(
    ("spoil", "name", "message"),
    [
        (lambda tree: save(frame(tree, 0), (9, 9)), "pictures", "00003 9×9 and 8×8"),
        (lambda tree: [save(frame(tree, i), (16, 9)) for i in range(6)], "pictures", "1 .*: 00003 16×9"),
        (lambda tree: [frame(tree, place).unlink() for place in range(1, 6)], "motion", "1 .*one frame only: 00003"),
        (
            lambda tree: trees.write_frames(
                tree / FULL / LONG_CLIP, [f"00003_{number:05d}.jpg" for number in range(101, 111)]
            ),
            "short clips",
            "41 clips have fewer than 16 frames, published 42",
        ),
    ],
)
def test_oddity_is_a_warning_and_leaves_numbers_comparable(tree, spoil, name, message):
    spoil(tree)
    report = look(tree)
    assert report.comparable is True
    assert texts(report, "warning").keys() == {name}
    assert re.search(message, texts(report, "warning")[name])


def test_clip_in_train_and_test_under_two_names_is_a_warning(tree):
    """Published lists would have it as well, but scores would be too high."""
    test, train = 1, 46
    for path in (tree / FULL / "00046").iterdir():
        path.unlink()
    for name in trees.full_names(test):
        shutil.copy(tree / FULL / "00001" / name, tree / FULL / "00046" / name.replace("00001_", "00046_"))
    assert {test, train} & {*trees.fold_members(LABELS, 1)[1]} == {test}
    report = look(tree)
    assert report.comparable is True
    assert texts(report, "warning") == {"duplicates": "1 contents lie in two splits: 00001 = 00046"}


# --- Lists that are not as they should be ---------------------------------------------------------------------------


def edit_lists(tree: Path, labels: dict[int, int]) -> None:
    trees.write_splits(tree / LISTS, labels)


def swap_sides(tree: Path) -> None:
    """In fold 1 alone, a train and a test clip of one class change places, which changes no count."""
    train, test = trees.fold_members(LABELS, 1)
    inside, outside = test[0], next(clip_id for clip_id in train if LABELS[clip_id] == LABELS[test[0]])
    for side, members in (("train", {*train, inside} - {outside}), ("test", {*test, outside} - {inside})):
        (tree / LISTS / f"{side}(single-labeled)" / "set_1.csv").write_text(trees.csv_text(LABELS, sorted(members)))


@pytest.mark.parametrize(
    ("spoil", "names", "message"),
    [
        (swap_sides, {"fold rule", "test folds"}, r"fold rule 40 of 42 clips are listed where .* not 00001, 000\d\d"),
        (swap_sides, {"fold rule", "test folds"}, "test folds .*00001 in none"),
        (
            lambda tree: edit_lists(tree, {**LABELS, 1: LABELS[2], 2: LABELS[1]}),
            {"annotation.xlsx"},
            "40 of 42 clips have the label of annotation.xlsx, not 00001, 00002",
        ),
        (
            lambda tree: edit_lists(tree, {clip_id: label for clip_id, label in LABELS.items() if clip_id != 1}),
            {"counts"},
            "5 of 70 numbers .*fold_1 test happy 1 .published 2., fold_2 train happy 4 .published 5.",
        ),
        (
            lambda tree: edit_lists(tree, {clip_id: label for clip_id, label in LABELS.items() if label != 5}),
            {"counts", "classes"},
            "classes train has no surprise, test has no surprise",
        ),
    ],
)
def test_wrong_lists_fail_their_check(tree, spoil, names, message):
    spoil(tree)
    report = look(tree)
    assert report.comparable is False
    assert texts(report, "failed").keys() == names
    assert any(re.search(message, f"{name} {text}") for name, text in texts(report, "failed").items())


def test_counts_of_fixture_trees_are_far_from_those_of_dfew(tmp_path):
    """Without the published counts put aside, as for the synthetic faces: never comparable."""
    report = look(trees.write_dfew(tmp_path / "DFEW"))
    assert report.comparable is False
    assert "fold_1 train happy 4 (published 1956)" in texts(report, "failed")["counts"]
    assert "4/1956" in str(report)


def test_published_counts_sum_up_to_the_published_sizes():
    sizes = {name: tuple(sum(side.values()) for side in sides.values()) for name, sides in dfew.DFEW.PUBLISHED.items()}
    assert sizes == {f"fold_{fold}": both for fold, both in dfew.FOLD_SIZES.items()}
    for name, total in dfew.CLASS_COUNTS.items():
        assert sum(sides["test"][name] for sides in dfew.DFEW.PUBLISHED.values()) == total


def test_fold_that_cannot_be_opened_is_named_and_the_others_are_verified(tree):
    next(tree.rglob("test*/set_2.csv")).unlink()
    report = look(tree)
    assert report.comparable is False
    [failed] = [check for check in report.checks if check.outcome == "failed"]
    assert (failed.name, failed.configurations) == ("source", ("fold_2",))
    assert "no test list of fold 2" in failed.text
    assert list(report.counts) == ["fold_1", "fold_3", "fold_4", "fold_5"]


@pytest.mark.parametrize("make", [lambda path: None, Path.mkdir, Path.touch])
def test_tree_that_cannot_be_opened_gives_a_report(tmp_path, make):
    make(tmp_path / "DFEW")
    report = look(tmp_path / "DFEW")
    assert report.comparable is False
    assert "https://dfew-dataset.github.io" in texts(report, "failed")["source"]
    assert "NOT comparable" in str(report)
    json.dumps(report.to_dict())


def test_nothing_published_is_neither_comparable_nor_not(tree, monkeypatch):
    monkeypatch.setattr(dfew.DFEW, "PUBLISHED", {})
    assert look(tree).comparable is None
    assert str(look(tree)).endswith("Nothing failed, and nothing is published to compare with.")
    shutil.rmtree(tree / FULL / "00001")
    assert look(tree).comparable is False


def test_wrong_usage(tree):
    with pytest.raises(KeyError, match="'dfow' is not one of"):
        verify("dfow", tree)
    with pytest.raises(ValueError, match="no configuration 'fold_6', only fold_1"):
        look(tree, configurations=["fold_6"])
    with pytest.raises(ValueError, match=r"no option frame, only .*frames, clip_dir"):
        look(tree, frame="16f")
    with pytest.raises(ValueError, match="frames='half' is not one of"):
        look(tree, frames="half")


def test_own_folder_is_verified_in_the_configurations_that_it_has(tmp_path):
    for place in range(10):
        trees.write_frames(tmp_path / "folds" / "ab"[place % 2] / f"{place}", ["1.jpg", "2.jpg"])
    report = verify("clip_folder", tmp_path / "folds", progress=False)
    assert report.configurations == [f"fold_{fold}" for fold in range(1, 6)]
    assert [check.name for check in report.checks if check.outcome == "failed"] == []
    write_own_folder(tmp_path / "splits")
    assert verify("clip_folder", tmp_path / "splits", progress=False).configurations == ["default"]
    report = verify("clip_folder", tmp_path / "nowhere", progress=False)
    assert [check.name for check in report.checks] == ["source"]


def test_faults_of_own_clips_are_not_held_against_papers(tmp_path):
    for place in range(10):
        trees.write_frames(tmp_path / "own" / "ab"[place % 2] / f"{place}", ["1.jpg", "2.jpg"])
    (tmp_path / "own" / "a" / "0" / "1.jpg").write_bytes(b"no picture")
    report = verify("clip_folder", tmp_path / "own", progress=False)
    assert report.comparable is False
    assert report.verdict.startswith("These clips have faults: 1 failed")
    assert "papers" not in str(report)


def test_images_of_class_folders_are_looked_at(tmp_path):
    for split, label in (("train", "a"), ("train", "b"), ("test", "a"), ("test", "b")):
        trees.write_frames(tmp_path / split / label, [f"{split}_1.png", f"{split}_2.png"])
    report = verify("clip_folder", tmp_path, progress=False, images=True)
    assert texts(report, "failed") == {}
    assert report.num_frames == {"min": 1, "median": 1, "max": 1, "short": 8}
    assert report.picture_sizes == {"8×8": 8}
    assert "motion" not in {check.name for check in report.checks}
    (tmp_path / "train" / "a" / "train_1.png").write_bytes(b"no picture")
    report = verify("clip_folder", tmp_path, progress=False, images=True)
    assert "train_1.png is broken" in texts(report, "failed")["readable"]


def test_synthetic_faces_are_named_as_such_below_their_marker_too(tree):
    (tree / MARKER).write_text("drawn")
    report = look(tree)
    assert report.comparable is False
    assert texts(report, "failed") == {"real faces": f"these are synthetic faces, as {tree / MARKER} says"}
    for label in ("a", "b"):
        trees.write_frames(tree / "crops" / label / "1", ["1.jpg", "2.jpg"])
        trees.write_frames(tree / "crops" / label / "2", ["1.jpg", "2.jpg"])
    own = verify("clip_folder", tree / "crops", progress=False)
    assert "synthetic faces" in texts(own, "warning")["real faces"]


# --- Videos ---------------------------------------------------------------------------------------------------------


def write_faststart(path: Path, num_frames: int = 9) -> None:
    """An MP4 with its header in front, as made for the web: what is cut off at its end goes unnoticed on opening."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as output:
        stream = output.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 32
        noise = np.random.default_rng(0)
        for _ in range(num_frames):
            pixels = noise.integers(0, 256, (32, 32, 3), np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode())


@pytest.fixture
def videos(tree) -> Path:
    trees.write_originals(tree / "Clip" / "original")
    return tree


def test_videos_are_counted_and_measured(videos):
    report = look(videos, frames="original")
    assert report.comparable
    assert report.picture_sizes == {"32×32": 42}
    assert (report.num_frames["min"], report.num_frames["max"]) == (3, 7)
    assert texts(report, "warning").keys() == {"duplicates"}  # the fixture has five contents only


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (lambda: b"", "readable", "1.mp4 is an empty file"),
        (lambda: b"no video", "readable", "1.mp4 is not a readable video"),
        (lambda: trees.video(5)[:-30], "readable", r"1.mp4 is cut off: \d+ of \d+ bytes"),
        (lambda: POINTER.encode(), "Git LFS", "1 of 42 .*1.mp4"),
    ],
)
def test_spoilt_video_fails_its_check(videos, content: Callable[[], bytes], name, message):
    (videos / "Clip" / "original" / "part_1" / "1.mp4").write_bytes(content())
    report = look(videos, frames="original")
    assert report.comparable is False
    assert texts(report, "failed").keys() == {name}
    assert re.search(message, texts(report, "failed")[name])


def test_video_cut_off_after_its_header(videos):
    path = videos / "Clip" / "original" / "part_1" / "1.mp4"
    write_faststart(path)
    assert look(videos, frames="original", deep=True).comparable
    path.write_bytes(path.read_bytes()[:-30])
    assert "1.mp4 is cut off" in texts(look(videos, frames="original"), "failed")["readable"]


def test_video_whose_end_cannot_be_decoded_is_found_with_deep(videos):
    """An AVI has no list of frames that must be there, and its packets can be counted whatever is in them."""
    content = bytearray(trees.video(7, "avi"))
    start = content.index(b"movi") + 12
    content[start : start + 200] = bytes(200)
    path = videos / "Clip" / "original" / "part_1" / "1.mp4"
    path.write_bytes(content)
    assert look(videos, frames="original").comparable
    assert "1.mp4" in texts(look(videos, frames="original", deep=True), "failed")["readable"]


def without_first_keyframe(path: Path) -> None:
    """A Matroska video cut without re-encoding: until its second keyframe, nothing can be decoded."""
    with av.open(io.BytesIO(trees.video(10, "matroska", "libx264"))) as source, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(packet for packet in source.demux(video=0) if packet.size):
            if number:
                packet.stream = stream
                output.mux(packet)


def test_video_that_decodes_to_fewer_frames_than_its_packets_is_a_warning_with_deep(videos):
    (videos / "Clip" / "original" / "part_1" / "1.mp4").unlink()
    without_first_keyframe(videos / "Clip" / "original" / "part_1" / "1.mkv")
    assert "pictures" not in texts(look(videos, frames="original"), "warning")
    report = look(videos, frames="original", deep=True)
    assert re.fullmatch(
        r"1 clips have odd pictures: 00001 \d of \d frames decoded", texts(report, "warning")["pictures"]
    )
    assert report.comparable


# --- Other sets -----------------------------------------------------------------------------------------------------


def write_one(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(trees.video(20))


def write_own_folder(root: Path) -> None:
    for split, label, clip in (("train", "a", "1"), ("train", "b", "2"), ("test", "a", "3"), ("test", "b", "4")):
        trees.write_frames(root / split / label / clip, [f"{number}.jpg" for number in range(20)])


@pytest.mark.parametrize(
    ("name", "write", "num_clips"),
    [
        ("afew", afew_trees.write_videos, 35),
        ("clip_folder", write_own_folder, 4),
        ("crema_d", lambda root: write_one(root / "VideoFlash" / "1001_DFA_ANG_XX.mp4"), 1),
        ("ferv39k", ferv39k_trees.write_ferv39k, 42),
        ("mafw", mafw_trees.write_mafw, 62),
        ("ravdess", lambda root: write_one(root / "Actor_12" / "02-01-06-01-02-01-12.mp4"), 1),
    ],
)
def test_every_set_is_verified_by_its_own_builder(tmp_path, name, write, num_clips):
    write(tmp_path / name)
    report = verify(name, tmp_path / name, progress=False)
    outcomes = {check.name: check.outcome for check in report.checks}
    assert "source" not in outcomes
    assert sum(report.picture_sizes.values()) == num_clips
    assert report.comparable is (None if name == "clip_folder" else False)
    assert outcomes.get("counts", "ok") == ("ok" if name in ("clip_folder", "crema_d", "ravdess") else "failed")
    json.dumps(report.to_dict())
