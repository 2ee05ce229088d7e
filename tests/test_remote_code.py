"""A saved checkpoint carries its code: it loads where nobody has installed this package."""

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForVideoClassification,
    AutoVideoProcessor,
    pipeline,
)

from helpers.encoders import ENCODERS
from helpers.models import TINY_MODEL
from modeling_stt import STTConfig, STTForVideoClassification, STTModel, STTVideoProcessor

# A machine without this package. What is run there begins so.
WITHOUT_THE_PACKAGE = """
import json, sys
from pathlib import Path

class Absent:
    '''Refuses the installed package, as if it had never been; code that comes with a checkpoint is named otherwise.'''
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("modeling_stt", "dataset_scripts"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
try:
    import modeling_stt
    sys.exit("modeling_stt can be imported here, so nothing is shown about a machine without it")
except ModuleNotFoundError:
    pass
"""

# What a stranger does with models on several frame encoders. Arguments: clips, where to write the logits, checkpoints.
STRANGER_TO_ENCODERS = """
from safetensors.torch import load_file, save_file
from transformers import AutoModelForVideoClassification

clips, report, *checkpoints = sys.argv[1:]
pixel_values, logits = load_file(clips)["pixel_values"], {}
for checkpoint in checkpoints:
    model = AutoModelForVideoClassification.from_pretrained(checkpoint, trust_remote_code=True).eval()
    logits[Path(checkpoint).name] = model(pixel_values).logits.detach()
assert not [name for name in sys.modules if name.split(".")[0] == "modeling_stt"]
save_file(logits, report)
"""

# What a stranger does with a checkpoint. Arguments: the checkpoint, a video, where to save the checkpoint once more,
# where to write down what was seen.
STRANGER = """
import torch
from transformers import (
    AutoConfig, AutoModel, AutoModelForVideoClassification, AutoProcessor, AutoVideoProcessor, pipeline
)

checkpoint, video, copy, report = sys.argv[1:]
try:
    AutoConfig.from_pretrained(checkpoint, trust_remote_code=False)
    refusal = None
except ValueError as error:
    refusal = str(error)

config = AutoConfig.from_pretrained(checkpoint, trust_remote_code=True)
model = AutoModelForVideoClassification.from_pretrained(checkpoint, trust_remote_code=True).eval()
base = AutoModel.from_pretrained(checkpoint, trust_remote_code=True).eval()
video_processor = AutoVideoProcessor.from_pretrained(checkpoint, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(checkpoint, trust_remote_code=True)
inputs = video_processor(video, return_tensors="pt")
with torch.no_grad():
    outputs = model(**inputs)
    features = base(**inputs).pooler_output
classify = pipeline("video-classification", model=checkpoint, trust_remote_code=True)
answer = classify(video, top_k=3)
model.save_pretrained(copy)
video_processor.save_pretrained(copy)
Path(report).write_text(json.dumps({
    "package": [name for name in sys.modules if name.split(".")[0] == "modeling_stt"],
    "refusal": refusal,
    "classes": [type(x).__name__ for x in (config, model, base, video_processor, processor)],
    "modules": [type(x).__module__ for x in (config, model, base, video_processor, processor)],
    "labels": config.id2label,
    "frames": [inputs["pixel_values"].shape, inputs["pixel_values"].sum().item()],
    "logits": outputs.logits[0].tolist(),
    "features": features[0].tolist(),
    "answer": answer,
}))
"""


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An mp4 of 20 frames of 48×64 px, each of another grey with a moving bar."""
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(10))
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(20):
            image = np.full((48, 64, 3), 10 * i, dtype=np.uint8)
            image[:, 3 * i : 3 * i + 4] = (255, 128, 0)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def model() -> STTForVideoClassification:
    torch.manual_seed(0)
    config = STTConfig(
        image_size=32,
        num_frames=8,
        backbone_stem_width=8,
        backbone_widths=(8, 12),
        backbone_depths=(1, 1),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        id2label={0: "calm", 1: "amused", 2: "bored"},
        # Far from zero, so that equal logits mean equal weights and frames.
        initializer_range=0.5,
    )
    return STTForVideoClassification(config).eval()


@pytest.fixture(scope="module")
def checkpoint(model: STTForVideoClassification, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    model.save_pretrained(folder)
    STTVideoProcessor(size={"height": 32, "width": 32}, num_frames=8).save_pretrained(folder)
    return folder


def run_as_stranger(program: str, *words: Path, home: Path) -> None:
    """Run a program without the package in a process of its own, far from this repository, offline, without caches."""
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HF_"))}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(home), "HF_MODULES_CACHE": str(home / "modules")}
    done = subprocess.run(
        [sys.executable, "-I", "-c", WITHOUT_THE_PACKAGE + program, *words],
        cwd=home,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def visit_as_stranger(checkpoint: Path, video: Path, copy: Path, home: Path) -> dict:
    """Run `STRANGER`, and return what it has seen."""
    run_as_stranger(STRANGER, checkpoint, video, copy, home / "report.json", home=home)
    return json.loads((home / "report.json").read_text())


def test_a_checkpoint_carries_four_files_of_code_and_names_all_classes(checkpoint: Path) -> None:
    assert {path.name for path in checkpoint.glob("*.py")} == {
        "configuration_stt.py",
        "modeling_stt.py",
        "video_processing_stt.py",
        "video_reading_stt.py",
    }
    assert json.loads((checkpoint / "config.json").read_text())["auto_map"] == {
        "AutoConfig": "configuration_stt.STTConfig",
        "AutoModel": "modeling_stt.STTModel",
        "AutoModelForVideoClassification": "modeling_stt.STTForVideoClassification",
    }


def test_loads_without_the_package_and_again_after_being_saved_from_there(
    model: STTForVideoClassification, checkpoint: Path, video: Path, tmp_path: Path
) -> None:
    inputs = STTVideoProcessor.from_pretrained(checkpoint)(video, return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs)
    scores = {model.config.id2label[i]: score for i, score in enumerate(outputs.logits[0].softmax(-1).tolist())}
    for generation in (1, 2):
        copy = tmp_path / f"copy_{generation}"
        seen = visit_as_stranger(checkpoint, video, copy, tmp_path / f"home_{generation}")
        assert seen["package"] == []
        assert "trust_remote_code=True" in seen["refusal"]
        assert seen["classes"] == [
            "STTConfig",
            "STTForVideoClassification",
            "STTModel",
            "STTVideoProcessor",
            "STTVideoProcessor",
        ]
        assert all(module.startswith("transformers_modules.") for module in seen["modules"])
        assert seen["labels"] == {"0": "calm", "1": "amused", "2": "bored"}
        assert seen["frames"] == [[1, 8, 3, 32, 32], pytest.approx(inputs["pixel_values"].sum().item())]
        assert seen["logits"] == pytest.approx(outputs.logits[0].tolist(), abs=1e-5)
        assert seen["features"] == pytest.approx(outputs.pooler_output[0].tolist(), abs=1e-5)
        assert [row["label"] for row in seen["answer"]] == sorted(scores, key=scores.__getitem__, reverse=True)
        assert {row["label"]: row["score"] for row in seen["answer"]} == pytest.approx(scores, abs=1e-5)
        checkpoint = copy


@torch.no_grad()
def test_models_on_vision_models_of_transformers_load_without_the_package(tmp_path: Path) -> None:
    clips, expected = torch.rand(2, 4, 3, 32, 32), {}
    for name in ("ViT", "CLIP", "SigLIP", "DINOv2 with registers", "ConvNeXt"):
        torch.manual_seed(0)
        config = STTConfig(**(TINY_MODEL | {"backbone_config": ENCODERS[name][0], "initializer_range": 0.5}))
        model = STTForVideoClassification(config).eval()
        model.save_pretrained(tmp_path / name)
        expected[name] = model(clips).logits
    save_file({"pixel_values": clips}, tmp_path / "clips.safetensors")
    checkpoints = [tmp_path / name for name in expected]
    report = tmp_path / "logits.safetensors"
    run_as_stranger(STRANGER_TO_ENCODERS, tmp_path / "clips.safetensors", report, *checkpoints, home=tmp_path / "home")
    torch.testing.assert_close(load_file(report), expected, rtol=0, atol=1e-5)


def test_with_the_package_imported_trust_remote_code_is_not_needed(checkpoint: Path, video: Path) -> None:
    """Its own classes are taken, not the copies in the checkpoint."""
    assert type(AutoConfig.from_pretrained(checkpoint)) is STTConfig
    assert type(AutoModel.from_pretrained(checkpoint)) is STTModel
    assert type(AutoModelForVideoClassification.from_pretrained(checkpoint)) is STTForVideoClassification
    assert type(AutoVideoProcessor.from_pretrained(checkpoint)) is STTVideoProcessor
    classify = pipeline("video-classification", model=str(checkpoint))
    assert type(classify.model) is STTForVideoClassification
    assert {row["label"] for row in classify(str(video), top_k=3)} == {"calm", "amused", "bored"}
