"""From a drawn case of the phantom to an image and its label; nothing is chosen here but noise and texture."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from semi_med.datasets.phantom_draw import Array, Blob, PhantomCase, Tube
from semi_med.inference.grids import turned

VEIN_MM = 10.0  # along a vein's centreline from the atrium, at scale 1: where its label ends
WALL_MM = {"left ventricle": 10.0, "right ventricle": 4.0, "right atrium": 2.2}  # of the others: 1.4
GROUPS = {  # what shares its blood, and its brightness; an earlier group keeps its place where two meet
    "left": ("left ventricle", "aorta", "descending aorta"),
    "outflow": ("right ventricle", "pulmonary trunk", "right pulmonary artery", "left pulmonary artery"),
    "right": ("right atrium", "superior vena cava", "inferior vena cava", "coronary sinus", "azygos vein"),
    "oesophagus": ("oesophagus",),
}


def render(case: PhantomCase) -> tuple[Array, Array, Array]:
    """Render a drawn case.

    Returns:
        image (i, j, k) of the case's integer type, label (i, j, k) uint8 with 1 for left atrium, and their
        affine (4, 4), voxel to RAS mm.
    """
    rng = np.random.default_rng([case.seed, case.case, 1])
    canvas = _Canvas(case)
    blood, label = _atrium(canvas, case)
    _paint_thorax(canvas, case, rng)
    _paint_heart(canvas, case, blood, label)
    image = _acquire(canvas.image, case, rng)
    image, affine = turned(image, canvas.affine, codes="".join(case.orientation))
    label, _ = turned((label < 0).astype(np.uint8), canvas.affine, codes="".join(case.orientation))
    return np.ascontiguousarray(image), np.ascontiguousarray(label), affine


class _Canvas:
    """The image under the brush, (i, j, k) in RAS order, and where each voxel lies in the anatomy."""

    def __init__(self, case: PhantomCase) -> None:
        matrix = Rotation.from_euler("xyz", case.tilt, degrees=True).as_matrix() * case.spacing
        middle = (np.array(case.shape) - 1) / 2
        self.affine = np.eye(4)
        self.affine[:3, :3], self.affine[:3, 3] = matrix, -matrix @ middle
        pose = Rotation.from_euler("xyz", case.rotation, degrees=True).as_matrix() * case.scale
        to_anatomy = np.eye(4)
        to_anatomy[:3, :3] = np.linalg.inv(pose)
        to_anatomy[:3, 3] = -to_anatomy[:3, :3] @ case.shift
        to_anatomy = to_anatomy @ self.affine
        self.to_voxel = np.linalg.inv(to_anatomy)
        self.edge = float(np.mean(case.spacing)) / case.scale  # mm at scale 1 over which a border is averaged
        axes = np.ogrid[tuple(slice(n) for n in case.shape)]
        self.position = np.empty((3, *case.shape), np.float32)
        for row, out in zip(to_anatomy, self.position, strict=False):
            out[:] = sum((np.float32(r) * axis.astype(np.float32) for r, axis in zip(row, axes, strict=False)), row[3])
        straight = self.position.copy()
        for vector, phase, displacement in case.waves:
            wave = np.sin(_dot(vector, straight) + np.float32(phase))
            self.position += _column(displacement) * wave
        self.image = np.zeros(case.shape, np.float32)

    def box(self, points: Any, reach: float) -> tuple[slice, ...]:
        """The voxels within `reach` mm of the points' bounding box, with room for the waves; may be empty."""
        voxels = np.asarray(points) @ self.to_voxel[:3, :3].T + self.to_voxel[:3, 3]
        room = (reach + 8.0) * np.linalg.norm(self.to_voxel[:3, :3], axis=1)
        low = np.clip(np.floor(voxels.min(0) - room), 0, self.image.shape).astype(int)
        high = np.clip(np.ceil(voxels.max(0) + room) + 1, low, self.image.shape).astype(int)
        return tuple(slice(a, b) for a, b in zip(low, high, strict=True))

    def at(self, box: tuple[slice, ...]) -> Array:
        """Anatomical positions (3, i, j, k) of a box's voxels."""
        return self.position[(slice(None), *box)]

    def cover(self, distance: Array) -> Array:
        """Share of a voxel inside, from a signed distance (mm, negative inside): exact for a plane across its axis."""
        return np.clip(np.float32(0.5) - distance / np.float32(self.edge), 0, 1)

    def paint(self, distance: Array, value: float | Array, box: tuple[slice, ...] = (), strength: float = 1.0) -> None:
        """Lay `value` over the image where the signed distance is negative."""
        part = self.image[box]
        part += np.float32(strength) * self.cover(distance) * (value - part)


def _vector(values: Any) -> Array:
    return np.asarray(values, np.float32)


def _column(values: Any) -> Array:
    return _vector(values)[:, None, None, None]


def _dot(vector: Any, position: Array) -> Array:
    return np.einsum("d,dijk->ijk", _vector(vector), position)  # not BLAS: the same bits for any number of threads


def _norm(position: Array) -> Array:
    return np.sqrt(np.einsum("dijk,dijk->ijk", position, position))


def _blob_distance(position: Array, blob: Blob, bumps: tuple[float, ...] = ()) -> Array:
    """Signed distance (mm) to an ellipsoid, of first order near its surface; `bumps` scale its radius by direction."""
    point = position - _column(blob.center)
    if blob.long_axis != (0.0, 0.0, 1.0):
        turn = Rotation.align_vectors([[0, 0, 1]], [blob.long_axis])[0].as_matrix()
        point = np.einsum("ed,dijk->eijk", _vector(turn), point)
    half = _column(blob.half_axes)
    point = point / half
    level = _norm(point) + np.float32(1e-6)
    slope = _norm(point / half) + np.float32(1e-6)
    if not bumps:
        return level * (level - 1) / slope
    x, y, z = point / level
    b = _vector(bumps)
    radius = 1 + b[0] * x * y + b[1] * y * z + b[2] * x * z + b[3] * (x * x - y * y) + b[4] * (y * y - z * z)
    radius += x * (b[5] * (2 * x * x - 1) + b[6] * y * z * 3) + y * b[7] * (2 * y * y - 1) + z * b[8] * (2 * z * z - 1)
    return level * (level - radius) / slope


def _tube_distance(position: Array, tube: Tube) -> tuple[Array, Array]:
    """Signed distance (mm) to a tube, and where along its centreline (mm from its second point) the nearest part is."""
    best = np.full(position.shape[1:], np.float32(1e3))
    along = np.zeros_like(best)
    lengths = np.linalg.norm(np.diff(tube.points, axis=0), axis=1)
    begin = -lengths[0]
    for start, end, r0, r1, length in zip(
        tube.points, tube.points[1:], tube.radii, tube.radii[1:], lengths, strict=False
    ):
        point = position - _column(start)
        line = np.subtract(end, start, dtype=np.float32)
        t = np.clip(_dot(line, point) / np.float32(length**2), 0, 1)
        point -= _column(line) * t
        distance = _norm(point) - (np.float32(r0) + np.float32(r1 - r0) * t)
        nearer = distance < best
        best = np.where(nearer, distance, best)
        along = np.where(nearer, np.float32(begin) + np.float32(length) * t, along)
        begin += length
    return best, along


def _join(a: Array, b: Array, reach: float = 5.0) -> Array:
    """Union of two signed distances with a fillet of `reach` mm, as at a vein's funnel-shaped mouth."""
    fillet = np.maximum(np.float32(reach) - np.abs(a - b), 0)
    return np.minimum(a, b) - fillet * fillet / np.float32(4 * reach)


def _atrium(canvas: _Canvas, case: PhantomCase) -> tuple[Array, Array]:
    """Signed distances (mm) to the atrium's blood with all veins, and to what is labeled of it."""
    blood = _blob_distance(canvas.position, case.atrium, case.bumps)
    for name in ("aorta", "right pulmonary artery", "descending aorta", "oesophagus"):  # these press into the atrium
        tube = case.vessels[name]
        box = canvas.box(tube.points, max(tube.radii) + 4)
        outside = case.gap - _tube_distance(canvas.at(box), tube)[0]
        blood[box] = -_join(-blood[box], -outside, 3.0)
    toward = np.subtract(case.mitral.points[2], case.mitral.points[1])
    toward = toward / np.linalg.norm(toward)
    plane = _dot(toward, canvas.position) - np.float32(toward @ case.mitral.points[1])
    label = np.maximum(blood, plane)
    for tube, length in [*((vein, VEIN_MM) for vein in case.veins), (case.appendage, np.inf)]:
        box = canvas.box(tube.points, max(tube.radii) + 10)
        distance, along = _tube_distance(canvas.at(box), tube)
        blood[box] = _join(blood[box], distance)
        label[box] = _join(label[box], np.maximum(distance, along - np.float32(length)))
    return blood, label


def _paint_thorax(canvas: _Canvas, case: PhantomCase, rng: np.random.Generator) -> None:
    """Fat and soft tissue, lungs, chest wall, spine, liver: all that lies behind the heart's chambers."""
    value, position = case.values, canvas.position
    strands = _smooth_noise(rng, case, 3.0)
    canvas.image[:] = value["soft"] + (value["fat"] - value["soft"]) * np.clip(0.5 + strands, 0, 1)
    for center in ((88.0, -10.0, 15.0), (-92.0, -12.0, 15.0)):
        blob = Blob(center, (50.0, 62.0, 105.0))
        canvas.paint(_blob_distance(position, blob) + 2 * strands, value["lung"])
    chest = 1 - _blob_distance(position, Blob((0.0, 10.0, 0.0), (125.0, 84.0, 400.0)))
    canvas.paint(chest, value["muscle"])
    spine = Blob((3.0, -70.0, 0.0), (20.0, 16.5, 400.0))
    box = canvas.box([(3, -70, -60), (3, -70, 60)], 24)
    distance = _blob_distance(canvas.at(box), spine)
    disc = np.abs(np.mod(canvas.at(box)[2] + 7 * case.bumps[0] * 100, 26) - 13) - 10
    bone = value["bone"] + (value["disc"] - value["bone"]) * canvas.cover(-disc)
    canvas.paint(distance - 2, 0.6 * value["soft"], box)
    canvas.paint(distance, bone, box)
    canvas.paint(_blob_distance(position, Blob((50.0, 25.0, -118.0), (95.0, 85.0, 75.0))), value["liver"])
    for tube in case.branches:
        box = canvas.box(tube.points, max(tube.radii) + 1)
        canvas.paint(_tube_distance(canvas.at(box), tube)[0], value["lung vessel"], box)


def _paint_heart(canvas: _Canvas, case: PhantomCase, blood: Array, label: Array) -> None:
    """Pericardial fat, walls, blood pools and the mitral valve; neighbours stay `gap` mm from each other's blood."""
    value = case.values
    pools, walls = zip(*(_union(canvas, case, names) for names in GROUPS.values()), strict=True)
    for wall in walls:
        canvas.paint(wall - 4, value["fat"], strength=0.8)
    for wall in walls:
        canvas.paint(wall, value["heart"])
    canvas.paint(blood - np.float32(case.wall), value["wall"])
    taken = blood
    for group, pool in zip(GROUPS, pools, strict=True):
        inside = np.maximum(pool, np.float32(case.gap) - taken)
        canvas.paint(inside, value[group])
        taken = np.minimum(taken, inside)
        if group == "oesophagus":
            canvas.paint(inside + 4, 0.5 * value[group])
    _paint_patches(canvas, case, label)
    box = canvas.box(case.mitral.points, max(case.mitral.radii) + 2)
    canvas.paint(_tube_distance(canvas.at(box), case.mitral)[0], value["left"], box)
    canvas.paint(blood, value["blood"])
    _paint_leaflets(canvas, case, box)


def _union(canvas: _Canvas, case: PhantomCase, names: tuple[str, ...]) -> tuple[Array, Array]:
    """Signed distances (mm) to the blood of some connected neighbours and to their outer walls."""
    inside = np.full(canvas.image.shape, np.float32(1e3))
    outside = inside.copy()
    for name in names:
        if name in case.pools:
            blob = case.pools[name]
            box = canvas.box([blob.center], max(blob.half_axes) + 16)
            distance = _blob_distance(canvas.at(box), blob)
        else:
            tube = case.vessels[name]
            box = canvas.box(tube.points, max(tube.radii) + 6)
            distance = _tube_distance(canvas.at(box), tube)[0]
        inside[box] = np.minimum(inside[box], distance)
        outside[box] = np.minimum(outside[box], distance - np.float32(WALL_MM.get(name, 1.4)))
    return inside, outside


def _paint_patches(canvas: _Canvas, case: PhantomCase, label: Array) -> None:
    """Enhanced fibrosis: bright patches within the atrium's wall, some leaking out of it."""
    direction = canvas.position / (_norm(canvas.position) + 1e-3)
    shell = canvas.cover(label - np.float32(case.wall))
    for center, width, brightness in case.patches:
        cosine = _dot(np.divide(center, np.linalg.norm(center)), direction)
        weight = shell * np.exp((cosine - 1) / np.float32(width**2))
        canvas.image += weight * (np.float32(brightness) - canvas.image)


def _paint_leaflets(canvas: _Canvas, case: PhantomCase, box: tuple[slice, ...]) -> None:
    """A faint dark cone over the valve's plane, within its annulus."""
    middle, end = _vector(case.mitral.points[1]), _vector(case.mitral.points[2])
    toward = (end - middle) / np.linalg.norm(end - middle)
    point = canvas.at(box) - _column(middle)
    height = _dot(toward, point)
    radius = np.sqrt(np.maximum(np.square(_norm(point)) - height * height, 0))
    cone = np.exp(-np.square((height - np.float32(5) + radius * np.float32(0.4)) / np.float32(1.5)))
    canvas.image[box] *= 1 - np.float32(case.leaflet) * cone * canvas.cover(radius - np.float32(case.mitral.radii[1]))


def _acquire(image: Array, case: PhantomCase, rng: np.random.Generator) -> Array:
    """What the scanner adds: texture, motion, uneven sensitivity, Rician noise, rounding to integers."""
    image = image * (1 + np.float32(case.texture) * _smooth_noise(rng, case, 2.0))
    steps = round(5.0 / case.spacing[2])  # breathing moves along z
    image += np.float32(case.ghost) * (np.roll(image, steps, axis=2) - image)
    image = ndimage.gaussian_filter(image, [case.blur / spacing for spacing in case.spacing], truncate=3)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in case.shape), indexing="ij", sparse=True)
    terms = (x, y, z, x * x, y * y, z * z)
    image *= np.exp(sum((np.float32(b) * term for b, term in zip(case.bias, terms, strict=True)), np.float32(0)))
    real, imaginary = (np.float32(case.noise) * _smooth_noise(rng, case, 0.5) for _ in range(2))
    image = np.sqrt(np.square(image + real) + np.square(imaginary))
    limits = np.iinfo(case.dtype)
    return np.clip(np.round(np.float32(case.peak) * image), 0, limits.max).astype(case.dtype)


def _smooth_noise(rng: np.random.Generator, case: PhantomCase, width: float) -> Array:
    """Gaussian noise (i, j, k) of unit standard deviation, correlated over about `width` mm."""
    noise = rng.standard_normal(case.shape, dtype=np.float32)
    noise = ndimage.gaussian_filter(noise, [width / spacing for spacing in case.spacing], mode="wrap", truncate=3)
    return noise / noise.std()
