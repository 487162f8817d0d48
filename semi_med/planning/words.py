"""A fingerprint and a plan in words: rows of tables, and the page of the bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from semi_med.planning.fingerprint import Fingerprint, Spread
from semi_med.planning.machine import Machine
from semi_med.planning.plan import Plan
from semi_med.planning.rules import Choice

_BUSY = 1.3  # of the time that a step takes alone
_TITLES = {
    "sections": "cases for",
    "dimensions": "dimensions",
    "axes": "axes",
    "spacing": "spacing [mm]",
    "normalisation": "intensities",
    "crop": "crop [voxels]",
    "levels": "network",
    "filters": "filters",
    "batch": "batch",
    "margin": "margin",
    "max_shift": "shifts",
    "stride": "stride of prediction",
    "mirror": "mirrored axes",
    "rotation": "rotation [degrees]",
    "strength": "intensity changes",
    "cache": "prepared cases",
    "masks": "masks from",
    "small": "small structures",
    "parts": "parts of masks",
    "iterations": "updates",
    "learning_rate": "learning rate",
}


def fingerprint_rows(found: Fingerprint) -> list[tuple[str, str]]:
    """What the data are like: a name and what was found."""
    kind = "CT in Hounsfield units" if found.ct else "colour pictures" if found.colour else "intensities without a unit"
    rows = [
        ("cases", f"{found.cases}: {found.labeled} with a label, {found.cases - found.labeled} without"),
        ("subjects", f"{found.subjects}, {found.labeled_subjects} of them with labels; {found.subject_rule}"),
        ("channels", f"{len(found.channels)}: {', '.join(found.channels)}; {_files(found.files)}"),
        ("size [voxels]", _axes(found.size, "{:.0f}")),
        (
            "spacing [mm]",
            "unknown: pictures" if found.pictures else f"{_axes(found.spacing, '{:.3g}')}; ratio {_ratio(found):.2g}",
        ),
        ("intensities", f"{kind}; {found.zeros:.0%} of the voxels of a case are 0"),
    ]
    for name, values in (("  all voxels", found.intensities), ("  inside structures", found.foreground)):
        if values is not None:
            text = f"{values.p00_5:.4g} to {values.p99_5:.4g} (0.5 to 99.5 %), median {values.median:.4g}, "
            rows.append((name, f"{text}mean {values.mean:.4g}, SD {values.sd:.4g}"))
    rows.append(("background", f"value {found.background} in the label files"))
    if found.ignored is not None:
        rows.append(("not known", f"value {found.ignored}, {found.unknown:.2%} of the voxels of the labels"))
    for one in found.classes:
        parts = "" if one.components is None else f"; {one.components:.0f} parts, the largest {one.largest:.0%} of it"
        parts = "; in one part" if one.components == 1 else parts
        text = f"value {one.value}, in {one.cases} of {found.labeled} labels, {one.share:.2%} of the voxels{parts}"
        rows.append((one.name, text))
    return rows


def plan_rows(plan: Plan) -> list[tuple[str, str, str, str]]:
    """Each choice: its name, its value, the reason, and how to decide otherwise."""
    return [
        (_TITLES.get(name, name), shown(choice), choice.reason, choice.option) for name, choice in plan.choices.items()
    ]


def shown(choice: Choice) -> str:
    """The value of a choice for people."""
    value: Any = choice.value
    if choice.name == "sections":
        return ", ".join(f"{count} {name}" for name, count in value.items())
    if choice.name == "normalisation":
        return {"ct": "cut and standardised for all", "nonzero": "standardised above 0", "each": "standardised"}[
            value["kind"]
        ]
    if choice.name == "spacing":
        if value is None:
            return "as it is"
        slices = ", slices as they are" if min(value) < 0 else ""
        return " x ".join(f"{step:g}" for step in value if step > 0) + slices
    if choice.name in ("dimensions", "levels"):
        return f"{value}D" if choice.name == "dimensions" else f"V-Net, {value} levels, instance norm"
    if choice.name == "small":
        return "yes" if value else "no"
    if choice.name == "parts":
        return "the largest" if value else "all"
    if choice.name == "cache":
        return "on disk" if value else "in memory"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {number}" for name, number in value.items())
    if isinstance(value, list | tuple):
        return (" x " if choice.name in ("crop", "stride", "margin", "max_shift") else ", ").join(
            map(str, value)
        ) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)


def cost(plan: Plan, machine: Machine) -> list[str]:
    """What a step and the training take, in sentences."""
    lines = [f"not fitting: {text}" for text in plan.tried]
    updates = plan.choices["iterations"].value
    if plan.trial is None or plan.trial.seconds is None or plan.trial.gigabytes is None:
        return [*lines, f"machine: {machine.words}; no step was tried, so that neither memory nor time are promised"]
    seconds, alone = plan.trial.seconds, plan.trial.alone or plan.trial.seconds
    whole = str(timedelta(seconds=round(alone * updates)))
    busy = ""
    if seconds > _BUSY * alone:
        slow = str(timedelta(seconds=round(seconds * updates)))
        busy = f"; other processes made it {seconds:.3g} s now, as long as they run it would be {slow}"
    return [
        *lines,
        f"machine: {machine.words}",
        f"measured on a trial step: {plan.trial.gigabytes:.2f} GB at most, {alone:.3g} s a step",
        f"training: {updates:,} updates in about {whole}, without validation{busy}",
    ]


def plan_page(found: Fingerprint, plan: Plan, machine: Machine) -> str:
    """The section of a bundle's README."""
    facts = [f"| {name.strip()} | {_cell(text)} |" for name, text in fingerprint_rows(found)]
    choices = [
        f"| {name} | {_cell(value)} | {_cell(reason)} | {f'`{_cell(option)}`' if option else ''} |"
        for name, value, reason, option in plan_rows(plan)
    ]
    notes = [f"- {note}" for note in found.notes]
    lines = [
        "`semi-med init` read every case once and decided by rules; `configs/plan.json` holds the same as numbers.",
        "",
        "| the data | |",
        "|---|---|",
        *facts,
        "",
        *([*notes, ""] if notes else []),
        "| choice | value | reason | otherwise with |",
        "|---|---|---|---|",
        *choices,
        "",
        *(f"{line[:1].upper()}{line[1:]}.  " for line in cost(plan, machine)),
    ]
    return "\n".join(lines).rstrip()


def preprocessing(choices: Mapping[str, Choice]) -> str:
    """What is done to a scan, for `about.json`."""
    names = ("axes", "spacing", "normalisation")
    return "; ".join(f"{_TITLES[name]}: {shown(choices[name])} ({choices[name].reason})" for name in names) + "."


def _files(count: int) -> str:
    return "in one file" if count == 1 else f"{count} files a case"


def _axes(spreads: Sequence[Spread], pattern: str) -> str:
    middle, low, high = (
        " x ".join(pattern.format(getattr(axis, name)) for axis in spreads) for name in ("median", "low", "high")
    )
    return middle if low == high == middle else f"{middle} (10 to 90 %: {low} to {high})"


def _ratio(found: Fingerprint) -> float:
    return max(found.median_spacing) / min(found.median_spacing)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
