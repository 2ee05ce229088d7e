"""Training clips are cut as a timeline cuts faces, and a model trained on them says so."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset_scripts.clip_folder import scan_folder
from helpers.face_videos import HalvesDetector, HalvesTracker, scene, write_sound, write_video
from modeling_stt import cli
from modeling_stt.timeline.crops import write_crops
from modeling_stt.timeline.faces import FaceCrop
from modeling_stt.timeline.video import read_frames
from modeling_stt.video_reading_stt import list_frame_files

CROP = FaceCrop(margin=0.05, align=False, size=48, min_side=16)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes; one video with two faces, of which one leaves, one without any, one that is none."""
    folder = tmp_path_factory.mktemp("raw")
    (folder / "happy").mkdir()
    (folder / "sad").mkdir()
    write_video(folder / "happy" / "two.mp4", scene("happy", "sad", seconds=1) + scene("happy", "", seconds=1))
    write_video(folder / "sad" / "one.mp4", scene("", "sad", seconds=1))
    write_video(folder / "sad" / "nobody.mp4", scene("", "", seconds=1))
    write_sound(folder / "sad" / "sound.mp4")
    return folder


def cut(paths, output, crop=CROP, **options):
    detector = options.pop("detector", HalvesDetector())
    return list(write_crops(paths, output, crop, detector, tracker=HalvesTracker, **options))


def index(output: Path) -> list[dict[str, str]]:
    with (output / "crops.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_faces_become_folders_that_the_data_set_takes(videos, tmp_path):
    done = cut([videos], tmp_path / "clips")
    assert [(Path(video).name, len(clips)) for video, clips, _ in done] == [
        *(("two.mp4", 2), ("nobody.mp4", 0), ("one.mp4", 1), ("sound.mp4", 0)),
    ]
    assert "no video stream" in done[-1][2]
    names = sorted(p.relative_to(tmp_path / "clips").as_posix() for p in tmp_path.glob("clips/*/*"))
    assert names == ["happy/two_1", "happy/two_2", "sad/one_1"]
    clips = scan_folder(tmp_path / "clips", groups=re.compile("(.*)_[0-9]+"))
    assert [(clip.clip_id, clip.class_name, clip.group) for clip in clips] == [
        *(("happy/two_1", "happy", "two"), ("happy/two_2", "happy", "two"), ("sad/one_1", "sad", "one")),
    ]
    assert [len(list_frame_files(clip.path)) for clip in clips] == [50, 25, 25]
    assert json.loads((tmp_path / "clips" / "face_crop.json").read_text()) == CROP.to_dict()
    assert [(r["clip"], r["start_s"], r["num_frames"]) for r in index(tmp_path / "clips")] == [
        *(("happy/two_1", "0.0", "50"), ("happy/two_2", "0.0", "25"), ("", "", ""), ("sad/one_1", "0.0", "25")),
        ("", "", ""),
    ]


def test_pictures_are_those_that_a_timeline_would_cut(videos, tmp_path):
    cut([videos / "happy" / "two.mp4"], tmp_path / "clips")
    for number, frame in enumerate(read_frames(videos / "happy" / "two.mp4"), start=1):
        [face, *_] = HalvesDetector().detect([frame.image])[0]
        written = np.array(Image.open(tmp_path / "clips" / "two_1" / f"{number:06d}.jpg"))
        assert np.abs(written.astype(int) - CROP(frame.image, face)).mean() < 3  # JPEG


def test_the_main_face_only_and_no_glimpses(videos, tmp_path):
    [(_, [clip], _)] = cut([videos / "happy" / "two.mp4"], tmp_path / "main", main_face=True)
    assert (clip.folder.name, clip.track, clip.num_frames) == ("two_1", 1, 50)
    [(_, [clip], _)] = cut([videos / "happy" / "two.mp4"], tmp_path / "long", min_s=1.5)
    assert clip.folder.name == "two_1"
    assert sorted(p.name for p in (tmp_path / "long").iterdir()) == [
        *("crops.csv", "crops.files.json", "face_crop.json", "two_1"),
    ]


def test_faces_too_small_are_not_cut(videos, tmp_path):
    [(_, clips, reason)] = cut([videos / "sad" / "one.mp4"], tmp_path / "clips", detector=HalvesDetector(scale=0.2))
    assert (clips, reason) == ([], None)


def test_an_interrupted_run_resumes(videos, tmp_path):
    output = tmp_path / "clips"
    started = write_crops([videos], output, CROP, HalvesDetector(), tracker=HalvesTracker)
    next(started)
    started.close()
    (output / "sad" / "one_1").mkdir(parents=True)
    (output / "sad" / "one_1" / "000099.jpg").touch()  # it ended here, after the clip and before the note
    assert [Path(video).name for video, *_ in cut([videos], output)] == ["nobody.mp4", "one.mp4", "sound.mp4"]
    assert len(list((output / "sad" / "one_1").iterdir())) == 25
    assert [Path(video).name for video, *_ in cut([videos], output)] == ["sound.mp4"]
    assert [row["clip"] for row in index(output) if row["clip"]] == ["happy/two_1", "happy/two_2", "sad/one_1"]


def test_two_runs_do_not_write_one_folder(videos, tmp_path):
    """They removed each other's unfinished clips."""
    first = write_crops([videos], tmp_path / "clips", CROP, HalvesDetector(), tracker=HalvesTracker)
    next(first)
    with pytest.raises(ValueError, match=r"Another run is writing \S+clips \(process \d+ on .+\): wait for its end"):
        cut([videos], tmp_path / "clips")
    assert len(list(first)) == 3
    assert not list((tmp_path / "clips").glob(".*"))


def test_what_would_mix_or_overwrite_is_refused(videos, tmp_path):
    cut([videos / "sad" / "one.mp4"], tmp_path / "clips")
    with pytest.raises(ValueError, match=r"has clips cut as FaceCrop\(margin=0\.05.*name another folder"):
        cut([videos / "sad" / "one.mp4"], tmp_path / "clips", FaceCrop())
    with pytest.raises(ValueError, match=r"not empty and has no face_crop\.json"):
        cut([videos / "sad" / "one.mp4"], videos)
    with pytest.raises(ValueError, match=r"one\.mp4 is a file: name a folder to write"):
        cut([videos], videos / "sad" / "one.mp4")
    for options in ({"detect_fps": 0}, {"detect_fps": float("nan")}, {"min_s": -1}):
        with pytest.raises(ValueError, match=r"min_s=\S+ must be at least 0, detect_fps=\S+ more than 0 or None"):
            cut([videos], tmp_path / "numbers", **options)
    with pytest.raises(ValueError, match=r"one\.mp4 and one\.mkv would both become .*one: rename"):
        cut(["one.mp4", "one.mkv"], tmp_path / "both")


def test_loose_videos_beside_those_of_classes_are_refused(videos, tmp_path):
    """Both were cut, for hours maybe, into a folder that `clip_folder` refuses."""
    for paths in ([videos, "loose.mp4"], ["loose.mp4", videos]):
        with pytest.raises(
            ValueError,
            match=r"in none \(loose\.mp4\); clips of the latter would have no class: move them into a class's folder",
        ):
            cut(paths, tmp_path / "clips")
    assert not (tmp_path / "clips").exists()


def test_stt_crop(videos, tmp_path, capsys):
    output = tmp_path / "clips"
    options = ["--size", "48", "--margin", "0.05", "--no-align", "--min_side", "16"]
    options += ["--detector", "helpers.face_videos:find_halves"]
    assert cli.main(["crop", str(videos), "--output", str(output), "--main_face", *options]) == 1
    out, err = capsys.readouterr()
    assert f"{videos / 'sad' / 'one.mp4'}: 1 face (0.00 to 0.96 s)" in out
    assert out.endswith(f"{output}: 2 clips of 4 videos, 1 not read, or not to the end\n")
    assert "sound.mp4 has no video stream" in err
    assert json.loads((output / "face_crop.json").read_text()) == CROP.to_dict()
    with pytest.raises(SystemExit) as exit:
        cli.main(["crop", str(videos), "--output", str(output), "--margin", "-1"])
    assert exit.value.code == 2
    assert "Expected a margin" in capsys.readouterr().err


def test_long_takes_are_cut_into_pieces(videos, tmp_path):
    """One clip was made of a take of a minute."""
    [(_, clips, _)] = cut([videos / "happy" / "two.mp4"], tmp_path / "clips", clip_s=0.8)
    assert [(c.folder.name, c.start_s, c.num_frames) for c in clips] == [
        *(("two_1_0", 0.0, 20), ("two_1_1", 0.8, 20)),  # of 2 s; the last 0.4 s are shorter than min_s
        ("two_2_0", 0.0, 20),
    ]
    with pytest.raises(ValueError, match=r"clip_s=0\.3 must be more than min_s=0\.5"):
        cut([videos / "happy" / "two.mp4"], tmp_path / "other", clip_s=0.3)


def test_a_video_that_was_replaced_is_cut_again(videos, tmp_path):
    video = tmp_path / "v.mp4"
    for name, expected in (("two.mp4", ["v_1", "v_2"]), ("../sad/one.mp4", ["v_1"])):
        video.write_bytes((videos / "happy" / name).read_bytes())
        [(_, clips, _)] = cut([video], tmp_path / "clips")
        assert [clip.folder.name for clip in clips] == expected
        assert sorted(p.name for p in (tmp_path / "clips").iterdir() if p.is_dir()) == expected
        assert [row["clip"] for row in index(tmp_path / "clips")] == expected
    assert cut([video], tmp_path / "clips") == []
