"""One job: trained, gone on with, predicted, measured; nothing twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from compare_samples import ROW, train_stage

from semi_med import launch
from semi_med.compare import job as job_module
from semi_med.compare.collect import collect
from semi_med.compare.job import is_done, run_job
from semi_med.compare.locks import is_locked, locked
from semi_med.compare.stages import stages_of
from semi_med.errors import InputError, ProblemsError, ResourceError, TrainingError
from semi_med.metrics import read_table


@pytest.fixture
def job(plan):
    return plan.job("cotrain_1_seed1")


@pytest.fixture
def folder(ask):
    return ask().folder


def quiet(line: str) -> None:
    """Where nobody listens."""


def test_a_job_is_trained_then_predicted_and_measured(plan, job, folder, trainings):
    lines: list[str] = []
    assert run_job(plan, job, folder, say=lines.append) == 0
    assert trainings.settings(0)["output_dir"] == str(folder / "runs" / "cotrain_1_seed1")
    assert "resume" not in trainings.settings(0)
    assert [row["case"] for row in read_table(folder / "tables" / "cotrain_1_seed1.csv")] == ["t1", "t2"]
    assert json.loads((folder / "tables" / "cotrain_1_seed1.json").read_text())["minutes"] == 1.0
    assert (folder / "logs" / "cotrain_1_seed1.txt").read_text() == "done\n"
    assert lines[-1] == "cotrain_1_seed1: done"


def test_a_finished_job_is_not_run_again(plan, job, folder, trainings):
    run_job(plan, job, folder, say=quiet)
    before = (folder / "tables" / "cotrain_1_seed1.json").stat().st_mtime_ns
    assert run_job(plan, job, folder, say=quiet) == 0
    assert len(trainings.commands) == 1
    assert (folder / "tables" / "cotrain_1_seed1.json").stat().st_mtime_ns == before


def test_a_stopped_training_gives_its_code_on_and_is_resumed(plan, job, folder, trainings):
    trainings.ends = {0: 143}
    assert run_job(plan, job, folder, say=quiet) == 143
    assert not is_done(plan, job, folder)
    assert not (folder / "predictions").exists()
    assert run_job(plan, job, folder, say=quiet) == 0
    assert trainings.settings(1)["resume"] == "true"
    assert is_done(plan, job, folder)


def test_a_failed_training_is_told_with_its_last_line_and_tried_again(plan, job, folder, trainings):
    trainings.ends = {0: 1}
    with pytest.raises(TrainingError, match=r"cotrain_1_seed1\.txt: the training ended with code 1: no luck"):
        run_job(plan, job, folder, say=quiet)
    assert not (folder / "predictions").exists()
    assert run_job(plan, job, folder, say=quiet) == 0


def test_a_run_made_elsewhere_is_taken(plan, job, folder, trainings):
    train_stage(stages_of(plan, job, folder)[0])
    assert run_job(plan, job, folder, say=quiet) == 0
    assert trainings.commands == []


def test_a_run_of_other_settings_is_refused_and_kept(plan, job, folder, trainings):
    train_stage(stages_of(plan, job, folder)[0])
    (folder / "runs" / "cotrain_1_seed1").rename(folder / "runs" / "cotrain_1_seed2")
    with pytest.raises(ProblemsError, match="seed: 2 in the plan, 1 in this run"):
        run_job(plan, plan.job("cotrain_1_seed2"), folder, say=quiet)
    assert (trainings.commands, (folder / "runs" / "cotrain_1_seed2" / "models" / "model.pt").is_file()) == ([], True)


def test_an_interrupted_prediction_goes_on_where_it_was(plan, job, folder, trainings, monkeypatch):
    asked = []

    def predict(run, cases, data, target, *, device):
        asked.append([case.name for case in cases])
        (target / f"{cases[0].name}_seg.nii.gz").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(job_module, "predict_cases", predict)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run_job(plan, job, folder, say=quiet)
    assert asked == [["t1", "t2"], ["t2"]]
    assert run_job(plan, job, folder, say=quiet) == 0  # both are there, only measuring is left
    assert len(trainings.commands) == 1


def test_predictions_of_another_model_are_made_again(plan, job, folder, trainings):
    run_job(plan, job, folder, say=quiet)
    model = stages_of(plan, job, folder)[0].model
    model.write_text("another")
    assert not is_done(plan, job, folder)
    run_job(plan, job, folder, say=quiet)
    assert (folder / "predictions" / "cotrain_1_seed1" / "t1_seg.nii.gz").read_text() == "another"


def test_an_earlier_run_is_trained_first_and_each_is_resumed_where_it_stopped(ask, folder, trainings):
    from semi_med.compare.planning import prepare_plan

    plan = prepare_plan(ask(methods=("bcp",)))
    job = plan.job("bcp_1_seed1")
    trainings.ends = {0: 143, 2: 143}
    assert [run_job(plan, job, folder, say=quiet) for _ in range(3)] == [143, 143, 0]
    given = [trainings.settings(number) for number in range(4)]
    run = folder / "runs" / "bcp_1_seed1"
    assert [one["output_dir"] for one in given] == [str(run / "before")] * 2 + [str(run)] * 2
    assert [one["max_iterations"] for one in given] == ["4", "4", "16", "16"]
    assert [one.get("resume") for one in given] == [None, "true", None, "true"]
    assert {one.get("pretrained") for one in given[2:]} == {str(run / "before" / "models" / "model.pt")}


def test_a_finished_method_does_not_need_its_earlier_run(ask, folder, trainings):
    from semi_med.compare.planning import prepare_plan

    plan = prepare_plan(ask(methods=("bcp",)))
    train_stage(stages_of(plan, plan.job("bcp_1_seed1"), folder)[1])
    assert run_job(plan, plan.job("bcp_1_seed1"), folder, say=quiet) == 0
    assert trainings.commands == []


# ---- is it done? ---------------------------------------------------------------------------------------------------


@pytest.fixture
def done(plan, job, folder, trainings):
    """The job, trained and measured; its table and record."""
    run_job(plan, job, folder, say=quiet)
    assert is_done(plan, job, folder)
    return folder / "tables" / f"{job.name}.csv", folder / "tables" / f"{job.name}.json"


def again(plan, job, folder) -> list[str]:
    """What is said when the job is started again."""
    lines: list[str] = []
    assert run_job(plan, job, folder, say=lines.append) == 0
    return lines


def edit(table) -> None:
    table.write_text(table.read_text().replace("0.5", "0.9", 1))


def cut(table) -> None:
    table.write_bytes(table.read_bytes()[:-30])


@pytest.mark.parametrize("spoil", [edit, cut])
def test_a_table_that_is_not_what_was_measured_is_measured_again(plan, job, folder, trainings, done, spoil):
    table, before = done[0], done[0].read_bytes()
    spoil(table)
    assert not is_done(plan, job, folder)
    assert again(plan, job, folder)[0].endswith("is tested again: the table was changed after it was measured")
    assert (table.read_bytes(), len(trainings.commands)) == (before, 1)


def test_a_table_of_other_settings_is_noticed_and_named(plan, job, folder, trainings, done):
    record = json.loads(done[1].read_text())
    record["course"][0]["iterations"] = 19
    record["course"][0]["settings"]["learning_rate"] = 0.5
    done[1].write_text(json.dumps(record))
    said = again(plan, job, folder)[0]
    assert said.endswith("was measured with iterations 19 instead of 20, learning_rate 0.5 instead of None")


def test_a_table_measured_on_another_list_is_noticed(plan, job, folder, done):
    path = folder / "lists" / "labeled_1_seed1.json"
    path.write_text(path.read_text().replace('"subject D"', '"subject F"'))
    assert not is_done(plan, job, folder)
    with pytest.raises(ProblemsError, match="cases of data_list_file"):
        run_job(plan, job, folder, say=quiet)


def test_a_table_of_another_job_is_noticed(plan, folder, trainings, done):
    other = plan.job("cotrain_1_seed2")
    for path in done:
        shutil.copy(path, path.with_name(path.name.replace("seed1", "seed2")))
    assert not is_done(plan, other, folder)
    with pytest.raises(InputError, match=r"seed 1 instead of 2.* is not here .* remove tables/cotrain_1_seed2\.\*"):
        run_job(plan, other, folder, say=quiet)
    assert len(trainings.commands) == 1


def test_a_job_counts_as_done_without_its_run(plan, job, folder, trainings, done):
    shutil.rmtree(folder / "runs")
    shutil.rmtree(folder / "predictions")
    assert again(plan, job, folder) == ["cotrain_1_seed1 is done already"]
    assert len(trainings.commands) == 1


def test_an_edited_table_whose_run_is_gone_is_refused_and_kept(plan, job, folder, trainings, done):
    shutil.rmtree(folder / "runs")
    edit(done[0])
    spoiled = done[0].read_bytes()
    with pytest.raises(InputError, match=r"cotrain_1_seed1\.csv: .* was changed .* is not here .*Put back the file"):
        run_job(plan, job, folder, say=quiet)
    assert (done[0].read_bytes(), len(trainings.commands)) == (spoiled, 1)


@pytest.mark.parametrize("place", [0, 1])
def test_half_of_table_and_record_is_measured_again(plan, job, folder, trainings, done, place):
    done[place].unlink()
    assert "is there without" in again(plan, job, folder)[0]
    assert is_done(plan, job, folder) and len(trainings.commands) == 1


def test_a_record_of_an_earlier_version_is_taken_as_it_is(plan, job, folder, trainings, done):
    record = json.loads(done[1].read_text())
    done[1].write_text(json.dumps({name: record[name] for name in ("weights_sha256", "minutes", "cases")}))
    assert again(plan, job, folder) == ["cotrain_1_seed1 is done already"]
    (note,) = [note for note in collect(plan, folder).notes if "earlier version" in note]
    assert note.startswith("1 of 1 tables were measured by an earlier version")


def test_a_cut_table_of_an_earlier_version_is_measured_again(plan, job, folder, done):
    record = json.loads(done[1].read_text())
    done[1].write_text(json.dumps({name: record[name] for name in ("weights_sha256", "minutes", "cases")}))
    done[0].write_text("".join(done[0].read_text().splitlines(keepends=True)[:-1]))
    assert "does not hold the test cases of its list" in again(plan, job, folder)[0]


def test_what_is_left_out_of_the_report_is_named_with_the_reason(plan, folder, trainings, done):
    run_job(plan, plan.job("supervised_1_seed1"), folder, say=quiet)
    edit(done[0])
    view = collect(plan, folder)
    assert [run.name for run in view.runs] == ["supervised_1_seed1"]
    assert any(note.startswith("cotrain_1_seed1 is left out") and "was changed" in note for note in view.notes)


def test_data_that_are_not_here_are_asked_for(plan, job, folder, trainings, tmp_path):
    with pytest.raises(InputError, match=r"missing here\. Name it with --dataset-dir"):
        run_job(plan, job, folder, dataset_dir=tmp_path / "no", say=quiet)


def test_a_job_imports_nothing_heavy_before_its_training(plan, folder):
    code = (
        "import sys\nfrom semi_med.compare import job, run\n"
        "def stop(*given, **more):\n"
        "    print(sorted({'torch', 'monai', 'matplotlib'} & set(sys.modules))); sys.exit(0)\n"
        "job.launch.run = stop\nrun.run_one(job.Path(sys.argv[1]), '1', say=lambda line: None)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_all_that_a_training_says_goes_to_the_end_of_its_log(tmp_path):
    (tmp_path / "log.txt").write_text("before\n")
    code = "import os; os.write(1, b'out\\n'); os.write(2, b'err\\n')"
    with (tmp_path / "log.txt").open("ab") as log:
        assert launch.run([sys.executable, "-S", "-c", code], log=log) == 0
    assert (tmp_path / "log.txt").read_text() == "before\nout\nerr\n"


def test_predictions_may_be_pictures(plan, job, folder, trainings, monkeypatch):
    asked: list[list[str]] = []

    def predict(run, cases, data, target, *, device):
        asked.append([case.name for case in cases])
        for case in cases:
            (target / f"{case.name}_seg.png").write_text(run.name)

    def measure(listed, data, predictions):
        return [{**ROW, "case": case.name} for case in listed.test]

    monkeypatch.setattr(job_module, "predict_cases", predict)
    monkeypatch.setattr(job_module, "measure_cases", measure)
    run_job(plan, job, folder, say=quiet)
    (folder / "tables" / f"{job.name}.json").unlink()
    run_job(plan, job, folder, say=quiet)
    assert asked == [["t1", "t2"]]  # they are there, and are not made again
    (found,) = collect(plan, folder).runs
    assert {path.name for path in found.predictions.values()} == {"t1_seg.png", "t2_seg.png"}


# ---- locks ---------------------------------------------------------------------------------------------------------


def test_a_job_that_another_process_runs_is_not_run_twice(plan, job, folder, trainings):
    code = "import sys, time\nfrom pathlib import Path\nfrom semi_med.compare.locks import locked\n"
    code += "with locked(Path(sys.argv[1]), 'cotrain_1_seed1'):\n    print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        assert is_locked(folder, "cotrain_1_seed1")
        with pytest.raises(ResourceError, match=f"is being run by process {other.pid} on") as caught:
            run_job(plan, job, folder, say=quiet)
        other.kill()
    assert (caught.value.code, trainings.commands) == ("BUSY", [])
    assert not is_locked(folder, "cotrain_1_seed1")  # the lock went with its process
    assert run_job(plan, job, folder, say=quiet) == 0


def test_a_training_whose_job_was_killed_keeps_the_job_locked(plan, job, folder, trainings, tmp_path):
    training = "import os, sys, time; open(sys.argv[1], 'w').write(f'{os.getpid()}\\n'); time.sleep(600)"
    code = (
        "import sys\nfrom pathlib import Path\nfrom semi_med.compare import job, run\n"
        f"command = [sys.executable, '-S', '-c', {training!r}, sys.argv[2]]\n"
        "job.launch.training_command = lambda *given, **more: command\n"
        "run.run_one(Path(sys.argv[1]), sys.argv[3], say=lambda line: None)"
    )
    note = tmp_path / "pid"
    with subprocess.Popen([sys.executable, "-c", code, str(folder), str(note), job.name]) as other:
        while not (note.is_file() and note.read_text().endswith("\n")):
            assert other.poll() is None
            time.sleep(0.01)
        other.kill()
    pid = int(note.read_text())
    try:
        assert is_locked(folder, job.name)
        with pytest.raises(ResourceError, match=f"by a training that outlived process {other.pid} on .*was killed"):
            run_job(plan, job, folder, say=quiet)
        assert trainings.commands == []
    finally:
        os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + 60
    while is_locked(folder, job.name) and time.monotonic() < end:
        time.sleep(0.01)
    assert run_job(plan, job, folder, say=quiet) == 0


def test_other_jobs_are_free_meanwhile(folder, plan):
    with locked(folder, "one"), locked(folder, "two"):
        assert is_locked(folder, "one") and is_locked(folder, "two")
    assert not is_locked(folder, "one")


def test_a_plan_is_waited_for(folder, plan):
    code = "import sys, time\nfrom pathlib import Path\nfrom semi_med.compare.locks import locked\n"
    code += "with locked(Path(sys.argv[1]), 'plan'):\n    print('held', flush=True); time.sleep(0.5)"
    with subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        started = time.monotonic()
        with locked(folder, "plan", wait=True):
            assert time.monotonic() - started > 0.3
