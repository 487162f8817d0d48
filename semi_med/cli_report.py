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
    ignored: Annotated[
        int | None,
        typer.Option(min=0, metavar="VALUE", help="Of labels where nothing is known; by default the list's."),
    ] = None,
    table: Annotated[
        Path | None, typer.Option("--table", metavar="CSV", help="Of an earlier evaluate, instead of measuring again.")
    ] = None,
    drawn: Annotated[int, typer.Option(min=0, help="Cases that are drawn at most, the worst first.")] = 60,
    slices: Annotated[int, typer.Option(min=1, help="Slices of each of the three planes at most.")] = 3,
    in_3d: Annotated[
        int, typer.Option("--in-3d", min=0, help="Pages in 3D of so many cases, the worst first, in a folder beside.")
    ] = 0,
) -> None:
    """One HTML file to look at results: every case, worst first, to mark as pass, fail or artifact; curves; provenance.

    It opens without a network and holds no patient's name but what the files are called.
    """
    from semi_med.report.review import check_page_name, write_review
    from semi_med.report.review_data import collect_review, folders_of
    from semi_med.report.review_labels import Beside
    from semi_med.report.viewer import write_viewers

    training, predictions = folders_of(places)
    path = check_page_name(output or Path(predictions or training or ".") / "report.html")
    beside = Beside(images=images or (), labels=labels, ignored=ignored, table=table)
    if data_list is not None:
        folder = data_list.absolute().parent
        scans = {} if predictions is None else scans_of(data_list, section, images or [folder])
        files, classes, listed = labels_of(data_list, section, labels or folder)
        beside = Beside(
            images={case: first for case, (first, *_) in scans.items()},
            labels=labels or folder,
            label_files=files,
            classes=classes,
            ignored=listed if ignored is None else ignored,
            table=table,
        )
    view = collect_review(places, beside, say=lambda line: typer.echo(line, err=True))
    pages, problems = write_viewers(
        path.with_name(f"{path.stem}_3d"), view, most=in_3d, progress=cli_text.counter("in 3D")
    )
    for problem in problems:
        typer.echo(f"warning: {problem}", err=True)
    drawing = cli_text.counter("drawing")
    typer.echo(write_review(path, view, most_drawn=drawn, slices=slices, viewers=pages, progress=drawing))
    for page in pages.values():
        typer.echo(page)


def view(
    scan: Annotated[Path, typer.Argument(help="A volume: a file, or the folder of a DICOM series.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE.html", help="By default <case>_view.html, here.")
    ] = None,
    prediction: Annotated[Path | None, typer.Option("--prediction", help="A mask.")] = None,
    label: Annotated[Path | None, typer.Option("--label", help="The expert's mask.")] = None,
    uncertainty: Annotated[Path | None, typer.Option("--uncertainty", help="A map of predict.")] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="NAME", help="Of class 1, 2, ...; by default from the record of predict."),
    ] = None,
    series: Annotated[int | None, typer.Option(metavar="N", help="Of a DICOM folder with several series.")] = None,
) -> None:
    """One HTML file to look at a case in three planes and in 3D. It opens without a network; the scan is inside it."""
    from semi_med.inference.io import case_name
    from semi_med.report.review import check_page_name
    from semi_med.report.review_data import names_beside
    from semi_med.report.review_view import ReviewCase
    from semi_med.report.viewer import write_viewer

    name = case_name(scan.absolute())
    path = check_page_name(output or Path(f"{name}_view.html"))
    case = ReviewCase(name, prediction, image=scan, series=series, label=label, uncertainty_map=uncertainty)
    names = classes or ([] if prediction is None else names_beside(prediction))
    typer.echo(write_viewer(path, case, classes=dict(enumerate(names, start=1))))
