"""The command `semi-med predict`: parses, calls one function, prints."""

from __future__ import annotations

import signal
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from semi_med import cli_text
from semi_med.cli_options import DataListOption, Section, SectionOption, scans_of


class Network(str, Enum):
    """Which of the trained networks segments."""

    first = "1"
    second = "2"
    mean = "mean"


class LabelFormat(str, Enum):
    """What the labels of a prediction are written as."""

    auto = "auto"
    nifti = "nifti"
    png = "png"


class Precision(str, Enum):
    """What the networks compute in."""

    bundle = "bundle"
    float32 = "float32"
    bfloat16 = "bfloat16"
    auto = "auto"


class Naming(str, Enum):
    """What the files are called."""

    case = "case"
    bids = "bids"


class Tta(str, Enum):
    """What else than the scan itself the networks see."""

    none = "none"
    flips = "flips"


def predict(
    bundle: Annotated[Path, typer.Argument(help="A bundle with weights, or the folder of a training run.")],
    inputs: Annotated[
        list[Path], typer.Argument(help="Scans or pictures, folders of them, folders or zips of a DICOM series.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for <case>_seg.nii.gz, of pictures <case>_seg.png.")
    ],
    network: Annotated[Network, typer.Option(help="Which of two networks, or the mean of both.")] = Network.first,
    largest_component: Annotated[
        bool | None,
        typer.Option(
            "--largest-component/--all-components",
            help="Of each class keep the largest component, or all; by default as the bundle says.",
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; by default CUDA if there is one.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Instead of the bundle's models/model.pt.")] = None,
    data_list: DataListOption = None,
    section: SectionOption = Section.test,
    skip_existing: Annotated[
        bool,
        typer.Option(
            "--skip-existing",
            help="Leave cases that were done with the same input, weights, settings and are unharmed.",
        ),
    ] = False,
    precision: Annotated[
        Precision,
        typer.Option(help="auto: bfloat16 where the machine has it and a window of the first scan comes out the same."),
    ] = Precision.bundle,
    uncertainty: Annotated[bool, typer.Option("--uncertainty", help="Also write a map of entropy, 0 to 1.")] = False,
    disagreement: Annotated[
        bool, typer.Option("--disagreement", help="Also write where two networks, or mirror images, disagree, 0 to 1.")
    ] = False,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Also write those of all classes.")] = False,
    tta: Annotated[Tta, typer.Option(help="flips: average over mirror images, 8 times the work in 3D.")] = Tta.none,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="TABLE_confidence.json", help="Of semi-med evaluate --scores: adds the Dice to expect of each case."
        ),
    ] = None,
    dicom_seg: Annotated[
        bool | None,
        typer.Option(
            "--dicom-seg/--no-dicom-seg",
            help="Of DICOM also write a DICOM segmentation; by default if highdicom is installed.",
        ),
    ] = None,
    naming: Annotated[
        Naming, typer.Option(help="bids: sub-01/anat/sub-01_desc-semimed_dseg.nii.gz, as a derivative data set.")
    ] = Naming.case,
    series: Annotated[
        str | None,
        typer.Option(metavar="N|HASH|all", help="Of a DICOM folder with several series; semi-med series lists them."),
    ] = None,
    allow_gaps: Annotated[
        bool, typer.Option("--allow-gaps", help="Fill in missing DICOM slices by interpolation, with a warning.")
    ] = False,
    refuse_burned_in: Annotated[
        bool, typer.Option("--refuse-burned-in", help="Refuse DICOM whose pixels may show who the patient is.")
    ] = False,
    label_format: Annotated[
        LabelFormat,
        typer.Option("--format", help="nifti: for pictures too; png: for volumes of one slice too."),
    ] = LabelFormat.auto,
) -> None:
    """Segment scans. Exit code 1 if a case failed; the others are written."""
    from semi_med.inference.batch import predict as predict_all

    cases = None if data_list is None else scans_of(data_list, section, inputs)
    asked = {"probabilities": probabilities, "uncertainty": uncertainty, "disagreement": disagreement}
    try:
        rows = predict_all(
            bundle,
            inputs,
            output,
            cases=cases,
            network=network.value,
            largest_component=largest_component,
            device=device,
            weights=weights,
            precision=precision.value,
            maps=[name for name, wanted in asked.items() if wanted],
            flips=tta is Tta.flips,
            series=series,
            dicom={
                "gaps": "resample" if allow_gaps else "error",
                "burned_in": "error" if refuse_burned_in else "warn",
            },
            format=label_format.value,
            naming=naming.value,
            dicom_seg=dicom_seg,
            skip_existing=skip_existing,
            calibration=calibration,
            report=cli_text.case_line(),
            progress=cli_text.window_line(),
        )
    except KeyboardInterrupt:
        advice = "what is done is written; the same command with --skip-existing goes on"
        typer.echo(cli_text.stopped_line(advice), err=True)
        raise typer.Exit(128 + signal.SIGINT) from None
    for row in rows:
        for name in row["outputs"]:
            typer.echo(output / name)
    typer.echo(output / "volumes.csv")
    typer.echo(output / "run.json")
    if skipped := sum(row["skipped"] for row in rows):
        typer.echo(f"{skipped} of {len(rows)} cases had been done before", err=True)
    failed = sum(row["status"] == "failed" for row in rows)
    if failed:
        typer.echo(f"error: {failed} of {len(rows)} cases failed, see above and run.json", err=True)
        raise typer.Exit(1)
