"""Folders of saved models that must not answer, and what is said of each."""

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

# What the error says, by damage.
DAMAGES = {
    "no head": r"2 weights .* are missing \(classifier\.bias, classifier\.weight\)",
    "a layer missing": r"weights of STTForVideoClassification are missing \(stt\.layers\.1\.",
    "prefixed": r"the file has others instead \(module\.",
    "another shape": r"classifier\.weight \(5, 16\) for \(3, 16\)",
    "NaN": r"1 weights are not finite \(classifier\.weight\)",
    "LFS pointer": r"model\.safetensors is a pointer of Git LFS.*git lfs pull",
    "cut short": r"damaged or cut short",
    "no weights": r"no file named model\.safetensors",
    "broken configuration": r"config\.json",
    "no processor": r"cannot be loaded",
}


def damage(saved: Path, folder: Path, how: str) -> Path:
    """A copy of the saved model, damaged in this way."""
    shutil.copytree(saved, folder)
    file = folder / "model.safetensors"
    weights = load_file(file)
    if how == "no head":
        weights = {key: value for key, value in weights.items() if not key.startswith("classifier")}
    elif how == "a layer missing":
        weights = {key: value for key, value in weights.items() if ".layers.1." not in key}
    elif how == "prefixed":
        weights = {f"module.{key}": value for key, value in weights.items()}
    elif how == "another shape":
        weights["classifier.weight"] = torch.zeros(5, 16)
    elif how == "NaN":
        weights["classifier.weight"] *= float("nan")
    save_file(weights, file, metadata={"format": "pt"})
    if how == "LFS pointer":
        file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 123\n")
    elif how == "cut short":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif how == "no weights":
        file.unlink()
    elif how == "broken configuration":
        (folder / "config.json").write_text('{"model_type": "stt", ')
    elif how == "no processor":
        (folder / "video_preprocessor_config.json").unlink()
    return folder
