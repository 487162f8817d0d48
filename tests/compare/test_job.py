"""One job: trained, gone on with, predicted, measured; nothing twice."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest
from compare_samples import train_stage

from semi_med import launch
from semi_med.compare import job as job_module
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
