"""Builders of the data sets of facial expression videos, and ``load_dataset`` in front of them.

Since datasets 4, ``datasets.load_dataset`` refuses loading scripts; the builders in this folder still work and are
loaded by name through ``load_dataset`` here, which behaves as ``datasets.load_dataset`` does and passes on to it any
name that it doesn't know.
"""

import hashlib
import os
import re
import sys
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import datasets

from .clip_files import ClipBuilder

# Name of a data set, which is also its module in this folder → class of its builder.
BUILDERS = {
    "afew": "AFEW",
    "clip_folder": "ClipFolder",
    "crema_d": "CremaD",
    "dfew": "DFEW",
    "ferv39k": "FERV39k",
    "mafw": "MAFW",
    "ravdess": "Ravdess",
}

AnyDataset: TypeAlias = (
    datasets.Dataset | datasets.DatasetDict | datasets.IterableDataset | datasets.IterableDatasetDict
)

__all__ = ["BUILDERS", "builder_class", "configurations", "folds", "load_dataset", "load_dataset_builder"]


def builder_class(path: str) -> type[ClipBuilder]:
    """The class of a data set's builder; KeyError for a name that is not in this folder."""
    if path not in BUILDERS:
        raise KeyError(f"{path!r} is not one of {sorted(BUILDERS)}.")
    return getattr(import_module(f"{__name__}.{path}"), BUILDERS[path])


def configurations(path: str) -> list[str]:
    """Names of the configurations that a data set of this folder comes in, such as ``fold_1`` or ``default``.

    Raises:
        KeyError: ``path`` is not in this folder.
    """
    return [config.name for config in builder_class(path).BUILDER_CONFIGS]


def folds(path: str, subset: str | None = None) -> list[int]:
    """Numbers of the folds that a data set of this folder comes in; empty for one with a single split.

    Args:
        path: a key of ``BUILDERS``.
        subset: prefix of their names if a set has several kinds of folds: MAFW's ``compound``.

    Raises:
        KeyError: ``path`` is not in this folder.
    """
    prefix = "fold_" if subset is None else f"{subset}_fold_"
    names = filter(re.compile(re.escape(prefix) + r"\d+").fullmatch, configurations(path))
    return sorted(int(name.removeprefix(prefix)) for name in names)


def load_dataset_builder(
    path: str,
    name: str | None = None,
    *,
    data_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    **config_kwargs: Any,
) -> datasets.DatasetBuilder:
    """Make the builder of a data set of this folder without preparing any data.

    Its cache folder carries a hash of the script and, from the builder's own configuration, of the annotation files
    and clips that the configuration reads: a change of either prepares the data anew.

    Args:
        path: a key of ``BUILDERS``.
        name: the configuration, such as ``fold_1``.
        data_dir: folder of the user's own copy of the data.
        cache_dir: where prepared rows are kept; by default where datasets keeps them.
        **config_kwargs: options of the data set's configuration, such as ``frames="16f"``.

    Raises:
        KeyError: ``path`` is not in this folder.
        FileNotFoundError, ValueError: files in ``data_dir`` are missing or invalid; the message says what to do.
    """
    builder = builder_class(path)
    known = [option.name for option in fields(builder.BUILDER_CONFIG_CLASS)]
    if unknown := sorted(set(config_kwargs) - set(known)):
        raise ValueError(f"{path} has no option {', '.join(unknown)}, only {', '.join(known)}.")
    scripts = [Path(str(sys.modules[module].__file__)) for module in (builder.__module__, ClipBuilder.__module__)]
    return builder(
        config_name=name,
        data_dir=None if data_dir is None else os.path.abspath(Path(data_dir).expanduser()),  # noqa: PTH100  # drops ..
        cache_dir=None if cache_dir is None else str(cache_dir),
        hash=hashlib.sha256(b"".join(script.read_bytes() for script in scripts)).hexdigest()[:16],
        **config_kwargs,
    )


def load_dataset(
    path: str,
    name: str | None = None,
    *,
    data_dir: str | Path | None = None,
    split: str | datasets.Split | None = None,
    streaming: bool = False,
    num_proc: int | None = None,
    cache_dir: str | Path | None = None,
    download_mode: datasets.DownloadMode | str | None = None,
    **config_kwargs: Any,
) -> AnyDataset:
    """Load a data set of this folder by name, or any other as ``datasets.load_dataset`` does.

    ```python
    from dataset_scripts import load_dataset

    train = load_dataset("dfew", "fold_1", data_dir="DFEW", split="train")
    ```

    Args:
        path: a key of ``BUILDERS``, or whatever ``datasets.load_dataset`` takes.
        name: the configuration, such as ``fold_1``.
        data_dir: folder of the user's own copy of the data.
        split: ``train``, ``test`` or a slice such as ``train[:10%]``; None for all splits in a dict.
        streaming: yield rows as they are read, without preparing or caching them.
        num_proc: number of processes that prepare the rows.
        cache_dir: where prepared rows are kept; by default where datasets keeps them.
        download_mode: as in datasets; ``force_redownload`` prepares the rows anew.
        **config_kwargs: options of the data set's configuration, such as ``frames="16f"``.

    Raises:
        FileNotFoundError, ValueError: files in ``data_dir`` are missing or invalid; the message says what to do.
        NotImplementedError: ``num_proc`` together with ``streaming``.
    """
    if path not in BUILDERS:
        dirs = {"data_dir": data_dir, "cache_dir": cache_dir}
        passed_on: dict[str, Any] = {key: None if value is None else str(value) for key, value in dirs.items()}
        passed_on |= {"split": split, "streaming": streaming, "num_proc": num_proc, "download_mode": download_mode}
        return datasets.load_dataset(path, name, **passed_on, **config_kwargs)
    if streaming and num_proc is not None:
        raise NotImplementedError(
            "streaming=True reads in one process: leave num_proc out, or use DataLoader workers."
        )
    builder = load_dataset_builder(path, name, data_dir=data_dir, cache_dir=cache_dir, **config_kwargs)
    if streaming:
        return builder.as_streaming_dataset(split=split)
    try:
        builder.download_and_prepare(download_mode=download_mode, num_proc=num_proc)
    except datasets.exceptions.DatasetGenerationError as error:
        if isinstance(error.__cause__, FileNotFoundError | ValueError | ImportError):
            raise error.__cause__ from None  # which names the clip, where "An error occurred" names nothing
        raise
    return builder.as_dataset(split=split)
