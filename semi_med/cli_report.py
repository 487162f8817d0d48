"""The commands that make pages to look at results: `report` and `view`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from semi_med import cli_text
from semi_med.cli_options import DataListOption, Section, SectionOption, labels_of, scans_of


def report(
    places: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN_OR_PREDICTIONS...", help="The folder of a training run, of its predictions, or both."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE.html", help="By default report.html in the folder.")
    ] = None,
    images: Annotated[
        list[Path] | None, typer.Option("--images", help="The scans that were predicted, to draw on; repeatable.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", help="The experts' labels: measured, and drawn beside the predictions.")
    ] = None,
    data_list: DataListOption = None,
    section: SectionOption = Section.test,
    table: Annotated[
        Path | None, typer.Option("--table", metavar="CSV", help="Of an earlier evaluate, instead of measuring again.")
    ] = None,
    drawn: Annotated[int, typer.Option(min=0, help="Cases that are drawn at most, the worst first.")] = 60,
    slices: Annotated[int, typer.Option(min=1, help="Slices of each of the three planes at most.")] = 3,
) -> None:
    """One HTML file to look at results: every case, worst first, to mark as pass, fail or artifact; curves; provenance.

    It opens without a network and holds no patient's name but what the files are called.
    """
    from semi_med.report.review import check_page_name, write_review
    from semi_med.report.review_data import Beside, collect_review, folders_of

    training, predictions = folders_of(places)
    path = check_page_name(output or Path(predictions or training or ".") / "report.html")
    beside = Beside(images=images or (), labels=labels, table=table)
    if data_list is not None:
        folder = data_list.absolute().parent
        scans = {} if predictions is None else scans_of(data_list, section, images or [folder])
        files, classes, ignored = labels_of(data_list, section, labels or folder)
        beside = Beside(
            images={case: first for case, (first, *_) in scans.items()},
            labels=labels or folder,
            label_files=files,
            classes=classes,
            ignored=ignored,
            table=table,
        )
    view = collect_review(places, beside, say=lambda line: typer.echo(line, err=True))
    typer.echo(write_review(path, view, most_drawn=drawn, slices=slices, progress=cli_text.counter("drawing")))
