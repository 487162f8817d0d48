"""The report of a run or of a folder of predictions: one HTML page to look at every case and to mark what was seen."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from semi_med.errors import InputError, SemiMedError
from semi_med.files import write_atomically
from semi_med.inference.picture_check import is_picture
from semi_med.metrics.table import case_means, summarize
from semi_med.report import figures
from semi_med.report.comparison_curves import complaints
from semi_med.report.logs import read_log
from semi_med.report.overlay import LABEL_COLOUR, PREDICTION_COLOURS
from semi_med.report.panels import ONLY_LABEL, ONLY_PREDICTION, OTHER_CLASS, draw_panels, load_volumes
from semi_med.report.records import flattened
from semi_med.report.review_figures import confidence_figure, ranking_words, volume_figure
from semi_med.report.review_tables import case_rows, class_rows, labels_of, ranked, structure_table, volumes_of
from semi_med.report.review_view import ReviewCase, ReviewView
from semi_med.report.verdict import ENOUGH_CASES, interval, number
from semi_med.runtime import versions

MOST_DRAWN, SLICES = 60, 3
_LEAST_SURE = 5
_CLASS_COLOURS = (*PREDICTION_COLOURS, "#BE96FF", "#FF7F50", "#9ADBFF", "#C8E64C")
_DIFFERENCE = {
    ONLY_PREDICTION: (PREDICTION_COLOURS[0], "only in the prediction"),
    ONLY_LABEL: (LABEL_COLOUR, "only in the label"),
    OTHER_CLASS: (PREDICTION_COLOURS[1], "another structure"),
}


def write_review(
    path: str | Path,
    view: ReviewView,
    *,
    most_drawn: int = MOST_DRAWN,
    slices: int = SLICES,
    viewers: Mapping[str, Path] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Write the report as one self-contained HTML file.

    Args:
        path: of the page; replaced whole.
        view: what it is about.
        most_drawn: cases that are drawn at most, the worst first; the others are in the tables only.
        slices: of each plane at most.
        viewers: page of a case that shows it in 3D, to link to; beside this one or below its folder.
        progress: told how many of the cases are drawn.

    Returns:
        The path written.

    Raises:
        InputError: the file cannot be written. A scan that cannot be drawn is named on the page instead.
        ResourceError: the disk is full.
    """
    cases = ranked(view)
    chosen = [case for case in cases if case.prediction is not None][: max(most_drawn, 0)]
    environment = Environment(loader=PackageLoader("semi_med", "report"), autoescape=True, undefined=StrictUndefined)
    script = environment.get_template("review.js.j2").render()
    page = environment.get_template("review.html").render(
        title=view.title,
        identity=view.identity,
        summary=_summary(view),
        notes=list(view.notes),
        curves=_curves(view.training),
        classes=class_rows(view.table, pictures=_pictures(view)) if view.table else [],
        cases=case_rows(view, cases),
        card_of={case.name: number for number, case in enumerate(chosen)},
        columns=_columns(view),
        cards=_cards(view, chosen, slices=slices, progress=progress),
        pictures=_pictures(view),
        links=_links(Path(path), viewers or {}),
        labels=any(case.label is not None for case in cases),
        images=any(case.image is not None for case in cases),
        maps=any(case.uncertainty_map is not None for case in cases),
        class_key=[(class_colour(value), name) for value, name in class_names(view).items()],
        difference_key=list(_DIFFERENCE.values())[: 3 if len(class_names(view)) > 1 else 2],
        colours={"prediction": PREDICTION_COLOURS[0], "label": LABEL_COLOUR},
        volumes=_uri(volume_figure(volumes_of(cases), labels_of(view.table))),
        confidence=_confidence(view),
        records={name: flattened(record) for name, record in view.records.items() if record},
        versions=list(versions().items()),
        made=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii"),
    )
    write_atomically(path, page)
    return Path(path)


def _links(path: Path, viewers: Mapping[str, Path]) -> dict[str, str]:
    """Addresses of the pages in 3D from this page, which hold as long as they are moved together."""
    return {case: quote(os.path.relpath(page, path.parent)) for case, page in viewers.items()}


def check_page_name(path: str | Path) -> Path:
    """The path of a page, refused before any work if it cannot be one.

    Raises:
        InputError: code SETTING.
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError("a name that ends in .html was wanted", where=path, fix="Rename it.", code="SETTING")
    return path


def _summary(view: ReviewView) -> list[str]:
    """What a reader wants to know first, in sentences."""
    if not view.cases:
        return ["No predictions were given: this page is about the training alone."]
    failed = [case.name for case in view.cases if case.prediction is None]
    warned = sum(bool(case.warnings) for case in view.cases)
    found = [f"{len(view.cases) - len(failed)} of {len(view.cases)} cases were segmented."]
    found += [f"{len(failed)} failed."] if failed else []
    found += [f"{warned} came with a warning."] if warned else []
    if view.table:
        found += _dice_sentences(view)
    else:
        found.append("No labels were given: how good the masks are is not known, and has to be looked at.")
    return found


def _dice_sentences(view: ReviewView) -> list[str]:
    last = summarize(view.table, metrics=("dice",))[-1]
    over = f"95 % interval over {last['n']} cases: {interval(last['low'], last['high'])}"
    sentences = [f"Mean Dice {number(last['mean'])} ({over})."]
    means = {case: value for case, value in case_means(view.table).items() if not math.isnan(value)}
    if len(means) > 1:
        worst = min(means, key=lambda case: means[case])
        sentences.append(f"The worst case is {worst} with {number(means[worst])}.")
    if last["n"] < ENOUGH_CASES:
        sentences.append(f"Fewer than {ENOUGH_CASES} cases say little about the next one.")
    return sentences


def _columns(view: ReviewView) -> dict[str, Any]:
    """Which columns the table of cases has, and the unit of distances."""
    in_mm = any(not math.isnan(float(row["hd95_mm"])) for row in view.table)
    return {
        "dice": bool(view.table),
        "several": len(class_names(view)) > 1,
        "distance": "mm" if in_mm else "pixels" if _pictures(view) else "voxels",
        "volume": bool(volumes_of(view.cases)),
        "confidence": any(case.confidence is not None for case in view.cases),
    }


def _pictures(view: ReviewView) -> bool:
    """Whether all masks are pictures."""
    return all(is_picture(case.prediction) for case in view.cases if case.prediction is not None)


def _curves(folder: Path | None) -> dict[str, Any]:
    if folder is None:
        return {}
    train, validation = (read_log(folder / "logs" / file) for file in ("train.csv", "validation.csv"))
    name = folder.resolve().name
    return {
        "loss": _uri(figures.terms_figure(train)),
        "validation": _uri(figures.validation_figure({name: validation})),
        "health": _uri(figures.health_figure({name: train})),
        "schedule": _uri(figures.schedule_figure({name: train})),
        "complaints": [f"{one[:1].upper()}{one[1:]}." for one in complaints(train)],
        "missing": [file for file, log in (("train.csv", train), ("validation.csv", validation)) if not log],
    }


def _cards(
    view: ReviewView, chosen: Sequence[ReviewCase], *, slices: int, progress: Callable[[int, int], None]
) -> list[dict[str, Any]]:
    """One card for each case that is drawn."""
    dice = case_means(view.table)
    found = []
    for done, case in enumerate(chosen, start=1):
        value = dice.get(case.name, math.nan)
        card: dict[str, Any] = {
            "name": case.name,
            "key": case.key,
            "dice": number(value) if case.name in dice else "",
            "confidence": "" if case.confidence is None else number(case.confidence),
            "warnings": list(case.warnings),
            "structures": structure_table(case, view.table),
            "panels": [],
            "problem": "",
            "facts": json.dumps(_facts(case, value)),
        }
        try:
            card["panels"] = [_panel(panel, view) for panel in draw_panels(load_volumes(case), slices=slices)]
        except SemiMedError as error:
            card["problem"] = f"{error.problem} ({Path(error.where).name})" if error.where else error.problem
        found.append(card)
        progress(done, len(chosen))
    return found


def _facts(case: ReviewCase, dice: float) -> dict[str, Any]:
    """What is exported beside the mark of a case."""
    return {"dice": None if math.isnan(dice) else round(dice, 4), "confidence": case.confidence}


def _panel(panel: Any, view: ReviewView) -> dict[str, Any]:
    names = class_names(view)

    def shapes(found: Sequence[Any]) -> list[dict[str, str]]:
        return [
            {"path": one.path, "colour": class_colour(one.value), "name": names.get(one.value, f"class {one.value}")}
            for one in found
        ]

    return {
        "plane": panel.plane,
        "width": f"{panel.width:.6g}",
        "height": f"{panel.height:.6g}",
        "scale": " ".join(f"{value:.6g}" for value in panel.scale),
        "letter": f"{min(0.045 * max(panel.width, panel.height), 0.18 * min(panel.width, panel.height)):.3g}",
        "total": panel.total,
        "first": panel.first,
        "slices": [
            {
                "number": one.number,
                "image": one.image,
                "heat": one.heat,
                "prediction": shapes(one.prediction),
                "label": shapes(one.label),
                "difference": [(*_DIFFERENCE[name], path) for name, path in one.difference.items()],
            }
            for one in panel.slices
        ],
    }


def class_names(view: ReviewView) -> dict[int, str]:
    """Number to name; by the order of the table of volumes where nobody says."""
    if view.classes:
        return dict(view.classes)
    return dict(enumerate(dict.fromkeys(name for case in view.cases for name in case.volumes), start=1))


def class_colour(value: int) -> str:
    """Colour of a class by its number; they repeat beyond the palette."""
    return _CLASS_COLOURS[(value - 1) % len(_CLASS_COLOURS)]


def _confidence(view: ReviewView) -> dict[str, Any]:
    scores = {case.name: case.confidence for case in view.cases if case.confidence is not None}
    if not scores:
        return {}
    dice = case_means(view.table)
    return {
        "figure": _uri(confidence_figure(scores, dice)),
        "ranking": ranking_words(scores, dice),
        "lowest": sorted(scores, key=lambda case: scores[case])[: min(_LEAST_SURE, -(-len(scores) // 2))],
    }


def _uri(figure: Figure | None) -> str | None:
    return None if figure is None else figures.data_uri(figure)
