"""Odd and hostile inputs of the reader: pixels that are not square, HDR, transparency, lost frames, large pictures."""

import http.server
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from helpers.videos import grey, write_video
from modeling_stt import STTVideoProcessor, video_reading_stt
from modeling_stt.timeline.video import read_frames
from modeling_stt.video_reading_stt import (
    VideoReader,
    list_frame_files,
    open_source,
    read_frame_files,
    read_video_frames,
    stack_frames,
)

RED, WHITE = (255, 0, 0), (255, 255, 255)


def write_frames(path: Path, frames: list[av.VideoFrame], codec: str, options: Any = None, **settings: Any) -> Path:
    """Encode frames as they are, in their own pixel format; settings are those of the encoder."""
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height, stream.pix_fmt = frames[0].width, frames[0].height, frames[0].format.name
        for name, value in settings.items():
            setattr(stream.codec_context, name, value)
        for n, frame in enumerate(frames):
            frame.pts, frame.time_base = n, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def as_frames(images: list[np.ndarray], pixel_format: str = "yuv420p") -> list[av.VideoFrame]:
    kind = {3: "rgb24", 4: "rgba"}
    return [av.VideoFrame.from_ndarray(i, format=kind[i.shape[2]]).reformat(format=pixel_format) for i in images]


# --- shape and colours of pixels -------------------------------------------------------------------------------------


def halves(height: int = 64, width: int = 64) -> np.ndarray:
    """Black on the left, white on the right."""
    image = grey(0, height, width)
    image[:, width // 2 :] = 255
    return image


@pytest.mark.parametrize("aspect", [Fraction(2), Fraction(1, 2), Fraction(16, 15), Fraction(1)])
@pytest.mark.parametrize("turned", [False, True])
def test_pixels_that_are_not_square_become_so_before_a_quarter_turn(tmp_path: Path, aspect, turned) -> None:
    path = tmp_path / "dvd.mp4"
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt, stream.codec_context.sample_aspect_ratio = "yuv420p", aspect
        if turned:
            stream.set_display_rotation(90)
        for frame in as_frames([halves()] * 3):
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    frames, metadata = read_video_frames(path)
    width = round(64 * aspect)
    assert frames.shape == (3, 3, *((width, 64) if turned else (64, width)))
    assert (metadata.height, metadata.width) == frames.shape[-2:]
    along = frames[0].float().mean(0).mean(1 if turned else 0)
    edge = (along > 127).nonzero().squeeze() if along[0] < along[-1] else (along < 127).nonzero().squeeze()
    assert abs(int(edge[0]) - width // 2) <= 2
    assert STTVideoProcessor()(path, return_tensors="pt")["pixel_values"].shape == (1, 16, 3, 112, 112)


@pytest.mark.parametrize(("transfer", "name", "white"), [(16, "smpte2084", 0.58), (18, "arib-std-b67", 0.75)])
def test_hdr_white_is_white(tmp_path: Path, transfer: int, name: str, white: float) -> None:
    """Reference white, 203 cd/m², is 58 % of PQ's scale and 75 % of HLG's; as SDR it came out at 146 and 189."""
    frame = av.VideoFrame(64, 64, "yuv420p10le")
    for plane, value in zip(frame.planes, (round(64 + 876 * white), 512, 512), strict=True):
        plane.update(np.full(plane.buffer_size // 2, value, np.uint16).tobytes())
    tags = f"log-level=none:colorprim=bt2020:transfer={name}:colormatrix=bt2020nc"
    tagged = {"color_primaries": 9, "color_trc": transfer, "colorspace": 9, "color_range": 1}
    for key, value in tagged.items():
        setattr(frame, key, value)
    path = write_frames(tmp_path / "phone.mp4", [frame] * 3, "libx265", {"x265-params": tags}, **tagged)
    frames, _ = read_video_frames(path)
    assert 245 <= frames.float().mean() <= 255


def test_an_older_pyav_warns_that_hdr_comes_out_dark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Frame:
        color_trc, width = 16, 8
        format = av.VideoFormat("yuv420p10le")

        def to_ndarray(self, format: str, threads: int = 0) -> np.ndarray:
            return grey(146, 8, 8)

    said: list[str] = []
    monkeypatch.setattr(video_reading_stt.logger, "warning_once", said.append, raising=False)
    assert video_reading_stt._convert(Frame(), 8).mean() == 146  # type: ignore[arg-type]
    assert len(said) == 1 and "HDR" in said[0]


def transparent(height: int = 32, width: int = 48) -> np.ndarray:
    """Red, of which the left half is transparent: RGBA."""
    image = np.full((height, width, 4), (*RED, 255), np.uint8)
    image[:, : width // 2, 3] = 0
    return image


WEBM = {"vp8.webm": "libvpx", "vp9.webm": "libvpx-vp9"}


def transparent_forms(folder: Path) -> dict[str, Any]:
    image = Image.fromarray(transparent())
    for suffix in ("png", "webp"):
        image.save(folder / f"1.{suffix}", **({"lossless": True, "exact": True} if suffix == "webp" else {}))
    other = Image.fromarray(transparent())
    other.putpixel((40, 9), (0, 0, 0, 255))
    image.save(folder / "animated.png", save_all=True, append_images=[other])
    videos = {"argb.mov": ("qtrle", "argb"), "png.mov": ("png", "rgba"), "ffv1.mkv": ("ffv1", "yuva420p")}
    for name, (codec, pixel_format) in videos.items():
        write_frames(folder / name, as_frames([transparent()] * 2, pixel_format), codec)
    for name, codec in WEBM.items():
        write_frames(folder / name, as_frames([transparent()] * 2, "yuva420p"), codec, {"auto-alt-ref": "0"})
    files = {name: folder / name for name in ("1.png", "1.webp", "animated.png", *videos, *WEBM)}
    return files | {"PIL": [image], "array": transparent()[None]}


def test_transparent_parts_are_white_in_every_form(tmp_path: Path) -> None:
    processor = STTVideoProcessor(num_frames=1)
    for name, video in transparent_forms(tmp_path).items():
        clip = processor.read_clip(video)[0].float()
        left, right = clip[:, :, 4:20].mean((1, 2)), clip[:, :, 28:44].mean((1, 2))
        assert torch.allclose(left, torch.tensor(WHITE).float(), atol=3), (name, left)
        assert torch.allclose(right, torch.tensor(RED).float(), atol=3), (name, right)


def test_a_transparent_webm_is_read_alike_by_all_readers_or_warned_of(tmp_path: Path, monkeypatch) -> None:
    """FFmpeg's own decoders of VP8 and VP9 leave its transparency out without a word."""
    images = [grey(40 * n, 32, 48) for n in range(6)]
    for name, codec in WEBM.items():
        frames = as_frames([np.concatenate([i, np.full((32, 48, 1), 255, np.uint8)], 2) for i in images], "yuva420p")
        path = write_frames(tmp_path / name, frames, codec, {"auto-alt-ref": "0", "g": "3"})
        levels = [40 * n for n in range(6)]
        assert [frame.image.mean() for frame in read_frames(path)] == pytest.approx(levels, abs=4)
        chosen, _ = read_video_frames(path, lambda metadata: np.array([1, 4]))
        assert chosen.float().mean((1, 2, 3)).tolist() == pytest.approx([40, 160], abs=4)
    said: list[str] = []
    monkeypatch.setattr(video_reading_stt.logger, "warning_once", said.append, raising=False)
    monkeypatch.setattr(av, "codecs_available", set(av.codecs_available) - set(WEBM.values()))
    assert len(read_video_frames(path)[0]) == 6
    assert "The transparency of vp9 is not read" in said[0]


@pytest.mark.parametrize("decoders", ["torchvision", "pillow"])
def test_half_transparency_is_mixed_as_transformers_mixes_it(tmp_path: Path, decoders: str, monkeypatch) -> None:
    if decoders == "pillow":
        monkeypatch.setattr(video_reading_stt, "DECODE_IMAGE", None)
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 4), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "1.png")
    grey_image = Image.fromarray(image[..., :2].copy(), "LA")
    grey_image.save(tmp_path / "2.png")
    palette = Image.fromarray(image[..., 0]).convert("P")
    palette.save(tmp_path / "3.png", transparency=int(np.asarray(palette)[3, 4]))
    processor = STTVideoProcessor()
    for number, array in ((1, image), (2, np.asarray(grey_image.convert("RGBA")))):
        expected = processor.read_clip(array[None])[0].float()
        for form in (tmp_path / f"{number}.png", [Image.open(tmp_path / f"{number}.png")]):
            assert (processor.read_clip(form)[0].float() - expected).abs().max() <= 1
    with Image.open(tmp_path / "3.png") as opened:
        expected = processor.read_clip(np.asarray(opened.convert("RGBA"))[None])[0]
    assert torch.equal(processor.read_clip(tmp_path / "3.png")[0], expected)
    assert expected[:, 3, 4].tolist() == [255, 255, 255]


# --- pictures --------------------------------------------------------------------------------------------------------


def test_an_animated_png_is_a_video(tmp_path: Path) -> None:
    images = [Image.fromarray(grey(40 * n)) for n in range(6)]
    images[0].save(tmp_path / "moving.png", save_all=True, append_images=images[1:], duration=100)
    for video in (tmp_path / "moving.png", (tmp_path / "moving.png").read_bytes()):
        clip = STTVideoProcessor(num_frames=6).read_clip(video)
        assert clip.float().mean((1, 2, 3)).tolist() == pytest.approx([0, 40, 80, 120, 160, 200], abs=1)


def test_animations_among_frames_are_refused(tmp_path: Path) -> None:
    images = [Image.fromarray(grey(40 * n)) for n in range(3)]
    for suffix in ("png", "webp"):
        images[0].save(tmp_path / f"1.{suffix}", save_all=True, append_images=images[1:], duration=100)
        with pytest.raises(ValueError, match=rf"1\.{suffix} is an animation"):
            read_frame_files([tmp_path / f"1.{suffix}"] * 2)
    with pytest.raises(ValueError, match=r"1\.webp cannot be read as a video"):
        STTVideoProcessor().read_clip(tmp_path / "1.webp")


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "jfif", "png", "webp", "bmp"])
def test_every_type_of_picture_that_builders_accept_is_read(tmp_path: Path, suffix: str) -> None:
    from dataset_scripts.clip_files import IMAGE_SUFFIXES

    assert set(IMAGE_SUFFIXES) == set(video_reading_stt.IMAGE_SUFFIXES)
    for n in range(1, 4):
        Image.fromarray(grey(50 * n)).save(
            tmp_path / f"{n}.{suffix}", **({"lossless": True} if suffix == "webp" else {})
        )
    clip = STTVideoProcessor(num_frames=3).read_clip(tmp_path)
    assert clip.float().mean((1, 2, 3)).tolist() == pytest.approx([50, 100, 150], abs=2)


@pytest.mark.parametrize("suffix", ["tif", "gif", "avif", "jp2"])
def test_other_types_of_pictures_are_refused_by_their_suffix(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"1.{suffix}").touch()
    with pytest.raises(ValueError, match=rf"pictures of type \.{suffix}, which are not read: expected images \(\.jpg"):
        list_frame_files(tmp_path)


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (["0.967", "1.001", "0.033"], ["0.033", "0.967", "1.001"]),
        (["t_10.500", "t_9.500"], ["t_9.500", "t_10.500"]),
        (["a.1.2", "a.1.10"], None),  # seconds 1.2 and 1.10, or parts 2 and 10 of 1
        (["0.9", "10"], None),
    ],
)
def test_frames_named_by_seconds_are_ordered_or_refused(tmp_path: Path, names, order) -> None:
    """By their last integers, 1.001 would come before 0.967."""
    for name in names:
        (tmp_path / f"{name}.jpg").touch()
    if order is None:
        with pytest.raises(ValueError, match="the order is unknown"):
            list_frame_files(tmp_path)
    else:
        assert [file.stem for file in list_frame_files(tmp_path)] == order


# --- times and counts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_avi_keeps_the_gap_of_dropped_frames(tmp_path: Path, codec: str) -> None:
    """25 frames, 2 s without any, 25 frames: counted, frame 25 would come at 1 s."""
    times = [n / 25 + (2 if n >= 25 else 0) for n in range(50)]
    path = tmp_path / "gap.avi"
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=25, options={"bf": "2"})
        stream.height, stream.width, stream.pix_fmt, stream.gop_size = 48, 80, "yuv420p", 12
        for n, frame in enumerate(as_frames([grey(5 * n) for n in range(50)])):
            frame.time_base, frame.pts = Fraction(1, 25), round(25 * times[n])
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    found: list[float | None] = []
    reader = VideoReader(open_source(path), str(path))
    with reader.open() as (container, stream):
        assert stream.codec_context.has_b_frames
        for frame in container.decode(stream):
            assert reader.to_rgb(frame).mean() == pytest.approx(5 * len(found), abs=5)
            found.append(reader.frame_time(frame))
    known = {n: time_s for n, time_s in enumerate(found) if time_s is not None}
    assert len(found) == 50 and len(known) >= 47
    assert known == pytest.approx({n: times[n] for n in known}, abs=0.001)
    assert read_video_frames(path)[1].fps == pytest.approx(49 / times[-1], rel=0.02)


def test_frames_are_counted_where_headers_state_other_numbers(tmp_path: Path) -> None:
    images = [grey(4 * n) for n in range(50)]
    for flags in ("frag_keyframe+empty_moov", "empty_moov+default_base_moof+frag_every_frame"):
        path = write_video(tmp_path / "fragments.mp4", images, container_options={"movflags": flags})
        assert read_video_frames(path, lambda metadata: np.array([0]))[1].total_num_frames == 50


# --- cut and interlaced ----------------------------------------------------------------------------------------------


def test_a_truncated_gif_or_mpeg_ts_is_said_to_be_cut_short(tmp_path: Path) -> None:
    images = [np.random.default_rng(n).integers(0, 255, (48, 80, 3), dtype=np.uint8) for n in range(20)]
    pictures = [Image.fromarray(image) for image in images]
    pictures[0].save(tmp_path / "whole.gif", save_all=True, append_images=pictures[1:], duration=40)
    write_video(tmp_path / "whole.ts", images)
    for suffix in ("gif", "ts"):
        whole = tmp_path / f"whole.{suffix}"
        assert len(read_video_frames(whole)[0]) == 20
        data = whole.read_bytes()
        cut = tmp_path / f"cut.{suffix}"
        cut.write_bytes(data[: len(data) * 6 // 10 // 188 * 188 + 100])
        for source in (cut, cut.read_bytes()):
            with pytest.raises(ValueError, match=r"cut short: it ends at .* in the middle of its data"):
                read_video_frames(source)


def test_interlaced_frames_lose_their_combs(tmp_path: Path) -> None:
    """A bar that moves between the two fields of a frame leaves a comb: rows that alternate."""
    images = []
    for n in range(4):
        image = grey(0, 96, 128)
        for row in range(96):
            left = 20 + 8 * n + 8 * (row % 2)
            image[row, left : left + 40] = 255
        images.append(image)
    path = write_frames(
        tmp_path / "broadcast.mkv",
        as_frames(images),
        "mpeg2video",
        {"flags": "+ildct+ilme", "top": "1"},
        bit_rate=8_000_000,
    )
    with av.open(path) as container:
        combed = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    frames, _ = read_video_frames(path)
    assert frames.shape == (4, 3, 96, 128)

    def comb(image: np.ndarray) -> float:
        return np.abs(np.diff(image.astype(float).mean(2), axis=0))[10:-10].mean()

    for before, after in zip(combed, frames.permute(0, 2, 3, 1).numpy(), strict=True):
        assert comb(after) < comb(before) / 4


# --- hostile inputs --------------------------------------------------------------------------------------------------


def test_one_large_frame_does_not_enlarge_all_others() -> None:
    small, large = torch.zeros(3, 20, 30, dtype=torch.uint8), torch.zeros(3, 600, 600, dtype=torch.uint8)
    assert stack_frames([large, small, small]).shape[-2:] == (20, 30)
    assert stack_frames([large, small]).shape[-2:] == (20, 30)


def test_every_decoded_frame_is_measured_before_it_is_converted(tmp_path: Path, monkeypatch) -> None:
    """The header says 64 × 64; what comes later is larger."""
    parts = [write_video(tmp_path / f"{size}.h264", [grey(9, size, size)] * 3) for size in (64, 512)]
    path = tmp_path / "grows.h264"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    monkeypatch.setattr(VideoReader, "max_pixels", 100_000)
    converted: list[int] = []
    convert = video_reading_stt._convert
    monkeypatch.setattr(
        video_reading_stt, "_convert", lambda frame, width: converted.append(width) or convert(frame, width)
    )
    with pytest.raises(ValueError, match=r"grows\.h264 has a frame of 512×512 px; expected up to 100000 pixels"):
        read_video_frames(path)
    assert set(converted) == {64}


def test_a_picture_of_too_many_pixels_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(video_reading_stt, "MAX_FRAME_PIXELS", 1000)
    Image.new("RGB", (50, 50)).save(tmp_path / "1.png")
    with pytest.raises(ValueError, match="50×50 px; expected up to 1000"):
        read_frame_files([tmp_path / "1.png"])


def test_a_git_lfs_pointer_is_named(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12345\n")
    with pytest.raises(ValueError, match=r"clip\.mp4 is a pointer of Git LFS.*git lfs pull"):
        read_video_frames(path)


class Server(http.server.BaseHTTPRequestHandler):
    """Serves a video, and misbehaves by path."""

    video = b""

    def do_GET(self) -> None:
        if target := {"/ftp": "ftp://example.org/a.mp4", "/here": "/video", "/file": "file:///etc/passwd"}.get(
            self.path
        ):
            self.send_response(302)
            self.send_header("Location", target)
            self.end_headers()
            return
        self.send_response(200)
        if self.path != "/endless":
            self.send_header("Content-Length", str(len(self.video)))
        self.end_headers()
        try:
            if self.path == "/video":
                self.wfile.write(self.video)
            for _ in range(300 if self.path == "/slow" else 0):
                self.wfile.write(b"0")
                time.sleep(0.02)
            while self.path == "/endless":
                self.wfile.write(bytes(2**16))
            if self.path == "/broken":
                self.wfile.write(self.video[:100])
        except OSError:
            pass

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    Server.video = write_video(tmp_path / "v.mp4", [grey(n) for n in range(9)]).read_bytes()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/endless", "it sends over 1 MiB"),
        ("/slow", r"it takes over 0\.3 s"),
        ("/broken", "it broke off after 100 bytes"),
        ("/ftp", "it redirects to ftp://.*not http"),
        ("/file", "file:///etc/passwd. is not allowed"),
    ],
)
def test_what_an_address_sends_is_limited(address: str, path: str, message: str, monkeypatch) -> None:
    monkeypatch.setattr(video_reading_stt, "MAX_DOWNLOAD_BYTES", 2**20)
    monkeypatch.setattr(video_reading_stt, "MAX_DOWNLOAD_S", 0.3)
    with pytest.raises(ValueError, match=f"cannot be fetched .*{message}"):
        read_video_frames(address + path)


def test_redirects_lead_into_a_private_network_only_from_within(address: str, monkeypatch) -> None:
    assert len(read_video_frames(address + "/here")[0]) == 9
    private = video_reading_stt._is_private
    assert [private(f"http://{host}/v") for host in ("127.0.0.1", "10.1.2.3", "[::1]", "169.254.169.254")] == [
        True
    ] * 4
    assert not private("http://93.184.215.14/v")
    monkeypatch.setattr(video_reading_stt, "_is_private", lambda url: not url.endswith("/here"))
    with pytest.raises(ValueError, match="an address of a private network"):
        read_video_frames(address + "/here")
