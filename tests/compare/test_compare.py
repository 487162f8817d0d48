"""The whole of `semi-med compare`: on tiny real trainings, and what the command line makes of its words."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pytest
from compare_samples import entry

from semi_med import cli
from semi_med.compare import job as job_module
from semi_med.compare import run
from semi_med.compare.collect import collect
from semi_med.compare.local import Outcome
from semi_med.compare.overrides import meaning
from semi_med.compare.plan import Plan
from semi_med.compare.planning import Request, prepare_plan

SHAPE = (22, 20, 18)
SMALL = {
    **dict.fromkeys(("crop_size", "stride", "validation_stride"), "[16,16,16]"),
    **{"max_shift": "[2,2,2]", "labeled_margin": "0", "device": "cpu", "train#handlers#0#tensorboard": "false"},
    **{"network_def#levels": "2", "network_def#base_filters": "2"},
}
SETTINGS = tuple(f"{name}={value}" for name, value in SMALL.items())


def draw(folder: Path, name: str, *, seed: int) -> None:
    """A noisy scan with a bright ball as its label."""
    random = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.arange(size) for size in SHAPE), indexing="ij"))
    label = (((grid - random.uniform(8, 12, (3, 1, 1, 1))) ** 2).sum(0) < 25).astype(np.uint8)
    image = (label * 80 + random.normal(100, 10, SHAPE)).astype(np.int16)
    for part, array in (("images", image), ("labels", label)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, np.diag([1.0, 1.0, 1.5, 1.0])), folder / part / f"{name}.nii.gz")


def draw_all(folder: Path) -> Path:
    sections = {"labeled": ["a", "b", "c"], "validation": ["v"], "test": ["t1", "t2"]}
    tree: dict[str, Any] = {"name": "balls", "labels": {"0": "background", "1": "left atrium"}, "unlabeled": []}
    for number, (section, names) in enumerate(sections.items()):
        tree[section] = [entry(name) for name in names]
        for place, name in enumerate(names):
            draw(folder, name, seed=10 * number + place)
    (folder / "data_list.json").write_text(json.dumps(tree))
    return folder


class Done(NamedTuple):
    folder: Path
    data: Path
    plan: Plan
    trained: list[str]
    report: Any


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Done:
    """Supervised and co-training with one labelled scan, and the ceiling, each with two seeds and four iterations.

    They are trained in this process, which saves the time of starting another. While one trains, the test scans and
    their labels are not there.
    """
    from monai.bundle import run as run_bundle

    root = tmp_path_factory.mktemp("compare")
    data, trained = draw_all(root / "data"), []
    request = Request(root / "out", "phantom", ("cotrain",), (1,), 2, data, iterations=4, settings=SETTINGS)

    def train(command: list[str], *, log: Any, keep: Any) -> int:
        words = command[command.index("training") + 1 :]
        given = {n.removeprefix("--"): meaning(v) for n, v in zip(words[::2], words[1::2], strict=True)}
        hidden = [path.rename(root / f"{number}") for number, path in enumerate(sorted(data.glob("*/t?.nii.gz")))]
        assert len(hidden) == 4
        try:
            run_bundle(run_id="training", logging_file=False, **given)
        finally:
            for number, path in enumerate(names):
                hidden[number].rename(path)
        trained.append(Path(given["output_dir"]).name)
        return 0

    names = sorted(data.glob("*/t?.nii.gz"))
    plan = prepare_plan(request)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job_module.launch, "run", train)
        for job in [*plan.jobs, *plan.jobs]:  # twice: the second time there is nothing to do
            assert run.run_one(root / "out", job.name, say=lambda line: None) == 0
    return Done(root / "out", data, plan, trained, run.report_only(root / "out"))


def test_every_run_is_trained_once_without_the_test_scans(done):
    assert sorted(done.trained) == [
        f"{name}_seed{seed}" for name in ("cotrain_1", "supervised_1", "supervised_all") for seed in (1, 2)
    ]


def test_all_runs_make_the_same_number_of_updates_on_the_labels_of_their_seed(done):
    for job in done.plan.jobs:
        said = json.loads((done.folder / "runs" / job.name / "run.json").read_text())["settings"]
        assert (said["max_iterations"], said["seed"]) == (4, job.seed)
        assert said["labeled"] == (3 if job.labeled is None else 1)
        assert said["unlabeled"] == (2 if job.method == "cotrain" else 0)


def test_pseudo_labels_of_unlabelled_scans_are_watched(done):
    log = (done.folder / "runs" / "cotrain_1_seed1" / "logs" / "train.csv").read_text().splitlines()
    assert any("pseudo" in column for column in log[0].split(","))


def test_the_page_and_the_tables_hold_every_run_and_case(done):
    assert [path.name for path in done.report.written] == [
        "comparison.html",
        "comparison.csv",
        "summary.csv",
        "iou.csv",
    ]
    assert all(path.is_file() for path in done.report.written)
    with (done.folder / "comparison.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 6 * 2  # runs, test scans; one class
    assert {row["case"] for row in rows} == {"t1", "t2"}


def test_a_sentence_says_what_became_of_the_method(done):
    assert len(done.report.sentences) == 1
    assert "1 labelled subject" in done.report.sentences[0]
    assert done.report.missing == ()


def test_the_page_names_no_place_on_this_machine(done):
    assert str(done.data) not in (done.folder / "comparison.html").read_text()


def test_what_is_shown_of_a_run_are_its_settings(done):
    view = collect(done.plan, done.folder)
    found = {one.name: one for one in view.runs}["cotrain_1_seed2"]
    assert (found.settings["seed"], found.settings["data list"]) == (2, "labeled_1_seed2")
    assert found.minutes > 0
    assert "output_dir" not in found.settings
    assert view.subjects == {"t1": "subject T", "t2": "subject T"}
    assert view.summary["command"].startswith(
        "semi-med compare --task phantom --methods supervised cotrain --labeled 1"
    )


def test_a_report_can_be_made_while_jobs_are_missing(done, tmp_path):
    more = prepare_plan(Request(done.folder, seeds=3))
    report = run.report_only(done.folder)
    assert set(report.missing) == {"cotrain_1_seed3", "supervised_1_seed3", "supervised_all_seed3"}
    assert len(more.jobs) == 9


@pytest.mark.slow
def test_the_command_does_all_of_it_in_processes_of_its_own(tmp_path):
    draw_all(tmp_path / "data")
    program = [sys.executable, "-m", "semi_med.cli", "compare", "-o", "out"]
    command = [*program, "--task", "phantom", "--methods", "cotrain", "--labeled", "1", "--seeds", "2"]
    command += ["--iterations", "4", "--dataset-dir", "data", "--set", *SETTINGS]
    first = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    assert first.stdout.splitlines()[-4:] == [
        str(tmp_path / "out" / name) for name in ("comparison.html", "comparison.csv", "summary.csv", "iou.csv")
    ]
    models = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/runs/*/models/model.pt")}
    assert len(models) == 6
    again = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True)
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert {path: path.stat().st_mtime_ns for path in models} == models


def test_its_help_imports_nothing_heavy():
    code = "import sys\nfrom semi_med.cli import main\nsys.argv = ['semi-med', 'compare', '--help']\ntry:\n    main()\n"
    code += "finally:\n    print(sorted({'torch', 'monai', 'numpy', 'scipy', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "[]")


# ---- the command line ----------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def command(monkeypatch, capsys) -> Callable[..., Answer]:
    """Run `semi-med compare` in this process."""

    def call(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["semi-med", "compare", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main()
        return Answer(left.value.code or 0, *capsys.readouterr())

    return call


@pytest.mark.parametrize("words", ["a b --labeled 4 8", "a --methods b --labeled 4,8", "a,b --labeled 4 --labeled 8"])
def test_several_values_reach_the_comparison_however_they_are_given(command, monkeypatch, plan, words, tmp_path):
    asked: list[Request] = []

    def compare(request: Request, **more: Any) -> run.Result:
        asked.append(request)
        return run.Result(plan, Outcome(), None)

    monkeypatch.setattr(run, "compare", compare)
    given = ("--task", "phantom", "--methods", *words.split(), "--seeds", 3, "--set", "a=1", "b=[1,2]")
    assert command(*given, "-o", tmp_path / "x").code == 0
    assert asked == [
        Request(tmp_path / "x", "phantom", ["a", "b"], [4, 8], 3, settings=["a=1", "b=[1,2]"], all_labels=None)
    ]


def words_of(ask: Callable[..., Request]) -> list[object]:
    request = ask()
    return [
        *("--task", "phantom", "--methods", "cotrain", "--labeled", 1, 2, "--seeds", 2, "--iterations", 20),
        *("--dataset-dir", request.dataset_dir, "-o", request.folder),
    ]


def test_a_plan_alone_trains_nothing_and_says_where_the_jobs_are(command, ask, trainings):
    done = command(*words_of(ask), "--plan-only")
    assert done.code == 0
    assert done.out.splitlines() == [
        "10 jobs of 20 iterations, one a line:",
        str(ask().folder / "jobs.txt"),
        str(ask().folder / "compare.json"),
    ]
    assert trainings.commands == []


@pytest.mark.parametrize("name", ["cotrain_1_seed2", "6"])
def test_one_job_is_run_by_name_or_number_and_no_report_is_made(command, ask, plan, trainings, name):
    assert command("--job", name, "-o", ask().folder).code == 0
    assert len(trainings.commands) == 1
    assert (ask().folder / "tables" / "cotrain_1_seed2.csv").is_file()
    assert not (ask().folder / "comparison.html").exists()


def test_the_code_of_a_stopped_job_is_given_on(command, ask, plan, trainings):
    trainings.ends = {0: 143}
    assert command("--job", "1", "-o", ask().folder).code == 143


def test_a_failed_job_is_one_line(command, ask, plan, trainings):
    trainings.ends = {0: 1}
    done = command("--job", "1", "-o", ask().folder)
    assert done.code == 3
    assert done.err.splitlines()[-1].startswith("error: ")
    assert "the training ended with code 1: no luck" in done.err


@pytest.mark.parametrize("more", [["--iterations", "5"], ["--plan-only"], ["--report-only"]])
def test_a_job_takes_no_settings(command, ask, plan, more):
    done = command("--job", "1", "-o", ask().folder, *more)
    assert (done.code, "take only -o and --dataset-dir" in done.err) == (2, True)


@pytest.mark.parametrize("what", [["--job", "1"], ["--report-only"]])
def test_a_folder_without_a_plan_is_refused(command, tmp_path, what):
    done = command(*what, "-o", tmp_path)
    assert (done.code, "there is no comparison here" in done.err) == (2, True)


def test_a_report_of_nothing_is_refused(command, ask, plan):
    done = command("--report-only", "-o", ask().folder)
    assert (done.code, "none of the 10 jobs is finished" in done.err) == (2, True)


@pytest.fixture
def outcome(monkeypatch, plan):
    """The jobs end as is said here, and the report is there."""

    def set_(given: Outcome) -> None:
        monkeypatch.setattr(run, "run_all", lambda *given_, **more: given)
        report = type("Report", (), {"sentences": ("a is better",), "missing": (), "written": (Path("x.html"),)})
        monkeypatch.setattr(run, "_report", lambda *given_: report)

    return set_


def test_verdicts_and_files_are_printed_last(command, ask, outcome):
    outcome(Outcome(done=["cotrain_1_seed1"]))
    assert command("-o", ask().folder) == (0, "A is better.\nx.html\n", "")


def test_failed_jobs_show_in_the_exit_code_and_the_report_is_made(command, ask, outcome):
    outcome(Outcome(done=["cotrain_1_seed1"], failed={"cotrain_1_seed2": "no luck"}))
    done = command("-o", ask().folder)
    assert (done.code, done.out) == (1, "A is better.\nx.html\n")
    assert "error: 1 of 10 jobs failed: cotrain_1_seed2" in done.err


def test_when_every_job_fails_the_first_reason_is_the_error(command, ask, outcome):
    outcome(Outcome(failed={"cotrain_1_seed1": "no luck"}))
    done = command("-o", ask().folder)
    assert done.code == 3
    assert "all 10 jobs failed, cotrain_1_seed1: no luck" in done.err


@pytest.mark.parametrize("number", [2, 15])
def test_a_stopped_comparison_says_how_to_go_on(command, ask, outcome, number):
    outcome(Outcome(done=["cotrain_1_seed1"], signal=number))
    done = command("-o", ask().folder)
    assert done.code == 128 + number
    assert f"go on with: semi-med compare -o {ask().folder}" in done.err
    assert done.out == ""


def test_jobs_that_others_run_are_waited_for_by_nobody(command, ask, outcome):
    outcome(Outcome(done=["cotrain_1_seed1"], elsewhere=["cotrain_1_seed2"]))
    done = command("-o", ask().folder)
    assert (done.code, "still run by other processes: cotrain_1_seed2" in done.err) == (1, True)
