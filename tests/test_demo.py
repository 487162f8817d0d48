"""The demo, end to end with two iterations on four small drawings."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from semi_med import demo
from semi_med.demo import DemoResult, run_demo
from semi_med.errors import InputError, TrainingError
from semi_med.metrics import read_table

CASES = {"labeled": 1, "unlabeled": 2, "validation": 1, "test": 2}
SMALL = {"crop_size": "[16,16,16]", "stride": "[16,16,16]", "validation_stride": "[16,16,16]", "device": "cpu"}
TEST_CASES = ["phantom_004", "phantom_005"]


class Done(NamedTuple):
    folder: Path
    result: DemoResult
    lines: list[str]


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Done:
    folder, lines = tmp_path_factory.mktemp("demo") / "out", []
    result = run_demo(folder, iterations=2, seed=3, cases=CASES, settings=SMALL, say=lines.append)
    return Done(folder, result, lines)


def test_the_report_holds_the_verdict_and_says_what_it_does_not_prove(done):
    page = done.result.report.read_text(encoding="utf-8")
    assert done.result.report == done.folder / "report.html"
    assert done.result.headline in page.replace("&#34;", '"')
    assert "One seed of one drawing proves nothing" in page


def test_both_runs_differ_in_nothing_but_the_method(done):
    first, second = (
        json.loads((done.folder / "runs" / method / "run.json").read_text())["settings"]
        for method in ("cotrain", "supervised")
    )
    assert (first["max_iterations"], first["seed"]) == (second["max_iterations"], second["seed"]) == (2, 3)
    assert (first["labeled"], second["labeled"]) == (1, 1)
    assert (first["unlabeled"], second["unlabeled"]) == (2, 0)


@pytest.mark.parametrize("method", ["cotrain", "supervised"])
def test_only_the_test_phantoms_are_predicted_and_measured(done, method):
    assert [row["case"] for row in read_table(done.folder / "predictions" / f"{method}.csv")] == TEST_CASES
    written = sorted(path.name for path in (done.folder / "predictions" / method).glob("*.nii.gz"))
    assert written == [f"{case}_seg.nii.gz" for case in TEST_CASES]


def test_the_run_is_retold(done):
    assert done.lines[0] == "drawing 6 phantoms"
    assert done.lines[1].startswith("training twice for 2 iterations")
    assert done.lines[-1].startswith("done in 0:")


def test_the_mean_dice_of_both_runs_is_given(done):
    rows = read_table(done.folder / "predictions" / "cotrain.csv")
    assert done.result.dice["cotrain"] == pytest.approx((rows[0]["dice"] + rows[1]["dice"]) / 2)
    assert set(done.result.dice) == {"cotrain", "supervised"}


def test_an_earlier_demo_is_not_replaced_unasked(done):
    before = done.result.report.stat().st_mtime_ns
    with pytest.raises(InputError, match="--overwrite"):
        run_demo(done.folder)
    assert done.result.report.stat().st_mtime_ns == before


def test_a_folder_of_something_else_is_never_touched(tmp_path):
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(InputError, match="not empty"):
        run_demo(tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_overwriting_removes_only_what_a_demo_wrote(tmp_path, monkeypatch):
    def stopped(*given, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr("semi_med.datasets.phantom.prepare", stopped)
    (tmp_path / "demo.json").write_text("{}")
    for name in ("notes.txt", "runs/old.pt", "report.html"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    with pytest.raises(KeyboardInterrupt):
        run_demo(tmp_path, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo.json", "notes.txt"]


@pytest.fixture
def fake_trainings(monkeypatch, tmp_path):
    """Trainings that run `code[method]` instead."""

    def install(code: dict[str, str]) -> Path:
        def command(bundle: Path, *, settings: dict) -> list[str]:
            return [sys.executable, "-c", code[bundle.name.removesuffix("_phantom")]]

        monkeypatch.setattr(demo, "training_command", command)
        return tmp_path

    return install


def test_a_training_that_fails_is_told_with_its_last_line_and_stops_the_other(fake_trainings):
    folder = fake_trainings(
        {
            "cotrain": "import time; time.sleep(60)",
            "supervised": "import sys; print('hello'); sys.exit('error: no memory')",
        }
    )
    with pytest.raises(TrainingError, match=r"supervised\.txt: the training ended with code 1: no memory"):
        demo._train_both(folder, {}, total=2, say=print)


def test_progress_is_read_from_the_logs(fake_trainings, monkeypatch):
    folder = fake_trainings(dict.fromkeys(("cotrain", "supervised"), "import time; time.sleep(1)"))
    for method, done_ in (("cotrain", 20), ("supervised", 70)):
        log = folder / "runs" / method / "logs" / "train.csv"
        log.parent.mkdir(parents=True)
        log.write_text(f"iteration,loss\n1,0.5\n{done_},0.4\n")
    monkeypatch.setattr(demo, "_SECONDS", 0.3)
    lines: list[str] = []
    minutes = demo._train_both(folder, {}, total=100, say=lines.append)
    assert lines[0].startswith("cotrain 20/100, supervised 70/100, 0:00:0")
    assert set(minutes) == {"cotrain", "supervised"}
