"""Answers to requests at an Inference Endpoint. Published as `handler.py` with every model.

A request is JSON, `{"inputs": …, "parameters": {…}}`. `inputs` is the content of a video file in base64 (optionally
after `data:video/mp4;base64,`), or `{"video": that}`, or in Python its bytes. Or it is `{"path": "clip.mp4"}`, a file
below the folder that the server's variable STT_VIDEO_FOLDER names; without that variable, paths are refused. Addresses
are never fetched.

Parameters, all optional:
- `top_k`: number of classes in the answer, the most probable first; 5 by default.
- `timeline`: false for a clip of one face; true to find the faces of any video and follow their expressions over time.
- `window_s`, `stride_s`: with `timeline`, seconds of a window (2) and from one window's start to the next (1).

The answer is a list of `{"label", "score"}`. With `timeline` it is `{"rows", "segments", "summary", "warning"}`: a row
has track, start_s, end_s, state, and scores if its face was judged; a segment is a stretch of one track and one label;
the summary has the seconds of each label by track. A request that cannot be answered raises a ValueError with the
reason, which the platform returns as `{"error": …}` with status 400.

Limits, checked before anything is decoded: 100 MB, 600 seconds, 36,000 frames, 4096 pixels on a frame's longer side.
"""

import base64
import binascii
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

MAX_MEGABYTES, MAX_SECONDS, MAX_FRAMES, MAX_SIDE = 100.0, 600.0, 60 * 600, 4096
MIN_STRIDE_S = 0.2
ROW = ("track", "start_s", "end_s", "state", "label", "margin", "box", "face_share", "frames_dropped")
PARAMETERS = {"top_k": 5, "timeline": False, "window_s": 2.0, "stride_s": 1.0}


class EndpointHandler:
    """Handler that the platform creates once and calls for every request.

    Args:
        path: Folder of the model repository, as it was downloaded.

    Raises:
        ImportError: If a package of requirements.txt is missing.
        ValueError: If the folder's weights are missing, damaged or of another model.
    """

    def __init__(self, path: str = "") -> None:
        folder = Path(path or Path(__file__).parent).resolve()
        # The package that reads videos lies beside this file. It must come first: the repository's modeling_stt.py,
        # which is for transformers, has the same name.
        sys.path.insert(0, str(folder / "endpoint"))
        import torch

        from modeling_stt.loading import load_model

        self.model, self.processor = load_model(folder, device="cuda" if torch.cuda.is_available() else "cpu")
        self.is_stt = self.model.config.model_type == "stt"
        self.detector: Any = "default"  # loaded by the first timeline

    def __call__(self, data: Mapping[str, Any]) -> Any:
        """Answer one request; the format is described at the top of this file.

        Raises:
            ValueError: For a request that cannot be answered. The message names no folder of the server.
        """
        if not isinstance(data, Mapping) or "inputs" not in data:
            raise ValueError('A request is {"inputs": video, "parameters": {…}}; this one has no inputs.')
        parameters = _read_parameters(data.get("parameters"))
        with _video_file(data["inputs"]) as (video, name):
            _limits().check(video, name)
            try:
                return self._rows(video, parameters) if parameters["timeline"] else self._clip(video, name, parameters)
            except (ValueError, OSError) as error:
                raise ValueError(str(error).replace(str(video), name)) from None

    def _clip(self, video: Path, name: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Scores of a clip of one face."""
        import torch

        from modeling_stt.loading import refuse_non_finite_scores

        if not self.is_stt:
            return _best(_score_clip(video, name, self.model, self.processor), parameters["top_k"])
        frames = _limits().read_clip(video, self.processor.sample_frames, name)
        clip = self.processor(frames, do_sample_frames=False, return_tensors="pt").to(self.model.device)
        with torch.inference_mode():
            scores = self.model(**clip).logits[0].float().softmax(-1).cpu()
        refuse_non_finite_scores(scores, "The model")
        return _best(dict(zip(self.model.config.class_names, scores.tolist(), strict=True)), parameters["top_k"])

    def _rows(self, video: Path, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Rows of the faces of a video."""
        from modeling_stt.timeline import DamagedVideoError, Timeline, segments, summarize

        windows = {name: parameters[name] for name in ("window_s", "stride_s")}
        timeline = Timeline(self.model, processor=self.processor, detector=self.detector, **windows)
        self.detector = timeline.detector
        rows: list[Any] = []
        warning = None
        try:
            rows.extend(timeline(_limits().read(video)))
        except DamagedVideoError as error:
            warning = f"The rows end where the video does: {error}"
        parts = segments(rows)
        facts = [{name: getattr(row, name) for name in ROW} for row in rows]
        scores = [{"scores": _best(row.scores or {}, parameters["top_k"])} for row in rows]
        return {
            "rows": [row | each for row, each in zip(facts, scores, strict=True)],
            "segments": [asdict(part) for part in parts],
            "summary": [asdict(track) for track in summarize(parts)],
            "warning": warning,
        }


def _score_clip(video: Path, name: str, model: Any, processor: Any) -> dict[str, float]:
    """Probabilities by class of a clip of one face, from a model other than STT."""
    import numpy as np
    from PIL import Image

    from modeling_stt.loading import refuse_non_finite_scores
    from modeling_stt.timeline.scorers import load_scorer
    from modeling_stt.timeline.windows import Sighting, Window
    from modeling_stt.video_processing_stt import sample_frame_indices

    scorer: Any = load_scorer(model, processor)
    frames = _limits().read_clip(
        video,
        lambda seen: sample_frame_indices(seen.total_num_frames, scorer.num_frames, scorer.frames_per_segment),
        name,
    )
    side = (scorer.crop.size, scorer.crop.size)
    images = [Image.fromarray(frame.permute(1, 2, 0).numpy()).resize(side) for frame in frames]
    sightings = [Sighting(float(n), (0.0, 0.0, 1.0, 1.0), np.array(image)) for n, image in enumerate(images)]
    [scores] = scorer.scores([Window(0.0, float(len(images)), 1, sightings, len(images))])
    refuse_non_finite_scores(scores, "The model")
    return dict(zip(scorer.class_names, scores.tolist(), strict=True))


def _best(scores: Mapping[str, float], top_k: int) -> list[dict[str, Any]]:
    ordered = sorted(scores, key=lambda name: -scores[name])
    return [{"label": name, "score": scores[name]} for name in ordered[:top_k]]


def _limits() -> Any:
    from modeling_stt.timeline.limits import VideoLimits

    return VideoLimits(MAX_MEGABYTES, MAX_SECONDS, MAX_FRAMES, MAX_SIDE)


def _read_parameters(given: Any) -> dict[str, Any]:
    """Parameters of a request, with defaults for those that are missing."""
    given = {} if given is None else given
    if not isinstance(given, Mapping):
        raise ValueError(f"parameters are an object of {', '.join(PARAMETERS)}; got {type(given).__name__}.")
    if unknown := sorted(map(_shown, set(given) - set(PARAMETERS))):
        raise ValueError(f"parameters are an object of {', '.join(PARAMETERS)}; got {', '.join(unknown)} as well.")
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


def _shown(key: Any) -> str:
    text = str(key)
    return text if len(text) <= 60 else f"{text[:59]}…"


@contextmanager
def _video_file(inputs: Any) -> Iterator[tuple[Path, str]]:
    """The video of a request as a file, and its name in messages."""
    if isinstance(inputs, Mapping) and set(inputs) == {"path"}:
        yield _allowed_path(inputs["path"]), _shown(inputs["path"])
        return
    content = inputs["video"] if isinstance(inputs, Mapping) and set(inputs) == {"video"} else inputs
    if isinstance(content, str):
        content = _decode(content)
    if not isinstance(content, bytes | bytearray):
        keys = f" with {sorted(map(_shown, inputs))}" if isinstance(inputs, Mapping) else ""
        raise ValueError(
            'inputs must be a video file in base64, {"video": that}, or {"path": "clip.mp4"}; got '
            f"{type(inputs).__name__}{keys}."
        )
    _limits().check_size(len(content))
    with tempfile.NamedTemporaryFile(suffix=".video") as file:
        file.write(content)
        file.flush()
        yield Path(file.name), "The video"


def _decode(text: str) -> bytes:
    """Bytes of a text in base64."""
    if "://" in text[:64]:
        raise ValueError(f"Addresses such as {text[:64]!r} are not fetched: send the content of the file in base64.")
    if text.startswith("data:"):
        text = text.partition(",")[2]
    _limits().check_size(len(text) * 3 // 4)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(
            f'inputs is not base64 ({error}): encode the content of the file, or send {{"path": …}} for a file on the '
            "server."
        ) from error


def _allowed_path(name: Any) -> Path:
    """File below the folder that the keeper of the server shares."""
    allowed = os.environ.get("STT_VIDEO_FOLDER")
    if not allowed:
        raise ValueError("Paths are refused: the server's variable STT_VIDEO_FOLDER does not name a folder of videos.")
    folder = Path(allowed).resolve()
    try:
        path = (folder / str(name)).resolve(strict=True)
        if path.is_relative_to(folder) and path.is_file():
            return path
    except (OSError, ValueError, RuntimeError):  # does not exist, is too long, has a null byte, or links to itself
        pass
    raise ValueError(f"The server's folder of videos has no file {_shown(name)}.")
