"""Exported models answer as the eager one does. Formats whose packages are not installed are skipped, by name."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.export import Dim
from transformers import pipeline

from dataset_scripts.rendered_faces import write_rendered_dfew
from helpers.pages import read_blocks, run_blocks, skip_without_exporters
from helpers.programs import ROOT
from modeling_stt import STTConfig, STTForVideoClassification, STTVideoProcessor
from modeling_stt.configuration_stt import ATTENTION_ORDERS

SIZE, FRAMES = 32, 8
# Logits here are of the order of 1: this is rounding, and OpenVINO's own bfloat16 would be a hundred times over it.
assert_close = partial(torch.testing.assert_close, atol=1e-5, rtol=1e-4)
# OpenVINO computes in bfloat16 where the processor can, unless asked not to.
FORMATS: dict[str, dict[str, Any]] = {
    "onnx": {},
    "openvino": {"config": {"INFERENCE_PRECISION_HINT": "f32"}},
    "executorch": {},
}


@pytest.fixture(autouse=True, scope="module")
def needs_exporters() -> None:
    skip_without_exporters()


def make_model(order: str = "space_time") -> STTForVideoClassification:
    torch.manual_seed(0)
    config = STTConfig(
        image_size=SIZE,
        num_frames=FRAMES,
        backbone_stem_width=8,
        backbone_widths=(8, 12),
        backbone_depths=(1, 1),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=48,
        attention_order=order,
        initializer_range=0.5,  # far from zero, so that equal logits mean equal computations
        temperature=1.5,
        logit_bias=[0.5, -1.0, 2.0, 0.0, 0.1, -0.2, 0.3],
    )
    return STTForVideoClassification(config).eval()


def make_clips(batch: int, frames: int = FRAMES, size: int = SIZE) -> torch.Tensor:
    return torch.rand(batch, frames, 3, size, size, generator=torch.Generator().manual_seed(batch))


def export(model: STTForVideoClassification, folder: Path, name: str = "onnx", **options: Any) -> Path:
    """Export for any batch and save, as docs/export.md has it."""
    from transformers.exporters import AutoExportConfig, AutoHfExporter

    batch = Dim("batch", min=1, max=8) if name == "executorch" else Dim("batch")
    options = {"dynamic_shapes": {"pixel_values": {0: batch}}} | options
    config = AutoExportConfig.from_dict({"export_format": name} | options)
    AutoHfExporter.from_config(config).export(model, {"pixel_values": make_clips(2)}, config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def onnx_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(make_model(), tmp_path_factory.mktemp("onnx"))


@pytest.mark.parametrize("name", FORMATS)
@torch.no_grad()
def test_saved_exports_answer_as_eager_for_any_batch(name: str, onnx_folder: Path, tmp_path: Path) -> None:
    if name != "onnx":
        pytest.importorskip(name)
    from transformers.exporters import ExportedModel

    model = make_model()
    folder = onnx_folder if name == "onnx" else export(model, tmp_path, name)
    exported = ExportedModel.from_pretrained(folder, **FORMATS[name])
    for batch in (1, 3, 5):
        outputs, expected = exported(pixel_values=make_clips(batch)), model(make_clips(batch))
        assert_close(outputs.logits, expected.logits)
        assert_close(outputs.pooler_output, expected.pooler_output)


@pytest.mark.parametrize("order", [order for order in ATTENTION_ORDERS if order != "space_time"])
@torch.no_grad()
def test_every_attention_order_exports(order: str, tmp_path: Path) -> None:
    import onnxruntime

    model = make_model(order)
    session = onnxruntime.InferenceSession(export(model, tmp_path) / "model.onnx")
    (logits,) = session.run(["logits"], {"pixel_values": make_clips(3).numpy()})
    assert_close(torch.from_numpy(logits), model(make_clips(3)).logits)


@torch.no_grad()
def test_an_export_of_another_size_takes_any_number_of_frames_and_image_size(tmp_path: Path) -> None:
    from transformers.exporters import ExportedModel, OnnxConfig, OnnxExporter

    model = make_model()
    axes = {"pixel_values": dict.fromkeys((0, 1, 3, 4), Dim.AUTO), "interpolate_pos_encoding": None}
    sample: dict[str, Any] = {"pixel_values": make_clips(2, FRAMES + 4, SIZE + 32), "interpolate_pos_encoding": True}
    OnnxExporter().export(model, sample, OnnxConfig(dynamic_shapes=axes)).save_pretrained(tmp_path)
    exported = ExportedModel.from_pretrained(tmp_path)
    for shape in ((1, FRAMES, SIZE), (3, 1, SIZE), (2, 5, 48), (1, 24, 96)):
        clips = make_clips(*shape)
        expected = model(clips, interpolate_pos_encoding=True).logits
        assert_close(exported(pixel_values=clips).logits, expected)


def test_a_fixed_export_refuses_other_clips(onnx_folder: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx_folder / "model.onnx")
    for frames, size in ((FRAMES + 1, SIZE), (FRAMES, SIZE + 16)):
        with pytest.raises(Exception, match="invalid dimensions"):
            session.run(["logits"], {"pixel_values": make_clips(1, frames, size).numpy()})


def saturating_matmul_integer() -> Any:
    """The ONNX operator MatMulInteger as x86 CPUs with AVX2 but without VNNI carry it out.

    Their instruction (VPMADDUBSW) multiplies unsigned by signed bytes, adds two neighbouring products, and cuts the
    sum to 16 bits. Unsigned by unsigned bytes are widened first, so nothing is cut.
    """
    from onnx.reference.op_run import OpRun

    class MatMulInteger(OpRun):
        def _run(self, left: Any, right: Any, left_zero: Any = 0, right_zero: Any = 0) -> tuple[Any]:
            a, b = left.astype(np.int32), right.astype(np.int32)
            length = a.shape[-1]
            products = a @ b
            if right.dtype == np.int8:
                a = np.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, length % 2)])
                b = np.pad(b, [(0, length % 2), (0, 0)])
                pairs = (a[..., k, None] * b[k] + a[..., k + 1, None] * b[k + 1] for k in range(0, length, 2))
                products = sum(pair.clip(-(2**15), 2**15 - 1) for pair in pairs)
            left_zero, right_zero = np.int32(left_zero), np.int32(right_zero)
            products = products - left_zero * b.sum(0) - right_zero * a.sum(-1, keepdims=True)
            return ((products + length * left_zero * right_zero).astype(np.int32),)

    return MatMulInteger


def documented_quantizer(**changes: Any) -> Any:
    """The quantizer of docs/export.md, or one that differs from it in these settings."""
    from transformers.exporters import OnnxRuntimeQuantizer

    (block,) = [block for block in read_blocks(ROOT / "docs" / "export.md") if "matrix_products =" in block.code]
    names: dict[str, Any] = {}
    exec(block.code.partition("int8 =")[0], names)
    return OnnxRuntimeQuantizer(replace(names["matrix_products"], **changes))


@pytest.mark.parametrize("cpu", ["this one", "without VNNI"])
@torch.no_grad()
def test_int8_stays_near(cpu: str, tmp_path: Path) -> None:
    assert 1e-4 < int8_difference(cpu, tmp_path) < 0.2  # neither float32 all the same, nor something else


@torch.no_grad()
def test_signed_weights_would_be_cut_on_cpus_without_vnni(tmp_path: Path) -> None:
    """The check above can fail: ONNX Runtime's default type of weights does not pass it."""
    assert int8_difference("without VNNI", tmp_path, weight_type=None, extra_options=None) > 0.4


def int8_difference(cpu: str, folder: Path, **changes: Any) -> float:
    """Largest difference of an int8 export's logits to eager ones, in their standard deviations."""
    import onnx
    from onnx.reference import ReferenceEvaluator
    from transformers.exporters import ExportedModel

    model, clips = make_model(), make_clips(5)
    export(model, folder, quantizer=documented_quantizer(**changes))
    if cpu == "this one":
        logits = ExportedModel.from_pretrained(folder)(pixel_values=clips).logits
    else:
        program = ReferenceEvaluator(onnx.load(folder / "model.onnx"), new_ops=[saturating_matmul_integer()])
        logits = torch.from_numpy(program.run(["logits"], {"pixel_values": clips.numpy()})[0])
    expected = model(clips).logits
    return ((logits - expected).abs().max() / expected.std()).item()


def test_the_documented_run_without_torch_gives_the_probabilities_of_the_pipeline(
    onnx_folder: Path, tmp_path: Path
) -> None:
    data = write_rendered_dfew(
        tmp_path / "data", num_clips=35, num_frames=20, image_size=112, num_workers=1, progress=False
    )
    model, processor = make_model(), STTVideoProcessor(size={"height": SIZE, "width": SIZE}, num_frames=FRAMES)
    shutil.copytree(onnx_folder, tmp_path / "demo" / "onnx")
    processor.save_pretrained(tmp_path / "demo" / "onnx")
    (block,) = [block for block in read_blocks(ROOT / "docs" / "export.md") if block.without]
    assert {"torch", "transformers", "modeling_stt"} <= set(block.without)
    classify = pipeline("video-classification", model=model, video_processor=processor)
    for video in sorted((data / "Clip" / "original").rglob("*.mp4"))[:3]:
        (tmp_path / "clip.mp4").write_bytes(video.read_bytes())
        printed = run_blocks([block], tmp_path).split("\n", 1)[1].split()
        expected = classify(str(video), top_k=3)
        assert printed[::2] == [row["label"] for row in expected]
        assert [float(score) for score in printed[1::2]] == pytest.approx([row["score"] for row in expected], abs=0.01)


# Arguments: a checkpoint, a folder for the export.
STRANGER = """
import sys
import torch
from torch.export import Dim
from transformers import AutoModelForVideoClassification
from transformers.exporters import OnnxConfig, OnnxExporter

checkpoint, folder = sys.argv[1:]
model = AutoModelForVideoClassification.from_pretrained(checkpoint, trust_remote_code=True).eval()
assert type(model).__module__.startswith("transformers_modules."), type(model).__module__
clips = {"pixel_values": torch.rand(2, 8, 3, 32, 32)}
with torch.no_grad():
    expected = model(**clips).logits
    compiled = torch.compile(model, fullgraph=True, backend="eager")(**clips).logits
    exported = OnnxExporter().export(model, clips, OnnxConfig(dynamic_shapes={"pixel_values": {0: Dim("batch")}}))
    torch.testing.assert_close(compiled, expected)
    torch.testing.assert_close(exported(**clips).logits, expected, atol=1e-5, rtol=1e-4)
exported.save_pretrained(folder)
"""


def test_the_code_in_a_checkpoint_compiles_and_exports(tmp_path: Path) -> None:
    """As on the Hub, without this package: the three files beside the weights are enough."""
    make_model().save_pretrained(tmp_path / "checkpoint")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HF_"))}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "HF_MODULES_CACHE": str(tmp_path / "modules")}
    command = [sys.executable, "-I", "-c", STRANGER, str(tmp_path / "checkpoint"), str(tmp_path / "onnx")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "onnx" / "model.onnx").is_file()
