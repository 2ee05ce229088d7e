"""The inner loops: moving vertices, finding what each pixel shows, and its colour. Compiled by numba, one thread.

Arrays are float32 unless said otherwise. Textures are in head.py's layout. The functions are few, because each is
compiled once on every machine (`cache=True` keeps the result).

What `shade` reads:

- `ids`, `w`: what `rasterize` found.
- `points`, `normals`: in the camera's axes: x to the right, y up, z to the camera.
- `openness`, `lit`, `inside`: per vertex: ambient visibility, share of the first light that reaches it, depth in the
  mouth.
- `skin`: `(H, W, 4)`: red, green, blue, gloss.
- `folds`, `corner`: window `(h, w, 1)` of the skin's height map, and column and row of its first texel.
- `lights`: `(L, 6)`: direction to the light, colour. `ambient`: `(2, 3)`: from above, from below.
- `eyes`: `(2, 8)`: centre, gaze, cosines of the iris's and the pupil's half angle.
- `colors`: `(5, 3)`: iris, sclera, teeth, inside of the mouth, lashes.
- `surface`: gloss of skin, relief of folds, darkness of folds, wrap of red, of green and blue, gloss of the cornea,
  sharpness of reflections on skin, light in the mouth.
"""

from typing import Any

import numpy as np

try:
    import scipy.ndimage  # noqa: F401 (of skin.py and world.py)
    from numba import njit
except ImportError as error:
    raise ImportError("Rendering faces needs numba and scipy: pip install 'modeling-stt[render]'") from error

Array = np.ndarray


@njit(cache=True, fastmath=True)
def deform(
    base: Array, starts: Array, vertices: Array, offsets: Array, weights: Array, scale: Any, out: Array
) -> None:
    """Add sparse targets to a mesh: `out = base + scale * Σ weights[k] * target k`.

    Target k moves `vertices[starts[k]:starts[k + 1]]` by the rows of `offsets` there.
    """
    out[:] = base
    for k in range(len(weights)):
        weight = weights[k] * scale
        if abs(weight) < 1e-4:
            continue
        for j in range(starts[k], starts[k + 1]):
            i = vertices[j]
            out[i, 0] += weight * offsets[j, 0]
            out[i, 1] += weight * offsets[j, 1]
            out[i, 2] += weight * offsets[j, 2]


@njit(cache=True, fastmath=True)
def vertex_normals(points: Array, triangles: Array, out: Array) -> None:
    """Unit normals of vertices, triangles weighted by area."""
    out[:] = 0
    for i in range(len(triangles)):
        a, b, c = triangles[i, 0], triangles[i, 1], triangles[i, 2]
        ux, uy, uz = points[b, 0] - points[a, 0], points[b, 1] - points[a, 1], points[b, 2] - points[a, 2]
        vx, vy, vz = points[c, 0] - points[a, 0], points[c, 1] - points[a, 1], points[c, 2] - points[a, 2]
        x, y, z = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for k in (a, b, c):
            out[k, 0] += x
            out[k, 1] += y
            out[k, 2] += z
    for i in range(len(out)):
        length = np.sqrt(out[i, 0] ** 2 + out[i, 1] ** 2 + out[i, 2] ** 2) + 1e-12
        out[i, 0] /= length
        out[i, 1] /= length
        out[i, 2] /= length


@njit(cache=True, fastmath=True)
def _locate(texture: Array, u: Any, v: Any) -> Any:
    """Find u (wrapped) and v (clamped), in texels, in a texture `(H, W, C)`: row, two columns, four weights."""
    height, width = texture.shape[:2]
    v = min(max(v - np.float32(0.5), np.float32(0)), np.float32(height - 1.001))
    u = u - np.float32(0.5)
    left, top = int(np.floor(u)), int(v)
    du, dv = np.float32(u - left), np.float32(v - top)
    left = left + width if left < 0 else left
    left = left - width if left >= width else left
    right = 0 if left + 1 == width else left + 1
    rest, above = np.float32(1) - du, np.float32(1) - dv
    return top, left, right, rest * above, du * above, rest * dv, du * dv


@njit(cache=True, fastmath=True)
def _fetch(texture: Array, channel: Any, place: Any) -> Any:
    """Bilinear value of a channel at a place that `_locate` gave."""
    top, left, right, a, b, c, d = place
    upper = a * texture[top, left, channel] + b * texture[top, right, channel]
    return upper + c * texture[top + 1, left, channel] + d * texture[top + 1, right, channel]


@njit(cache=True, fastmath=True)
def rasterize(
    xy: Array, depth: Array, triangles: Array, parts: Array, uv: Array, hair: Array, shown: Array, ids: Array, w: Array
) -> None:
    """Find the nearest triangle in each pixel: `ids` (-1: none), its first two barycentric weights `w`, `shown` depth.

    `depth` grows away from the camera. Skin, eyes and mouth (parts below 7) and the hair's shell (10) have one side.
    Lashes (7, 8) fill every other pixel. Hair (9, 10) is only where its opacity `hair[..., part - 9]` is above zero.
    """
    height, width = ids.shape
    shown[:] = 1e9
    ids[:] = -1
    for i in range(len(triangles)):
        a, b, c = triangles[i, 0], triangles[i, 1], triangles[i, 2]
        x0, y0, x1, y1, x2, y2 = xy[a, 0], xy[a, 1], xy[b, 0], xy[b, 1], xy[c, 0], xy[c, 1]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        part = parts[i]
        if ((part < 7 or part == 10) and area >= 0) or abs(area) < 1e-9:
            continue
        scale = 1 / area
        left, right = max(0, np.ceil(min(x0, x1, x2) - 0.5)), min(width - 1, np.floor(max(x0, x1, x2) - 0.5))
        top, bottom = max(0, np.ceil(min(y0, y1, y2) - 0.5)), min(height - 1, np.floor(max(y0, y1, y2) - 0.5))
        bias = -0.01 if part == 7 or part == 8 else 0.0
        for row in range(int(top), int(bottom) + 1):
            for column in range(int(left), int(right) + 1):
                x, y = column + 0.5, row + 0.5
                w1 = ((x - x0) * (y2 - y0) - (x2 - x0) * (y - y0)) * scale
                w2 = ((x1 - x0) * (y - y0) - (x - x0) * (y1 - y0)) * scale
                w0 = 1 - w1 - w2
                if w0 < 0 or w1 < 0 or w2 < 0 or (bias < 0 and (row + column) % 2):
                    continue
                z = w0 * depth[a] + w1 * depth[b] + w2 * depth[c] + bias
                if z >= shown[row, column]:
                    continue
                if part >= 9:
                    u = w0 * uv[a, 0] + w1 * uv[b, 0] + w2 * uv[c, 0]
                    v = w0 * uv[a, 1] + w1 * uv[b, 1] + w2 * uv[c, 1]
                    if _fetch(hair, part - 9, _locate(hair, u, v)) <= 0:
                        continue
                shown[row, column] = z
                ids[row, column] = i
                w[row, column, 0] = w0
                w[row, column, 1] = w1


@njit(cache=True, fastmath=True)
def cast_shadows(xy: Array, depth: Array, shown: Array, bias: Any, out: Array) -> None:
    """Share of the light that reaches each vertex, 0..1: `xy` and `depth` are seen from the lamp, as `shown` is."""
    height, width = shown.shape
    for i in range(len(out)):
        lit = 0
        for dy in range(-1, 2):
            for dx in range(-1, 2):
                x = min(max(int(xy[i, 0] + 1.2 * dx), 0), width - 1)
                y = min(max(int(xy[i, 1] + 1.2 * dy), 0), height - 1)
                if depth[i] < shown[y, x] + bias:
                    lit += 1
        out[i] = lit / 9


@njit(cache=True, fastmath=True)
def blend_wrinkles(still: Array, channels: Array, weights: Array, middle: Any, out: Array) -> None:
    """Height of the skin's folds: `still` plus each channel `(H, W, K)` by its weight in `weights` (2, K).

    Row 0 of the weights is for the half with u below `middle`, the subject's right; row 1 for the other.
    """
    height, width, kinds = channels.shape
    for v in range(height):
        for u in range(width):
            side = 0 if u < middle else 1
            total = still[v, u]
            for k in range(kinds):
                total += channels[v, u, k] * weights[side, k]
            out[v, u, 0] = total


@njit(cache=True, fastmath=True)
def _skin_at(u: Any, v: Any, nx: Any, ny: Any, nz: Any, skin: Array, folds: Array, corner: Any, surface: Array) -> Any:
    """Colour, gloss and normal of the skin at a texel, bent and darkened by the folds there."""
    place = _locate(skin, u, v)
    red, green, blue = _fetch(skin, 0, place), _fetch(skin, 1, place), _fetch(skin, 2, place)
    gloss = surface[0] * _fetch(skin, 3, place)
    fu, fv = u - corner[0], v - corner[1]
    if 1 < fu < folds.shape[1] - 2 and 1 < fv < folds.shape[0] - 2:
        here = _fetch(folds, 0, _locate(folds, fu, fv))
        slope_u = (_fetch(folds, 0, _locate(folds, fu + 1, fv)) - here) * surface[1]
        slope_v = (_fetch(folds, 0, _locate(folds, fu, fv + 1)) - here) * surface[1]
        # Folds are valleys: u runs to the subject's left, which is +x, v downwards.
        across = np.sqrt(nx * nx + nz * nz) + np.float32(1e-6)
        nx, nz = nx + slope_u * nz / across, nz - slope_u * nx / across
        ny -= slope_v
        shadow = max(np.float32(0.25), 1 - surface[2] * max(here, np.float32(0)))
        red *= np.float32(0.15) + np.float32(0.85) * shadow
        green, blue, gloss = green * shadow, blue * shadow, gloss * shadow
    return red, green, blue, gloss, nx, ny, nz


@njit(cache=True, fastmath=True)
def _eye_at(x: Any, y: Any, z: Any, eye: Array, colors: Array) -> Any:
    """Colour, factor of gloss and normal of the eyeball at a point that is x, y, z from its centre."""
    size = 1 / (np.sqrt(x * x + y * y + z * z) + np.float32(1e-9))
    x, y, z = x * size, y * size, z * size
    facing = x * eye[3] + y * eye[4] + z * eye[5]
    iris, pupil = eye[6], eye[7]
    if facing > iris:
        along, hole = (facing - iris) / (1 - iris), (pupil - iris) / (1 - iris)
        tone = 0.45 + 0.9 * min(along / 0.18, 1.0)  # the dark ring around the iris
        tone *= min(max((hole - along) / 0.06 + 0.5, 0.04), 1.0)
        # The cornea bulges, so it reflects lights from a wide angle.
        x, y = x + 0.35 * (x - facing * eye[3]), y + 0.35 * (y - facing * eye[4])
        return colors[0, 0] * tone, colors[0, 1] * tone, colors[0, 2] * tone, 2.2, x, y, z
    tone = 0.55 + 0.45 * min((iris - facing) / 0.02, 1.0)
    return colors[1, 0] * tone, colors[1, 1] * tone, colors[1, 2] * tone, 1.0, x, y, z


@njit(cache=True, fastmath=True)
def _reflect(
    nx: Any, ny: Any, nz: Any, color: Any, gloss: Any, sharpness: Any, wraps: Any, open_: Any, reach: Any,
    strand: Any, lights: Array, ambient: Array,
) -> Any:  # fmt: skip
    """Light that a surface of this colour and unit normal sends to the camera: red, green, blue."""
    up = 0.5 + 0.5 * ny
    # Light that bounces in a hollow of skin is red.
    half_open = np.sqrt(open_)
    red = (ambient[0, 0] * up + ambient[1, 0] * (1 - up)) * half_open * np.sqrt(half_open)
    green = (ambient[0, 1] * up + ambient[1, 1] * (1 - up)) * open_
    blue = (ambient[0, 2] * up + ambient[1, 2] * (1 - up)) * open_
    shine_red, shine_green, shine_blue = 0.0, 0.0, 0.0
    rim = 1 - max(nz, 0.0)
    gloss *= 0.6 + 1.6 * rim * rim * rim
    for n in range(len(lights)):
        lx, ly, lz = lights[n, 0], lights[n, 1], lights[n, 2]
        cosine = nx * lx + ny * ly + nz * lz
        shadow = (reach if n == 0 else 1.0) * min(1.0, 0.25 + open_)
        hard = max(0.0, (cosine + wraps[1]) / (1 + wraps[1])) * shadow
        red += max(0.0, (cosine + wraps[0]) / (1 + wraps[0])) * (0.15 * (1 - shadow) * open_ + shadow) * lights[n, 3]
        green += hard * lights[n, 4]
        blue += hard * lights[n, 5]
        if gloss > 0.005:
            size = 1 / np.sqrt(lx * lx + ly * ly + (lz + 1) * (lz + 1) + 1e-6)
            half = (nx * lx + ny * ly + nz * (lz + 1)) * size
            if strand:  # strands run downwards and shine across (Kajiya and Kay)
                half = np.sqrt(max(0.0, 1 - ly * ly * size * size)) * max(0.0, min(1.0, cosine * 2 + 0.3))
            if half > 0.3:
                # Schlick's approximation of half ** sharpness.
                shine = gloss * half / (sharpness - sharpness * half + half) * shadow
                shine_red += shine * lights[n, 3]
                shine_green += shine * lights[n, 4]
                shine_blue += shine * lights[n, 5]
    return color[0] * red + shine_red, color[1] * green + shine_green, color[2] * blue + shine_blue


@njit(cache=True, fastmath=True)
def shade(
    ids: Array, w: Array, triangles: Array, parts: Array, points: Array, normals: Array, uv: Array, openness: Array,
    lit: Array, inside: Array, skin: Array, folds: Array, corner: Any, hair_color: Array, lights: Array,
    ambient: Array, eyes: Array, colors: Array, surface: Array, image: Array,
) -> None:  # fmt: skip
    """Colour every pixel of `image` that shows the mesh, linear light; see the module for the arrays."""
    for y in range(ids.shape[0]):
        for x in range(ids.shape[1]):
            i = ids[y, x]
            if i < 0:
                continue
            a, b, c = triangles[i, 0], triangles[i, 1], triangles[i, 2]
            w0, w1 = w[y, x, 0], w[y, x, 1]
            w2 = np.float32(1) - w0 - w1
            nx = w0 * normals[a, 0] + w1 * normals[b, 0] + w2 * normals[c, 0]
            ny = w0 * normals[a, 1] + w1 * normals[b, 1] + w2 * normals[c, 1]
            nz = w0 * normals[a, 2] + w1 * normals[b, 2] + w2 * normals[c, 2]
            open_ = w0 * openness[a] + w1 * openness[b] + w2 * openness[c]
            reach = w0 * lit[a] + w1 * lit[b] + w2 * lit[c]
            u, v = w0 * uv[a, 0] + w1 * uv[b, 0] + w2 * uv[c, 0], w0 * uv[a, 1] + w1 * uv[b, 1] + w2 * uv[c, 1]
            part = parts[i]
            color, gloss, sharpness = (colors[4, 0], colors[4, 1], colors[4, 2]), np.float32(0), surface[6]
            wraps = surface[3], surface[4]
            if part == 0:
                red, green, blue, gloss, nx, ny, nz = _skin_at(u, v, nx, ny, nz, skin, folds, corner, surface)
                deep = w0 * inside[a] + w1 * inside[b] + w2 * inside[c]
                if deep > 0.02:
                    red, green = red + deep * (colors[3, 0] - red), green + deep * (colors[3, 1] - green)
                    blue, open_ = blue + deep * (colors[3, 2] - blue), open_ + deep * (surface[7] * 0.35 - open_)
                color = red, green, blue
            elif part == 2 or part == 3:
                e = eyes[part - 2]
                px = w0 * points[a, 0] + w1 * points[b, 0] + w2 * points[c, 0] - e[0]
                py = w0 * points[a, 1] + w1 * points[b, 1] + w2 * points[c, 1] - e[1]
                pz = w0 * points[a, 2] + w1 * points[b, 2] + w2 * points[c, 2] - e[2]
                red, green, blue, gloss, nx, ny, nz = _eye_at(px, py, pz, e, colors)
                color, wraps = (red, green, blue), (np.float32(0.5), np.float32(0.5))
                gloss, sharpness = gloss * surface[5], np.float32(300)
                open_ *= np.float32(0.7)  # lids and lashes keep light away
            elif part == 4 or part == 5:
                tone = np.float32(0.88 if abs(u - np.floor(u) - 0.5) > 0.45 else 1.0)  # gaps between the teeth
                color = colors[2, 0] * tone, colors[2, 1] * tone, colors[2, 2] * tone
                gloss, sharpness = np.float32(0.25), np.float32(40)
                open_, reach = (0.8 + 0.3 * open_) * surface[7], max(reach, np.float32(0.6))
                wraps = np.float32(0.7), np.float32(0.7)  # enamel scatters: teeth are bright from all sides
            elif part == 6:
                color = colors[3, 0] * np.float32(1.9), colors[3, 1] * np.float32(1.7), colors[3, 2] * np.float32(1.7)
                gloss, reach = np.float32(0.2), max(reach, np.float32(0.4))
                open_ = (0.15 + 0.7 * open_) * surface[7]
            elif part >= 9:
                place = _locate(hair_color, u, v)
                color = _fetch(hair_color, 0, place), _fetch(hair_color, 1, place), _fetch(hair_color, 2, place)
                gloss, wraps = np.float32(0.5) * (color[0] + np.float32(0.02)), (np.float32(0.4), np.float32(0.4))
                open_ = 0.4 + 0.6 * open_
            flip = np.float32(-1 if part >= 4 and nz < 0 else 1)
            size = flip / (np.sqrt(nx * nx + ny * ny + nz * nz) + np.float32(1e-9))
            image[y, x, 0], image[y, x, 1], image[y, x, 2] = _reflect(
                nx * size, ny * size, nz * size, color, gloss, sharpness, wraps, open_, reach, part >= 9, lights,
                ambient,
            )  # fmt: skip


@njit(cache=True, fastmath=True)
def expose(light: Array, gains: Array, knee: Any, curve: Array, tone: Array, falloff: Array, out: Array) -> None:
    """Halve a picture of linear light `(2S, 2S, 3)` and bring it to display values `(S, S, 3)` in 0..1.

    Args:
        gains: `(3,)`, exposure by channel; then highlights are compressed by `knee` and `curve` (4096,) is applied.
        tone: Saturation, contrast, brightness.
        falloff: `(S,)`, what the lens loses towards the edges, across and down.
    """
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            total = np.float32(0)
            for k in range(3):
                value = light[2 * y, 2 * x, k] + light[2 * y + 1, 2 * x, k]
                value = (value + light[2 * y, 2 * x + 1, k] + light[2 * y + 1, 2 * x + 1, k]) * gains[k]
                value = value / (1 + knee * value)
                out[y, x, k] = curve[int(min(max(value, 0.0), 1.0) * 4095)]
                total += out[y, x, k]
            grey = total / 3
            for k in range(3):
                value = (grey + (out[y, x, k] - grey) * tone[0] - 0.5) * tone[1] + 0.5 + tone[2]
                out[y, x, k] = value * (1 - falloff[y] - falloff[x])


@njit(cache=True, fastmath=True)
def ambient_occlusion(points: Array, normals: Array, triangles: Array, directions: Array, reach: Any) -> Array:
    """Share of the hemisphere over each point that no triangle within `reach` hides, weighted by the cosine."""
    seen = np.zeros(len(points))
    for i in range(len(points)):
        ox, oy = points[i, 0] + 0.004 * normals[i, 0], points[i, 1] + 0.004 * normals[i, 1]
        oz = points[i, 2] + 0.004 * normals[i, 2]
        total, free = 1e-6, 0.0
        for k in range(len(directions)):
            dx, dy, dz = directions[k, 0], directions[k, 1], directions[k, 2]
            cosine = dx * normals[i, 0] + dy * normals[i, 1] + dz * normals[i, 2]
            if cosine <= 0.05:
                continue
            total += cosine
            hit = False
            for j in range(len(triangles)):
                a, b, c = triangles[j, 0], triangles[j, 1], triangles[j, 2]
                bx, by, bz = points[b, 0] - points[a, 0], points[b, 1] - points[a, 1], points[b, 2] - points[a, 2]
                cx, cy, cz = points[c, 0] - points[a, 0], points[c, 1] - points[a, 1], points[c, 2] - points[a, 2]
                px, py, pz = dy * cz - dz * cy, dz * cx - dx * cz, dx * cy - dy * cx
                area = bx * px + by * py + bz * pz
                if abs(area) < 1e-12:
                    continue
                tx, ty, tz = ox - points[a, 0], oy - points[a, 1], oz - points[a, 2]
                u = (tx * px + ty * py + tz * pz) / area
                if u < 0 or u > 1:
                    continue
                qx, qy, qz = ty * bz - tz * by, tz * bx - tx * bz, tx * by - ty * bx
                v = (dx * qx + dy * qy + dz * qz) / area
                if v < 0 or u + v > 1:
                    continue
                if 1e-4 < (cx * qx + cy * qy + cz * qz) / area < reach:
                    hit = True
                    break
            if not hit:
                free += cosine
        seen[i] = free / total
    return seen
