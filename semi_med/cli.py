"""The command `semi-med`: parses, calls one function, prints. Nothing heavy is imported before a command runs.

Exit codes: 0 done; 1 some cases failed, the others are done; 2 the input is wrong; 3 the machine lacks something, or
training cannot go on; 5 a bug; 130 Ctrl-C, 143 SIGTERM.
"""

from __future__ import annotations

import shlex
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from semi_med import cli_export, cli_label, cli_predict, cli_prepare, cli_report, cli_text
from semi_med.cli_options import DataListOption, Section, SectionOption, labels_of
from semi_med.compare.arguments import spread
from semi_med.errors import InputError, SemiMedError

if TYPE_CHECKING:
    from semi_med.compare.collect import Report
    from semi_med.compare.run import Result
    from semi_med.data.case_files import Look
    from semi_med.data.validation import Findings, Options

app = typer.Typer(
    name="semi-med",
    help="Segmentation models from a handful of labelled scans and many unlabelled ones. Research only.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(cli_prepare.app, name="prepare")
app.command()(cli_label.label)
app.command()(cli_predict.predict)

_BUG = 5


class Strata(str, Enum):
    """What the sections of a split hold in equal proportions."""

    none = "none"
    group = "group"
    foreground = "foreground"


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


class Check(str, Enum):
    """How closely a validation looks."""

    full = "full"
    structure = "structure"


@app.command()
def validate(
    data: Annotated[Path, typer.Argument(metavar="LIST_OR_FOLDER", help="JSON data list, or a folder of scans.")],
    dataset_dir: Annotated[
        Path | None, typer.Option(help="The folder that a list's paths are relative to; by default the list's own.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    contact_sheet: Annotated[
        Path | None,
        typer.Option(metavar="FILE.html|FILE.png", help="Also draw each case with the outlines of its label."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes; each holds one case in memory.")] = 2,
    check: Annotated[
        Check, typer.Option(help="Read every file, or see only that it is there (seconds for 100,000 cases).")
    ] = Check.full,
    without_test: Annotated[
        bool, typer.Option("--without-test", help="Do not open the test section; its files may be missing.")
    ] = False,
    without_unlabeled: Annotated[
        bool, typer.Option("--without-unlabeled", help="The same for the unlabeled section.")
    ] = False,
    transductive: Annotated[
        bool, typer.Option("--transductive", help="Unlabelled scans may be those of the test; it is said so.")
    ] = False,
    allow_missing_class: Annotated[
        bool, typer.Option("--allow-missing-class", help="A class that no labelled case shows is a note.")
    ] = False,
    refuse_links: Annotated[
        bool, typer.Option("--refuse-links", help="Links that lead out of the data set's folder are problems.")
    ] = False,
    subject_pattern: Annotated[
        str | None,
        typer.Option(metavar="REGEX", help="Finds the subject in the path of a scan, for example '(TCGA_.._....)_'."),
    ] = None,
) -> None:
    """Check a data list or a folder of scans. Every problem is named at once; exit code 2 if there are any."""
    from semi_med.data.validation import Findings, Options
    from semi_med.errors import ProblemsError

    def look() -> Findings:
        from semi_med.data.members import subject_pattern as pattern_of

        drawn: Look | None = None
        if contact_sheet is not None:
            from semi_med.data.thumbnails import thumbnails
            from semi_med.report.contact_sheet import check_sheet_name

            drawn = thumbnails
            check_sheet_name(contact_sheet)
        options = Options(
            check=check.value,
            workers=workers,
            processes=check is Check.full,
            transductive=transductive,
            allow_missing_class=allow_missing_class,
            subject_pattern=None if subject_pattern is None else pattern_of(subject_pattern),
            look=drawn,
        )
        if data.is_dir():
            return _look_at_folder(data, options)
        left_out = ({"test"} if without_test else set()) | ({"unlabeled"} if without_unlabeled else set())
        return _look_at_list(data, dataset_dir, options, left_out=left_out, refuse_links=refuse_links)

    try:
        findings = look()
    except InputError as error:
        findings = Findings(error.problems if isinstance(error, ProblemsError) else [error])
    typer.echo(cli_text.findings_json(findings) if as_json else cli_text.findings_table(findings))
    if contact_sheet is not None and findings.verdicts:
        from semi_med.report.contact_sheet import write_contact_sheet

        typer.echo(write_contact_sheet(contact_sheet, findings, title=f"Contact sheet of {data.name}"), err=as_json)
    if findings.problems:
        raise typer.Exit(findings.exit_code)


def _look_at_folder(folder: Path, options: Options) -> Findings:
    from dataclasses import replace

    from semi_med.data.folders import find_cases
    from semi_med.data.validation import examine_cases

    found = find_cases(folder)
    findings = examine_cases(found.items, progress=cli_text.counter("reading"), options=options)
    return replace(findings, notes=[*found.notes, *findings.notes])


def _look_at_list(
    data_list: Path, dataset_dir: Path | None, options: Options, *, left_out: set[str], refuse_links: bool
) -> Findings:
    from dataclasses import replace

    from semi_med.data.data_list import SECTIONS, load_data_list
    from semi_med.data.validation import examine_sections

    listed = load_data_list(data_list)
    folder = dataset_dir or data_list.absolute().parent
    if not folder.is_dir():
        raise InputError("this folder does not exist", where=folder, fix="Check the path.", code="NOT_FOUND")
    return examine_sections(
        listed.sections(folder, allow_outside=not refuse_links),
        labels=listed.label_values,
        sections_needed=[name for name in SECTIONS if name not in left_out],
        progress=cli_text.counter("reading"),
        options=replace(options, channels=max(1, len(listed.modality)), ignored=listed.ignored),
    )


@app.command()
def convert(
    inputs: Annotated[list[Path], typer.Argument(help="Scans; a folder is a DICOM series.")],
    output: Annotated[Path, typer.Argument(help="A file that ends in .nii.gz, or a folder for several.")],
    label: Annotated[bool, typer.Option("--label", help="They are labels: class numbers, never interpolated.")] = False,
    volume: Annotated[int | None, typer.Option(min=0, help="Of several volumes in a file this one, from 0.")] = None,
    map_labels: Annotated[
        str | None, typer.Option(metavar="OLD=NEW,...", help="Change class numbers, for example 128=1,255=2.")
    ] = None,
    onto: Annotated[Path | None, typer.Option(help="Resample to the grid of this scan.")] = None,
    straighten: Annotated[bool, typer.Option("--straighten", help="Resample axes to right angles.")] = False,
    replace_nonfinite: Annotated[
        bool, typer.Option("--replace-nonfinite", help="Give NaN and infinite voxels the smallest value, up to 5 %.")
    ] = False,
) -> None:
    """Make sound NIfTI files of scans. Other formats, single volumes, other class numbers, another grid."""
    from semi_med.inference.convert import Conversion, convert_file, targets_of

    conversion = Conversion(
        label=label,
        volume=volume,
        map_labels=_numbers(map_labels or ""),
        onto=onto,
        straighten=straighten,
        replace_nonfinite=replace_nonfinite,
    )
    failed = 0
    for source, target in targets_of(inputs, output):
        try:
            warnings = convert_file(source, target, conversion)
        except SemiMedError as error:
            if len(inputs) == 1:
                raise
            typer.echo(f"error: {error}", err=True)
            failed += 1
            continue
        for warning in warnings:
            typer.echo(f"warning: {source.name}: {warning}", err=True)
        typer.echo(target)
    if failed:
        typer.echo(f"error: {failed} of {len(inputs)} scans failed, see above", err=True)
        raise typer.Exit(1)


def _numbers(text: str) -> dict[int, int]:
    """`128=1,255=2` as numbers."""
    try:
        return {int(old): int(new) for old, new in (pair.split("=") for pair in text.split(",") if pair)}
    except ValueError:
        raise InputError(
            f"pairs of class numbers were wanted, got {text!r}", where="--map-labels", fix="For example 128=1,255=2."
        ) from None


@app.command()
def split(
    output: Annotated[Path, typer.Option("-o", "--output", help="The data list; of --published its folder.")],
    source: Annotated[
        Path | None, typer.Argument(help="A prepared folder, a data list, or a folder with images/ and labels/.")
    ] = None,
    labeled: Annotated[
        str, typer.Option(metavar="N|FRACTION", help="Subjects with labels: 8, or 0.1 for 10 % of all.")
    ] = "0.1",
    validation: Annotated[str, typer.Option(metavar="N|FRACTION", help="Subjects for validation.")] = "0.1",
    test: Annotated[str, typer.Option(metavar="N|FRACTION", help="Subjects for the test.")] = "0.2",
    seed: Annotated[int, typer.Option(min=0, help="Another seed draws another split.")] = 0,
    stratify: Annotated[
        Strata, typer.Option(help="Equal proportions of the source's groups, or of small and large foregrounds.")
    ] = Strata.none,
    subjects: Annotated[
        Path | None, typer.Option(help="CSV with the columns case, subject and, if there are any, group.")
    ] = None,
    subject_pattern: Annotated[
        str | None, typer.Option(metavar="REGEX", help="What it finds in a case's name is the subject: 'patient\\d+'.")
    ] = None,
    classes: Annotated[
        list[str] | None, typer.Option("--class", metavar="NAME", help="Of a folder: names of class 1, 2, ...")
    ] = None,
    dataset_dir: Annotated[Path | None, typer.Option(help="Of a data list: the folder of its files.")] = None,
    published: Annotated[
        str | None, typer.Option(metavar="DATASET", help="Write the published lists of la, acdc, ... instead.")
    ] = None,
) -> None:
    """Write a data list: a split with a seed that never puts a subject into two sections.

    For one seed the test stays the same whatever the other numbers are, and the 4 labelled are among the 8. Where
    nothing says which cases show one person, each case counts as a subject.
    """
    from semi_med.data.data_list import save_data_list
    from semi_med.data.splits import make_split, split_list
    from semi_med.datasets import split_source

    if (published is None) == (source is None):
        raise InputError("either a source or --published is wanted", fix="Name one.", code="SETTING")
    if published is not None:
        for path in split_source.write_published(published, output):
            typer.echo(path)
        return
    choices = split_source.Choices(subjects, subject_pattern, stratify.value, tuple(classes or ()))
    found = split_source.read_source(
        str(source), choices, dataset_dir=dataset_dir, progress=cli_text.counter("reading labels")
    )
    drawn = make_split(
        found.cases,
        labeled=_number("labeled", labeled),
        validation=_number("validation", validation),
        test=_number("test", test),
        seed=seed,
    )
    save_data_list(split_list(drawn, **found.header), output)
    for note in found.notes:
        _say(f"note: {note}")
    typer.echo(cli_text.split_table(drawn))
    typer.echo(output)
    typer.echo(f"paths are relative to {found.folder}")


def _number(name: str, text: str) -> int | float:
    """`8` is a number of subjects, `0.1` a fraction, `10%` too."""
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text) if "." in text else int(text)
    except ValueError:
        raise InputError(
            f"a number such as 8, or a fraction such as 0.1, was wanted, got {text!r}",
            where=f"--{name}",
            fix="1 means one subject, 1.0 all of them.",
            code="SETTING",
        ) from None


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
def init(
    name: Annotated[str, typer.Argument(help="Of the task; the bundle's folder is called so too.")],
    images: Annotated[Path, typer.Option(help="Folder of the scans, in whatever form they are.")],
    labels: Annotated[Path | None, typer.Option(help="Folder of the labels, if they do not lie there too.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The bundle's folder; by default NAME.")] = None,
    method: Annotated[str, typer.Option(help="For example cotrain, mean_teacher or supervised.")] = "cotrain",
    validation: Annotated[int | None, typer.Option(min=0, help="Labelled subjects to watch the training.")] = None,
    test: Annotated[int | None, typer.Option(min=0, help="Labelled subjects kept for the end.")] = None,
    labeled: Annotated[
        int | None, typer.Option(min=1, help="Subjects that keep their labels; others' are hidden.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the split.")] = 0,
    subject_pattern: Annotated[
        str | None, typer.Option(metavar="REGEX", help="Finds the subject in the path of a scan, 'patient(\\d+)'.")
    ] = None,
    classes: Annotated[
        list[str] | None, typer.Option("--class", metavar="NAME", help="Of each structure, in order of its number.")
    ] = None,
    ignored: Annotated[
        int | None, typer.Option(min=0, metavar="VALUE", help="Of labels where nothing is known, for example 255.")
    ] = None,
    modality: Annotated[str | None, typer.Option(metavar="CT|MR|other", help="What intensities are.")] = None,
    dimensions: Annotated[int | None, typer.Option(min=2, max=3, help="2: slice by slice; 3: whole volumes.")] = None,
    spacing: Annotated[str | None, typer.Option(metavar="MM,MM,MM|none", help="Resample to this.")] = None,
    crop: Annotated[str | None, typer.Option(metavar="N,N[,N]", help="Voxels of a crop.")] = None,
    batch: Annotated[int | None, typer.Option(help="Labelled, and unlabelled, crops of a step.")] = None,
    filters: Annotated[int | None, typer.Option(help="Of the network's first level.")] = None,
    mirror: Annotated[str | None, typer.Option(metavar="AXIS,AXIS|none", help="Axes that may be mirrored.")] = None,
    iterations: Annotated[int | None, typer.Option(help="Updates of the networks.")] = None,
    memory_gb: Annotated[
        float | None, typer.Option(help="Memory for training; by default most of what is free.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; by default CUDA if there is one.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any setting of the bundle; repeatable.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan, write nothing.")] = False,
    without_trial: Annotated[
        bool, typer.Option("--without-trial", help="Promise neither memory nor time; no step is tried.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the bundle of an earlier init, its models and logs too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print fingerprint and plan as JSON.")] = False,
) -> None:
    """Plan a training on a folder of your own, and write its bundle. Nothing in the folder is copied or renamed."""
    from semi_med.planning.init import Request, check_target, plan_folder, write_bundle
    from semi_med.planning.plan import Wishes
    from semi_med.planning.settings import numbers, whole_numbers

    request = Request(
        name=name,
        images=images,
        labels=labels,
        output=output,
        method=method,
        subject_pattern=subject_pattern,
        class_names=classes or (),
        modality=modality,
        ignored=ignored,
        device=device,
        memory_gb=memory_gb,
        settings=settings or (),
        overwrite=overwrite,
        trial=not without_trial,
        wishes=Wishes(
            dimensions=dimensions,
            spacing=numbers(spacing, "--spacing"),
            crop=whole_numbers(crop, "--crop"),
            batch=batch,
            filters=filters,
            iterations=iterations,
            mirror=whole_numbers(mirror, "--mirror"),
            validation=validation,
            test=test,
            labeled=labeled,
            seed=seed,
        ),
    )
    if not dry_run:
        check_target(request)
    planned = plan_folder(request, progress=cli_text.counter("reading"))
    if as_json:
        typer.echo(cli_text.plan_json(planned))
    else:
        typer.echo(cli_text.plan_tables(planned))
    if dry_run:
        _say("nothing was written")
        return
    folder = write_bundle(planned)
    for line in cli_text.next_commands(folder, planned):
        _say(line)
    if not as_json:
        typer.echo(folder)


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
def evaluate(
    predictions: Annotated[
        Path, typer.Argument(help="Folder of <case>_seg.nii.gz or <case>.nii.gz, or .png of these names; or one file.")
    ],
    labels: Annotated[Path, typer.Argument(help="Folder of the experts' labels, or one file.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="CSV, one row for each case and class.")],
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Count labels without a prediction as undefined and go on.")
    ] = False,
    data_list: DataListOption = None,
    section: SectionOption = Section.test,
    ignored: Annotated[
        int | None,
        typer.Option(min=0, metavar="VALUE", help="Of labels where nothing is known; by default the list's."),
    ] = None,
    regions: Annotated[
        list[str] | None,
        typer.Option("--region", metavar="NAME=CLASS+CLASS", help="Classes measured as one, epi=1+2; repeatable."),
    ] = None,
    group_pattern: Annotated[
        str | None,
        typer.Option(metavar="REGEX", help="Finds the group of a case in its name, 'E[DS]': summarised apart too."),
    ] = None,
    volume_pattern: Annotated[
        str | None,
        typer.Option(metavar="REGEX", help="Finds the volume in a slice's name, '(.*)_[0-9]+': one Dice a volume too."),
    ] = None,
    iou: Annotated[
        bool, typer.Option("--iou", help="Also the IoU of every class over the pixels of all cases, with background.")
    ] = False,
    scores: Annotated[
        Path | None,
        typer.Option(metavar="volumes.csv", help="Of the predictions: does their confidence know which are bad?"),
    ] = None,
) -> None:
    """Measure predictions against labels. By case and over cases: Dice, Jaccard, HD95, ASD, in mm and voxels.

    Pictures have no mm: their distances are in pixels.
    """
    from semi_med.metrics.evaluate import evaluate as evaluate_all

    cases, classes, listed = (None, None, None) if data_list is None else labels_of(data_list, section, labels)
    result = evaluate_all(
        predictions,
        labels,
        output=output,
        classes=classes,
        cases=cases,
        allow_missing=allow_missing,
        ignored=listed if ignored is None else ignored,
        count_class_0=classes is not None and 0 in classes,
        report=lambda line: typer.echo(line, err=True),
        regions=regions or (),
        group_pattern=group_pattern,
        volume_pattern=volume_pattern,
        iou=iou,
        scores=scores,
    )
    typer.echo(cli_text.summary_table(result.summary))
    if result.rankings:
        typer.echo(cli_text.ranking_table(result.rankings))
    if result.breakdown:
        typer.echo(cli_text.breakdown_table(result.breakdown))
    if result.iou:
        typer.echo(cli_text.iou_table(result.iou))
    for path in result.written:
        typer.echo(path)
    if result.missing:
        typer.echo(f"{len(result.missing)} labels without a prediction are counted as undefined", err=True)
    if result.problems:
        typer.echo(f"error: {len(result.problems)} cases could not be measured, see above", err=True)
        raise typer.Exit(1)


class _SeveralValues(TyperCommand):
    """A command whose options may take several values after one flag."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, spread(args))


app.command(cls=_SeveralValues)(cli_export.export)
app.command()(cli_report.report)
app.command()(cli_report.view)


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


@app.command(cls=_SeveralValues)
def compare(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the comparison: new, or to go on with.")],
    task: Annotated[str | None, typer.Option(help="For example la, hippocampus or phantom.")] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME ...",
            help="One or more; NAME=METHOD is a variant with settings of its own; supervised is always among them.",
        ),
    ] = None,
    labeled: Annotated[
        list[int] | None, typer.Option(metavar="N ...", help="Numbers of labelled subjects, for example 4 8.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="How many: 3 means the seeds 1, 2 and 3.")] = None,
    dataset_dir: Annotated[Path | None, typer.Option(help="Folder that the data list's paths are relative to.")] = None,
    data_list: Annotated[
        Path | None,
        typer.Option(help="Base list to draw labelled subjects from; by default the data set's own."),
    ] = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="Of every run; by default the task's.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE ...", help="For all methods; METHOD:NAME=VALUE for one or a variant."
        ),
    ] = None,
    variants: Annotated[
        Path | None, typer.Option(help="JSON file of named variants; see docs/compare.md.", dir_okay=False)
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time; by default one on each GPU, else on each core.")
    ] = None,
    all_labels: Annotated[
        bool | None, typer.Option("--all-labels/--no-all-labels", help="The ceiling: supervised with all labels.")
    ] = None,
    plan_only: Annotated[bool, typer.Option("--plan-only", help="Write the plan and jobs.txt, run nothing.")] = False,
    job: Annotated[str | None, typer.Option(metavar="NAME|NUMBER", help="Run this one of the plan's jobs.")] = None,
    report_only: Annotated[bool, typer.Option("--report-only", help="Only the report of what is finished.")] = False,
) -> None:
    """Did the unlabelled scans help? Trains methods on few labels with several seeds, tests and compares them.

    Started again it goes on: `semi-med compare -o FOLDER` is enough then, and more methods, numbers and seeds can be
    added. Each line of FOLDER/jobs.txt runs one job, for any scheduler.
    """
    from semi_med.compare import run
    from semi_med.compare.planning import Request, prepare_plan

    request = Request(
        folder=output.absolute(),
        task=task,
        methods=methods or (),
        labeled=labeled or (),
        seeds=seeds,
        dataset_dir=dataset_dir,
        data_list=data_list,
        iterations=iterations,
        settings=settings or (),
        all_labels=all_labels,
        variants=variants,
    )
    if job is not None or report_only:
        plain = Request(folder=request.folder, dataset_dir=dataset_dir)
        if request != plain or plan_only or (job is not None and report_only):
            raise InputError(
                "--job and --report-only go by the plan of the folder and take only -o and --dataset-dir beside them",
                code="SETTING",
            )
    if job is not None:
        raise typer.Exit(run.run_one(output, job, dataset_dir=dataset_dir, say=_say))
    if report_only:
        _show_report(run.report_only(output, dataset_dir=dataset_dir))
        return
    if plan_only:
        plan = prepare_plan(request)
        for note in plan.notes:
            _say(f"note: {note}")
        typer.echo(f"{len(plan.jobs)} jobs of {plan.iterations} iterations, one a line:")
        typer.echo(request.folder / "jobs.txt")
        typer.echo(request.folder / "compare.json")
        return
    _show_comparison(run.compare(request, jobs=jobs, say=_say), request.folder)


def _show_report(report: Report) -> None:
    for sentence in report.sentences:
        typer.echo(f"{sentence[:1].upper()}{sentence[1:]}.")
    if report.missing:
        typer.echo(f"not finished: {', '.join(report.missing)}", err=True)
    for path in report.written:
        typer.echo(path)


def _show_comparison(result: Result, folder: Path) -> None:
    """The outcome, and the exit code."""
    outcome = result.outcome
    if result.report is not None:
        _show_report(result.report)
    if outcome.signal:
        typer.echo(f"stopped; go on with: semi-med compare -o {shlex.quote(str(folder))}", err=True)
        raise typer.Exit(128 + outcome.signal)
    if outcome.elsewhere:
        typer.echo(f"still run by other processes: {', '.join(outcome.elsewhere)}", err=True)
    if outcome.failed:
        names = ", ".join(outcome.failed)
        typer.echo(
            f"error: {len(outcome.failed)} of {len(result.plan.jobs)} jobs failed: {names}. Look at the logs in "
            f"{folder / 'logs'}; the same command tries them again",
            err=True,
        )
    if outcome.failed or outcome.elsewhere:
        raise typer.Exit(1)


@app.command()
def series(
    folder: Annotated[Path, typer.Argument(help="A folder, a zip archive or a multi-frame file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
    file: Annotated[
        int | None,
        typer.Option(metavar="N", help="Show the name of what an error calls file N. It may name a patient."),
    ] = None,
) -> None:
    """List the DICOM series of a folder. Nothing in the list names a patient: UIDs are hashed, names left out."""
    from semi_med.inference.dicom import file_name, find_series

    if file is not None:
        typer.echo(file_name(folder, file))
        return
    found = find_series(folder)
    typer.echo(cli_text.series_json(found) if as_json else cli_text.series_table(found))
    if found.problems or not found.series:
        raise typer.Exit(2)


@app.command()
def info() -> None:
    """Versions, device and threads."""
    from semi_med.runtime import describe_machine

    for name, value in describe_machine().items():
        typer.echo(f"{name}: {value}")


if __name__ == "__main__":
    main()
