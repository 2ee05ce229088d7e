"""Use of published models by name, in separate processes that know only the stand-in for the Hub."""

import ast
import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file

from helpers.drawn_faces import draw_faces
from helpers.hub_models import HUB_NAMES, save_hub_model
from helpers.runs import write_run
from helpers.standin import HubStandIn
from helpers.videos import write_sound, write_video
from modeling_stt import STTForVideoClassification, STTVideoProcessor
from modeling_stt.hub import publish, publish_space

ROOT = Path(__file__).parents[2]
PUBLIC, PRIVATE = "user/stt-dfew", "user/stt-private"

# First lines of a process in which this package is not installed.
WITHOUT_PACKAGE = """
import sys
from importlib.util import find_spec
# An editable installation has a finder of its own.
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in str(finder)]
sys.path[:] = [path for path in sys.path if "stt" not in path.lower().split("/")]
assert find_spec("dataset_scripts") is None, find_spec("dataset_scripts")
"""

STRANGER = """
import json
from pathlib import Path
import torch
from transformers import AutoConfig, AutoModel, AutoModelForVideoClassification, AutoVideoProcessor, pipeline

public, private, first, card = sys.argv[1:]
refusals = []
for name, options in ((public, {"trust_remote_code": False}), (private, {"trust_remote_code": True})):
    try:
        AutoConfig.from_pretrained(name, **options)
    except (OSError, ValueError) as error:
        refusals.append(str(error))

def logits(name, **options):
    processor = AutoVideoProcessor.from_pretrained(name, trust_remote_code=True, **options)
    model = AutoModelForVideoClassification.from_pretrained(name, trust_remote_code=True, **options).eval()
    with torch.no_grad():
        return model(**processor("clip.mp4", return_tensors="pt")).logits[0].tolist()

answers = {"refusals": refusals, "logits": logits(public), "pinned": logits(public, revision=first)}
answers["tagged"] = logits(public, revision="v1")
answers["private"] = logits(private, token="hf_user")
answers["config"] = AutoConfig.from_pretrained(public, trust_remote_code=True).id2label
feature = AutoModel.from_pretrained(public, trust_remote_code=True).eval()(
    **AutoVideoProcessor.from_pretrained(public, trust_remote_code=True)("clip.mp4", return_tensors="pt")
).pooler_output
answers["feature"] = feature[0].tolist()
answers["answer"] = pipeline("video-classification", model=public, trust_remote_code=True)("clip.mp4", top_k=3)
answers["task_from_card"] = pipeline(model=public, trust_remote_code=True).task
exec(Path(card).read_text())
assert "modeling_stt" not in sys.modules
Path("answer.json").write_text(json.dumps(answers))
"""

WITH_PACKAGE = """
import json, sys
from pathlib import Path
from transformers import AutoModel, AutoModelForVideoClassification, AutoVideoProcessor, pipeline
import modeling_stt

name = sys.argv[1]
autos = (AutoModel, AutoModelForVideoClassification, AutoVideoProcessor)
classes = [type(each.from_pretrained(name)) for each in autos]
answers = {"modules": [each.__module__ for each in classes]}
answers["answer"] = pipeline("video-classification", model=name)("clip.mp4", top_k=3)
Path("answer.json").write_text(json.dumps(answers))
"""

# Loads a repository's handler as the platform's toolkit does and sends requests; an error becomes an answer.
PLATFORM = """
import ast, importlib.util, json
from pathlib import Path

folder, requests = sys.argv[1:]
sys.path.insert(0, folder)
spec = importlib.util.spec_from_file_location("handler.EndpointHandler", Path(folder) / "handler.py")
handler = importlib.util.module_from_spec(spec)
sys.modules["handler.EndpointHandler"] = handler
spec.loader.exec_module(handler)
answers = []
endpoint = handler.EndpointHandler(folder)
from handler import EndpointHandler  # as the documentation shows it
for request in ast.literal_eval(Path(requests).read_text()):
    if "bytes" in request:
        request["inputs"] = Path(request.pop("bytes")).read_bytes()
    for name, value in request.pop("limits", {}).items():
        setattr(handler, name, value)
    try:
        answers.append(endpoint(request))
    except ValueError as error:
        answers.append({"error": str(error)})
import modeling_stt
assert Path(modeling_stt.__file__).is_relative_to(Path(folder) / "endpoint"), modeling_stt.__file__
Path("answer.json").write_text(json.dumps(answers))
"""


def environment(home: Path, hub: HubStandIn | None, user: str | None = None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HF_", "STT_"))}
    kept |= {"HF_HOME": str(home / "hf"), "OMP_NUM_THREADS": "1"}
    return kept | (hub.environment(user) if hub else {"HF_HUB_OFFLINE": "1"})


def visit(
    code: str, *arguments: object, home: Path, hub: HubStandIn | None, user: str | None = None, **variables: str
) -> Any:
    """Run code in a process far from this repository and return the JSON that it writes."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        **{"cwd": home, "env": environment(home, hub, user) | variables, "stdin": subprocess.DEVNULL},
        **{"capture_output": True, "text": True, "timeout": 300},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads((home / "answer.json").read_text())


@pytest.fixture(scope="module")
def hub() -> Iterator[HubStandIn]:
    with HubStandIn() as hub:
        yield hub


@pytest.fixture(scope="module")
def first_and_now(hub: HubStandIn, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The model of a first commit, and the one that replaced it, which is also in a private repository."""
    folder = tmp_path_factory.mktemp("published")
    runs = {name: write_run(folder / name, fold) for name, fold in (("first", 1), ("now", 2))}
    done = subprocess.run(
        [sys.executable, "-m", "modeling_stt.cli", "publish", str(runs["first"]), PUBLIC],
        **{"cwd": folder, "env": environment(folder, hub, "user") | {"PYTHONPATH": str(ROOT)}, "timeout": 300},
        **{"capture_output": True, "text": True},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    first = hub.repository(PUBLIC).branches["main"]
    assert done.stdout.splitlines()[-1] == f"Published: {hub.url}/{PUBLIC}/commit/{first}"
    with pytest.MonkeyPatch.context() as patch:
        hub.adopt(patch)
        HfApi().create_tag(PUBLIC, tag="v1")
        publish(runs["now"], PUBLIC)
        publish(runs["now"], PRIVATE, private=True)
    return runs


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    images = [np.full((48, 64, 3), 10 * i, np.uint8) for i in range(20)]
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", images)


def logits(run: Path, clip: Path) -> list[float]:
    inputs = STTVideoProcessor.from_pretrained(run)(clip, return_tensors="pt")
    with torch.no_grad():
        return STTForVideoClassification.from_pretrained(run).eval()(**inputs).logits[0].tolist()


def test_by_name_without_the_package(
    hub: HubStandIn, first_and_now: dict[str, Path], clip: Path, tmp_path: Path
) -> None:
    first = next(sha for sha, tree in hub.repository(PUBLIC).commits.items() if "README.md" in tree)
    card = hub.repository(PUBLIC).files()["README.md"].decode()
    (tmp_path / "card.py").write_text("\n".join(re.findall(r"```python\n(.*?)```", card, re.DOTALL)))
    (tmp_path / "clip.mp4").write_bytes(clip.read_bytes())
    answers = visit(WITHOUT_PACKAGE + STRANGER, PUBLIC, PRIVATE, first, "card.py", home=tmp_path, hub=hub)
    untrusted, hidden = answers["refusals"]
    assert "trust_remote_code=True" in untrusted
    assert PRIVATE in hidden and "private repository" in hidden
    now, before = logits(first_and_now["now"], clip), logits(first_and_now["first"], clip)
    assert now != pytest.approx(before, abs=1e-3)
    assert answers["logits"] == answers["private"] == pytest.approx(now, abs=1e-5)
    assert answers["pinned"] == answers["tagged"] == pytest.approx(before, abs=1e-5)
    assert answers["config"] == {"0": "happy", "1": "sad", "2": "angry"}
    assert len(answers["feature"]) == 16
    shares = torch.tensor(now).softmax(0).tolist()
    assert {row["label"]: row["score"] for row in answers["answer"]} == pytest.approx(
        dict(zip(("happy", "sad", "angry"), shares, strict=True)), abs=1e-5
    )
    assert answers["task_from_card"] == "video-classification"


def test_by_name_with_the_package_remote_code_is_not_needed(
    hub: HubStandIn, first_and_now: dict[str, Path], clip: Path, tmp_path: Path
) -> None:
    (tmp_path / "clip.mp4").write_bytes(clip.read_bytes())
    answers = visit(WITH_PACKAGE, PUBLIC, home=tmp_path, hub=hub, PYTHONPATH=str(ROOT))
    assert [module.split(".")[0] for module in answers["modules"]] == ["modeling_stt"] * 3
    assert {row["label"] for row in answers["answer"]} == {"happy", "sad", "angry"}


def test_a_space_contains_every_module_of_ours_that_its_app_imports(tmp_path: Path) -> None:
    for name, file in publish_space("user/stt-space", PUBLIC, dry_run=True).files.items():
        (tmp_path / "space" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "space" / name).write_bytes(file if isinstance(file, bytes) else file.read_bytes())
    statements = [
        ast.unparse(node)
        for node in ast.walk(ast.parse((tmp_path / "space" / "app.py").read_text()))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith(("modeling_stt", "dataset_scripts"))
    ]
    assert len(statements) > 1
    code = ["sys.path.insert(0, 'space')", *statements, "import modeling_stt", "from pathlib import Path"]
    code += ["Path('answer.json').write_text('\"' + modeling_stt.__file__ + '\"')"]
    answers = visit(WITHOUT_PACKAGE + "\n".join(code), home=tmp_path, hub=None)
    assert Path(answers).resolve().is_relative_to(tmp_path / "space")


@pytest.fixture(scope="module")
def answers(hub: HubStandIn, first_and_now: dict[str, Path], clip: Path, tmp_path_factory: Any) -> dict[str, Any]:
    """Answers of the published handler to many requests, by name, from a process like the platform's."""
    pytest.importorskip("onnxruntime")
    home = tmp_path_factory.mktemp("platform")
    for name, content in hub.repository(PUBLIC).files().items():
        (home / "repository" / name).parent.mkdir(parents=True, exist_ok=True)
        (home / "repository" / name).write_bytes(content)
    videos = home / "videos"
    videos.mkdir()
    faces = [draw_faces((180, 240), [(120, 90, 0.9 + 0.002 * i)]) for i in range(60)]
    write_video(videos / "face.mp4", faces, fps=20)
    write_video(videos / "no_face.mp4", [np.full((96, 128, 3), 90, np.uint8)] * 30)
    whole = (videos / "face.mp4").read_bytes()
    (videos / "loop.mp4").symlink_to(videos / "loop.mp4")
    (videos / "text.mp4").write_text("not a video")
    with av.open(videos / "empty.avi", "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        container.start_encoding()
    write_sound(home / "sound.mp4")
    text = base64.b64encode(clip.read_bytes()).decode()

    short = {"window_s": 0.5, "stride_s": 0.5}

    def as_text(content: bytes) -> str:
        return base64.b64encode(content).decode()

    requests: dict[str, dict[str, Any]] = {
        "bytes": {"bytes": str(clip)},
        "text": {"inputs": text},
        "data address": {"inputs": f"data:video/mp4;base64,{text}"},
        "named": {"inputs": {"video": text}},
        "top": {"inputs": text, "parameters": {"top_k": 1}},
        "path": {"inputs": {"path": "face.mp4"}},
        "rows": {"inputs": {"path": "face.mp4"}, "parameters": {"timeline": True, "top_k": 2}},
        "windows": {"inputs": {"path": "face.mp4"}, "parameters": {"timeline": True, "window_s": 1, "stride_s": 0.5}},
        "no face": {"inputs": {"path": "no_face.mp4"}, "parameters": {"timeline": True}},
        "address": {"inputs": "https://example.org/clip.mp4"},
        "file address": {"inputs": {"video": "file:///etc/passwd"}},
        "outside": {"inputs": {"path": "../repository/README.md"}},
        "loop": {"inputs": {"path": "loop.mp4"}},
        "long name": {"inputs": {"path": "x" * 5000}},
        "null byte": {"inputs": {"path": "a\0b"}},
        "no text": {"inputs": {"path": {"a": 1}}},
        "not a video": {"inputs": {"path": "text.mp4"}},
        "no frames": {"inputs": {"path": "empty.avi"}},
        "number keys": {"inputs": {"video": text, 1: 2}},
        "number parameters": {"inputs": text, "parameters": {1: 2, "top": 3}},
        "no base64": {"inputs": "clip.mp4"},
        "empty": {"inputs": ""},
        "no video": {"inputs": as_text(b"no video at all")},
        "sound": {"inputs": as_text((home / "sound.mp4").read_bytes())},
        "playlist": {"inputs": as_text(b"#EXTM3U\n#EXTINF:1,\nface.mp4\n#EXT-X-ENDLIST\n")},
        "half": {"inputs": as_text(whole[: len(whole) // 2])},
        "no inputs": {"video": text},
        "other inputs": {"inputs": {"url": text}},
        "a number": {"inputs": 7},
        "top 0": {"inputs": text, "parameters": {"top_k": 0}},
        "unknown": {"inputs": text, "parameters": {"topk": 1}},
        "timeline text": {"inputs": text, "parameters": {"timeline": "yes"}},
        "gaps": {"inputs": text, "parameters": {"timeline": True, "window_s": 1, "stride_s": 2}},
        "long": {"inputs": text, "parameters": short, "limits": {"MAX_SECONDS": 0.5}},
        "many frames": {"inputs": text, "limits": {"MAX_SECONDS": 600.0, "MAX_FRAMES": 19}},
        "wide": {"inputs": text, "limits": {"MAX_FRAMES": 100, "MAX_SIDE": 63}},
        "large": {"inputs": text, "limits": {"MAX_SIDE": 4096, "MAX_MEGABYTES": 0.001}},
    }
    (home / "requests.txt").write_text(repr(list(requests.values())))
    answers = visit(
        *(WITHOUT_PACKAGE + PLATFORM, home / "repository", home / "requests.txt"),
        **{"home": home, "hub": None, "STT_VIDEO_FOLDER": str(videos)},
    )
    return dict(zip(requests, answers, strict=True))


def test_handler_scores_a_clip_in_every_form_of_request(
    answers: dict[str, Any], first_and_now: dict[str, Path], clip: Path
) -> None:
    shares = torch.tensor(logits(first_and_now["now"], clip)).softmax(0).tolist()
    scores = dict(zip(("happy", "sad", "angry"), shares, strict=True))
    for name in ("bytes", "text", "data address", "named"):
        assert {row["label"]: row["score"] for row in answers[name]} == pytest.approx(scores, abs=1e-5)
    assert [row["label"] for row in answers["top"]] == [max(scores, key=scores.__getitem__)]
    assert len(answers["path"]) == 3


def test_handler_answers_with_rows_of_the_faces_of_a_video(answers: dict[str, Any]) -> None:
    rows = answers["rows"]["rows"]
    assert answers["rows"]["warning"] is None
    assert (rows[0]["start_s"], rows[0]["end_s"]) == (0.0, 2.0)
    assert {row["state"] for row in rows} == {"face"}
    assert all(len(row["scores"]) == 2 and row["scores"][0]["label"] == row["label"] for row in rows)
    assert len(answers["windows"]["rows"]) > len(rows)
    assert {row["state"] for row in answers["no face"]["rows"]} == {"no face"}
    assert answers["no face"]["rows"][0]["scores"] == []
    assert (answers["no face"]["segments"][0]["name"], answers["no face"]["summary"]) == ("no face", [])
    parts = answers["rows"]["segments"]
    assert (parts[0]["start_s"], parts[-1]["end_s"]) == (0.0, rows[-1]["end_s"])
    [summary] = answers["rows"]["summary"]
    assert sum(summary["seconds"].values()) == pytest.approx(parts[-1]["end_s"])


@pytest.mark.parametrize(
    ("request_name", "message"),
    [
        ("address", "Addresses such as 'https://example.org/clip.mp4' are not fetched"),
        ("file address", "are not fetched"),
        ("outside", "The server's folder of videos has no file ../repository/README.md"),
        ("loop", "The server's folder of videos has no file loop.mp4"),
        ("long name", "The server's folder of videos has no file xxxxx"),
        ("null byte", "The server's folder of videos has no file a"),
        ("no text", "The server's folder of videos has no file {'a': 1}"),
        ("not a video", "text.mp4 cannot be read as a video"),
        ("no frames", "empty.avi"),
        ("number keys", "got dict with ['1', 'video']"),
        ("number parameters", "got 1, top as well"),
        ("no base64", "inputs is not base64"),
        ("empty", "The video has 0.0 MB"),
        ("no video", "The video cannot be read as a video"),
        ("sound", "has no video stream"),
        ("playlist", "The video cannot be read as a video"),
        ("half", "video"),
        ("no inputs", "this one has no inputs"),
        ("other inputs", "got dict with ['url']"),
        ("a number", "got int"),
        ("top 0", "top_k=0 must be a whole number of at least 1"),
        ("unknown", "got topk as well"),
        ("timeline text", "timeline='yes' must be true or false"),
        ("gaps", "stride_s=2, window_s=1: expected"),
        ("long", "The limit is 0.5 seconds"),
        ("many frames", "more than 19 frames"),
        ("wide", "64 × 48 pixels. The limit is 63"),
        ("large", "The limit is 0.001 MB"),
    ],
)
def test_handler_refuses_clearly(answers: dict[str, Any], request_name: str, message: str) -> None:
    assert message in answers[request_name]["error"]


def test_no_answer_names_a_folder_of_the_server(answers: dict[str, Any]) -> None:
    errors = {name: answer["error"] for name, answer in answers.items() if "error" in answer}
    assert len(errors) > 20
    assert {name: error for name, error in errors.items() if re.search(r"/tmp|/platform|\.video|/videos", error)} == {}


@pytest.mark.parametrize("kind", ["vit", "videomae"])
def test_handler_answers_with_other_models_of_the_hub(kind: str, clip: Path, tmp_path: Path) -> None:
    from modeling_stt.hub.handler import EndpointHandler

    handler = EndpointHandler(str(save_hub_model(tmp_path, kind)))
    text = base64.b64encode(clip.read_bytes()).decode()
    scores = handler({"inputs": {"video": text}})
    assert {each["label"] for each in scores} == set(HUB_NAMES)
    assert sum(each["score"] for each in scores) == pytest.approx(1, abs=1e-5)
    assert scores[0]["score"] > 0.34


@pytest.mark.parametrize("kind", ["stt", "vit"])
def test_handler_blames_a_model_that_answers_nan(kind: str, clip: Path, tmp_path: Path) -> None:
    """The score NaN is not even JSON."""
    from modeling_stt.hub.handler import EndpointHandler

    folder = write_run(tmp_path / "run") if kind == "stt" else save_hub_model(tmp_path / "vit", "vit")
    handler = EndpointHandler(str(folder))
    with torch.no_grad():
        handler.model.classifier.weight.fill_(float("inf"))
    with pytest.raises(ValueError, match=r"The model answers NaN or infinity.* No video is to blame"):
        handler({"inputs": clip.read_bytes()})


@pytest.mark.parametrize("kind", ["stt", "vit"])
@pytest.mark.parametrize("timeline", [False, True])
def test_handler_stops_at_frames_that_become_larger_than_the_header_says(
    kind: str, timeline: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that begins with 64 × 64 and goes on with 8000 × 8000 took 3 GB where it was read as a clip."""
    from modeling_stt.hub import handler as handler_module

    folder = write_run(tmp_path / "run") if kind == "stt" else save_hub_model(tmp_path / "vit", "vit")
    parts = [write_video(tmp_path / f"{side}.h264", [np.full((side, side, 3), 9, np.uint8)] * 8) for side in (64, 128)]
    monkeypatch.setattr(handler_module, "MAX_SIDE", 100)
    request = {"inputs": b"".join(part.read_bytes() for part in parts), "parameters": {"timeline": timeline}}
    with pytest.raises(ValueError, match=r"^The video has a frame of 128×128 px; expected up to 10000 pixels"):
        handler_module.EndpointHandler(str(folder))(request)


def test_damaged_weights_stop_the_handler_at_its_start(tmp_path: Path) -> None:
    from modeling_stt.hub.handler import EndpointHandler

    run = write_run(tmp_path / "run")
    weights = load_file(run / "model.safetensors")
    del weights["classifier.weight"]
    save_file(weights, run / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"classifier\.weight"):
        EndpointHandler(str(run))


def test_handler_reads_no_files_without_a_shared_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    from modeling_stt.hub import handler

    monkeypatch.delenv("STT_VIDEO_FOLDER", raising=False)
    with pytest.raises(ValueError, match="Paths are refused"), handler._video_file({"path": "clip.mp4"}):
        pass


def test_the_clip_of_these_tests_is_a_video(clip: Path) -> None:
    with av.open(str(clip)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 20
