"""From a folder to a bundle that trains, predicts, is measured and compared with no edit."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from planning_samples import write_folder

from semi_med.compare.collect import command_of
from semi_med.data.data_list import load_data_list
from semi_med.errors import InputError
from semi_med.planning.init import Request, plan_folder, write_bundle
from semi_med.planning.plan import Wishes
from semi_med.planning.trial import Trial, measure, write_parts

SMALL = Wishes(crop=(16, 16, 16), filters=2, iterations=2, validation=1, test=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Seven scans, five of them with labels that have the numbers 0, 50 and 255."""
    return write_folder(tmp_path_factory.mktemp("own"), cases=7, labeled=5, values=(0, 50, 255))


def request(folder: Path, target: Path, **changed) -> Request:
    usual = {
        "name": "mine",
        "images": folder / "images",
        "labels": folder / "labels",
        "output": target,
        "device": "cpu",
        "memory_gb": 8.0,
        "trial": False,
        "wishes": SMALL,
        "class_names": ("liver", "spleen"),
    }
    return Request(**{**usual, **changed})


@pytest.fixture(scope="module")
def bundle(folder, tmp_path_factory) -> Path:
    return write_bundle(plan_folder(request(folder, tmp_path_factory.mktemp("made") / "mine")))


def run(bundle: Path, *configs: str, run_id: str = "training", **settings):
    from monai.bundle import run as run_bundle

    files = [str(bundle / "configs" / f"{name}.json") for name in configs]
    run_bundle(run_id=run_id, config_file=files, logging_file=False, **settings)


@pytest.fixture(scope="module")
def trained(bundle, tmp_path_factory):
    """Trained for its two iterations, from another working directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        run(
            bundle,
            "train",
            device="cpu",
            **{"train#handlers#1#tensorboard": False, "train#handlers#0#tensorboard": False},
        )
    return bundle


# ---- the bundle ----------------------------------------------------------------------------------------------------


def test_the_bundle_holds_the_plan_the_list_and_the_parts_of_its_task(bundle, folder):
    plan = json.loads((bundle / "configs/plan.json").read_text())
    assert plan["label_values"] == [0, 50, 255]
    assert plan["choices"]["crop"]["value"] == [16, 16, 16] and plan["choices"]["crop"]["given"]
    listed = load_data_list(bundle / "data_lists/labeled.json")
    assert listed.counts() == {"labeled": 3, "unlabeled": 2, "validation": 1, "test": 1}
    assert listed.file_values == [0, 50, 255] and list(listed.labels.values()) == ["background", "liver", "spleen"]
    config = json.loads((bundle / "configs/train.json").read_text())
    assert config["dataset_dir"] == str(folder) and (folder / listed.labeled[0].image).is_file()
    assert json.loads((bundle / "configs/task/about.json").read_text())["task"] == "mine"


def test_the_bundle_has_an_optimizer_that_no_start_gets_stuck_with(bundle):
    optimizer = json.loads((bundle / "configs/train.json").read_text())["optimizer"]
    assert optimizer["_target_"] == "torch.optim.AdamW"
    assert set(optimizer) == {"_target_", "params", "lr"}  # SGD's momentum is gone


def test_nothing_was_copied_from_the_folder(bundle):
    assert not [path for path in bundle.rglob("*") if path.name.endswith(".nii.gz")]


def test_the_readme_tells_every_choice_with_its_reason(bundle):
    readme = (bundle / "docs/README.md").read_text()
    plan = json.loads((bundle / "configs/plan.json").read_text())
    for choice in plan["choices"].values():
        assert choice["reason"] in readme
    assert "0 background, 50 liver, 255 spleen" in readme


def test_the_bundle_trains_without_any_setting_from_anywhere(trained):
    assert (trained / "models/model.pt").is_file()
    assert (trained / "logs/validation.csv").read_text().count("\n") == 3


def test_masks_have_the_numbers_of_the_labels(trained, folder):
    import torch

    from semi_med.inference.predictor import Predictor

    class EveryClass:
        """Says background, liver and spleen in slabs, as a network of two iterations may not."""

        window = (16, 16, 16)

        def __call__(self, inputs, networks):
            probs = torch.zeros(1, 3, *inputs.shape[2:])
            probs[:, 0], probs[:, 1, 4:8], probs[:, 2, 8:12] = 0.5, 1, 1
            return probs

    predictor = Predictor.load(trained, device="cpu")
    predictor.bundle.inferer = EveryClass()
    made = predictor(folder / "images/p6.nii.gz")
    assert [int((made.label == value).sum()) // (22 * 20) for value in (0, 50, 255)] == [16, 4, 4]
    assert made.voxels == {"liver": 4 * 22 * 20, "spleen": 4 * 22 * 20}


def test_monais_own_way_of_prediction_writes_the_same_numbers(trained, folder, tmp_path):
    from semi_med.inference.io import read_label
    from semi_med.inference.predictor import Predictor

    run(
        trained,
        "inference",
        run_id="evaluating",
        dataset_dir=str(folder / "images"),
        output_dir=str(tmp_path),
        device="cpu",
    )
    ours = Predictor.load(trained, device="cpu")(folder / "images/p5.nii.gz").label
    theirs = read_label(tmp_path / "p5_seg.nii.gz").array
    assert set(np.unique(theirs)) <= {0, 50, 255}
    assert np.array_equal(ours, theirs)


def test_predictions_are_measured_against_the_labels_as_they_are(trained, folder, tmp_path):
    from semi_med.inference.predictor import predict
    from semi_med.metrics.evaluate import evaluate

    predict(trained, [folder / "images/p0.nii.gz"], tmp_path, device="cpu")
    names = load_data_list(trained / "data_lists/labeled.json").names_by_value
    found = evaluate(tmp_path, folder / "labels", classes=names, cases={"p0_seg"})
    assert [(row["class"], row["class_name"]) for row in found.rows] == [(50, "liver"), (255, "spleen")]
    assert found.problems == ()


def test_a_comparison_is_planned_from_the_bundle_and_goes_on_without_it(bundle, tmp_path):
    from semi_med.compare.plan import task_of
    from semi_med.compare.planning import Request as Comparison
    from semi_med.compare.planning import prepare_plan
    from semi_med.compare.stages import check_bundle, stages_of

    asked = {"methods": ("mean_teacher",), "labeled": (2,), "seeds": 1, "iterations": 10}
    plan = prepare_plan(Comparison(folder=tmp_path / "c", task=str(bundle), **asked))
    assert plan.task == "mine" and plan.base["source"] == "labeled.json"
    assert task_of("mine", tmp_path / "c").folder == tmp_path / "c/task"
    for job in plan.jobs:
        for stage in stages_of(plan, job, tmp_path / "c"):
            check_bundle(stage)
            config = json.loads((stage.bundle / "configs/train.json").read_text())
            assert config["crop_size"] == [16, 16, 16]
    again = prepare_plan(Comparison(folder=tmp_path / "c", methods=("cotrain",)))
    assert "cotrain" in again.methods
    assert again.asked == str(bundle) and f"--task ./{bundle.name} --methods" in command_of(again)


def test_the_command_of_a_comparison_names_the_folder_that_was_given(bundle, tmp_path, monkeypatch):
    from semi_med.compare.planning import Request as Comparison
    from semi_med.compare.planning import prepare_plan

    monkeypatch.chdir(bundle.parent.parent)
    place = f"{bundle.parent.name}/{bundle.name}"
    plan = prepare_plan(
        Comparison(folder=tmp_path / "c", task=f"./{place}", methods=("cps",), labeled=(2,), seeds=1, iterations=10)
    )
    assert f"--task ./{place} --methods" in command_of(plan)


def test_a_comparison_refuses_a_bundle_that_was_planned_anew(bundle, tmp_path):
    import shutil

    from semi_med.compare.planning import Request as Comparison
    from semi_med.compare.planning import prepare_plan

    asked = {"methods": ("mean_teacher",), "labeled": (2,), "seeds": 1, "iterations": 10}
    other = shutil.copytree(bundle, tmp_path / "other", ignore=shutil.ignore_patterns("models", "checkpoints"))
    prepare_plan(Comparison(folder=tmp_path / "c", task=str(other), **asked))
    shared = other / "configs/task/shared.json"
    shared.write_text(shared.read_text().replace("16", "24"))
    with pytest.raises(InputError, match="was planned for another task"):
        prepare_plan(Comparison(folder=tmp_path / "c", task=str(other), **asked))


def test_the_bundle_of_another_method_is_composed_from_it_and_stands_alone(bundle, tmp_path):
    from semi_med.recipes.compose import compose

    other = compose("mean_teacher", str(bundle), tmp_path / "other")
    config = json.loads((other / "configs/train.json").read_text())
    assert config["method"]["_target_"] == "semi_med.methods.MeanTeacher" and config["crop_size"] == [16, 16, 16]
    assert load_data_list(other / "data_lists/labeled.json") == load_data_list(bundle / "data_lists/labeled.json")
    assert json.loads((other / "configs/metadata.json").read_text())["bundle"] == "mean_teacher_mine"
    assert (other / "configs/task/about.json").is_file()


# ---- 2D, other methods ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["cotrain", "fixmatchseg", "mean_teacher", "bcp", "supervised"])
def test_every_method_makes_a_step_in_2d_and_in_3d(folder, tmp_path, method):
    for crop in ((16, 16, 16), (16, 16)):
        wishes = Wishes(crop=crop, filters=2, batch=1, iterations=2, validation=0, test=0)
        planned = plan_folder(request(folder, tmp_path / "x", method=method, wishes=wishes))
        write_parts(planned.parts, tmp_path / str(len(crop)))
        found = measure(tmp_path / str(len(crop)), method=method, device="cpu", memory_gb=8.0)
        assert found.gigabytes > 0 and found.seconds >= found.alone > 0


def test_what_a_person_decided_is_marked_with_its_reason(folder, tmp_path):
    changed = {"modality": "MR", "settings": ("learning_rate=0.02",)}
    planned = plan_folder(request(folder, tmp_path / "x", **changed))
    choices = planned.plan.choices
    assert choices["sections"].given and choices["sections"].reason == "--validation, --test as given"
    assert choices["normalisation"].given and choices["normalisation"].reason.endswith("--modality says MR")
    assert choices["learning_rate"].given and choices["learning_rate"].value == 0.02
    assert planned.parts["train"]["learning_rate"] == 0.02
    plain = plan_folder(request(folder, tmp_path / "x", wishes=Wishes(crop=(16, 16, 16)))).plan.choices
    assert not any(plain[name].given for name in ("sections", "normalisation", "learning_rate"))


def test_a_2d_plan_has_a_2d_network_and_two_numbers_everywhere(folder, tmp_path):
    planned = plan_folder(request(folder, tmp_path / "x", wishes=Wishes(dimensions=2)))
    shared, train = planned.parts["shared"], planned.parts["train"]
    assert shared["network_def"]["spatial_dims"] == 2 and planned.parts["about"]["dimensions"] == 2
    for setting in (shared["crop_size"], shared["stride"], train["max_shift"], train["validation_stride"]):
        assert len(setting) == 2


def test_a_method_that_learns_from_unlabelled_scans_wants_some(folder, tmp_path):
    few = write_folder(tmp_path, cases=3, labeled=3)
    with pytest.raises(InputError, match=r"all 3 scans have a label.*--method supervised.*--labeled N"):
        plan_folder(request(few, tmp_path / "x", class_names=(), wishes=Wishes(validation=0, test=0)))
    hidden = plan_folder(request(few, tmp_path / "x", class_names=(), wishes=Wishes(labeled=1, validation=0, test=0)))
    assert hidden.data_list.counts()["unlabeled"] == 2


# ---- what is refused -----------------------------------------------------------------------------------------------


def test_a_bundle_is_replaced_only_on_request_and_its_training_goes_with_it(folder, tmp_path):
    target = tmp_path / "mine"
    planned = plan_folder(request(folder, target))
    write_bundle(planned)
    (target / "models").mkdir()
    (target / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"a bundle of an earlier init and its training lies here.*--overwrite"):
        write_bundle(planned)
    write_bundle(plan_folder(request(folder, target, overwrite=True)))
    assert not (target / "models").exists() and (target / "notes.txt").read_text() == "mine"


def test_a_folder_of_something_else_is_never_replaced(folder, tmp_path):
    (tmp_path / "thesis.txt").write_text("")
    with pytest.raises(InputError, match="the folder holds something else"):
        write_bundle(plan_folder(request(folder, tmp_path, overwrite=True)))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"method": "contrain"}, r"no method 'contrain'. Did you mean cotrain\?"),
        ({"modality": "MRI"}, r"Did you mean MR\?"),
        ({"device": "cdua"}, r"Did you mean cuda\?"),
        ({"memory_gb": 0.0}, "a number of GB above 0"),
        ({"name": "my task"}, "a name of letters"),
        ({"subject_pattern": "("}, "no regular expression"),
        ({"settings": ("learning_rat=1",)}, r"Did you mean learning_rate\?"),
        ({"wishes": Wishes(batch=0)}, "--batch: at least 1"),
        (
            {"wishes": Wishes(mirror=(3,))},
            r"axes 0 \(left-right\), 1 \(back-front\), 2 \(feet-head\) were wanted, got 3",
        ),
        ({"wishes": Wishes(dimensions=2, mirror=(2,))}, r"axes 0 \(left-right\), 1 \(back-front\) were wanted, got 2"),
    ],
)
def test_a_wrong_wish_is_refused_with_the_nearest_right_one(folder, tmp_path, changed, said):
    with pytest.raises(InputError, match=said):
        plan_folder(request(folder, tmp_path / "x", **changed))
    assert not (tmp_path / "x").exists()


# ---- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture
def command(monkeypatch, capfd):
    """Runs `semi-med` in this process."""

    def call(*arguments):
        from semi_med import cli

        monkeypatch.setattr("sys.argv", ["semi-med", *map(str, arguments)])
        with pytest.raises(SystemExit) as done:
            cli.main()
        out, err = capfd.readouterr()
        return int(done.value.code or 0), out, err

    return call


def options(folder):
    small = ("--crop", "16,16,16", "--filters", "2", "--iterations", "2", "--device", "cpu")
    return ("--images", folder / "images", "--labels", folder / "labels", *small)


def test_the_command_shows_the_plan_with_a_measured_step_and_writes_the_bundle(command, folder, tmp_path):
    code, out, err = command("init", "mine", *options(folder), "-o", tmp_path / "b")
    assert code == 0, err
    assert re.search(r"measured on a trial step: \d+\.\d\d GB at most, [\d.e-]+ s a step", out)
    assert "7: 5 with a label, 2 without" in out and out.rstrip().endswith(str(tmp_path / "b"))
    assert f"semi-med train {tmp_path / 'b'} --set device=cpu" in err
    trial = json.loads((tmp_path / "b/configs/plan.json").read_text())["trial"]
    assert trial["gigabytes"] > 0 and trial["seconds"] >= trial["alone"] > 0


def test_a_dry_run_writes_nothing(command, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = command("init", "mine", *options(folder), "--dry-run", "--without-trial")
    assert code == 0 and "nothing was written" in err and "neither memory nor time are promised" in out
    assert list(tmp_path.iterdir()) == []


def test_json_is_the_plan_and_nothing_else(command, folder, tmp_path):
    code, out, _ = command("init", "mine", *options(folder), "--dry-run", "--without-trial", "--json")
    content = json.loads(out)
    assert code == 0 and content["fingerprint"]["cases"] == 7
    assert content["choices"]["dimensions"]["reason"]


def test_memory_that_no_step_fits_is_said(command, folder, monkeypatch):
    monkeypatch.setattr("semi_med.planning.init.run_trial", lambda *given, **named: Trial(0.5, 1.0, 1.0))
    code, _, err = command("init", "mine", *options(folder), "--batch", "2", "--memory-gb", "0.01", "--dry-run")
    assert (
        code == 3 and "no training step fits: crop 16 x 16 x 16, batch 2, 2 filters: 0.5 GB; 0.0 GB are at hand" in err
    )
