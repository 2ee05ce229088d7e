"""What all builders of dataset_scripts have in common: the contract that load_dataset and verify rely on.

Each builder is one self-contained file, because datasets 3 copies a loading script out of its folder. So they share
helpers by copy, which must not drift apart.
"""

import ast
import inspect
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import datasets
import pytest

from dataset_scripts import BUILDERS, verify
from helpers.dfew_trees import video

SHARED_FUNCTIONS = (
    "shown",
    "is_debris",
    "frame_number",
    "_is_frame",
    "_frame_names",
    "list_frames",
    "has_frames",
    "count_video_frames",
    "_entries",
)
SHARED_CONSTANTS = ("IMAGE_SUFFIXES", "NUMBERS")
CONTRACT = ("open_source", "listed_clips", "describe_source", "check_source")
COLUMNS = {"clip_id": "string", "num_frames": "int32"}


def module_of(name: str) -> ModuleType:
    return import_module(f"dataset_scripts.{name}")


@pytest.mark.parametrize("function", SHARED_FUNCTIONS)
def test_shared_helpers_have_one_source(function):
    """A fix in one copy only would read one set's frames in another order than the next one's."""
    modules = [verify, *map(module_of, BUILDERS)]
    sources = {m.__name__: inspect.getsource(getattr(m, function)) for m in modules if hasattr(m, function)}
    assert len(sources) >= 2
    reference = inspect.getsource(getattr(module_of("dfew"), function))
    assert [name for name, source in sources.items() if source != reference] == []


@pytest.mark.parametrize("function", ["_clip_id", "one_copy"])
def test_helpers_of_crema_d_and_ravdess_have_one_source(function):
    """Both name their clips and look for copies of them in the same way."""
    assert len({inspect.getsource(getattr(module_of(name), function)) for name in ("crema_d", "ravdess")}) == 1


def test_dfew_and_mafw_cut_folds_alike():
    assert len({inspect.getsource(module_of(name).block_sizes) for name in ("dfew", "mafw")}) == 1


@pytest.mark.parametrize("constant", SHARED_CONSTANTS)
def test_constants_of_the_shared_helpers_are_equal(constant):
    modules = [verify, *map(module_of, BUILDERS)]
    values = {m.__name__: getattr(m, constant) for m in modules if hasattr(m, constant)}
    assert [name for name, value in values.items() if value != getattr(module_of("dfew"), constant)] == []


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_builder_stands_alone(name):
    """It imports nothing of this repository, and nothing that setup.py doesn't ask for."""
    tree = ast.parse(Path(str(module_of(name).__file__)).read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            found.add(str(node.module))
    assert {each.partition(".")[0] for each in found} <= {
        *sys.stdlib_module_names,
        "datasets",
        "openpyxl",
        "av",
        "PIL",
    }


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_builder_fulfils_the_contract(name):
    module = module_of(name)
    builder = getattr(module, BUILDERS[name])
    assert issubclass(builder, datasets.GeneratorBasedBuilder)
    assert issubclass(builder.BUILDER_CONFIG_CLASS, datasets.BuilderConfig)
    assert callable(builder.BUILDER_CONFIG_CLASS.check)
    assert all(isinstance(config, builder.BUILDER_CONFIG_CLASS) for config in builder.BUILDER_CONFIGS)
    for function in CONTRACT:
        parameters = list(inspect.signature(getattr(module, function)).parameters)
        assert parameters == (["config"] if function == "open_source" else ["config", "source"])
        assert getattr(module, function).__doc__
    assert {"list_frames", "count_video_frames"} & vars(module).keys()
    for option in verify.own_options(builder.BUILDER_CONFIG_CLASS):
        assert f"{option}:" in str(builder.BUILDER_CONFIG_CLASS.__doc__), f"{option} is nowhere explained"


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_published_counts_are_of_the_classes_and_configurations(name):
    module = module_of(name)
    assert len(set(module.CLASS_NAMES)) == len(module.CLASS_NAMES)
    assert all(each == each.lower() for each in module.CLASS_NAMES)
    known = {config.name for config in getattr(module, BUILDERS[name]).BUILDER_CONFIGS}
    assert module.PUBLISHED.keys() <= known
    for splits in module.PUBLISHED.values():
        assert tuple(splits) in [("train", "test"), ("train", "validation")]
        for counts in splits.values():
            assert tuple(counts) == module.CLASS_NAMES
            assert all(isinstance(count, int) and count > 0 for count in counts.values())


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_columns_are_those_of_every_set(name, tmp_path):
    data_dir = None
    if name == "clip_folder":  # whose classes are on disk only
        for split, label in (("train", "a"), ("train", "b"), ("test", "a"), ("test", "b")):
            path = tmp_path / split / label / f"{split}_{label}.mp4"
            path.parent.mkdir(parents=True)
            path.write_bytes(video(3))
        data_dir = str(tmp_path)
    module = module_of(name)
    builder = getattr(module, BUILDERS[name])
    config = next(iter(module.PUBLISHED), "default")
    features = builder(config_name=config, data_dir=data_dir, cache_dir=str(tmp_path / "cache")).info.features
    assert {column: features[column].dtype for column in COLUMNS} == COLUMNS
    assert isinstance(features["label"], datasets.ClassLabel)
    assert features["label"].names == list(module.CLASS_NAMES or ["a", "b"])
    assert ("frames" in features) != ("video" in features)
    assert features.get("video", datasets.Video(decode=False)) == datasets.Video(decode=False)
    assert features.get("frames", datasets.Sequence(datasets.Value("string"))).feature.dtype == "string"
