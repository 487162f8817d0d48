"""An embedded data set: drawings that imitate late-gadolinium MR of a left atrium.

THIS IS A DRAWING FOR DEMOS AND TESTS, NOT ANATOMY. It was measured on nobody. No figure obtained on it (a Dice, a rank
of methods, a threshold) says anything about patients or about real scans.

What it imitates: the left atrium between neighbours of nearly its brightness behind thin, partly volume-averaged walls
(right atrium, ventricles, aorta, pulmonary arteries, coronary sinus), pulmonary veins that stay bright beyond the
labeled length, a mitral orifice where only a plane ends the label, enhanced patches in the wall, and between cases:
pose, shape, contrast, bias field, motion, Rician noise, matrix, spacing, oblique affine, axis order, integer type.

Frames: anatomy is described in RAS mm round the atrium (x to the right, y to the front, z to the head; `Tube`, `Blob`)
at scale 1; a case's pose puts it into the scanner's RAS mm, and the affine of the file leads there from voxels.
Everything is drawn first (`draw_case`) and rendered by a function without choices of its own (`render`).
"""

from __future__ import annotations

import gzip
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import nibabel as nib
import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from semi_med.data.data_list import DataList, save_data_list
from semi_med.errors import InputError

Point = tuple[float, float, float]
Array = np.ndarray[Any, Any]
Size = Literal["demo", "large"]

CASES: Mapping[str, int] = MappingProxyType({"labeled": 4, "unlabeled": 16, "validation": 4, "test": 8})
VEIN_MM = 10.0  # along a vein's centreline from the atrium, at scale 1: where its label ends
WALL_MM = {"left ventricle": 10.0, "right ventricle": 4.0, "right atrium": 2.2}  # of the others: 1.4
GROUPS = {  # what shares its blood, and its brightness; an earlier group keeps its place where two meet
    "left": ("left ventricle", "aorta", "descending aorta"),
    "outflow": ("right ventricle", "pulmonary trunk", "right pulmonary artery", "left pulmonary artery"),
    "right": ("right atrium", "superior vena cava", "inferior vena cava", "coronary sinus", "azygos vein"),
    "oesophagus": ("oesophagus",),
}
ORIENTATIONS = ("RAS", "LPS", "LAS", "RPI", "PIR", "ASL")
NOTE = "A drawing for demos and tests, not anatomy: no figure obtained on it says anything about patients."


class Tube(NamedTuple):
    """A chain of round cones: points (n, 3) and radii (n,) in RAS mm at scale 1."""

    points: tuple[Point, ...]
    radii: tuple[float, ...]


class Blob(NamedTuple):
    """An ellipsoid in RAS mm at scale 1; `long_axis` is the direction of the third half-axis."""

    center: Point
    half_axes: Point
    long_axis: Point = (0.0, 0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class PhantomCase:
    """All that was drawn for one case. Lengths in mm at scale 1, brightness relative to the atrium's blood.

    Only the voxel noise and the texture are drawn later, by `render`, from the generator of [seed, case, 1].
    """

    seed: int
    case: int
    shape: tuple[int, int, int]  # voxels along right, front, head, before the axes are reordered
    spacing: Point
    tilt: Point  # of the scan, degrees about x, y, z
    orientation: str
    dtype: str
    peak: float  # stored value of the atrium's blood
    rotation: Point  # of the patient, degrees
    scale: float
    shift: Point  # mm in the scanner
    waves: tuple[tuple[Point, float, Point], ...]  # wave vector (rad/mm), phase, displacement (mm)
    atrium: Blob
    bumps: tuple[float, ...]  # radial harmonics of the atrium, relative
    veins: tuple[Tube, ...]
    branches: tuple[Tube, ...]  # of veins and arteries in the lungs, never labeled
    appendage: Tube
    mitral: Tube  # inside the atrium, on the valve plane, inside the ventricle
    pools: Mapping[str, Blob]
    vessels: Mapping[str, Tube]
    wall: float
    gap: float  # wall between the atrium's blood and a neighbour's
    patches: tuple[tuple[Point, float, float], ...]  # direction, angular width (rad), brightness
    leaflet: float  # darkening by the valve's leaflets
    values: Mapping[str, float]
    texture: float
    bias: tuple[float, ...]  # log gain: 3 linear and 3 quadratic terms over half the field of view
    ghost: float  # share of a copy displaced by breathing
    blur: float  # mm
    noise: float


def draw_case(case: int, *, seed: int = 0, size: Size = "demo") -> PhantomCase:
    """Draw one case; it depends on `seed`, `case` and `size` alone, not on how many cases there are.

    Args:
        case: number of the case, from 0.
        seed: of the whole data set, from 0.
        size: `demo`, 72-88 x 72-88 x 48-60 voxels of 1.25-1.6 mm; `large`, 148-244 x 132-200 x 88 of 0.625 mm.

    Raises:
        InputError: if `size` is another word or a number is negative.
    """
    if size not in ("demo", "large"):
        raise InputError(f"size must be demo or large, got {size!r}", where="phantom", fix="Choose one of the two.")
    if case < 0 or seed < 0:
        raise InputError(f"seed and case must be 0 or more, got {seed} and {case}", where="phantom")
    rng = np.random.default_rng([seed, case])
    scale = rng.uniform(0.88, 1.14)
    anatomy = _draw_anatomy(rng)
    return PhantomCase(
        seed=seed, case=case, scale=scale, **_draw_grid(rng, scale, size), **anatomy, **_draw_signal(rng)
    )


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
    order = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(np.eye(4)), nib.orientations.axcodes2ornt(case.orientation)
    )
    affine = canvas.affine @ nib.orientations.inv_ornt_aff(order, case.shape)
    stored = (nib.orientations.apply_orientation(array, order) for array in (image, (label < 0).astype(np.uint8)))
    image, label = (np.ascontiguousarray(array) for array in stored)
    return image, label, affine


def prepare(
    target: str | Path,
    *,
    cases: Mapping[str, int] = CASES,
    seed: int = 0,
    size: Size = "demo",
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the phantom: `images/`, `labels/` and `data_list.json`. Repeated on one machine, it writes the same bytes.

    Cases are numbered through the sections labeled, unlabeled, validation, test. The labels of unlabeled cases are
    written too and named as `monitor_label`, which nothing opens unless it is asked to.

    Args:
        target: folder, made if it is missing.
        cases: number of cases for each section; a section that is not named gets none.
        seed: of the whole data set.
        size: see `draw_case`.
        progress: called with (cases done, cases in all) after each case.

    Returns:
        the path of the data list.

    Raises:
        InputError: if a section is unknown, a number is negative or there is no case at all.
    """
    _check_counts(cases)
    target = Path(target)
    sections: dict[str, list[dict[str, str]]] = {name: [] for name in CASES}
    places = [name for name in CASES for _ in range(cases.get(name, 0))]
    for number, section in enumerate(places):
        name = f"phantom_{number:03d}"
        image, label, affine = render(draw_case(number, seed=seed, size=size))
        _write(target / "images" / f"{name}.nii.gz", image, affine)
        _write(target / "labels" / f"{name}.nii.gz", label, affine)
        key = "monitor_label" if section == "unlabeled" else "label"
        sections[section].append({"image": f"images/{name}.nii.gz", key: f"labels/{name}.nii.gz", "subject": name})
        if progress is not None:
            progress(number + 1, len(places))
    return _save_list(target / "data_list.json", sections, description=f"Seed {seed}, size {size}. {NOTE}")


def _check_counts(cases: Mapping[str, int]) -> None:
    """Refuse what is not a number of cases for each known section."""
    wrong = [f"{name}={number}" for name, number in cases.items() if name not in CASES or number < 0]
    if wrong or not sum(cases.values()):
        raise InputError(
            f"wanted 0 or more cases for {', '.join(CASES)}, got {', '.join(wrong) or 'none'}",
            where="phantom",
            fix='For example cases={"labeled": 4, "unlabeled": 16, "validation": 4, "test": 8}.',
        )


def _save_list(path: Path, sections: Mapping[str, list[dict[str, str]]], *, description: str) -> Path:
    """Write the data list of the cases."""
    head = {"name": "phantom", "description": description, "reference": "", "licence": "Apache-2.0"}
    modality = {"modality": {"0": "LGE-MR (phantom)"}, "labels": {"0": "background", "1": "left atrium"}}
    save_data_list(DataList.model_validate({**head, **modality, **sections}), path)
    return path


def _write(path: Path, array: Array, affine: Array) -> None:
    """Write a NIfTI file whole or not at all, with the same bytes each time (no time stamp in the gzip header)."""
    nifti = nib.Nifti1Image(array, affine)
    nifti.set_sform(affine, code=1)
    nifti.set_qform(affine, code=1)
    nifti.header.set_xyzt_units("mm")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".part", delete=False) as file:
        try:
            file.write(gzip.compress(nifti.to_bytes(), compresslevel=2, mtime=0))
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).chmod(0o644)
            os.replace(file.name, path)  # noqa: PTH105
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


# ---- drawing -------------------------------------------------------------------------------------------------------


def _draw_grid(rng: np.random.Generator, scale: float, size: Size) -> dict[str, Any]:
    """Matrix, spacing, pose and storage; the field of view follows the heart's size, like a crop round the atrium."""
    view = scale * np.array([109.0, 103.0, 67.0]) * rng.uniform(0.96, 1.08, 3)
    if size == "demo":
        in_plane = np.clip(1.27 + 0.9 * (scale - 0.88) + rng.normal(0, 0.04), 1.25, 1.6)
        spacing = np.array([in_plane, in_plane, np.clip(scale * rng.uniform(1.2, 1.35), 1.1, 1.6)])
        low, high = np.array([72, 72, 48]), np.array([88, 88, 60])
    else:
        spacing, low, high = np.full(3, 0.625), np.array([148, 132, 88]), np.array([244, 200, 88])
    shape = np.clip(np.round(view / spacing), low, high).astype(int)
    return {
        "shape": tuple(int(n) for n in shape),
        "spacing": _point(np.round(spacing, 4)),
        "tilt": _point(rng.uniform(-9, 9, 3)),
        "orientation": str(rng.choice(ORIENTATIONS, p=[0.3, 0.3, 0.1, 0.1, 0.1, 0.1])),
        "rotation": _point(rng.normal(0, [6, 6, 9])),
        "shift": _point(rng.uniform(-1, 1, 3) * [6, 5, 3]),
    }


def _draw_anatomy(rng: np.random.Generator) -> dict[str, Any]:
    """The atrium, its veins and appendage, and its neighbours."""
    half_axes = rng.uniform([31, 17, 15.5], [39, 23, 21])

    def surface(direction: Point, share: float = 1.0) -> Array:
        unit = np.array(direction) / np.linalg.norm(direction)
        return share * unit / np.linalg.norm(unit / half_axes)

    veins, branches = _draw_veins(rng, surface)
    hook = np.cumsum(rng.normal([[-9, 7, 3], [-5, 9, 2], [3, 8, -3]], [2, 2, 4]), axis=0)
    neck = surface(_point(rng.normal([-0.75, 0.6, 0.25], 0.08)))
    width = rng.uniform(0.8, 1.2)
    valve = surface((-0.42, 0.68, -0.5), rng.uniform(0.84, 0.92))
    apex = np.array([-0.55, 0.66, -0.5]) + rng.normal(0, 0.1, 3)
    apex /= np.linalg.norm(apex)
    return {
        "waves": tuple(
            (_point(rng.normal(0, 2 * np.pi / 75, 3)), float(rng.uniform(0, 2 * np.pi)), _point(rng.normal(0, 1.3, 3)))
            for _ in range(5)
        ),
        "atrium": Blob((0.0, 0.0, 0.0), _point(half_axes)),
        "bumps": tuple(float(b) for b in rng.normal(0, 0.07, 9)),
        "veins": tuple(veins),
        "branches": tuple(branches),
        "appendage": _tube(
            [0.6 * neck, neck, *(neck + hook)], width * rng.uniform([6.5, 5.5, 6, 5.5, 3], [8, 7, 9, 8, 5])
        ),
        "mitral": _tube([0.3 * valve, valve, valve + 24 * apex], rng.uniform([9, 11, 13], [11, 14, 16])),
        "wall": float(rng.uniform(1.6, 2.8)),
        "gap": float(rng.uniform(1.0, 2.4)),
        **_draw_neighbours(rng, valve, apex),
    }


def _draw_veins(rng: np.random.Generator, surface: Callable[[Point], Array]) -> tuple[list[Tube], list[Tube]]:
    """Pulmonary veins from the atrium's `surface` (direction to point), and vessels within the lungs."""
    veins, branches = [], []
    for start, end, radius in _draw_vein_plan(rng):
        ostium = surface(_point(rng.normal(start, 0.08)))
        tip = np.array(end) + rng.normal(0, 5, 3)
        bend = ostium + (tip - ostium) * 0.5 + rng.normal(0, 3, 3)
        r = radius * rng.uniform(0.85, 1.2)
        veins.append(_tube([0.5 * ostium, ostium, bend, tip], [1.1 * r, r, 0.85 * r, 0.7 * r]))
        for _ in range(2):
            fork = tip + (tip - bend) * 0.9 + rng.normal(0, 8, 3)
            twig = fork + (fork - tip) + rng.normal(0, 7, 3)
            branches.append(_tube([tip, fork, twig], [0.6 * r, 0.42 * r, 0.2 * r]))
    for _ in range(9):
        root = np.array([rng.choice([-1, 1]) * rng.uniform(40, 55), rng.uniform(-40, 15), rng.uniform(-35, 35)])
        steps = np.cumsum(rng.normal([np.sign(root[0]) * 9, -3, 0], 7, (2, 3)), axis=0)
        branches.append(_tube([root, root + steps[0], root + steps[1]], [2.8, 1.9, 1.0]))
    return veins, branches


def _draw_vein_plan(rng: np.random.Generator) -> list[tuple[Point, Point, float]]:
    """Three to five pulmonary veins: direction of the ostium, end in the lung's root (mm), radius (mm)."""
    left = [((-0.85, 0.0, 0.5), (-64.0, 6.0, 24.0), 6.5), ((-0.85, -0.5, -0.15), (-62.0, -32.0, -8.0), 6.0)]
    if rng.random() < 0.2:  # a common left trunk
        left = [((-0.9, -0.25, 0.2), (-62.0, -14.0, 12.0), 8.5)]
    right = [((0.85, -0.2, 0.45), (66.0, -2.0, 22.0), 6.5), ((0.82, -0.5, -0.3), (60.0, -32.0, -20.0), 6.0)]
    if rng.random() < 0.25:  # a middle vein of its own
        right.append(((0.95, -0.25, 0.05), (64.0, -12.0, 2.0), 3.8))
    return left + right


def _draw_neighbours(rng: np.random.Generator, valve: Array, apex: Array) -> dict[str, Any]:
    """Chambers and vessels, some of which reach into the atrium's place: rendering keeps a wall between."""

    def near(*rows: tuple[float, ...]) -> list[Array]:
        moved = rng.normal(0, 1.8, 3)
        return [np.array(row) + moved + rng.normal(0, 1.2, 3) for row in rows]

    short = rng.uniform(19, 24)
    ra, rv, top = near((41, 22, -7))[0], near((12, 66, -30))[0], near((-10, 24, 33))[0]
    root, sinus, arch = near((-8, 36, -8), (3, 27, 8), (10, 23, 60))
    r_aorta, r_down, r_pulmonary = rng.uniform([13, 10, 8], [16.5, 13.5, 11])
    return {
        "pools": {
            "left ventricle": Blob(_point(valve + 30 * apex), (short, short, float(rng.uniform(33, 40))), _point(apex)),
            "right atrium": Blob(_point(ra), _point(rng.uniform([22, 21, 25], [28, 27, 31]))),
            "right ventricle": Blob(_point(rv), _point(rng.uniform([34, 20, 24], [42, 26, 30]))),
        },
        "vessels": {
            "aorta": _tube([root, sinus, arch], r_aorta * np.array([0.8, 1.0, 0.95])),
            "descending aorta": _tube(near((-24, -40, 60), (-19, -42, 0), (-9, -43, -60)), [r_down] * 3),
            "pulmonary trunk": _tube([*near((-8, 58, -8), (-20, 44, 20)), top], [13, 12, 11.5]),
            "right pulmonary artery": _tube([top, *near((12, 5, 29), (52, -6, 25))], [r_pulmonary] * 2 + [6.5]),
            "left pulmonary artery": _tube([top, *near((-30, -10, 36), (-58, -26, 26))], [r_pulmonary] * 2 + [6]),
            "superior vena cava": _tube(near((42, 16, 8), (38, 10, 60)), [9.5, 8.5]),
            "inferior vena cava": _tube(near((38, 14, -22), (32, 2, -70)), [11, 12]),
            "coronary sinus": _tube(near((28, 12, -25), (2, 4, -26), (-30, 12, -18)), [5, 4.5, 3]),
            "azygos vein": _tube(near((9, -43, 60), (8, -46, -60)), [3.5, 3]),
            "oesophagus": _tube(near((0, -30, 60), (-4 + 9 * rng.normal(), -27, 0), (-10, -27, -60)), [6, 7, 7]),
        },
    }


def _draw_signal(rng: np.random.Generator) -> dict[str, Any]:
    """Brightness of the tissues relative to the atrium's blood, and the scanner's errors."""
    low_contrast = rng.random() < 0.3
    heart = rng.uniform(0.6, 0.78) if low_contrast else rng.uniform(0.34, 0.6)
    names = {
        "soft": (0.3, 0.55), "fat": (0.35, 0.85), "muscle": (0.35, 0.6), "lung": (0.05, 0.14), "bone": (0.4, 0.75),
        "disc": (0.3, 0.6), "oesophagus": (0.5, 0.9), "liver": (0.6, 0.9), "lung vessel": (0.6, 0.95),
        "right": (0.86, 1.08), "left": (0.92, 1.06), "outflow": (0.86, 1.1),
    }  # fmt: skip
    values = {name: float(rng.uniform(*span)) for name, span in names.items()}
    values |= {"heart": float(heart), "wall": float(heart * rng.uniform(0.85, 1.1)), "blood": 1.0}
    behind = rng.normal([0, -0.6, 0], [0.7, 0.5, 0.6], (int(rng.integers(2, 7)), 3))
    small = bool(rng.random() < 0.4)
    return {
        "values": values,
        "patches": tuple((_point(d), float(rng.uniform(0.25, 0.6)), float(rng.uniform(1.05, 1.4))) for d in behind),
        "leaflet": float(rng.uniform(0.03, 0.2)),
        "texture": float(rng.uniform(0.03, 0.08)),
        "bias": tuple(float(b) for b in rng.normal(0, [0.14, 0.14, 0.1, 0.1, 0.1, 0.1])),
        "ghost": float(rng.uniform(0, 0.2)),
        "blur": float(rng.uniform(0.3, 1.0)),
        "noise": float(rng.uniform(0.03, 0.1)),
        "dtype": "uint8" if small else "int16",
        "peak": float(rng.uniform(40, 140) if small else rng.uniform(120, 900)),
    }


def _point(values: Any) -> Point:
    x, y, z = (float(value) for value in values)
    return x, y, z


def _tube(points: Any, radii: Any) -> Tube:
    return Tube(tuple(_point(point) for point in points), tuple(float(radius) for radius in radii))


# ---- rendering -----------------------------------------------------------------------------------------------------


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
