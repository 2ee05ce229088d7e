"""CREMA-D (Cao et al., IEEE TAFFC 2014), read from the user's own copy: 7,442 clips of 6 emotions, 91 actors, 5 folds.

    dataset_scripts.load_dataset("crema_d", "fold_1", data_dir="CREMA-D")                        # datasets 4, 5
    datasets.load_dataset("dataset_scripts/crema_d.py", "fold_1", data_dir="CREMA-D", trust_remote_code=True)  # 3

A clip's name, ``1001_DFA_ANG_XX.flv``, gives actor, sentence, emotion and level. The set has no official split. The
folds here are those of MAE-DFER's lists: consecutive actors, 18, 18, 18, 18 and 19, so that no face is in both train
and test.

Columns: ``clip_id`` (the name), ``label`` (the emotion the actor was asked for, not the raters' votes),
``num_frames`` (counted on disk), ``video`` or, with ``frames="faces"``, ``frames`` (absolute paths in time order);
``actor`` (1001 … 1091), ``sentence`` (CREMA-D's acronym, ``IEO`` …), ``level`` (low, medium, high, unspecified).
"""

import logging
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import datasets

from .clip_files import (
    LFS_POINTER,
    SIDES,
    About,
    ClipBuilder,
    Finding,
    Listed,
    NamedClipConfig,
    NamedClipSource,
    shown,
)

logger = logging.getLogger(__name__)

EMOTIONS = {"ANG": "anger", "DIS": "disgust", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
LEVELS = {"LO": "low", "MD": "medium", "HI": "high", "XX": "unspecified"}
SENTENCES = ("DFA", "IEO", "IOM", "ITH", "ITS", "IWL", "IWW", "MTI", "TAI", "TIE", "TSI", "WSI")
ACTORS = range(1001, 1092)
# Never recorded or lost, by CREMA-D's own SentenceFilenames.csv: 20 clips of 7,462.
NOT_IN_THE_SET = ("1002_TIE_NEU", "1008_WSI", "1009_MTI", "1019_ITH", "1076_ITS_NEU")
# https://github.com/CheyneyComputerScience/CREMA-D/issues/8 and comments of public code that leaves them out.
BAD_CLIPS = {
    "1064_IEO_DIS_MD": "about a minute with other emotions in it",
    "1064_TIE_SAD_XX": "under 20 frames",
    "1076_MTI_NEU_XX": "almost no frames",
    "1076_MTI_SAD_XX": "almost no frames",
}

CLASS_NAMES = tuple(EMOTIONS.values())  # in alphabetical order, as MAE-DFER and HiCMAE number them
ACTORS_PER_FOLD = 18  # the last fold has one more
CLASS_COUNTS = {name: 1087 if name == "neutral" else 1271 for name in CLASS_NAMES}
TEST_SIZES = {1: 1463, 2: 1470, 3: 1476, 4: 1476, 5: 1557}  # of MAE-DFER's lists
# Test clips of neutral; the other five classes have equal shares of the rest.
TEST_NEUTRAL = {1: 213, 2: 215, 3: 216, 4: 216, 5: 227}


def _published(fold: int) -> dict[str, dict[str, int]]:
    """Split → class → number of clips of a fold, bad clips among them."""
    other = (TEST_SIZES[fold] - TEST_NEUTRAL[fold]) // (len(CLASS_NAMES) - 1)
    test = {name: TEST_NEUTRAL[fold] if name == "neutral" else other for name in CLASS_NAMES}
    return {"train": {name: CLASS_COUNTS[name] - test[name] for name in CLASS_NAMES}, "test": test}


# Configuration → split → class → number of clips. Sizes and class totals are published; what each class has in each
# fold follows from them and from NOT_IN_THE_SET.
PUBLISHED = {f"fold_{fold}": _published(fold) for fold in TEST_SIZES}

HOMEPAGE = "https://github.com/CheyneyComputerScience/CREMA-D"
ABOUT = About(
    name="CREMA-D",
    description="Acted emotions: 91 actors speak 12 sentences in six emotions.",
    names="fold_1 … fold_5",
    homepage=HOMEPAGE,
    license="Open Database License 1.0, its contents under the Database Contents License 1.0",
    access=f"CREMA-D is open: with Git LFS installed, clone {HOMEPAGE} (or its mirror, "
    "https://gitlab.com/cs-cooper-lab/crema-d-mirror) and pass the folder with VideoFlash/ in it as data_dir.",
    citation="""\
@article{cao2014cremad,
  title={{CREMA-D}: Crowd-sourced Emotional Multimodal Actors Dataset},
  author={Cao, Houwei and Cooper, David G. and Keutmann, Michael K. and Gur, Ruben C. and Nenkova, Ani
          and Verma, Ragini},
  journal={IEEE Transactions on Affective Computing},
  volume={5},
  number={4},
  pages={377--390},
  year={2014}
}
""",
)
MAX_POINTER_BYTES = 1024


def clip_ids() -> list[str]:
    """The names of all 7,442 clips, in order; only the sentence IEO was spoken at three levels, and not in neutral."""
    names = []
    for actor in ACTORS:
        for sentence in SENTENCES:
            for emotion in EMOTIONS:
                levels = ("HI", "LO", "MD") if sentence == "IEO" and emotion != "NEU" else ("XX",)
                names += [f"{actor}_{sentence}_{emotion}_{level}" for level in levels]
    return [name for name in names if not name.startswith(NOT_IN_THE_SET)]


def fold_of(actor: int) -> int:
    """The fold, 1 … 5, that tests an actor: 1001 … 1018 are fold 1's, and so on; 1073 … 1091 fold 5's."""
    return min(1 + (actor - ACTORS[0]) // ACTORS_PER_FOLD, len(TEST_SIZES))


def _refuse_pointers(clips: Mapping[str, str], root: Path) -> None:
    """Refuse Git LFS pointers, which have a video's name and are a few lines of text."""
    small = [path for path in map(Path, clips.values()) if path.stat().st_size < MAX_POINTER_BYTES]
    if pointers := [path for path in small if path.read_bytes().startswith(LFS_POINTER)]:
        raise ValueError(
            f"{len(pointers)} of the {len(clips)} videos below {root} are Git LFS pointers, not videos "
            f"({shown(pointers)}). In a clone, run `git lfs install` and `git lfs pull`; a zip download of the "
            f"repository holds pointers only. {ABOUT.access}"
        )


@dataclass
class CremaDConfig(NamedClipConfig):
    """Options of CREMA-D; ``name`` is ``fold_1`` … ``fold_5``.

    Attributes:
        frames: ``video`` (the clips themselves, VideoFlash or converted), or ``faces`` (the user's own face crops: a
            folder of pictures a clip, named as the clip).
        clip_dir: folder of the clips, absolute or relative to data_dir; needed for ``faces``.
        bad_clips: ``keep`` the four clips reported bad (BAD_CLIPS), as MAE-DFER's lists do, whose folds and sizes
            these are, or ``skip`` them, as HiCMAE does; two are test clips of fold 4 and two of fold 5.
        missing: ``error`` or ``skip`` clips that are not on disk or have no frame.
    """

    ABOUT = ABOUT
    NAMES = tuple(PUBLISHED)
    VALUES: ClassVar = {"frames": ("video", "faces"), "bad_clips": ("keep", "skip"), "missing": ("error", "skip")}
    CLIP_NAME = re.compile(r"\d{4}_[A-Z]{3}_[A-Z]{3}_[A-Z]{1,2}")

    bad_clips: str = "keep"

    def open_source(self) -> "Source":
        """Find the clips, and see that they are not Git LFS pointers."""
        root, copies = self.find_copies()
        source = Source.choose(self, copies, clip_ids(), clip_ids())
        if not source.clips:
            name = "1001_DFA_ANG_XX"
            what = f"video named like {name}.flv" if self.frames == "video" else f"folder of frames named like {name}"
            raise FileNotFoundError(f"No {what} below {root}. {self.found_instead()}")
        if self.frames == "video":
            _refuse_pointers(source.clips, root)
        return source


@dataclass(frozen=True)
class Source(NamedClipSource):
    """The clips of CREMA-D that a configuration reads."""

    config: CremaDConfig

    def listed_clips(self) -> Listed:
        """``train`` and ``test`` → a row for each clip of CREMA-D, without the bad ones if they are skipped."""
        splits: Listed = {side: [] for side in SIDES}
        for clip_id in clip_ids():
            if self.config.bad_clips == "skip" and clip_id in BAD_CLIPS:
                continue
            actor, sentence, emotion, level = clip_id.split("_")
            row = {"clip_id": clip_id, "label": list(EMOTIONS).index(emotion), "path": self.clips.get(clip_id)}
            row |= {"actor": int(actor), "sentence": sentence, "level": LEVELS[level]}
            splits["test" if fold_of(int(actor)) == self.config.fold else "train"].append(row)
        return splits

    def warn(self) -> None:
        """Log clips that are left out or reported bad."""
        super().warn()
        if self.config.bad_clips == "keep" and (bad := [clip_id for clip_id in BAD_CLIPS if clip_id in self.clips]):
            logger.warning("Clips reported bad are kept (bad_clips='skip' goes without): %s.", ", ".join(bad))

    def skip_option(self, lacking: set[str]) -> str:
        """``bad_clips`` where only bad clips are lacking."""
        return "bad_clips" if lacking <= BAD_CLIPS.keys() else "missing"

    def published(self) -> dict[str, dict[str, int]]:
        """Split → class → number of clips, less bad clips that are skipped."""
        counts = {side: dict(classes) for side, classes in PUBLISHED[self.config.name].items()}
        for clip_id in BAD_CLIPS if self.config.bad_clips == "skip" else ():
            side = "test" if fold_of(int(clip_id[:4])) == self.config.fold else "train"
            counts[side][EMOTIONS[clip_id.split("_")[2]]] -= 1
        return counts

    def describe(self) -> dict[str, Any]:
        """Kind, folders and containers of the clips, and the counts to expect."""
        return {
            "published": self.published(),
            **super().describe(),
            "containers": dict(Counter(Path(path).suffix.lower() for path in self.clips.values())),
            "bad clips": f"{self.config.bad_clips}: {', '.join(BAD_CLIPS)}",
        }

    def check(self) -> list[Finding]:
        """Class totals, fold sizes, bad clips and names."""
        bad = [clip_id for clip_id in BAD_CLIPS if clip_id in self.clips]
        skipped = self.config.bad_clips == "skip"
        clips = self.clips.keys() | (BAD_CLIPS.keys() if skipped else ())  # which need not be there
        found = Counter(EMOTIONS[clip_id.split("_")[2]] for clip_id in clips)
        classes = {name: found[name] for name in CLASS_NAMES}
        sizes = Counter(fold_of(int(clip_id[:4])) for clip_id in clips)
        tests = {fold: sizes[fold] for fold in TEST_SIZES}
        reported = "; ".join(f"{clip_id}: {fault}" for clip_id, fault in BAD_CLIPS.items())
        kept = f"{len(bad)} of the 4 clips reported bad are on disk, bad_clips={self.config.bad_clips!r} ({reported})"
        return [
            ("class totals", classes == CLASS_COUNTS, f"clips a class {classes}, published {CLASS_COUNTS}"),
            ("fold sizes", tests == TEST_SIZES, f"test clips a fold {tests}, MAE-DFER's lists {TEST_SIZES}"),
            ("bad clips", len(bad) == len(BAD_CLIPS) or skipped, kept),
            self.check_names(),
        ]


class CremaD(ClipBuilder):
    """CREMA-D's clips with their label, one configuration a fold, splits ``train`` and ``test``."""

    BUILDER_CONFIG_CLASS = CremaDConfig
    BUILDER_CONFIGS = [CremaDConfig(name=name) for name in CremaDConfig.NAMES]  # noqa: RUF012  # as the base class
    CLASS_NAMES = CLASS_NAMES
    PUBLISHED = PUBLISHED
    config: CremaDConfig

    def own_columns(self) -> dict[str, Any]:
        """The other parts of a name."""
        text = datasets.Value("string")
        return {"actor": datasets.Value("int32"), "sentence": text, "level": text}
