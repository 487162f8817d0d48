"""What is drawn for one case of the phantom: anatomy, pose, grid and signal, as numbers without an image.

Anatomy is described in RAS mm round the atrium (x to the right, y to the front, z to the head; `Tube`, `Blob`) at
scale 1; a case's pose puts it into the scanner's RAS mm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from semi_med.errors import InputError

Point = tuple[float, float, float]
Array = np.ndarray[Any, Any]
Size = Literal["demo", "large"]

ORIENTATIONS = ("RAS", "LPS", "LAS", "RPI", "PIR", "ASL")


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
