"""dataset_scripts/clip_files.py: the order of frames, the count of videos and the walk over trees."""

import io
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from dataset_scripts import clip_files, load_dataset
from dataset_scripts.clip_files import About, count_video_frames, has_frames, list_frames, shown, walk
from helpers import acted_trees, dfew_trees
from helpers.dfew_trees import write_frames
from helpers.videos import grey, write_video

LINKS = pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")


# --- Frames ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        # Trap: the id is a number as well, and frame numbers have gaps and need not be padded.
        ["v1_00007_1.png", "00007_00002.jpeg", "00007_9.jpg", "00007_10.JPG", "00007_100.jpg"],
        ["0.033.jpg", "0.967.jpg", "1.001.jpg", "10.000.jpg"],  # seconds
        ["shot.v2.0001.jpg", "shot.v2.0002.jpg", "shot.v2.0010.jpg"],
        ["frame.9.jpg", "frame.10.jpg"],
        ["12.59.59.jpg", "13.00.00.jpg"],
        ["1.webp", "2.bmp", "3.jfif", "4.PNG"],
    ],
)
def test_frames_are_ordered_by_the_last_number_of_their_name(tmp_path, names):
    write_frames(tmp_path, sorted(names, reverse=True))
    assert list_frames(str(tmp_path)) == names


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["0.5.jpg", "0.25.jpg"], "frames named like 0.25.jpg and 0.5.jpg: the points may be those of seconds"),
        (["a1.9.jpg", "a1.10.jpg"], r"Rename the frames by whole numbers"),
        (["0.5.jpg", "1.jpg", "1.5.jpg"], r"the order is unknown"),
        (["cover.jpg", "1.jpg"], r"cover.jpg has no frame number"),
        (["1.jpg", "01.png"], r"two frames with the same number, (1.jpg and 01.png|01.png and 1.jpg): keep one"),
        (["1.jpg", "2.tif"], r"holds .tif pictures, which are not read: convert them to one of .jpg"),
        (["1.gif", "2.avif"], r"holds .avif, .gif pictures, which are not read"),
    ],
)
def test_frames_whose_order_or_form_is_unknown_are_refused(tmp_path, names, message):
    write_frames(tmp_path, names)
    assert has_frames(str(tmp_path))
    with pytest.raises(ValueError, match=message):
        list_frames(str(tmp_path))


@LINKS
def test_frame_whose_name_is_not_utf_8_is_named(tmp_path):
    write_frames(tmp_path / "clip", ["1.jpg"])
    (tmp_path / "clip" / "1.jpg").rename(tmp_path / "clip" / "\udcff2.jpg")
    with pytest.raises(ValueError, match=r"The name of .*clip/\\udcff2.jpg is not UTF-8"):
        list_frames(str(tmp_path / "clip"))
    assert shown(["\udcff"]) == "\\udcff"


# --- Videos ---------------------------------------------------------------------------------------------------------


def write_mp4(path: Path, num_frames: int, gop_size: int = 12, **options: str) -> None:
    with av.open(str(path), "w", options=options) as output:
        stream = output.add_stream("mpeg4", rate=25, options={"g": f"{gop_size}"})
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), number, np.uint8), format="rgb24")
            output.mux(stream.encode(frame))
        output.mux(stream.encode())


@pytest.mark.parametrize("gop_size", [12, 1])
def test_fragmented_mp4_is_counted_beyond_its_first_fragment(tmp_path, gop_size):
    """Its header lists the first fragment only."""
    write_mp4(tmp_path / "1.mp4", 50, gop_size, movflags="frag_keyframe")
    with av.open(str(tmp_path / "1.mp4")) as container:
        assert 0 < container.streams.video[0].frames <= gop_size
    assert count_video_frames(str(tmp_path / "1.mp4")) == 50


def test_frames_that_an_edit_list_leaves_out_are_not_counted(tmp_path):
    write_mp4(tmp_path / "1.mp4", 50)
    content = bytearray((tmp_path / "1.mp4").read_bytes())
    place = content.index(b"elst") + 8  # entries of an edit list: how many; length, start, rate of each
    assert content[place : place + 4] == (1).to_bytes(4, "big")
    content[place + 4 : place + 8] = (1000).to_bytes(4, "big")  # a second of the two
    (tmp_path / "1.mp4").write_bytes(content)
    with av.open(str(tmp_path / "1.mp4")) as container:
        assert container.streams.video[0].frames == 50
        decoded = sum(1 for _ in container.decode(video=0))
    assert count_video_frames(str(tmp_path / "1.mp4")) == decoded == 25


def test_frame_count_of_an_avi_is_not_taken_from_its_header(tmp_path):
    """An AVI's header may state any number, whatever program wrote it."""
    content = bytearray(dfew_trees.video(5, "avi"))
    length = content.index(b"strh") + 8 + 32  # dwLength of the stream's header
    assert content[length : length + 4] == (5).to_bytes(4, "little")
    content[length : length + 4] = (500).to_bytes(4, "little")
    (tmp_path / "1.avi").write_bytes(content)
    assert count_video_frames(str(tmp_path / "1.avi")) == 5


def test_flash_video_is_counted_without_trusting_its_header(tmp_path):
    """FLV's header states no number of frames, and a duration that may be wrong."""
    for num_frames in (1, 2, 75):
        (tmp_path / "clip.flv").write_bytes(acted_trees.flv(num_frames))
        assert count_video_frames(str(tmp_path / "clip.flv")) == num_frames


def test_titles_in_any_encoding_are_passed_over(tmp_path):
    """The reader passes over them as well; counting the frames ended in a UnicodeDecodeError that named no file."""
    content = dfew_trees.video(5, "mp4")
    assert b"\xa9too" in content
    place = content.index(b"\xa9too") + 24
    (tmp_path / "1.mp4").write_bytes(content[:place] + b"\xc4\xff\x82" + content[place + 3 :])
    assert count_video_frames(str(tmp_path / "1.mp4")) == 5


def test_a_stray_packet_of_another_stream_does_not_end_the_count(tmp_path):
    """The reader passes over it as well; counting the frames ended in a bare IndexError."""
    path = write_video(tmp_path / "1.ts", [grey(4 * n) for n in range(30)])
    data = bytearray(path.read_bytes())
    last = max(start for start in range(0, len(data), 188) if b"\0\0\1\xe0" in data[start : start + 188])
    data[last + 1] ^= 4  # the number of its stream, in a packet where a picture begins
    path.write_bytes(data)
    assert 25 < count_video_frames(str(path)) < 30


def test_sound_without_a_video_is_refused(tmp_path):
    with av.open(str(tmp_path / "1.mp4"), "w") as output:
        stream = output.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        output.mux(stream.encode(frame))
        output.mux(stream.encode())
    with pytest.raises(ValueError, match=r"1.mp4 is not a readable video \(no video stream\)"):
        count_video_frames(str(tmp_path / "1.mp4"))


# --- Pictures that the processor reads ------------------------------------------------------------------------------


def test_pictures_accepted_here_are_those_that_the_processor_reads(tmp_path):
    """Otherwise verify would pass a copy that training then fails on."""
    from modeling_stt import video_reading_stt

    assert video_reading_stt.IMAGE_SUFFIXES == clip_files.IMAGE_SUFFIXES
    for number, suffix in enumerate(clip_files.IMAGE_SUFFIXES):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), (200, 0, 0)).save(buffer, Image.registered_extensions()[suffix])
        (tmp_path / f"{number}{suffix}").write_bytes(buffer.getvalue())
    names = list_frames(str(tmp_path))
    assert [path.name for path in video_reading_stt.list_frame_files(tmp_path)] == names
    frames = video_reading_stt.read_frame_files([tmp_path / name for name in names])
    assert frames.shape == (len(clip_files.IMAGE_SUFFIXES), 3, 8, 8)
    assert (frames[:, 0].float().mean((1, 2)) - 200).abs().max() < 4


@pytest.mark.parametrize(
    "names", [["0.967", "1.001"], ["9", "10"], ["a1.9", "a1.10"], ["0.5", "1"], ["x"], ["1", "01"], ["v2.01", "v2.10"]]
)
def test_frames_are_ordered_as_the_processor_orders_them(tmp_path, names):
    from modeling_stt import video_reading_stt

    write_frames(tmp_path, [f"{name}.{suffix}" for name, suffix in zip(names, ("jpg", "png"), strict=False)])
    try:
        order = list_frames(str(tmp_path))
    except ValueError:
        with pytest.raises(ValueError, match=str(tmp_path)):
            video_reading_stt.list_frame_files(tmp_path)
    else:
        assert [path.name for path in video_reading_stt.list_frame_files(tmp_path)] == order


# --- Links ----------------------------------------------------------------------------------------------------------


@LINKS
def test_walk_follows_links_but_not_back_into_a_folder_above(tmp_path):
    about = About(name="SET", description="", names="", access="")
    (tmp_path / "outside" / "inner").mkdir(parents=True)
    (tmp_path / "top" / "own").mkdir(parents=True)
    (tmp_path / "top" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "top" / "own" / "loop").symlink_to(tmp_path / "top")
    found = [str(path.relative_to(tmp_path)) for path, _, _ in walk(tmp_path / "top", about, lambda name: True)]
    assert found == ["top", "top/link", "top/own", "top/link/inner"]


@LINKS
def test_clips_reached_by_two_names_are_one(tmp_path):
    """A loop of links, or a link beside the folder, is not a second copy of the clips."""
    root = dfew_trees.write_dfew(tmp_path / "DFEW")
    wanted = load_dataset("dfew", "fold_1", data_dir=root, cache_dir=tmp_path / "cache")["train"]["clip_id"][:]
    (root / "Clip" / "again").symlink_to(root)
    (root / "clip_224x224").symlink_to(root / "Clip" / "clip_224x224")
    rows = load_dataset("dfew", "fold_1", data_dir=root, cache_dir=tmp_path / "cache")["train"]
    assert rows["clip_id"][:] == wanted


@LINKS
def test_folders_behind_links_are_read(tmp_path):
    root = dfew_trees.write_dfew(tmp_path / "DFEW")
    (root / "Clip" / "clip_224x224").rename(tmp_path / "elsewhere")
    (root / "Clip" / "clip_224x224").symlink_to(tmp_path / "elsewhere")
    rows = load_dataset("dfew", "fold_1", data_dir=root, cache_dir=tmp_path / "cache")["test"]
    assert rows[0]["frames"][0].startswith(str(root / "Clip" / "clip_224x224" / "00001"))
