"""RAVDESS (Livingstone & Russo, PLoS ONE 2018), read from the user's own copy: 1,440 spoken clips of 8 emotions.

    dataset_scripts.load_dataset("ravdess", "fold_1", data_dir="RAVDESS")                        # datasets 4, 5
    datasets.load_dataset("dataset_scripts/ravdess.py", "fold_1", data_dir="RAVDESS", trust_remote_code=True)  # 3

A clip's name, ``02-01-06-01-02-01-12.mp4``, gives modality (01 with sound, 02 without), channel (01 speech, 02 song),
emotion, intensity, statement, repetition and actor. A recording exists in both modalities, so only one is ever read.
The set has no official split. The folds here are those of MAE-DFER's lists: four consecutive actors each, so that no
face is in both train and test.

Columns: ``clip_id`` (``Actor_12/02-01-06-01-02-01-12``: the actor first, so that a validation set cut by id holds out
whole actors), ``label``, ``num_frames`` (counted on disk), ``video`` or, with ``frames="faces"``, ``frames``
(absolute paths in time order); ``actor`` (1 … 24), ``intensity`` (normal, strong), ``statement`` (kids, dogs),
``repetition`` (1, 2).
"""

import itertools
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import datasets

from .clip_files import (
    SIDES,
    About,
    ClipBuilder,
    Finding,
    Listed,
    NamedClipConfig,
    NamedClipSource,
    shown,
)

# In the order of RAVDESS's codes 01 … 08.
CLASS_NAMES = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
MODALITIES = {"audio_video": "01", "video": "02"}
CHANNELS = {"speech": "01", "song": "02"}
NUM_SUNG_CLASSES = 6  # no song is disgust or surprised
INTENSITIES = ("normal", "strong")  # neutral is normal only
STATEMENTS = ("kids", "dogs")  # "Kids are talking by the door", "Dogs are sitting by the door"
REPETITIONS = (1, 2)
ACTORS = range(1, 25)
NOT_SINGING = 18
ACTORS_PER_FOLD = 4
CLIPS_PER_ACTOR = {name: 4 if name == "neutral" else 8 for name in CLASS_NAMES}  # of speech
ACTOR_FOLDER = re.compile(r"Actor_(\d\d)", re.IGNORECASE)

# Configuration → split → class → number of clips of speech, in either modality: 1,200 and 240.
PUBLISHED = {
    f"fold_{fold}": {
        "train": {name: 20 * count for name, count in CLIPS_PER_ACTOR.items()},
        "test": {name: 4 * count for name, count in CLIPS_PER_ACTOR.items()},
    }
    for fold in range(1, 7)
}

HOMEPAGE = "https://zenodo.org/records/1188976"
ABOUT = About(
    name="RAVDESS",
    description="Acted emotions: 24 actors speak or sing two statements in eight emotions, each twice.",
    names="fold_1 … fold_6",
    homepage=HOMEPAGE,
    license="CC BY-NC-SA 4.0",
    access=f"RAVDESS is open: unzip Video_Speech_Actor_01.zip … Video_Speech_Actor_24.zip of {HOMEPAGE} and pass the "
    "folder with all of them in it as data_dir.",
    citation="""\
@article{livingstone2018ravdess,
  title={The {Ryerson} Audio-Visual Database of Emotional Speech and Song ({RAVDESS}): A dynamic, multimodal set of
         facial and vocal expressions in {North American English}},
  author={Livingstone, Steven R. and Russo, Frank A.},
  journal={PLoS ONE},
  volume={13},
  number={5},
  pages={e0196391},
  year={2018}
}
""",
)


def prefix(modality: str, channel: str) -> str:
    """The beginning of all names of a modality and a channel: ``02-01`` for silent speech."""
    return f"{MODALITIES[modality]}-{CHANNELS[channel]}"


def clip_names(modality: str, channel: str) -> list[str]:
    """The names of all clips of a modality and a channel, actor by actor: 1,440 of speech, 1,012 of song."""
    start = prefix(modality, channel)
    emotions = range(1, 1 + (NUM_SUNG_CLASSES if channel == "song" else len(CLASS_NAMES)))
    actors = [actor for actor in ACTORS if channel == "speech" or actor != NOT_SINGING]
    return [
        f"{start}-{emotion:02d}-{intensity:02d}-{statement:02d}-{repetition:02d}-{actor:02d}"
        for actor, emotion, intensity, statement, repetition in itertools.product(
            actors, emotions, (1, 2), (1, 2), REPETITIONS
        )
        if emotion != 1 or intensity == 1
    ]


def fold_of(actor: int) -> int:
    """The fold, 1 … 6, that tests an actor: 1 … 4 are fold 1's, 21 … 24 are fold 6's."""
    return 1 + (actor - 1) // ACTORS_PER_FOLD


@dataclass
class RavdessConfig(NamedClipConfig):
    """Options of RAVDESS; ``name`` is ``fold_1`` … ``fold_6``.

    Attributes:
        frames: ``video`` (the clips themselves), or ``faces`` (the user's own face crops: a folder of pictures a clip,
            named as the clip).
        modality: ``video`` (02-…, without sound, as MAE-DFER's lists) or ``audio_video`` (01-…): the same recordings
            twice, so never both.
        channel: ``speech`` (8 classes, 24 actors) or ``song`` (the first 6 classes, no actor 18; 1,012 clips). Labels
            mean the same in both.
        clip_dir: folder of the clips, absolute or relative to data_dir; needed for ``faces``.
        missing: ``error`` or ``skip`` clips that are not on disk or have no frame.
    """

    ABOUT = ABOUT
    NAMES = tuple(PUBLISHED)
    VALUES: ClassVar = {
        "frames": ("video", "faces"),
        "modality": tuple(MODALITIES),
        "channel": tuple(CHANNELS),
        "missing": ("error", "skip"),
    }
    CLIP_NAME = re.compile(r"\d\d(-\d\d){6}")

    modality: str = "video"
    channel: str = "speech"

    def open_source(self) -> "Source":
        """Find the clips of the modality and the channel."""
        root, copies = self.find_copies()
        every = [name for modality in MODALITIES for channel in CHANNELS for name in clip_names(modality, channel)]
        source = Source.choose(self, copies, clip_names(self.modality, self.channel), every)
        if not source.clips:
            raise FileNotFoundError(self._no_clips(root, copies))
        return source

    def _no_clips(self, root: Path, copies: dict[str, list[str]]) -> str:
        """The message for a tree without clips of the asked kind, with what lies there instead."""
        options = f"frames={self.frames!r}, modality={self.modality!r}, channel={self.channel!r}"
        message = f"No clips named {prefix(self.modality, self.channel)}-… ({options}) below {root}."
        counts = Counter(name[:5] for name in copies)
        found = [
            f"{count} named {prefix(modality, channel)}-… (modality={modality!r}, channel={channel!r})"
            for modality in MODALITIES
            for channel in CHANNELS
            if (count := counts[prefix(modality, channel)])
        ]
        if found:
            return f"{message} Found {' and '.join(found)}: pass these options."
        return f"{message} {self.found_instead()}"


@dataclass(frozen=True)
class Source(NamedClipSource):
    """The clips of RAVDESS that a configuration reads."""

    config: RavdessConfig

    def listed_clips(self) -> Listed:
        """``train`` and ``test`` → a row for each clip of the modality and channel."""
        splits: Listed = {side: [] for side in SIDES}
        for name in clip_names(self.config.modality, self.config.channel):
            emotion, intensity, statement, repetition, actor = (int(part) for part in name.split("-")[2:])
            row = {"clip_id": f"Actor_{actor:02d}/{name}", "label": emotion - 1, "path": self.clips.get(name)}
            row |= {"actor": actor, "intensity": INTENSITIES[intensity - 1]}
            row |= {"statement": STATEMENTS[statement - 1], "repetition": repetition}
            splits["test" if fold_of(actor) == self.config.fold else "train"].append(row)
        return splits

    def describe(self) -> dict[str, Any]:
        """Kind and folders of the clips, and the counts to expect: none for song."""
        return {
            "published": PUBLISHED[self.config.name] if self.config.channel == "speech" else {},
            "modality": self.config.modality,
            "channel": self.config.channel,
            **super().describe(),
        }

    def check(self) -> list[Finding]:
        """Clips of each actor, folders of the actors, and names."""
        wanted = Counter(name[-2:] for name in clip_names(self.config.modality, self.config.channel))
        actors = Counter(name[-2:] for name in self.clips)
        short = [f"{actor} has {actors[actor]} of {num}" for actor, num in wanted.items() if actors[actor] != num]
        folders = {path: ACTOR_FOLDER.fullmatch(Path(path).parent.name) for path in self.clips.values()}
        wrong = [path for path, folder in folders.items() if folder and folder[1] != Path(path).stem[-2:]]
        return [
            ("clips of each actor", not short, f"actors without all their clips: {shown(short) or 'none'}"),
            ("actors' folders", not wrong, f"clips in another actor's folder: {shown(wrong) or 'none'}"),
            self.check_names(),
        ]


class Ravdess(ClipBuilder):
    """RAVDESS's clips with their label, one configuration a fold, splits ``train`` and ``test``."""

    BUILDER_CONFIG_CLASS = RavdessConfig
    BUILDER_CONFIGS = [RavdessConfig(name=name) for name in RavdessConfig.NAMES]  # noqa: RUF012  # as the base class
    CLASS_NAMES = CLASS_NAMES
    PUBLISHED = PUBLISHED
    config: RavdessConfig

    def own_columns(self) -> dict[str, Any]:
        """The other parts of a name."""
        text, number = datasets.Value("string"), datasets.Value("int32")
        return {"actor": number, "intensity": text, "statement": text, "repetition": number}
