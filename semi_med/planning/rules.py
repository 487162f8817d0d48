"""What follows from a fingerprint: one small function a choice, each giving its value and the reason in words.

nnU-Net (Isensee et al., Nature Methods 2021) is the anchor; where a rule differs it says so in its docstring. Sizes and
spacings are in the frame of the network's axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from semi_med.planning.fingerprint import Fingerprint

SMALLEST_MAP = 4  # voxels along each axis of the deepest level, as nnU-Net has it
MOST_LEVELS = {3: 5, 2: 6}
FEW_SLICES = 4 * SMALLEST_MAP  # three levels of a network that halves all axes
ANISOTROPIC = 3.0  # of nnU-Net: spacing this much coarser, and this much fewer voxels
TILTED = 1.5  # ratio of spacings from which a rotation out of the plane moves structures between slices
VARIED = 0.1  # of the median, between the 10th and the 90th percentile
COVERED = 0.5  # share of the median volume or slice that a crop should see on a CPU
RESOLVED = {3: 4.0, 2: 8.0}  # voxels across the thinnest structure that coarser ones must leave
UNBROKEN = 4.0  # voxels across a structure that a network does not break into parts
WORTH_IT = 1.15  # times the voxels' size from which it is worth to blur scans and masks
ENOUGH_LABELS = 5  # that tell whether a structure is in one part
SMALL = 0.1  # share of a case that structures fill together, below which the background alone makes a case look certain
MUCH_ZERO = 0.25  # nnU-Net normalises inside what is not 0 where cutting away zeros saves a quarter
CROP_VOXELS = {("cuda", 3): 128 * 128 * 80, ("cuda", 2): 512 * 512, ("cpu", 3): 64**3, ("cpu", 2): 128**2}
FILTERS = {("cuda", 3): 16, ("cuda", 2): 32, ("cpu", 3): 8, ("cpu", 2): 8}
BATCH = {("cuda", 3): 2, ("cuda", 2): 12, ("cpu", 3): 2, ("cpu", 2): 4}
CPU_HOURS = 1.0
FEWEST_UPDATES = 1000  # that a training is planned with
MAY_BE_EMPTY = 300  # updates below which a class may stay empty: on nine labelled hippocampi the second came after 140
_GIB = 2.0**30
_AXES = {0: "ASR", 1: "RSA", 2: "RAS"}  # by the axis that is to be the last
_ORDER = {"ASR": (1, 2, 0), "RSA": (0, 2, 1), "RAS": (0, 1, 2)}


@dataclass(frozen=True)
class Choice:
    """One decision.

    Attributes:
        name: what is decided.
        value: as a bundle's setting has it, or plainer.
        reason: why, one sentence without a full stop.
        option: how a person decides otherwise.
        given: whether a person did.
    """

    name: str
    value: Any
    reason: str
    option: str = ""
    given: bool = False


def small_structures(found: Fingerprint) -> tuple[bool, str]:
    """Whether structures are so small that FixMatchSeg's gate, the mean certainty of an image, is the background's.

    On slices of the heart (a ventricle of 2 to 4 %) the gate over what is predicted, a ramp and CutMix made a loss a
    gain: docs/methods/fixmatchseg.md.
    """
    share = sum(one.share for one in found.classes)
    if share >= SMALL:
        return False, f"structures fill {share:.1%} of a case: FixMatchSeg counts the certainty of the whole image"
    return True, f"structures fill {share:.1%} of a case: FixMatchSeg counts the certainty of what it predicts"


def along(values: Sequence[Any], axes: str) -> list[Any]:
    """Numbers along right, anterior, superior, in the order of the network's axes."""
    return [values[place] for place in _ORDER[axes]]


def thick_axis(found: Fingerprint) -> int:
    """The axis of the coarsest spacing; of equal ones that of the fewest voxels."""
    return max(range(3), key=lambda axis: (round(found.median_spacing[axis], 3), -found.median_size[axis]))


def dimensions(found: Fingerprint) -> tuple[int, str]:
    """2 or 3.

    Differs from nnU-Net, which trains both and compares: that is twice the time, and with few labels a toss-up.
    Its 3D network can leave a thick axis as it is; the V-Net halves all axes alike, so that thick slices go to 2D.
    """
    size, spacing = found.median_size, found.median_spacing
    if found.pictures or min(size) == 1:
        return 2, "every image is one slice"
    axis = thick_axis(found)
    others = [number for number in range(3) if number != axis]
    ratio, fewer = spacing[axis] / min(spacing[o] for o in others), min(size[o] for o in others) / size[axis]
    if ratio > ANISOTROPIC and fewer > ANISOTROPIC:
        return 2, f"slices are {spacing[axis]:.3g} mm thick, {ratio:.1f} times the pixels, and {fewer:.1f} times fewer"
    if min(size) < FEW_SLICES:
        return 2, f"only {min(size)} slices, fewer than the {FEW_SLICES} that a 3D network of three levels needs"
    return 3, f"volumes of {_times(size)} voxels with spacings in a ratio of {max(spacing) / min(spacing):.2g}"


def axes(found: Fingerprint, dims: int) -> tuple[str, str]:
    """Towards which sides the network's axes run; in 2D the last is the one that is cut into slices."""
    if found.pictures:
        return "RAS", "pictures are taken as they are drawn"
    if dims == 3:
        return "RAS", "all volumes are turned to right, anterior, superior by their headers"
    axis, why = _slice_axis(found)
    return _AXES[axis], f"slices are {('sagittal', 'coronal', 'axial')[axis]}, across {why}"


def _slice_axis(found: Fingerprint) -> tuple[int, str]:
    """The thickest axis; where slices are few, or spacings alike, that of the fewest voxels: slices are large then."""
    size, spacing = found.median_size, found.median_spacing
    if min(size) >= FEW_SLICES and max(spacing) > ANISOTROPIC * min(spacing):
        return thick_axis(found), "the thickest axis"
    axis = min(range(3), key=lambda axis: (size[axis], -round(spacing[axis], 3), -axis))
    return axis, "the axis of the fewest voxels" if len(set(size)) > 1 else "the long axis of the body"


def sides(axes: str, dims: int, *, pictures: bool) -> tuple[str, ...]:
    """What the network's axes are called, by the directions that they join."""
    if pictures:
        return ("left-right", "up-down")
    return tuple({"R": "left-right", "A": "back-front", "S": "feet-head"}[letter] for letter in axes[:dims])


def target_spacing(found: Fingerprint, dims: int, axes: str) -> tuple[list[float] | None, str]:
    """Mm that all volumes are resampled to, or None; -1 leaves an axis as it is.

    nnU-Net's target: the median, of a very anisotropic axis the 10th percentile. Differs from it: where spacings agree
    nothing is resampled, as interpolation would blur scans and masks for nothing.
    """
    if found.pictures:
        return None, "pictures do not say how large a pixel is"
    spread = along(found.spacing, axes)
    used = spread if dims == 3 else spread[:2]
    widest = max((axis.high - axis.low) / axis.median for axis in used)
    if widest <= VARIED:
        return None, f"not resampled: spacings agree within {widest:.0%} (10th to 90th percentile)"
    target = [axis.median for axis in used]
    why = f"the median, as spacings differ by {widest:.0%}"
    if dims == 3:
        size = along(found.median_size, axes)
        thick = max(range(3), key=lambda axis: target[axis])
        others = [axis for axis in range(3) if axis != thick]
        if (
            target[thick] > ANISOTROPIC * max(target[o] for o in others)
            and min(size[o] for o in others) > ANISOTROPIC * size[thick]
        ):
            target[thick] = max(spread[thick].low, max(target[o] for o in others))
            why += "; of the thick axis the 10th percentile"
    return [*(round(step, 4) for step in target), *([-1] if dims == 2 else [])], why


def coarser(
    found: Fingerprint, size: Sequence[int], steps: Sequence[float], *, budget: int
) -> tuple[list[float], str] | None:
    """Mm of voxels so large that a crop of `budget` voxels sees half of the median volume or slice; None to leave them.

    For a CPU, whose hour is too short to learn a scan piece by piece. nnU-Net's low resolution starts below a quarter;
    it is the first half of a cascade there. Only the finer axes become coarser, and the thinnest structure keeps
    `RESOLVED` voxels; where that is not known nothing is changed.

    Args:
        found: for the structures.
        size: voxels of the median case along the network's two or three axes.
        steps: mm of these voxels; 1 for the pixels of a picture.
        budget: voxels of a crop.

    Returns:
        Mm along the network's axes, -1 for that of the slices, and why.
    """
    known = [one.thickness for one in found.classes if one.thickness]
    limit = min(known) / RESOLVED[len(size)] if len(known) == len(found.classes) else 0.0
    finest = step = min(steps)

    def share(step: float) -> float:
        return budget / math.prod(n * old / max(old, step) for n, old in zip(size, steps, strict=True))

    while share(step) < COVERED and 1.02 * step <= limit:
        step *= 1.02
    if step < WORTH_IT * finest:
        return None
    target = [round(max(old, step), 2) for old in steps] + [-1] * (3 - len(steps))
    one = "pixels" if found.pictures else "mm"
    return target, (
        f"coarser than the scans' {' x '.join(f'{old:.3g}' for old in steps)} {one}: on a CPU a crop sees "
        f"{share(step):.0%} of a {'scan' if len(steps) == 3 else 'slice'} so, not {share(finest):.0%}; the thinnest "
        f"structure, {min(known):.0f} {one}, keeps {min(known) / step:.0f} voxels"
    )


def largest_part(found: Fingerprint, steps: Sequence[float]) -> tuple[bool, str]:
    """Whether masks keep only the largest part of each structure.

    nnU-Net tries it on its validation cases; of a handful of labels that is none. Here the labels decide: all of them
    show each structure in one part, and it is thick enough that a network does not break it. Only of volumes: on left
    atria it brought Dice 0.775 to 0.807, on slices of the heart 0.645 to 0.619, as a slice may have its largest part
    anywhere.
    """
    if len(steps) < 3:
        return False, "all parts are kept: the largest part of one slice may be a wrong one"
    if found.labeled < ENOUGH_LABELS:
        return False, f"all parts are kept: {found.labeled} labels are too few to tell whether a structure has several"
    if any(one.whole < one.cases for one in found.classes):
        return False, "all parts are kept: labels show structures in several parts"
    if any(not one.thickness or one.thickness < UNBROKEN * max(steps) for one in found.classes):
        return False, "all parts are kept: thin structures break"
    return True, f"only the largest part of each structure: in all {found.labeled} labels there is one"


def resampled_size(found: Fingerprint, axes: str, target: Sequence[float] | None) -> list[int]:
    """Voxels of the median case along the network's axes."""
    size, spacing = along(found.median_size, axes), along(found.median_spacing, axes)
    steps = target or spacing
    return [max(1, round(n * old / new)) if new > 0 else n for n, old, new in zip(size, spacing, steps, strict=True)]


def normalisation(found: Fingerprint) -> tuple[dict[str, Any], str]:
    """How intensities become numbers of mean 0 and SD 1.

    Differs from nnU-Net for photographs, which it divides by 255: here they get mean 0 and SD 1 too, as the strength
    of the augmentation is in units of it.
    """
    inside = found.foreground
    if found.ct and inside is not None and inside.sd > 0:
        low, high = inside.p00_5, inside.p99_5
        numbers = {
            "low": round(low, 2),
            "high": round(high, 2),
            "mean": round(inside.mean, 3),
            "sd": round(inside.sd, 3),
        }
        return {"kind": "ct", **numbers}, (
            f"Hounsfield units: cut to {low:.0f} to {high:.0f} (0.5 to 99.5 % of the structures), then mean "
            f"{inside.mean:.0f} and SD {inside.sd:.0f} of the structures for all scans"
        )
    if not found.pictures and found.zeros > MUCH_ZERO:
        return {"kind": "nonzero"}, (
            f"mean 0, SD 1 of each scan and channel over what is not 0, as {found.zeros:.0%} of a scan is exactly 0"
        )
    if found.colour:
        return {"kind": "each"}, "mean 0, SD 1 of each picture and colour: exposures differ"
    return {"kind": "each"}, "mean 0, SD 1 of each image and channel: its scale has no unit"


def crop(size: Sequence[int], dims: int, budget: int) -> tuple[list[int], int]:
    """Crop and levels of a network that halves all axes: as deep as the smallest map allows, at most `budget` voxels.

    As nnU-Net the median size is where it starts, and the axis that is largest compared with it shrinks first.
    Differs: sizes are rounded to the nearest multiple, down from the middle, instead of up, so that a crop of a small
    scan is not one third padding.
    """
    size = list(size)[:dims]
    for levels in range(MOST_LEVELS[dims], 0, -1):
        step = 2 ** (levels - 1)
        found = [_rounded(n, step) for n in size]
        while math.prod(found) > budget:
            axis = max(range(dims), key=lambda a: (found[a] > step, found[a] / size[a], found[a]))
            if found[axis] == step:
                break
            found[axis] -= step
        if min(found) >= SMALLEST_MAP * step or levels == 1:
            return found, levels
    raise AssertionError("one level always fits")


def crop_reason(found: Sequence[int], size: Sequence[int], levels: int, budget: int) -> str:
    """Why the crop is what it is."""
    whole = math.prod(size[: len(found)]) <= budget
    step = 2 ** (levels - 1)
    start = f"the median size {_times(size[: len(found)])}"
    how = start if whole else f"{start}, cut to at most {budget:,} voxels"
    return f"{how}, in multiples of {step} for {levels} levels"


def levels_reason(found: Sequence[int], levels: int) -> str:
    """Why the network is as deep as it is."""
    deepest = [n // 2 ** (levels - 1) for n in found]
    return (
        f"{levels} levels, the deepest {_times(deepest)}: none below {SMALLEST_MAP}, at most {MOST_LEVELS[len(found)]}"
    )


def mirror_axes(found: Fingerprint) -> tuple[list[int], str]:
    """Axes along which images are mirrored.

    Differs from nnU-Net, which mirrors all: a mirrored left structure is a right one, and the position in the body
    tells much (on pancreas CT mirroring costs half of the Dice).
    """
    if found.pictures and len(found.classes) == 1:
        return [0, 1], "pictures of one structure and no side"
    if found.pictures:
        return [], "not mirrored: one of several classes may be the mirror image of another"
    return [], "not mirrored: left and right, front and back are known and may tell classes apart"


def rotation(spacing: Sequence[float]) -> tuple[float, str]:
    """Largest rotation in degrees. nnU-Net turns by 30 in a fifth of the crops, in the plane only where anisotropic."""
    ratio = max(spacing) / min(spacing)
    if len(spacing) == 3 and ratio > TILTED:
        return 5.0, f"little, as spacings are in a ratio of {ratio:.1f} and turning moves voxels between slices"
    return 15.0, "as patients lie a little differently"


def strength(found: Fingerprint) -> tuple[dict[str, float], str]:
    """Changes of intensity for the student, in SD of the image."""
    if found.ct:
        return {"gain": 0.1, "offset": 0.1, "gamma": 0.15, "noise": 0.1, "blur": 0.8}, (
            "mild: Hounsfield units mean something"
        )
    return {"gain": 0.2, "offset": 0.2, "gamma": 0.3, "noise": 0.15, "blur": 0.8}, "scanners and exposures differ"


def most_iterations(cases: int, dims: int) -> int:
    """Updates on a GPU: 150 for each training scan (50 for each in 2D), 6,000 to 30,000, in thousands.

    The published trainings of the field make 6,000 to 30,000. nnU-Net always makes 250,000.
    """
    wanted = cases * (150 if dims == 3 else 50)
    return min(30_000, max(6_000, math.ceil(wanted / 1000) * 1000))


def iterations(cases: int, dims: int, *, device: str, seconds: float | None) -> tuple[int, str]:
    """Updates of the networks; on a CPU as many as an hour holds, but not so few that masks stay empty."""
    whole = most_iterations(cases, dims)
    each = 150 if dims == 3 else 50
    why = f"{each} for each of {cases} training scans, at least 6,000 and at most 30,000"
    if device != "cpu" or not seconds:
        return whole, why
    fits = int(CPU_HOURS * 3600 / seconds / 100) * 100
    if fits >= whole:
        return whole, why
    if fits < FEWEST_UPDATES:
        return FEWEST_UPDATES, (
            f"the fewest that make sense, more than an hour on this CPU; on a GPU it would be {whole:,}: more is better"
        )
    return fits, f"an hour on this CPU if it is free; on a GPU it would be {whole:,}: more is better"


def learning_rate(updates: int) -> tuple[float, str]:
    """Of AdamW with a polynomial decay.

    Differs from nnU-Net, which takes SGD with 0.01: on 9 labelled hippocampi SGD with 0.03 left a class nearly empty
    for one of four seeds after 800 updates (Dice of a validation scan 0.35; the others 0.81 to 0.82 after 400). AdamW
    with 0.002 had 0.84 from that seed after 400.
    """
    if updates < 3000:
        return 0.002, "of AdamW; twice the usual 0.001, as there are few updates"
    return 0.001, "the usual one of AdamW"


def cache(cases: int, size: Sequence[int], channels: int, *, memory_gb: float) -> tuple[bool, str]:
    """Whether the prepared cases are kept on disk, and how many GB they are (float16 images, uint8 labels)."""
    gigabytes = cases * math.prod(size) * (2 * channels + 1) / _GIB
    if gigabytes > 0.4 * memory_gb:
        return True, f"on disk, memory-mapped: {gigabytes:.1f} GB of {memory_gb:.1f} GB of memory"
    return False, f"in memory: {gigabytes:.2g} GB of {memory_gb:.1f} GB"


def masks(found: Fingerprint, dims: int, target: Sequence[float] | None, *, memory_gb: float) -> tuple[str, str]:
    """What is brought back to a scan's own grid: "classes", or "probabilities" before the class is chosen.

    nnU-Net always resamples probabilities; here only where they fit easily, as all classes are held at once.
    """
    if target is None or dims == 2:
        return "classes", "nothing was resampled" if target is None else "slice by slice, from probabilities"
    voxels = math.prod(axis.high for axis in found.size)
    gigabytes = 3 * 4 * (len(found.classes) + 1) * voxels / _GIB
    if gigabytes <= 0.25 * memory_gb:
        return "probabilities", f"resampled before the class is chosen: smooth borders for {gigabytes:.1f} GB"
    return "classes", f"nearest neighbour: probabilities on the scan's grid would take {gigabytes:.1f} GB"


def guessed_gb(voxels: int, *, filters: int, crops: int, networks: int) -> float:
    """GB that a training step takes, before it is measured: 63 bytes for each voxel, filter, crop and network.

    Measured on co-training with two V-Nets of 16 filters and 2 + 2 crops of 112 x 112 x 80: 8.1 GiB.
    """
    return 63.0 * voxels * filters * crops * networks / _GIB


def held_out(labeled_subjects: int) -> tuple[int, int, str]:
    """Labelled subjects for validation and for the test.

    Differs from nnU-Net, which trains five times on four fifths: of a handful of labels each one counts.
    """
    if labeled_subjects < 5:
        return 0, 0, f"none of {labeled_subjects} labelled subjects can be spared: the last iteration is the result"
    if labeled_subjects < 10:
        return 1, 0, "one labelled subject to watch the training; too few for a test (--test N takes some)"
    validation, test = max(1, round(0.1 * labeled_subjects)), max(2, round(0.2 * labeled_subjects))
    return validation, test, f"a tenth and a fifth of {labeled_subjects} labelled subjects"


def _rounded(number: int, step: int) -> int:
    """The nearest multiple of a step, the lower one from the middle, at least one."""
    low, rest = divmod(number, step)
    return max(1, low + (2 * rest > step)) * step


def _times(sizes: Sequence[int]) -> str:
    return " x ".join(str(size) for size in sizes)
