"""One page and two CSV files that say which methods are better, by how much, and how sure that is."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from semi_med.files import write_atomically
from semi_med.metrics.comparison import FEW_SUBJECTS, TIE_DICE
from semi_med.report import comparison_curves as curves
from semi_med.report.comparison_csv import write_summary, write_values
from semi_med.report.comparison_data import Analysis, Entry, analyse
from semi_med.report.comparison_figures import accuracy_figure, forest_figure
from semi_med.report.comparison_pictures import draw_pictures
from semi_med.report.comparison_settings import method_settings, run_settings, shared_settings
from semi_med.report.comparison_style import looks, svg_uri
from semi_med.report.comparison_tables import case_tables, class_tables, method_rows
from semi_med.report.comparison_views import ComparisonView
from semi_med.report.comparison_words import CLAIM_SEEDS, FEW_SEEDS, points, seed_words
from semi_med.report.verdict import ENOUGH_CASES
from semi_med.runtime import versions

PAGE, VALUES, SUMMARY = "comparison.html", "comparison.csv", "summary.csv"


def write_comparison(folder: Path, view: ComparisonView) -> list[Path]:
    """Write the page and the tables of a comparison.

    Args:
        folder: where to; `comparison.html` (one self-contained file), `comparison.csv` (one row for each run, case and
            class) and `summary.csv` (one row for each method and number of labels) are replaced whole.
        view: the runs, and the test cases they were measured on.

    Returns:
        The paths written, the page first.

    Raises:
        InputError: no run, a run without rows, one method, number of labels and seed twice, or a file cannot be
            written. Runs that cannot be compared, logs and scans that cannot be read are named on the page instead.
    """
    found = analyse(view)
    folder = Path(folder)
    write_atomically(folder / PAGE, _page(found))
    return [folder / PAGE, write_values(folder / VALUES, found), write_summary(folder / SUMMARY, found)]


def verdict_sentences(view: ComparisonView) -> list[str]:
    """One sentence for each number of labels and method, the best method of each number first.

    Raises:
        InputError: as `write_comparison`.
    """
    found = analyse(view)
    sentences = []
    for labeled in found.counts:
        judged = [entry for entry in found.at(labeled) if entry.verdict is not None]
        sentences += [entry.verdict.sentence for entry in sorted(judged, key=_rank) if entry.verdict]
    return sentences


def _page(found: Analysis) -> str:
    environment = Environment(loader=PackageLoader("semi_med", "report"), autoescape=True, undefined=StrictUndefined)
    script = environment.get_template("comparison_sort.js.j2").render()
    view = found.view
    train, validation = (curves.read_logs(found, file) for file in ("train.csv", "validation.csv"))
    return environment.get_template("comparison.html").render(
        title=view.title,
        unit=view.unit,
        thing=view.thing,
        element="pixel" if view.thing == "picture" else "voxel",
        distance=found.distance[1],
        baseline=found.names.get(view.baseline, view.method_names.get(view.baseline, view.baseline)),
        cards=[_card(found, labeled) for labeled in found.counts],
        missing=list(view.missing),
        notes=_notes(found),
        methods=method_rows(found),
        looks=[(name, look) for name, look in _looks(found)],
        ceiling=found.ceiling is not None,
        figures={
            "accuracy": _uri(accuracy_figure(found)),
            "forest": _uri(forest_figure(found)),
            "validation": _uri(curves.validation_figure(found, validation)),
            "loss": _uri(curves.loss_figure(found, train)),
            "health": _uri(curves.health_figure(found, train)),
        },
        flags=curves.health_flags(found, train),
        without_log=curves.without_log(found, train),
        classes=class_tables(found),
        cases=case_tables(found),
        pictures=draw_pictures(found),
        shared=shared_settings(found),
        differing=method_settings(found),
        runs=_run_rows(found),
        limits={"tie": points(TIE_DICE), "seeds": CLAIM_SEEDS, "few_seeds": FEW_SEEDS, "subjects": ENOUGH_CASES}
        | {"few_subjects": FEW_SUBJECTS},
        counts=_counts(found),
        versions=list(versions().items()),
        made=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii"),
    )


def _card(found: Analysis, labeled: int) -> dict[str, Any]:
    """The answer at one number of labels: the best method against the baseline."""
    best = found.best(labeled)
    card: dict[str, Any] = {"labels": found.labels(labeled), "word": "unclear", "headline": "Nothing to compare yet"}
    card |= {"sentence": "", "facts": [], "cautions": (), "ruler": None}
    if best is None or best.verdict is None or best.difference is None:
        return card
    difference, word, baseline = best.difference, best.verdict.word, found.names[found.view.baseline]
    here = "In this one run" if difference.n_seeds == 1 else "In these runs"
    headlines = {
        "better": f"Yes: {best.name} is better than {baseline}",
        "worse": f"No: even the best method, {best.name}, is worse than {baseline}",
        "better in these runs": f"{here} yes: {best.name} is better than {baseline}",
        "worse in these runs": f"{here} no: even the best method, {best.name}, is worse than {baseline}",
        "no clear difference": f"No clear difference between {baseline} and {best.name}, the best method",
    }
    if word == "better" and not best.verdict.holds:
        word = "no clear difference"
        headlines[word] = f"Perhaps: {best.name} is ahead of {baseline}, but as the best of several it may be by chance"
    facts = [
        f"Mean Dice {points(difference.mean_a)} against {points(difference.mean_b)}, in points of 100.",
        f"Of {difference.n_cases} test cases better in {difference.wins}, equal in {difference.ties}, worse in "
        f"{difference.losses}; better in {difference.seeds_better} of {difference.n_seeds} seeds "
        f"({seed_words(difference.by_seed)}).",
    ]
    return card | {
        "word": word.split()[0] if word.startswith(("better", "worse")) else "unclear",
        "headline": headlines[word],
        "sentence": best.verdict.sentence,
        "facts": facts,
        "cautions": best.verdict.cautions,
        "ruler": _ruler(best),
    }


def _ruler(entry: Entry) -> dict[str, float] | None:
    """Places (0 to 100) of mean and interval on a line with zero in the middle."""
    found = entry.difference
    if found is None or not (math.isfinite(found.low) and math.isfinite(found.high)):
        return None
    reach = max(abs(found.low), abs(found.high), 1e-3) * 1.2
    return {name: 50 + 50 * getattr(found, name) / reach for name in ("low", "mean", "high")}


def _rank(entry: Entry) -> float:
    return -entry.difference.mean if entry.difference else math.inf


def _notes(found: Analysis) -> list[str]:
    """What was given, and what keeps runs from being compared."""
    problems = [
        f"{entry.name}, {found.labels(entry.labeled)}: {entry.problem}"
        for entry in found.entries.values()
        if entry.problem
    ]
    notes = [
        f"{entry.name}, {found.labels(entry.labeled)}: compared without seed "
        f"{', '.join(map(str, entry.difference.left_out))}, which only one of both methods has."
        for entry in found.entries.values()
        if entry.difference is not None and entry.difference.left_out
    ]
    return [*found.view.notes, *problems, *notes]


def _looks(found: Analysis) -> list[tuple[str, Any]]:
    styles = looks(found.names, baseline=found.view.baseline)
    return [(found.brief[method], styles[method]) for method in found.names]


def _counts(found: Analysis) -> Mapping[str, int]:
    cases = {row["case"] for run in found.view.runs for row in run.table}
    return {
        "runs": len(found.view.runs),
        "seeds": len({run.seed for run in found.view.runs}),
        "cases": len(cases),
        "subjects": len({found.view.subjects.get(case, case) for case in cases}),
    }


def _run_rows(found: Analysis) -> list[dict[str, str]]:
    own = run_settings(found)
    return [
        {
            "name": run.name,
            "settings": own[run.name],
            "method": entry.name,
            "labels": found.labels(labeled),
            "seed": str(run.seed),
            "dice": points(entry.mean.by_seed.get(run.seed, math.nan)) if entry.mean else "–",
            "minutes": "–" if math.isnan(run.minutes) else f"{run.minutes:.1f}",
            "folder": Path(run.folder).name,
        }
        for labeled in (*found.counts, None)
        for entry in found.at(labeled)
        for run in entry.runs
    ]


def _uri(figure: Figure | None) -> str | None:
    return None if figure is None else svg_uri(figure)
