"""A person's identity: age, sex, origin and shape of a head, and the face's habits at rest."""

from dataclasses import dataclass

import numpy as np

from .head import load_head, shape_groups

ORIGINS = ("african", "asian", "caucasian")
AGES = ("child", "young", "middle", "old")
EYE_DISTANCE = 0.616  # decimetres between the eyes of the base mesh, by which other heads are scaled

Array = np.ndarray


@dataclass(frozen=True)
class Traits:
    """Traits of a person that are sampled before anything is painted.

    Args:
        male: 0 female .. 1 male; in between, features of both.
        age: One of `AGES`.
        old: How far towards old age, 0..1.
        origin: Shares of `ORIGINS`, which add up to 1.
        melanin: Skin tone, 0 lightest .. 5 darkest.
    """

    male: float
    age: str
    old: float
    origin: tuple[float, float, float]
    melanin: float

    def to_dict(self) -> dict[str, float | str]:
        """As a flat dictionary, for the truth that is written with a clip."""
        shares = {name: round(share, 4) for name, share in zip(ORIGINS, self.origin, strict=True)}
        return {
            "male": round(self.male, 4),
            "age": self.age,
            "old": round(self.old, 4),
            **shares,
            "melanin": round(self.melanin, 4),
        }


def draw_traits(rng: np.random.Generator) -> Traits:
    """Sample a person: all ages but babies, both sexes, all origins."""
    male = float(rng.uniform(0, 0.3) + 0.7 * (rng.random() < 0.5))
    age = str(rng.choice(AGES, p=[0.08, 0.47, 0.29, 0.16]))
    old = float(
        {"child": 0, "young": rng.uniform(0, 0.2), "middle": rng.uniform(0.2, 0.6)}.get(age, rng.uniform(0.6, 1))
    )
    african, asian, caucasian = (float(share) for share in rng.dirichlet([0.45, 0.45, 0.65]))
    tone = 0.72 * african + 0.3 * asian + 0.17 * caucasian + rng.normal(0, 0.11)
    return Traits(male, age, old, (african, asian, caucasian), float(np.clip(5 * tone, 0, 5)))


def draw_shape(traits: Traits, rng: np.random.Generator) -> Array:
    """Vertices `(V, 3)` of a person's head at rest, float32: age, sex and origin first, then local shapes."""
    head = load_head()
    points = head.points.copy()
    for name, weight in _build_weights(traits, rng):
        head.builds.add_to(points, name, weight)
    # Eyes of the base mesh are small and close together and its mouth is narrow, compared with people's: a network
    # that learns from them takes resting eyes for wide ones, and a resting mouth for a stretched one.
    for shape, mean, spread in (("eye-trans-out", 0.35, 0.2), ("eye-scale-incr", 0.55, 0.3)):
        weight = rng.normal(mean, spread)
        for side in "lr":
            head.shapes.add_to(points, f"eyes/{side}-{shape}", weight)
    head.shapes.add_to(points, "mouth/mouth-scale-horiz-incr", rng.normal(0.6, 0.5))
    spread = rng.uniform(0.1, 0.3)
    for alternatives in shape_groups():
        if rng.random() >= 0.55:
            continue
        targets = alternatives[rng.integers(len(alternatives))]
        weight = min(abs(rng.normal(0, spread)), 0.85) * (0.5 if targets[0].startswith("asym") else 1)
        for name in targets:
            head.shapes.add_to(points, name, weight * rng.uniform(0.85, 1.15))
    return points


def _build_weights(traits: Traits, rng: np.random.Generator) -> list[tuple[str, float]]:
    """Names and weights of the targets of age, sex, origin, muscle and weight."""
    child = rng.uniform(0.25, 0.8) if traits.age == "child" else 0.0
    ages = {"child": child, "old": (1 - child) * traits.old, "young": (1 - child) * (1 - traits.old)}
    weight, muscle = rng.normal(0, 0.45), rng.uniform(0, 1)
    weights = {"minweight": max(0.0, -weight), "maxweight": max(0.0, weight), "averageweight": 1 - min(1, abs(weight))}
    muscles = {"minmuscle": muscle, "averagemuscle": 1 - muscle}
    found = []
    for sex, sex_share in (("male", traits.male), ("female", 1 - traits.male)):
        for age, age_share in ages.items():
            share = sex_share * age_share
            found += [
                (f"{origin}-{sex}-{age}", share * part) for origin, part in zip(ORIGINS, traits.origin, strict=True)
            ]
            found += [
                (f"universal-{sex}-{age}-{m}-{w}", share * m_share * w_share)
                for m, m_share in muscles.items()
                for w, w_share in weights.items()
            ]
    known = set(load_head().builds.names)
    return [(name, float(share)) for name, share in found if share > 1e-3 and name in known]


def draw_rest(rng: np.random.Generator) -> dict[str, float]:
    """Weights by action of a person's resting face: brows, lids and mouths that only seem sad, stern, amused."""
    rest = {
        "browDown": max(0, rng.normal(0.05, 0.45)),
        "browInnerUp": max(0, rng.normal(0, 0.25)),
        "browOuterUp": max(0, rng.normal(0, 0.25)),
        "eyeBlink": max(0, rng.normal(0.06, 0.13)),
        "eyeWide": max(0, rng.normal(0.1, 0.3)),
        "eyeSquint": max(0, rng.normal(0.05, 0.36)),
        "mouthFrown": max(0, rng.normal(-0.1, 0.25)),
        "mouthSmile": max(0, rng.normal(0.05, 0.16)),
        "mouthStretch": max(0, rng.normal(0, 0.2)),
        "mouthPress": max(0, rng.normal(-0.05, 0.16)),
        "mouthShrugLower": max(0, rng.normal(-0.05, 0.2)),
        "mouthRollLower": max(0, rng.normal(-0.1, 0.2)),
        "mouthRollUpper": max(0, rng.normal(-0.1, 0.2)),
        "mouthPucker": max(0, rng.normal(-0.1, 0.2)),
        "mouthUpperUp": max(0, rng.normal(-0.1, 0.12)),
        "jawOpen": max(0, rng.normal(-0.03, 0.05)),
        "cheekSquint": max(0, rng.normal(-0.05, 0.15)),
        "noseSneer": max(0, rng.normal(-0.15, 0.15)),
    }
    return {action: float(weight) for action, weight in rest.items() if weight > 0.01}
