"""transformers' own test mixins, which its wheel leaves out and its source distribution carries.

`TRANSFORMERS_SDIST` names the folder of the unpacked source distribution of exactly the installed version.
"""

import importlib
import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import pytest
import transformers

VARIABLE = "TRANSFORMERS_SDIST"
PACKAGE = "transformers_sdist_tests"

# Model types to class names, of which the mixins look up which class is a bare model and which takes labels.
STT_CLASS_NAMES = {
    "MODEL_MAPPING_NAMES": "STTModel",
    "MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES": "STTForVideoClassification",
}

# Arguments that every configuration takes, none at its default.
COMMON_CONFIG_ARGUMENTS = {
    "architectures": ["STTForVideoClassification"],
    "chunk_size_feed_forward": 3,
    "dtype": "float16",
    "id2label": {0: "calm"},
    "label2id": {"calm": 0},
    "output_attentions": True,
    "output_hidden_states": True,
    "problem_type": "regression",
    "return_dict": False,
}


def import_test_module(name: str) -> ModuleType:
    """Import a module of transformers' `tests` folder, or skip the calling module where there is none that fits."""
    if PACKAGE not in sys.modules:
        _install_package(_find_sdist() / "tests")
    # test_configuration_common loads transformers anew from the tree around it, and does not use it.
    with mock.patch("transformers.utils.direct_transformers_import"):
        module = importlib.import_module(f"{PACKAGE}.{name}")
    for mapping, class_name in STT_CLASS_NAMES.items():
        if hasattr(module, mapping):
            setattr(module, mapping, {**getattr(module, mapping), "stt": class_name})
    return module


def _find_sdist() -> Path:
    version = transformers.__version__
    how_to_get = (
        f"set {VARIABLE} to the unpacked source distribution of transformers {version} "
        f"(pip download --no-deps --no-binary :all: transformers=={version})"
    )
    if VARIABLE not in os.environ:
        pytest.skip(f"transformers' own tests are not in its wheel: {how_to_get}", allow_module_level=True)
    folder = Path(os.environ[VARIABLE])
    if not (folder / "tests" / "test_modeling_common.py").is_file():
        pytest.skip(f"{VARIABLE}={folder} holds no tests: {how_to_get}", allow_module_level=True)
    found = re.search(r"^Version: (.+)$", (folder / "PKG-INFO").read_text(encoding="utf-8"), re.MULTILINE)
    if found is None or found[1] != version:
        pytest.skip(f"{VARIABLE}={folder} is of version {found and found[1]}: {how_to_get}", allow_module_level=True)
    return folder


def _install_package(folder: Path) -> None:
    """Make a package of the tests folder, with empty stand-ins for what the sdist lacks and STT has no use for."""
    package = ModuleType(PACKAGE)
    package.__path__ = [str(folder)]
    sys.modules[PACKAGE] = package
    modules: dict[str, dict[str, Any]] = {
        "exporters": {},
        "exporters.test_export": {"ExportTesterMixin": type("ExportTesterMixin", (), {})},
        "generation": {},
        "generation.test_utils": {"GenerationTesterMixin": type("GenerationTesterMixin", (), {})},
        "utils": {},
        "utils.test_configuration_utils": {"config_common_kwargs": COMMON_CONFIG_ARGUMENTS},
    }
    for name, content in modules.items():
        module = ModuleType(f"{PACKAGE}.{name}")
        module.__path__ = []
        module.__dict__.update(content)
        sys.modules[module.__name__] = module
