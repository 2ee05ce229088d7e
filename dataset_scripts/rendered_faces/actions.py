"""Facial actions of an expression: the tables of EMFACS (Friesen and Ekman) and of the FACS manual in ARKit's names.

| class | EMFACS | FACS manual | actions |
|---|---|---|---|
| happy | 6 + 12 | 6 + 12 + 25 | cheekSquint, mouthSmile; jawOpen, mouthUpperUp |
| sad | 1 + 4 + 15 | 1 + 4 + 15 + 17 | browInnerUp, browDown, mouthFrown; mouthShrugLower |
| surprise | 1 + 2 + 5 + 26 | 1 + 2 + 5 + 26 | browInnerUp, browOuterUp, eyeWide, jawOpen |
| fear | 1 + 2 + 4 + 5 + 7 + 20 + 26 | 1 + 2 + 4 + 5 + 20 + 25 | browInnerUp, browDown, eyeWide, mouthStretch |
| angry | 4 + 5 + 7 + 23 | 4 + 5 + 7 + 24 | browDown, eyeWide, eyeSquint, mouthPress, mouthRoll |
| disgust | 9 + 15 + 16 | 10 + 17 + 4 | noseSneer, mouthFrown, mouthLowerDown; mouthUpperUp, mouthShrugLower |

Classes are DFEW's. ARKit has no official table of action units: the actions are matched by what they move. Weights are
those of the rig, in which 1 is a whole action; its brows are weak and take up to 1.9.
"""

from dataclasses import dataclass, field

import numpy as np

CLASS_NAMES = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")

# FACS action units as combinations of the rig's actions (mean over sides), for the truth that is written with a clip.
ACTION_UNITS: dict[str, tuple[str, ...]] = {
    "AU1": ("browInnerUp",),
    "AU2": ("browOuterUp",),
    "AU4": ("browDown",),
    "AU5": ("eyeWide",),
    "AU6": ("cheekSquint",),
    "AU7": ("eyeSquint",),
    "AU9": ("noseSneer",),
    "AU10": ("mouthUpperUp",),
    "AU12": ("mouthSmile",),
    "AU14": ("mouthDimple",),
    "AU15": ("mouthFrown",),
    "AU16": ("mouthLowerDown",),
    "AU17": ("mouthShrugLower",),
    "AU18": ("mouthPucker",),
    "AU20": ("mouthStretch",),
    "AU22": ("mouthFunnel",),
    "AU24": ("mouthPress",),
    "AU26": ("jawOpen",),
    "AU28": ("mouthRollLower", "mouthRollUpper"),
    "AU43": ("eyeBlink",),
}

Range = tuple[float, float]


@dataclass(frozen=True)
class Variant:
    """One way to show a class: how often, its actions' lowest and highest weights, and those that come only sometimes.

    `sometimes` adds to a weight with a probability; `look_down` is the probability of lowered eyes and head.
    """

    share: float
    actions: dict[str, Range]
    sometimes: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    look_down: float = 0.0


_SMILE: dict[str, tuple[float, float, float]] = {
    "browInnerUp": (0.25, 0, 0.4),
    "browOuterUp": (0.25, 0, 0.5),
    "browDown": (0.12, 0, 0.25),
    "noseSneer": (0.15, 0, 0.35),
}
_GRIEF: dict[str, tuple[float, float, float]] = {
    "mouthPucker": (0.15, 0, 0.4),
    "mouthRollLower": (0.2, 0, 0.5),
    "eyeSquint": (0.4, 0, 0.4),
    "tentBrows": (0.6, 0.3, 1.0),
}
_RAGE: dict[str, tuple[float, float, float]] = {
    "eyeWide": (0.5, 0.2, 0.8),
    "eyeSquint": (0.5, 0.2, 0.8),
    "jawForward": (0.4, 0, 0.7),
    "nostrils": (0.6, 0.3, 1.0),
    "knitBrows": (0.5, 0.2, 0.8),
}
_STARTLE: dict[str, tuple[float, float, float]] = {
    "mouthFunnel": (0.35, 0, 0.45),
    "mouthPucker": (0.2, 0, 0.4),
    "mouthLowerDown": (0.3, 0, 0.3),
    "mouthSmile": (0.1, 0, 0.15),
}
_DREAD: dict[str, tuple[float, float, float]] = {
    "mouthFrown": (0.5, 0, 0.35),
    "mouthUpperUp": (0.3, 0, 0.35),
    "mouthDimple": (0.3, 0, 0.3),
    "neckTension": (0.5, 0.2, 1.0),
    "nostrils": (0.4, 0, 0.6),
    "bareTeeth": (0.25, 0.1, 0.5),
    "tentBrows": (0.5, 0.2, 0.8),
}
_LOATHING: dict[str, tuple[float, float, float]] = {
    "mouthLowerDown": (0.4, 0, 0.5),
    "eyeBlink": (0.3, 0, 0.35),
    "jawForward": (0.2, 0, 0.4),
    "raiseLip": (0.4, 0.2, 0.7),
}

EXPRESSIONS: dict[str, tuple[Variant, ...]] = {
    "happy": (
        Variant(
            0.24,
            {
                "mouthSmile": (0.8, 1.5),
                "cheekSquint": (0.3, 0.95),
                "eyeSquint": (0, 0.6),
                "mouthDimple": (0, 0.5),
                "mouthPress": (0, 0.3),
            },
            _SMILE,
        ),
        Variant(
            0.36,
            {
                "mouthSmile": (0.9, 1.65),
                "cheekSquint": (0.35, 1.0),
                "eyeSquint": (0, 0.7),
                "mouthUpperUp": (0.4, 1.15),
                "mouthLowerDown": (0.05, 0.6),
                "mouthStretch": (0, 0.35),
                "toothyGrin": (0.1, 0.8),
                "jawOpen": (0.03, 0.18),
            },
            _SMILE,
        ),
        Variant(  # corners drawn aside more than up
            0.14,
            {
                "mouthSmile": (0.55, 1.0),
                "cheekSquint": (0.3, 0.9),
                "eyeSquint": (0, 0.5),
                "mouthUpperUp": (0.6, 1.2),
                "mouthLowerDown": (0.1, 0.6),
                "mouthStretch": (0.2, 0.6),
                "toothyGrin": (0.2, 0.9),
                "jawOpen": (0.05, 0.4),
            },
            _SMILE,
        ),
        Variant(
            0.26,
            {
                "mouthSmile": (0.9, 1.65),
                "cheekSquint": (0.5, 1.0),
                "eyeSquint": (0.1, 0.8),
                "mouthUpperUp": (0.45, 1.15),
                "mouthLowerDown": (0.2, 0.75),
                "mouthStretch": (0, 0.35),
                "toothyGrin": (0, 0.6),
                "jawOpen": (0.22, 0.62),
                "eyeBlink": (0, 0.5),
            },
            _SMILE,
        ),
    ),
    "sad": (
        Variant(
            0.38,
            {
                "browInnerUp": (1.0, 1.9),
                "browDown": (0, 0.45),
                "mouthFrown": (0.7, 1.4),
                "mouthShrugLower": (0.2, 0.9),
                "eyeBlink": (0.1, 0.4),
            },
            _GRIEF,
            look_down=0.45,
        ),
        Variant(
            0.24,
            {
                "browInnerUp": (1.1, 1.9),
                "mouthFrown": (0.4, 0.9),
                "mouthShrugLower": (0, 0.5),
                "eyeBlink": (0.2, 0.5),
                "mouthRollLower": (0, 0.4),
            },
            _GRIEF,
            look_down=0.65,
        ),
        Variant(  # crying
            0.38,
            {
                "browInnerUp": (0.9, 1.8),
                "browDown": (0.2, 0.8),
                "eyeSquint": (0.5, 1.0),
                "cheekSquint": (0.3, 0.85),
                "mouthStretch": (0.4, 1.0),
                "mouthFrown": (0.6, 1.3),
                "mouthShrugLower": (0.2, 0.8),
                "mouthUpperUp": (0.1, 0.5),
                "mouthLowerDown": (0.2, 0.75),
                "jawOpen": (0.02, 0.4),
                "eyeBlink": (0.2, 0.9),
            },
            {"tentBrows": (0.6, 0.3, 1.0), "bareTeeth": (0.4, 0.2, 0.6)},
            look_down=0.3,
        ),
    ),
    "angry": (
        Variant(  # pressed lips
            0.36,
            {
                "browDown": (0.9, 1.5),
                "noseSneer": (0, 0.5),
                "mouthRollLower": (0.15, 0.7),
                "mouthRollUpper": (0.1, 0.6),
                "mouthFrown": (0.1, 0.7),
                "mouthShrugLower": (0.1, 0.7),
                "mouthPress": (0, 0.3),
            },
            _RAGE,
        ),
        Variant(  # shouting
            0.3,
            {
                "browDown": (0.9, 1.5),
                "noseSneer": (0.1, 0.6),
                "jawOpen": (0.2, 0.75),
                "mouthUpperUp": (0.2, 0.9),
                "mouthLowerDown": (0.3, 1.0),
                "mouthFunnel": (0, 0.5),
                "mouthFrown": (0, 0.5),
                "mouthStretch": (0, 0.4),
                "cheekSquint": (0, 0.5),
            },
            _RAGE,
        ),
        Variant(  # bared teeth
            0.2,
            {
                "browDown": (0.9, 1.5),
                "noseSneer": (0.1, 0.5),
                "mouthUpperUp": (0.4, 0.9),
                "mouthLowerDown": (0.5, 1.1),
                "mouthFunnel": (0.1, 0.5),
                "jawOpen": (0.02, 0.12),
                "bareTeeth": (0.1, 0.8),
                "mouthFrown": (0, 0.5),
                "mouthStretch": (0, 0.5),
            },
            _RAGE,
        ),
        Variant(  # a glare over a raised chin
            0.14,
            {
                "browDown": (1.0, 1.6),
                "mouthShrugLower": (0.4, 1.0),
                "mouthShrugUpper": (0, 0.3),
                "mouthFrown": (0.3, 0.9),
            },
            _RAGE,
        ),
    ),
    "surprise": (
        Variant(
            0.85,
            {
                "browInnerUp": (0.9, 1.7),
                "browOuterUp": (0.8, 1.6),
                "eyeWide": (0.5, 1.4),
                "jawOpen": (0.3, 0.9),
            },
            _STARTLE,
        ),
        Variant(
            0.15,
            {
                "browInnerUp": (1.1, 1.8),
                "browOuterUp": (1.0, 1.7),
                "eyeWide": (0.7, 1.4),
                "jawOpen": (0.08, 0.3),
            },
            _STARTLE,
        ),
    ),
    "disgust": (
        Variant(
            0.55,
            {
                "noseSneer": (0.9, 1.7),
                "mouthUpperUp": (0.4, 1.2),
                "browDown": (0.2, 0.8),
                "eyeSquint": (0.3, 0.9),
                "cheekSquint": (0.2, 0.8),
                "mouthFrown": (0.2, 0.9),
                "mouthShrugLower": (0, 0.7),
            },
            _LOATHING,
        ),
        Variant(  # 10 + 17 + 4
            0.2,
            {
                "noseSneer": (0.7, 1.3),
                "mouthUpperUp": (0.7, 1.4),
                "browDown": (0.3, 0.9),
                "eyeSquint": (0.3, 0.9),
                "mouthShrugLower": (0.4, 1.0),
                "mouthFrown": (0.3, 0.9),
            },
            _LOATHING,
        ),
        Variant(  # retching, at times with the tongue out
            0.25,
            {
                "noseSneer": (0.9, 1.7),
                "mouthUpperUp": (0.4, 1.1),
                "browDown": (0.2, 0.8),
                "eyeSquint": (0.4, 1.0),
                "cheekSquint": (0.3, 0.9),
                "jawOpen": (0.15, 0.45),
                "mouthLowerDown": (0.2, 0.7),
                "mouthFrown": (0.2, 0.8),
            },
            {"tongueOut": (0.5, 0.3, 1.0), "mouthStretch": (0.5, 0, 0.4)},
        ),
    ),
    "fear": (
        Variant(
            0.6,
            {
                "browInnerUp": (1.0, 1.8),
                "browOuterUp": (0.1, 0.7),
                "browDown": (0.15, 0.6),
                "eyeWide": (0.7, 1.5),
                "mouthStretch": (0.6, 1.3),
                "mouthLowerDown": (0.1, 0.8),
                "jawOpen": (0.03, 0.45),
            },
            _DREAD,
        ),
        Variant(  # lips shut
            0.2,
            {
                "browInnerUp": (1.1, 1.8),
                "browOuterUp": (0.1, 0.5),
                "browDown": (0.2, 0.6),
                "eyeWide": (0.8, 1.5),
                "mouthStretch": (0.8, 1.4),
                "mouthFrown": (0.1, 0.4),
            },
            _DREAD,
        ),
        Variant(  # screaming
            0.2,
            {
                "browInnerUp": (1.0, 1.8),
                "browDown": (0.2, 0.6),
                "eyeWide": (0.8, 1.5),
                "mouthStretch": (0.7, 1.3),
                "mouthLowerDown": (0.4, 1.0),
                "mouthUpperUp": (0.1, 0.5),
                "jawOpen": (0.4, 0.8),
            },
            _DREAD,
        ),
    ),
}

# Actions of the rig that are not named as ARKit's are.
_OTHER_NAMES = {
    "nostrils": ("nose-left-dilatation", "nose-right-dilatation"),
    "neckTension": ("neck-platysma",),
    "toothyGrin": ("mouth-upward-retraction",),
    "bareTeeth": ("mouth-part-later",),
    "raiseLip": ("mouth-elevation",),
    "knitBrows": ("eyebrows-left-down", "eyebrows-right-down"),
    "tentBrows": ("eyebrows-left-inner-up", "eyebrows-right-inner-up"),
}


def sides_of(action: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """Targets of the rig that an action moves: left and right, or one.

    Raises:
        ValueError: For an action that is not among the `names` of the rig.
    """
    both = _OTHER_NAMES.get(action, (action,) if action in names else (f"{action}Left", f"{action}Right"))
    if missing := [name for name in both if name not in names]:
        raise ValueError(f"the rig has no action {missing}; it has {', '.join(names)}")
    return both


def draw_apex(label: str, rng: np.random.Generator) -> tuple[dict[str, float], float, float]:
    """One way to show a class at its height: weights by action, asymmetry, and how far eyes and head go down (0..1).

    `neutral` has no actions: resting faces differ by `identity.Person.rest`.
    """
    asymmetry = float(rng.choice([0.05, 0.12, 0.3], p=[0.45, 0.4, 0.15]))
    if label == "neutral":
        return {}, asymmetry, 0.0
    variants = EXPRESSIONS[label]
    variant = variants[rng.choice(len(variants), p=[v.share for v in variants])]
    apex = {action: float(rng.uniform(*span)) for action, span in variant.actions.items()}
    for action, (chance, low, high) in variant.sometimes.items():
        if rng.random() < chance:
            apex[action] = apex.get(action, 0.0) + float(rng.uniform(low, high))
    down = float(rng.uniform(0.3, 1.0)) if rng.random() < variant.look_down else 0.0
    return apex, asymmetry, down
