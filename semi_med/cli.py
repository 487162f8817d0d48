"""The command `semi-med`: parses, calls one function, prints. Nothing heavy is imported before a command runs.

Exit codes: 0 done; 1 some cases failed, the others are done; 2 the input is wrong; 3 the machine lacks something, or
training cannot go on; 5 a bug; 130 Ctrl-C, 143 SIGTERM.
"""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from semi_med import cli_text
from semi_med.errors import InputError, SemiMedError

app = typer.Typer(
    name="semi-med",
    help="Segmentation models from a handful of labelled scans and many unlabelled ones. Research only.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
prepare_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Prepare a data set.")
app.add_typer(prepare_app, name="prepare")

_BUG = 5


class Network(str, Enum):
    """Which of the trained networks segments."""

    first = "1"
    second = "2"
    mean = "mean"


class Size(str, Enum):
    """Of the phantom's scans."""

    demo = "demo"
    large = "large"


class Section(str, Enum):
    """Of a data list."""

    labeled = "labeled"
    unlabeled = "unlabeled"
    validation = "validation"
    test = "test"


DataListOption = Annotated[Path | None, typer.Option("--data-list", help="Only the cases of a section of this list.")]
SectionOption = Annotated[Section, typer.Option("--section", help="Which section of --data-list.")]


def main() -> None:
    """Run the command line; an error of ours is one line, or one list, and an exit code."""
    try:
        app()
    except SemiMedError as error:
        _fail(error, f"error: {error}", code=error.exit_code)
    except Exception as error:  # the last line of defence: a user is told what happened, in one line
        text = f"error: unexpected {type(error).__name__}: {error}. This is a bug; semi-med --debug shows where"
        _fail(error, text, code=_BUG)


def _fail(error: Exception, text: str, *, code: int) -> None:
    if _debug:
        import traceback

        traceback.print_exception(error)
    print(text, file=sys.stderr)
    sys.exit(code)


_debug = False


def _show_version(wanted: bool) -> None:
    if wanted:
        from semi_med import __version__

        typer.echo(f"semi-med {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    global _debug
    _debug = debug


@prepare_app.command("la")
def prepare_la(
    source: Annotated[Path, typer.Argument(help="The challenge's folder, or one with images/ and labels/.")],
    target: Annotated[Path, typer.Argument(help="A missing or empty folder, or one to go on with.")],
) -> None:
    """LA, the left atrium in LGE-MR (Atrial Segmentation Challenge 2018): normalise, crop, write the data lists."""
    from semi_med.datasets import la

    typer.echo(la.prepare(source, target, progress=cli_text.counter("preparing")).summary())


@prepare_app.command("phantom")
def prepare_phantom(
    target: Annotated[Path, typer.Argument(help="Folder for images/, labels/ and data_list.json.")],
    size: Annotated[Size, typer.Option(help="About 80 x 80 x 54 voxels, or as large as the scans of LA.")] = Size.demo,
    seed: Annotated[int, typer.Option(min=0, help="Another seed draws another data set.")] = 0,
) -> None:
    """Drawings that imitate a left atrium. They say nothing about patients."""
    from semi_med.datasets import phantom

    typer.echo(phantom.prepare(target, seed=seed, size=size.value, progress=cli_text.counter("drawing")))


@app.command()
def validate(
    data_list: Annotated[Path, typer.Argument(help="JSON data list.")],
    dataset_dir: Annotated[Path, typer.Option(help="The folder that its paths are relative to.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    without_test: Annotated[
        bool, typer.Option("--without-test", help="Do not open the test section; its files may be missing.")
    ] = False,
    without_unlabeled: Annotated[
        bool, typer.Option("--without-unlabeled", help="The same for the unlabeled section.")
    ] = False,
) -> None:
    """Check a data list and all its files. Every problem is named at once; exit code 2 if there are any."""
    from semi_med.data.data_list import SECTIONS, load_data_list
    from semi_med.data.validation import Findings, examine_sections
    from semi_med.errors import ProblemsError

    left_out = {"test"} if without_test else set()
    left_out |= {"unlabeled"} if without_unlabeled else set()
    try:
        listed = load_data_list(data_list)
        if not dataset_dir.is_dir():
            raise InputError("this folder does not exist", where=dataset_dir, fix="Check the path.", code="NOT_FOUND")
        findings = examine_sections(
            listed.sections(dataset_dir),
            labels=listed.label_values,
            sections_needed=[name for name in SECTIONS if name not in left_out],
            progress=cli_text.counter("reading"),
        )
    except InputError as error:
        findings = Findings(error.problems if isinstance(error, ProblemsError) else [error])
    typer.echo(cli_text.findings_json(findings) if as_json else cli_text.findings_table(findings))
    if findings.problems:
        raise typer.Exit(2)


@app.command()
def compose(
    method: Annotated[str, typer.Argument(help="For example cotrain or supervised.")],
    task: Annotated[str, typer.Argument(help="For example la, hippocampus or phantom.")],
    target: Annotated[Path, typer.Argument(help="The bundle's folder.")],
) -> None:
    """Write the MONAI bundle of a method for a task."""
    from semi_med.recipes.compose import compose as compose_bundle

    typer.echo(compose_bundle(method, task, target))


@app.command()
def train(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle.")],
    dataset_dir: Annotated[Path | None, typer.Option(help="Folder that the data list's paths are relative to.")] = None,
    output_dir: Annotated[Path | None, typer.Option(help="Folder of the run; by default the bundle itself.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any setting of the bundle; repeatable.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest whole checkpoint.")] = False,
) -> None:
    """Train a bundle. The command that it runs, `python -m monai.bundle run training`, is printed and works too."""
    from semi_med import launch

    chosen = dict(launch.parse_setting(text) for text in settings or ())
    given = {"dataset_dir": dataset_dir, "output_dir": output_dir, "resume": True if resume else None}
    given = {name: value for name, value in given.items() if value is not None}
    command = launch.training_command(bundle, settings={**given, **chosen})
    typer.echo(launch.shown(command), err=True)
    raise typer.Exit(launch.run(command))


@app.command()
def predict(
    bundle: Annotated[Path, typer.Argument(help="A bundle with weights, or the folder of a training run.")],
    inputs: Annotated[list[Path], typer.Argument(help="Scans and folders of scans.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for <case>_seg.nii.gz.")],
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
) -> None:
    """Segment scans. Exit code 1 if a case failed; the others are written."""
    from semi_med.inference.batch_files import collect_cases
    from semi_med.inference.predictor import predict as predict_all

    scans = list(inputs)
    if data_list is not None:
        wanted = _files_of(data_list, section)
        found = {case.image.name: case.image for case in collect_cases(inputs, output) if case.image.name in wanted}
        if missing := sorted(wanted - found.keys()):
            raise InputError(
                f"{len(missing)} of the {len(wanted)} scans of the section {section.value} are not among the inputs: "
                f"{', '.join(missing[:5])}",
                where=data_list,
                fix="Name the folder of the scans.",
                code="NOT_FOUND",
            )
        scans = list(found.values())
    rows = predict_all(
        bundle,
        scans,
        output,
        network=network.value,
        largest_component=largest_component,
        device=device,
        weights=weights,
        report=cli_text.case_line(),
    )
    for row in rows:
        if row["output"]:
            typer.echo(output / row["output"])
    typer.echo(output / "volumes.csv")
    typer.echo(output / "run.json")
    failed = sum(row["status"] == "failed" for row in rows)
    if failed:
        typer.echo(f"error: {failed} of {len(rows)} cases failed, see above and run.json", err=True)
        raise typer.Exit(1)


def _files_of(data_list: Path, section: Section) -> set[str]:
    """File names of a section's images."""
    from semi_med.data.data_list import load_data_list

    cases = getattr(load_data_list(data_list), section.value)
    return {Path(file).name for case in cases for file in case.files}


def _labels_of(data_list: Path, section: Section) -> tuple[set[str], dict[int, str]]:
    """Names of a section's labels without suffix, and the classes of the list."""
    from semi_med.data.data_list import load_data_list
    from semi_med.inference.io import case_name

    listed = load_data_list(data_list)
    files = [case.label or case.monitor_label for case in getattr(listed, section.value)]
    return {case_name(file) for file in files if file}, {int(value): name for value, name in listed.labels.items()}


@app.command()
def evaluate(
    predictions: Annotated[Path, typer.Argument(help="Folder of <case>_seg.nii.gz or <case>.nii.gz, or one file.")],
    labels: Annotated[Path, typer.Argument(help="Folder of the experts' labels, or one file.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="CSV, one row for each case and class.")],
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Count labels without a prediction as undefined and go on.")
    ] = False,
    data_list: DataListOption = None,
    section: SectionOption = Section.test,
) -> None:
    """Measure predictions against labels. By case and over cases: Dice, Jaccard, HD95, ASD, in mm and voxels."""
    from semi_med.metrics.evaluate import evaluate as evaluate_all

    cases, classes = (None, None) if data_list is None else _labels_of(data_list, section)
    result = evaluate_all(
        predictions,
        labels,
        output=output,
        classes=classes,
        cases=cases,
        allow_missing=allow_missing,
        report=lambda line: typer.echo(line, err=True),
    )
    typer.echo(cli_text.summary_table(result.summary))
    for path in result.written:
        typer.echo(path)
    if result.missing:
        typer.echo(f"{len(result.missing)} labels without a prediction are counted as undefined", err=True)
    if result.problems:
        typer.echo(f"error: {len(result.problems)} cases could not be measured, see above", err=True)
        raise typer.Exit(1)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="A missing or empty folder.")] = Path("demo"),
    iterations: Annotated[int | None, typer.Option(min=1, help="Of each training; by default the recipe's.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the trainings. The drawings are the same.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the demo that lies in the folder.")] = False,
) -> None:
    """Try everything on drawings. Trains with and without unlabelled scans, predicts, compares, writes a report."""
    from semi_med.demo import run_demo

    result = run_demo(output, iterations=iterations, seed=seed, overwrite=overwrite, say=_say)
    typer.echo(f"\n{result.headline}")
    for sentence in result.sentences:
        typer.echo(sentence)
    typer.echo(f"\n{result.report}")


def _say(line: str) -> None:
    typer.echo(line, err=True)


@app.command()
def info() -> None:
    """Versions, device and threads."""
    from semi_med.runtime import describe_machine

    for name, value in describe_machine().items():
        typer.echo(f"{name}: {value}")


if __name__ == "__main__":
    main()
