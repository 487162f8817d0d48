"""From a fingerprint, a machine and a person's wishes to a plan: all choices, and a trial step that they fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from semi_med.errors import InputError, ResourceError
from semi_med.planning import rules
from semi_med.planning.fingerprint import Fingerprint
from semi_med.planning.machine import Machine
from semi_med.planning.rules import Choice
from semi_med.planning.trial import Trial

_MOST_TRIALS = 6
_SMALLEST_CROP = {3: 16**3, 2: 32**2}

TryIt = Callable[[dict[str, Choice]], Trial]


@dataclass(frozen=True)
class Wishes:
    """What a person decides otherwise than the rules; None for what the rules decide.

    Attributes:
        dimensions: 2 or 3.
        spacing: mm along the network's axes; empty for no resampling.
        crop, batch, filters, iterations: as their choices.
        mirror: axes; empty for none.
        validation, test, labeled: labelled subjects.
        seed: of the split.
    """

    dimensions: int | None = None
    spacing: tuple[float, ...] | None = None
    crop: tuple[int, ...] | None = None
    batch: int | None = None
    filters: int | None = None
    iterations: int | None = None
    mirror: tuple[int, ...] | None = None
    validation: int | None = None
    test: int | None = None
    labeled: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Limits:
    """What is made smaller until a step fits."""

    voxels: int
    batch: int
    filters: int


@dataclass(frozen=True)
class Plan:
    """All that was decided.

    Attributes:
        choices: by name, in the order in which they are shown.
        trial: what a step takes; None where none was made.
        tried: what did not fit, in words.
    """

    choices: dict[str, Choice]
    trial: Trial | None
    tried: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For `plan.json`."""
        trial = None if self.trial is None else asdict(self.trial)
        return {
            "choices": {name: asdict(choice) for name, choice in self.choices.items()},
            "trial": trial,
            "tried": list(self.tried),
        }


def make_plan(
    found: Fingerprint, wishes: Wishes, machine: Machine, *, cases: int, networks: int, try_it: TryIt | None
) -> Plan:
    """Decide everything, smaller and smaller until a trial step fits the memory.

    Args:
        found: what the data are like.
        wishes: what the person decides.
        machine: what is at hand.
        cases: that are trained on.
        networks: of the method.
        try_it: makes a trial step with these choices; None promises nothing.

    Raises:
        InputError: a wish cannot be had.
        ResourceError: code MEMORY, nothing fits, or what was asked for does not.
    """
    dims, _ = _dimensions(found, wishes)
    key = (machine.kind, dims)
    limits = Limits(rules.CROP_VOXELS[key], wishes.batch or rules.BATCH[key], wishes.filters or rules.FILTERS[key])
    tried: list[str] = []
    while True:
        choices = _shape(found, wishes, machine, limits, cases=cases)
        voxels = math.prod(choices["crop"].value)
        room = machine.memory_gb - (0.0 if machine.kind == "cuda" else _cached(found, choices, cases))
        guess = rules.guessed_gb(voxels, filters=limits.filters, crops=2 * limits.batch, networks=networks)
        trial, why = None, f"about {guess:.1f} GB by a rule of thumb"
        if guess <= 2 * room or len(tried) >= _MOST_TRIALS:
            if try_it is None:
                break
            trial = try_it(_scheduled(choices, found, wishes, machine, cases=cases, seconds=None))
            if trial.gigabytes is not None and trial.gigabytes <= room:
                break
            why = trial.words or f"{trial.gigabytes:.1f} GB"
        text = f"crop {_times(choices['crop'].value)}, batch {limits.batch}, {limits.filters} filters: {why}"
        tried.append(f"{text}; {room:.1f} GB are at hand")
        smaller = _smaller(limits, wishes, voxels=voxels, dims=dims)
        if smaller is None:
            raise ResourceError(
                f"no training step fits: {tried[-1]}",
                where=machine.device,
                fix="Free memory, take another --device, or leave out --crop, --batch and --filters.",
                code="MEMORY",
            )
        limits = smaller
    seconds = None if trial is None else trial.alone
    return Plan(_scheduled(choices, found, wishes, machine, cases=cases, seconds=seconds), trial, tuple(tried))


def _smaller(limits: Limits, wishes: Wishes, *, voxels: int, dims: int) -> Limits | None:
    """The next thing to try: half the batch down to 2, then a smaller crop, fewer filters, a batch of 1."""
    if limits.batch > 2 and wishes.batch is None:
        return replace(limits, batch=max(2, limits.batch // 2))
    if wishes.crop is None and voxels > _SMALLEST_CROP[dims]:
        return replace(limits, voxels=max(_SMALLEST_CROP[dims], int(0.7 * min(voxels, limits.voxels))))
    if limits.filters > 4 and wishes.filters is None:
        return replace(limits, filters=limits.filters // 2)
    if limits.batch > 1 and wishes.batch is None:
        return replace(limits, batch=1)
    return None


def _dimensions(found: Fingerprint, wishes: Wishes) -> tuple[int, str]:
    ruled, why = rules.dimensions(found)
    wanted = wishes.dimensions or (len(wishes.crop) if wishes.crop else None) or ruled
    if wanted not in (2, 3) or (wishes.crop and len(wishes.crop) != wanted):
        raise InputError(
            f"2 or 3 dimensions and as many numbers for the crop were wanted, got {wanted} and {wishes.crop}",
            where="--dimensions, --crop",
            fix="For example --dimensions 2 --crop 256,256.",
            code="SETTING",
        )
    if wanted == 3 and min(found.median_size) == 1:
        raise InputError(
            "images of one slice cannot be seen in 3D", where="--dimensions", fix="Leave it out.", code="SETTING"
        )
    return wanted, why


def _shape(found: Fingerprint, wishes: Wishes, machine: Machine, limits: Limits, *, cases: int) -> dict[str, Choice]:
    """All but what depends on the time that a step takes."""
    made: dict[str, Choice] = {}

    def decide(name: str, ruled: tuple[Any, str], option: str = "", wish: Any = None) -> Any:
        value, why = ruled if wish is None else (wish, f"as {option} says")
        made[name] = Choice(name, value, why, option, wish is not None)
        return value

    dims, why = _dimensions(found, wishes)
    decide("dimensions", (dims, why), "--dimensions", wishes.dimensions or (dims if wishes.crop else None))
    axes = decide("axes", rules.axes(found, dims))
    target = decide("spacing", rules.target_spacing(found, dims, axes), "--spacing", _spacing(wishes, dims))
    if target == []:
        target = None
        made["spacing"] = replace(made["spacing"], value=None)
    if machine.kind == "cpu" and wishes.spacing is None:
        steps = (target or rules.along(found.median_spacing, axes))[:dims]
        size = rules.resampled_size(found, axes, target)[:dims]
        budget = math.prod(wishes.crop) if wishes.crop else limits.voxels
        if (lower := rules.coarser(found, size, steps, budget=budget)) is not None:
            target = decide("spacing", lower, "--spacing")
    decide("normalisation", rules.normalisation(found), "--modality")
    size = rules.resampled_size(found, axes, target)
    crop, levels = rules.crop(size, dims, limits.voxels)
    if wishes.crop:
        crop, levels = _given_crop(wishes.crop, dims)
    why = rules.crop_reason(crop, size, levels, limits.voxels)
    decide("crop", (crop, why), "--crop", list(wishes.crop) if wishes.crop else None)
    decide("levels", (levels, rules.levels_reason(crop, levels)), "--set network_def#levels=N")
    decide(
        "filters",
        (limits.filters, f"of the first level, doubled at each: {_for(machine)}"),
        "--filters",
        wishes.filters,
    )
    decide("batch", (limits.batch, f"labelled and as many unlabelled crops: {_for(machine)}"), "--batch", wishes.batch)
    decide("margin", ([n // 8 for n in crop], "an eighth of the crop, so that a turned crop has no empty corners"))
    decide(
        "max_shift", ([n // 4 for n in crop], "a quarter of the crop, round unlabelled crops"), "--set max_shift=[...]"
    )
    half = [max(1, n // 2) for n in crop]
    decide("stride", (half, "half the crop, as nnU-Net: each voxel is seen several times"), "--set stride=[...]")
    mirror = _mirror(wishes, rules.sides(axes, dims, pictures=found.pictures))
    decide("mirror", rules.mirror_axes(found) if mirror is None else mirror, "--mirror")
    made["mirror"] = replace(made["mirror"], given=mirror is not None)
    steps = target or rules.along(found.median_spacing, axes)
    decide("rotation", rules.rotation([step for step in steps[:dims] if step > 0]), "--set labeled_augment#rotate=...")
    decide("strength", rules.strength(found), "--set unlabeled_augment#noise=... and the like")
    kept = rules.cache(cases, size, len(found.channels), memory_gb=_computer_gb(machine))
    decide("cache", kept, "--set cache_dir=FOLDER")
    decide("masks", rules.masks(found, dims, target, memory_gb=_computer_gb(machine)))
    wide = [step for step in steps[:dims] if step > 0]
    decide("small", rules.small_structures(found), "method#gate, method#cutmix, ramp_share with --set")
    decide("parts", rules.largest_part(found, wide), "--set largest_component=...")
    return made


def _spacing(wishes: Wishes, dims: int) -> list[float] | None:
    if wishes.spacing is None:
        return None
    if wishes.spacing and len(wishes.spacing) != dims:
        raise InputError(
            f"{dims} numbers were wanted, got {len(wishes.spacing)}",
            where="--spacing",
            fix="Mm along right, anterior, superior (in 2D along the two axes of a slice), or none.",
            code="SETTING",
        )
    return [*wishes.spacing, *([-1] if dims == 2 and wishes.spacing else [])]


def _mirror(wishes: Wishes, sides: Sequence[str]) -> tuple[list[int], str] | None:
    """The axes that are asked for, and what they are in the body."""
    if wishes.mirror is None:
        return None
    if not set(wishes.mirror) <= set(range(len(sides))):
        known = ", ".join(f"{axis} ({side})" for axis, side in enumerate(sides))
        raise InputError(
            f"of the network's axes {known} were wanted, got {', '.join(map(str, wishes.mirror))}",
            where="--mirror",
            fix="For example 0; or none.",
            code="SETTING",
        )
    named = ", ".join(sides[axis] for axis in wishes.mirror)
    return list(wishes.mirror), f"as --mirror says{f': {named}' if named else ''}"


def _given_crop(crop: Sequence[int], dims: int) -> tuple[list[int], int]:
    """The crop as it is, with the deepest network that it allows.

    Raises:
        InputError: code SETTING, a size is no multiple of 4.
    """
    for levels in range(rules.MOST_LEVELS[dims], 2, -1):
        step = 2 ** (levels - 1)
        if all(n % step == 0 and n >= rules.SMALLEST_MAP * step for n in crop):
            return list(crop), levels
    near = [max(16, round(n / 8) * 8) for n in crop]
    raise InputError(
        f"multiples of 4 from 16 on were wanted, got {_times(crop)}",
        where="--crop",
        fix=f"The nearest with three levels is {','.join(map(str, near))}.",
        code="SETTING",
    )


def _scheduled(
    choices: dict[str, Choice],
    found: Fingerprint,
    wishes: Wishes,
    machine: Machine,
    *,
    cases: int,
    seconds: float | None,
) -> dict[str, Choice]:
    dims = choices["dimensions"].value
    count, why = rules.iterations(cases, dims, device=machine.kind, seconds=seconds)
    if wishes.iterations:
        few = f"; below {rules.MAY_BE_EMPTY} masks may stay empty"
        count, why = wishes.iterations, f"as --iterations says{few if wishes.iterations < rules.MAY_BE_EMPTY else ''}"
    rate, slow = rules.learning_rate(count)
    return {
        **choices,
        "iterations": Choice("iterations", count, why, "--iterations", wishes.iterations is not None),
        "learning_rate": Choice("learning_rate", rate, slow, "--set learning_rate=..."),
    }


def _cached(found: Fingerprint, choices: dict[str, Choice], cases: int) -> float:
    """GB of the cases that are kept in memory."""
    if choices["cache"].value:
        return 0.0
    size = rules.resampled_size(found, choices["axes"].value, choices["spacing"].value)
    return cases * math.prod(size) * (2 * len(found.channels) + 1) / 2**30


def _computer_gb(machine: Machine) -> float:
    from semi_med.planning.machine import free_memory

    return machine.memory_gb if machine.kind == "cpu" else free_memory() / 2**30


def _for(machine: Machine) -> str:
    return "for a CPU" if machine.kind == "cpu" else "for a GPU"


def _times(sizes: Sequence[int]) -> str:
    return " x ".join(str(size) for size in sizes)
