"""Answers requests to an Inference Endpoint. Travels as `handler.py` with every published model.

A request is JSON, `{"inputs": …, "parameters": {…}}`. `inputs` is a video file's content in base64 (also with
`data:video/mp4;base64,` before it), or `{"video": that}`, or in Python its bytes. Or `{"path": "clip.mp4"}`, a file
below the folder that the server's variable STT_VIDEO_FOLDER names; without it, paths are refused. Addresses are never
fetched.

Parameters, all optional:
- `top_k`: how many classes to tell, the likeliest first; by default 5.
- `timeline`: false for a clip of one face, true to find the faces of any video and tell who shows what when.
- `window_s`, `stride_s`: with `timeline`, seconds of a window (2) and from one to the next (1).

The answer is a list of `{"label", "score"}`; with `timeline`, `{"rows": […], "warning": …}`, each row with track,
start_s, end_s, state, and the scores where the state is "face". What cannot be answered raises a ValueError that says
why; the platform makes `{"error": …}` with status 400 of it.

Limits, checked before anything is decoded: 100 MB, 600 seconds, 36,000 frames, 8.8 million pixels a frame.
"""

import base64
import binascii
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MAX_BYTES = 100 * 10**6
MAX_SECONDS = 600.0
MAX_FRAMES = 60 * 600
MAX_PIXELS = 4096 * 2160
MIN_STRIDE_S = 0.2
ROW = ("track", "start_s", "end_s", "state", "label", "margin", "box", "face_share", "frames_dropped")
PARAMETERS = {"top_k": 5, "timeline": False, "window_s": 2.0, "stride_s": 1.0}


class EndpointHandler:
    """What the platform makes once, and calls for every request.

    Args:
        path: Folder of the model repository, as it was downloaded.

    Raises:
        ImportError: Where what requirements.txt lists is missing.
    """

    def __init__(self, path: str = "") -> None:
        folder = Path(path or Path(__file__).parent).resolve()
        # The package that reads videos lies beside this file. It comes first: the repository's own modeling_stt.py,
        # which is for transformers, has its name.
        sys.path.insert(0, str(folder / "endpoint"))
        import torch

        from modeling_stt import STTForVideoClassification, STTVideoProcessor

        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = STTForVideoClassification.from_pretrained(folder).eval().to(device)  # type: ignore[arg-type]
        self.processor = STTVideoProcessor.from_pretrained(folder)
        self.detector: Any = "default"  # loaded by the first timeline

    def __call__(self, data: Mapping[str, Any]) -> Any:
        """Answer one request, see the top of this file.

        Raises:
            ValueError: For a request that can't be answered; it says what was expected.
        """
        if not isinstance(data, Mapping) or "inputs" not in data:
            raise ValueError('A request is {"inputs": video, "parameters": {…}}; this one has no inputs.')
        parameters = _read_parameters(data.get("parameters"))
        with _video_file(data["inputs"]) as video:
            _check_video(video)
            return self._rows(video, parameters) if parameters["timeline"] else self._clip(video, parameters["top_k"])

    def _clip(self, video: Path, top_k: int) -> list[dict[str, Any]]:
        """The scores of a clip of one face."""
        import torch

        clip = self.processor(video, return_tensors="pt").to(self.model.device)
        with torch.inference_mode():
            scores = self.model(**clip).logits[0].float().softmax(-1).tolist()
        return _best(dict(zip(self.model.config.class_names, scores, strict=True)), top_k)

    def _rows(self, video: Path, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Who shows what when."""
        from modeling_stt.timeline import DamagedVideoError, Timeline

        windows = {name: parameters[name] for name in ("window_s", "stride_s")}
        timeline = Timeline(self.model, processor=self.processor, detector=self.detector, **windows)
        self.detector = timeline.detector
        rows: list[dict[str, Any]] = []
        warning = None
        try:
            for row in timeline(video):
                told = {name: getattr(row, name) for name in ROW}
                rows.append(told | {"scores": _best(row.scores or {}, parameters["top_k"])})
        except DamagedVideoError as error:
            warning = f"The rows end where the video does: {error}"
        return {"rows": rows, "warning": warning}


def _best(scores: Mapping[str, float], top_k: int) -> list[dict[str, Any]]:
    ordered = sorted(scores, key=lambda name: -scores[name])
    return [{"label": name, "score": scores[name]} for name in ordered[:top_k]]


def _read_parameters(given: Any) -> dict[str, Any]:
    """The parameters of a request, with the defaults of those not given."""
    given = {} if given is None else given
    if not isinstance(given, Mapping) or (unknown := sorted(set(given) - set(PARAMETERS))):
        got = f"no {', '.join(unknown)}" if isinstance(given, Mapping) else f"not {type(given).__name__}"
        raise ValueError(f"parameters are an object of {', '.join(PARAMETERS)}; {got}.")
    read = PARAMETERS | dict(given)
    if type(read["top_k"]) is not int or read["top_k"] < 1:
        raise ValueError(f"top_k={read['top_k']!r} must be a whole number of at least 1.")
    if type(read["timeline"]) is not bool:
        raise ValueError(f"timeline={read['timeline']!r} must be true or false.")
    for name in ("window_s", "stride_s"):
        if type(read[name]) not in (int, float):
            raise ValueError(f"{name}={read[name]!r} must be a number of seconds.")
    if not MIN_STRIDE_S <= read["stride_s"] <= read["window_s"] <= MAX_SECONDS:
        raise ValueError(
            f"stride_s={read['stride_s']}, window_s={read['window_s']}: expected {MIN_STRIDE_S} ≤ stride_s ≤ window_s "
            f"≤ {MAX_SECONDS:g} seconds."
        )
    return read


@contextmanager
def _video_file(inputs: Any) -> Iterator[Path]:
    """The video of a request as a file."""
    if isinstance(inputs, Mapping) and set(inputs) == {"path"}:
        yield _allowed_path(inputs["path"])
        return
    content = inputs["video"] if isinstance(inputs, Mapping) and set(inputs) == {"video"} else inputs
    if isinstance(content, str):
        content = _decode(content)
    if not isinstance(content, bytes | bytearray):
        raise ValueError(
            'inputs must be a video file in base64, {"video": that}, or {"path": "clip.mp4"}; got '
            f"{type(inputs).__name__}{f' of {sorted(map(str, inputs))}' if isinstance(inputs, Mapping) else ''}."
        )
    _check_size(len(content))
    with tempfile.NamedTemporaryFile(suffix=".video") as file:
        file.write(content)
        file.flush()
        yield Path(file.name)


def _decode(text: str) -> bytes:
    """The bytes of base64."""
    if "://" in text[:64]:
        raise ValueError(f"Addresses such as {text[:64]!r} are not fetched: send the file's content in base64.")
    if text.startswith("data:"):
        text = text.partition(",")[2]
    _check_size(len(text) * 3 // 4)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(
            f'inputs is no base64 ({error}): send the file\'s content so, or {{"path": …}} for a file on the server.'
        ) from error


def _allowed_path(name: Any) -> Path:
    """A file that the server's keeper lets requests read."""
    allowed = os.environ.get("STT_VIDEO_FOLDER")
    if not allowed:
        raise ValueError("Paths are refused here: the server's variable STT_VIDEO_FOLDER names no folder of videos.")
    folder = Path(allowed).resolve()
    path = (folder / str(name)).resolve()
    if not path.is_relative_to(folder) or not path.is_file():
        raise ValueError(f"There is no file {name} in the server's folder of videos.")
    return path


def _check_size(num_bytes: int) -> None:
    if not 0 < num_bytes <= MAX_BYTES:
        raise ValueError(
            f"The video has {num_bytes / 1e6:.1f} MB; expected up to {MAX_BYTES / 1e6:.0f} MB, and not none."
        )


def _check_video(video: Path) -> None:
    """Refuse what is no video, or too large a one, by its packets: none is decoded."""
    import av

    from modeling_stt.video_reading_stt import VideoReader

    _check_size(video.stat().st_size)
    try:
        with VideoReader(f"file:{video}", "The file").open() as (container, stream):
            if stream.width * stream.height > MAX_PIXELS:
                raise ValueError(
                    f"The video has {stream.width} × {stream.height} pixels; expected up to {MAX_PIXELS} in all."
                )
            packets = [packet.pts for packet in container.demux(stream) if packet.size]
            times = [pts for pts in packets if pts is not None]
            seconds = float((max(times) - min(times)) * stream.time_base) if times and stream.time_base else 0.0
    except av.error.FFmpegError as error:
        raise ValueError(f"The file is no video that can be read ({error.strerror}).") from error
    if seconds > MAX_SECONDS or len(packets) > MAX_FRAMES:
        raise ValueError(
            f"The video has {seconds:.0f} seconds, {len(packets)} frames; expected up to {MAX_SECONDS:g} and "
            f"{MAX_FRAMES}: cut it first."
        )
