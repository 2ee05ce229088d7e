"""`import modeling_stt` is light and makes STT known to the Auto classes, in whatever order things are imported."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

import modeling_stt
from helpers.models import make_model, make_processor
from helpers.programs import ROOT

CHECK = """
import sys
from transformers import AutoConfig, AutoModel, AutoModelForVideoClassification, AutoVideoProcessor
found = [Auto.from_pretrained(sys.argv[1]) for Auto in
         (AutoConfig, AutoModel, AutoModelForVideoClassification, AutoVideoProcessor)]
import modeling_stt
assert [type(each) for each in found] == [modeling_stt.STTConfig, modeling_stt.STTModel,
    modeling_stt.STTForVideoClassification, modeling_stt.STTVideoProcessor], found
assert not any("Register" in type(finder).__name__ for finder in sys.meta_path)
"""


def run(code: str, *words: str | Path) -> None:
    """Run code in a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    make_model().save_pretrained(folder)
    make_processor().save_pretrained(folder)
    return folder


def test_the_import_loads_neither_torch_nor_transformers() -> None:
    run("import sys, modeling_stt; assert not {'torch', 'transformers', 'numpy', 'av'} & set(sys.modules)")


@pytest.mark.parametrize(
    "first",
    [
        "import modeling_stt",
        "import transformers, modeling_stt",
        "from transformers import AutoModel; import modeling_stt",
        # This module of transformers loads AutoModel while it is itself half loaded, and ours needs it.
        "import modeling_stt, transformers.modeling_layers",
        "import modeling_stt.modeling_stt",
        "from modeling_stt import STTVideoProcessor",
        "import modeling_stt.training",
        "import modeling_stt; from concurrent.futures import ThreadPoolExecutor as Pool; "
        "Pool(1).submit(exec, 'from transformers import pipeline').result()",
    ],
)
def test_the_auto_classes_know_stt_after_the_import(first: str, checkpoint: Path) -> None:
    run(f"{first}\n{CHECK}", checkpoint)


def test_public_names_are_listed_and_unknown_ones_refused() -> None:
    assert {*modeling_stt.__all__, "__version__"} <= set(dir(modeling_stt))
    for name in modeling_stt.__all__:
        assert getattr(modeling_stt, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'STTForImages'"):
        modeling_stt.STTForImages  # noqa: B018


def test_the_version_is_the_same_everywhere() -> None:
    assert modeling_stt.__version__ == importlib.metadata.version("modeling-stt")
    assert f"\nversion: {modeling_stt.__version__}\n" in (ROOT / "CITATION.cff").read_text()
