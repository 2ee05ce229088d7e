"""The inner loops: moving vertices, finding what each pixel shows, and its colour. Compiled by numba, one thread.

Arrays are float32 unless said otherwise. Textures are in head.py's layout. The functions are few, because each is
compiled once on every machine (`cache=True` keeps the result).
"""

from typing import Any

import numpy as np

try:
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
def sample(texture: Array, channel: Any, u: Any, v: Any) -> Any:
    """Bilinear value of a channel of a texture `(H, W, C)` at u (wrapped) and v (clamped), in texels."""
    height, width = texture.shape[:2]
    v = min(max(v - 0.5, 0.0), height - 1.001)
    u = u - 0.5
    left, top = int(np.floor(u)), int(v)
    du, dv = u - left, v - top
    left, right = left % width, (left + 1) % width
    above = texture[top, left, channel] * (1 - du) + texture[top, right, channel] * du
    below = texture[top + 1, left, channel] * (1 - du) + texture[top + 1, right, channel] * du
    return above * (1 - dv) + below * dv


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
        left, right = max(0, np.ceil(min(x0, x1, x2) - 0.5)), min(width - 1, np.floor(max(x0, x1, x2) - 0.5))
        top, bottom = max(0, np.ceil(min(y0, y1, y2) - 0.5)), min(height - 1, np.floor(max(y0, y1, y2) - 0.5))
        bias = -0.01 if part == 7 or part == 8 else 0.0
        for row in range(int(top), int(bottom) + 1):
            for column in range(int(left), int(right) + 1):
                x, y = column + 0.5, row + 0.5
                w1 = ((x - x0) * (y2 - y0) - (x2 - x0) * (y - y0)) / area
                w2 = ((x1 - x0) * (y - y0) - (x - x0) * (y1 - y0)) / area
                w0 = 1 - w1 - w2
                if w0 < 0 or w1 < 0 or w2 < 0 or (bias < 0 and (row + column) % 2):
                    continue
                z = w0 * depth[a] + w1 * depth[b] + w2 * depth[c] + bias
                if z >= shown[row, column]:
                    continue
                if part >= 9:
                    u = w0 * uv[a, 0] + w1 * uv[b, 0] + w2 * uv[c, 0]
                    v = w0 * uv[a, 1] + w1 * uv[b, 1] + w2 * uv[c, 1]
                    if sample(hair, part - 9, u, v) <= 0:
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
def shade(
    ids: Array,
    w: Array,
    triangles: Array,
    parts: Array,
    points: Array,
    normals: Array,
    uv: Array,
    openness: Array,
    lit: Array,
    inside: Array,
    skin: Array,
    folds: Array,
    fold_left: int,
    fold_top: int,
    hair_color: Array,
    lights: Array,
    ambient: Array,
    eyes: Array,
    colors: Array,
    surface: Array,
    image: Array,
) -> None:
    """Colour every pixel that shows the mesh, linear light.

    Args:
        points, normals: In the camera's axes: x to the right, y up, z to the camera.
        lit: Per vertex, share of the first light that reaches it.
        skin: `(H, W, 4)`: red, green, blue, gloss.
        folds: Window of the skin's height map, whose first texel lies at `fold_left`, `fold_top`.
        lights: `(L, 6)`: direction to the light, colour.
        ambient: `(2, 3)`: from above, from below.
        eyes: `(2, 8)`: centre, gaze, cosines of the iris's and the pupil's half angle.
        colors: `(5, 3)`: iris, sclera, teeth, inside of the mouth, lashes.
        surface: Gloss of skin, relief of folds, darkness of folds, wrap of red, of green and blue, cornea's gloss,
            reflection's sharpness, light in the mouth.
    """
    height, width = ids.shape
    gloss_all, relief, crease = surface[0], surface[1], surface[2]
    fold_height, fold_width = folds.shape[:2]
    for y in range(height):
        for x in range(width):
            i = ids[y, x]
            if i < 0:
                continue
            a, b, c = triangles[i, 0], triangles[i, 1], triangles[i, 2]
            w0, w1 = w[y, x, 0], w[y, x, 1]
            w2 = 1 - w0 - w1
            nx = w0 * normals[a, 0] + w1 * normals[b, 0] + w2 * normals[c, 0]
            ny = w0 * normals[a, 1] + w1 * normals[b, 1] + w2 * normals[c, 1]
            nz = w0 * normals[a, 2] + w1 * normals[b, 2] + w2 * normals[c, 2]
            open_ = w0 * openness[a] + w1 * openness[b] + w2 * openness[c]
            reach = w0 * lit[a] + w1 * lit[b] + w2 * lit[c]
            u = w0 * uv[a, 0] + w1 * uv[b, 0] + w2 * uv[c, 0]
            v = w0 * uv[a, 1] + w1 * uv[b, 1] + w2 * uv[c, 1]
            part = parts[i]
            gloss, sharpness = np.float32(0.0), surface[6]
            wrap_red, wrap = surface[3], surface[4]
            red, green, blue = np.float32(0.0), np.float32(0.0), np.float32(0.0)
            strand = False
            if part == 0:
                red, green = sample(skin, 0, u, v), sample(skin, 1, u, v)
                blue, gloss = sample(skin, 2, u, v), gloss_all * sample(skin, 3, u, v)
                fu, fv = u - fold_left, v - fold_top
                if 1 < fu < fold_width - 2 and 1 < fv < fold_height - 2:
                    here = sample(folds, 0, fu, fv)
                    slope_u = (sample(folds, 0, fu + 1, fv) - here) * relief
                    slope_v = (sample(folds, 0, fu, fv + 1) - here) * relief
                    # Folds are valleys: u runs to the subject's left, which is +x, v downwards.
                    across = np.sqrt(nx * nx + nz * nz) + 1e-6
                    nx += slope_u * nz / across
                    nz -= slope_u * nx / across
                    ny -= slope_v
                    shadow = max(0.25, 1 - crease * max(here, 0.0))
                    red *= 0.15 + 0.85 * shadow
                    green *= shadow
                    blue *= shadow
                    gloss *= shadow
                deep = w0 * inside[a] + w1 * inside[b] + w2 * inside[c]
                if deep > 0.02:
                    red = red * (1 - deep) + deep * colors[3, 0]
                    green = green * (1 - deep) + deep * colors[3, 1]
                    blue = blue * (1 - deep) + deep * colors[3, 2]
                    open_ = open_ * (1 - deep) + deep * surface[7] * 0.35
            elif part == 2 or part == 3:
                e = part - 2
                nx = w0 * points[a, 0] + w1 * points[b, 0] + w2 * points[c, 0] - eyes[e, 0]
                ny = w0 * points[a, 1] + w1 * points[b, 1] + w2 * points[c, 1] - eyes[e, 1]
                nz = w0 * points[a, 2] + w1 * points[b, 2] + w2 * points[c, 2] - eyes[e, 2]
                size = np.sqrt(nx * nx + ny * ny + nz * nz) + 1e-9
                nx, ny, nz = nx / size, ny / size, nz / size
                facing = nx * eyes[e, 3] + ny * eyes[e, 4] + nz * eyes[e, 5]
                iris, pupil = eyes[e, 6], eyes[e, 7]
                gloss, sharpness = surface[5], np.float32(90.0)
                wrap_red, wrap = np.float32(0.5), np.float32(0.5)
                if facing > iris:
                    along = (facing - iris) / (1 - iris)
                    hole = (pupil - iris) / (1 - iris)
                    tone = 0.45 + 0.9 * min(along / 0.18, 1.0)  # the dark ring around the iris
                    tone *= min(max((hole - along) / 0.06 + 0.5, 0.04), 1.0)
                    red, green, blue = colors[0, 0] * tone, colors[0, 1] * tone, colors[0, 2] * tone
                    # The cornea bulges, so it reflects lights from a wide angle.
                    nx += 0.35 * (nx - facing * eyes[e, 3])
                    ny += 0.35 * (ny - facing * eyes[e, 4])
                    gloss *= 2.2
                else:
                    edge = min((iris - facing) / 0.02, 1.0)
                    tone = 0.55 + 0.45 * edge
                    red, green, blue = colors[1, 0] * tone, colors[1, 1] * tone, colors[1, 2] * tone
            elif part == 4 or part == 5:
                groove = abs(u - np.floor(u) - 0.5)
                tone = 0.72 if groove > 0.43 else 1.0
                red, green, blue = colors[2, 0] * tone, colors[2, 1] * tone, colors[2, 2] * tone
                gloss, sharpness = np.float32(0.25), np.float32(40.0)
                open_ = (0.42 + 0.6 * open_) * surface[7]
                reach = max(reach, np.float32(0.5))
            elif part == 6:
                red, green, blue = colors[3, 0] * 1.9, colors[3, 1] * 1.7, colors[3, 2] * 1.7
                gloss = np.float32(0.2)
                open_ = (0.15 + 0.7 * open_) * surface[7]
                reach = max(reach, np.float32(0.4))
            elif part < 9:
                red, green, blue = colors[4, 0], colors[4, 1], colors[4, 2]
            else:
                red = sample(hair_color, 0, u, v)
                green = sample(hair_color, 1, u, v)
                blue = sample(hair_color, 2, u, v)
                strand = True
                wrap_red, wrap = np.float32(0.4), np.float32(0.4)
                gloss = np.float32(0.5) * (red + 0.02)
                open_ = 0.4 + 0.6 * open_
            if part >= 4 and nz < 0:
                nx, ny, nz = -nx, -ny, -nz
            size = np.sqrt(nx * nx + ny * ny + nz * nz) + 1e-9
            nx, ny, nz = nx / size, ny / size, nz / size
            up = 0.5 + 0.5 * ny
            # Light that bounces in a hollow of skin is red.
            light_red = (ambient[0, 0] * up + ambient[1, 0] * (1 - up)) * np.sqrt(open_) * np.sqrt(np.sqrt(open_))
            light_green = (ambient[0, 1] * up + ambient[1, 1] * (1 - up)) * open_
            light_blue = (ambient[0, 2] * up + ambient[1, 2] * (1 - up)) * open_
            shine_red, shine_green, shine_blue = np.float32(0.0), np.float32(0.0), np.float32(0.0)
            rim = 1 - max(nz, 0.0)
            fresnel = 0.6 + 1.6 * rim * rim * rim
            for n in range(len(lights)):
                cosine = nx * lights[n, 0] + ny * lights[n, 1] + nz * lights[n, 2]
                shadow = reach if n == 0 else np.float32(1.0)
                shadow *= min(1.0, 0.25 + open_)
                hard = max(0.0, (cosine + wrap) / (1 + wrap)) * shadow
                soft = max(0.0, (cosine + wrap_red) / (1 + wrap_red)) * (0.15 * (1 - shadow) * open_ + shadow)
                light_red += soft * lights[n, 3]
                light_green += hard * lights[n, 4]
                light_blue += hard * lights[n, 5]
                hx, hy, hz = lights[n, 0], lights[n, 1], lights[n, 2] + 1
                size = np.sqrt(hx * hx + hy * hy + hz * hz) + 1e-6
                if strand:
                    # Strands run downwards and shine across (Kajiya and Kay).
                    turn = hy / size
                    half = np.sqrt(max(0.0, 1 - turn * turn)) * max(0.0, min(1.0, cosine * 2 + 0.3))
                else:
                    half = (nx * hx + ny * hy + nz * hz) / size
                if half > 0.3 and gloss > 0.005:
                    shine = gloss * half**sharpness * shadow * fresnel
                    shine_red += shine * lights[n, 3]
                    shine_green += shine * lights[n, 4]
                    shine_blue += shine * lights[n, 5]
            image[y, x, 0] = red * light_red + shine_red
            image[y, x, 1] = green * light_green + shine_green
            image[y, x, 2] = blue * light_blue + shine_blue


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
