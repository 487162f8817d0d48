"""Bundles as MONAI runs them, in this process: what is trained, what is written, what is never opened."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from semi_med.engines import SemiSupervisedTrainer

ErrorOf = Callable[[Callable[[], object]], Any]


def rows(folder: Path, name: str = "train") -> list[dict[str, str]]:
    """Rows of a curve without the clock."""
    with (folder / "logs" / f"{name}.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def weights(path: Path) -> dict[str, Any]:
    return torch.load(path, map_location="cpu", weights_only=True)


def equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(
        equal(a[key], b[key]) if isinstance(a[key], dict) else torch.equal(a[key], b[key]) for key in a
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path, tiny_data: Any) -> Path:
    """The folder of a run of four iterations; every row is written."""
    from tests.conftest import TINY_SETTINGS, BundleRunner

    folder = tmp_path_factory.mktemp("trained") / "run"
    data = {"dataset_dir": str(tiny_data.folder), "data_list_file": str(tiny_data.data_list)}
    every_row = {"train#handlers#1#interval": 1}
    BundleRunner(tiny_bundle, {**TINY_SETTINGS, **data})(output_dir=str(folder), learning_rate=0.02, **every_row)
    return folder


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every training that is begun adds its last iteration here; nothing is trained."""
    begun: list[int] = []
    monkeypatch.setattr(SemiSupervisedTrainer, "run", lambda self: begun.append(self.total_iterations))
    return begun


# ---- what a run writes ---------------------------------------------------------------------------------------------


def test_a_run_writes_models_checkpoints_curves_and_its_record(trained: Path) -> None:
    for name in (
        "models/model.pt",
        "models/model_best_validation.pt",
        "checkpoints/iteration_00000004.pt",
        "logs/train.csv",
        "logs/validation.csv",
        "run.json",
        "configs/train.json",
        "configs/metadata.json",
        "docs/README.md",
        "LICENSE",
    ):
        assert (trained / name).is_file(), name
    assert [row["iteration"] for row in rows(trained)] == ["1", "2", "3", "4"]
    assert [row["iteration"] for row in rows(trained, "validation")] == ["4"]
    assert list(weights(trained / "models" / "model.pt")) == ["model", "peer"]


def test_unlabeled_and_test_labels_are_not_opened_in_training_and_validation(trained: Path, tiny_data: Any) -> None:
    """They are files that no reader accepts (see `tiny_data`), and the run has reached its end."""
    from semi_med.inference.io import read_label

    listed = json.loads(tiny_data.data_list.read_text())
    hidden = [item["monitor_label"] for item in listed["unlabeled"]] + [item["label"] for item in listed["test"]]
    assert len(hidden) == 6
    for file in hidden:
        with pytest.raises(Exception, match=r"gzip|NIfTI|damaged|whole|not"):
            read_label(tiny_data.folder / file)
    assert len(rows(trained)) == 4


def test_the_record_names_what_was_changed(trained: Path) -> None:
    record = json.loads((trained / "run.json").read_text())
    assert record["bundle"] == "cotrain_la"
    assert record["settings"]["labeled"] == 3
    assert record["settings"]["unlabeled"] == 4
    assert record["settings"]["validation"] == 1
    assert record["settings"]["max_iterations"] == 4
    assert record["changed"]["learning_rate"] == 0.02
    assert record["changed"]["network_def#base_filters"] == 2
    assert record["changed"]["crop_size"] == [16, 16, 16]
    assert "seed" not in record["changed"]
    assert {name: len(digest) for name, digest in record["data"].items()} == {"cases_sha256": 64, "files_sha256": 64}
    assert record["versions"]["torch"] == torch.__version__ or record["versions"]["torch"] in torch.__version__


def test_the_runs_folder_is_a_bundle_that_predicts_with_the_network_that_was_trained(
    trained: Path, tiny_data: Any
) -> None:
    from semi_med.inference import Predictor

    config = json.loads((trained / "configs" / "inference.json").read_text())
    assert config["network_def"]["base_filters"] == config["peer_def"]["base_filters"] == 2
    assert (config["crop_size"], config["stride"]) == ([16, 16, 16], [8, 8, 8])
    assert config["bundle_root"] == "$bundle.find_root('cotrain_la')"  # nothing of this machine
    prediction = Predictor.load(trained, device="cpu")(tiny_data.folder / "images" / "case_9.nii.gz")
    assert prediction.label.shape == (24, 22, 20)


def test_the_bundle_itself_is_left_as_it_was(trained: Path, tiny_bundle: Path) -> None:
    assert not [name for name in ("models", "checkpoints", "logs", "run.json") if (tiny_bundle / name).exists()]
    assert json.loads((tiny_bundle / "configs" / "inference.json").read_text())["crop_size"] == [112, 112, 80]


def test_inference_json_and_the_predictor_give_the_same_mask(
    trained: Path, tiny_data: Any, run_tiny: Any, tmp_path: Path
) -> None:
    from monai.bundle import run

    from semi_med.inference import Predictor, read_label

    images = tmp_path / "images"
    images.mkdir()
    shutil.copy(tiny_data.folder / "images" / "case_9.nii.gz", images)
    config = str(trained / "configs" / "inference.json")
    overrides = {"dataset_dir": str(images), "output_dir": str(tmp_path / "out"), "device": "cpu"}
    run(config_file=config, logging_file=False, **overrides)
    file = tmp_path / "out" / "case_9_seg.nii.gz"
    prediction = Predictor.load(trained, device="cpu")(images / "case_9.nii.gz")
    written = read_label(file)
    assert written.array.dtype == np.uint8
    assert np.array_equal(written.array, prediction.label)
    assert np.allclose(written.affine, prediction.affine)
    assert 0 < written.array.sum() < written.array.size


# ---- how often it trains -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run_id", ["training", None, "run", ""])
def test_every_way_to_start_trains_exactly_once(run_tiny: Any, runs: list[int], tmp_path: Path, run_id: Any) -> None:
    run_tiny(output_dir=str(tmp_path / "run"), run_id=run_id)
    assert runs == [4]


# ---- schedule ------------------------------------------------------------------------------------------------------


def test_max_epochs_shortens_training_schedule_and_ramp(run_tiny: Any, tmp_path: Path) -> None:
    run_tiny(
        output_dir=str(tmp_path),
        max_iterations=100,
        iterations_per_epoch=3,
        val_interval=50,
        **{"train#trainer#max_epochs": 2, "train#handlers#1#interval": 1},
    )
    found = rows(tmp_path)
    assert [row["iteration"] for row in found] == ["1", "2", "3", "4", "5", "6"]
    # by hand: 0.01 (1 - 5/6) ** 0.9, and the ramp of int(0.4 * 6) = 2 iterations is over at the third
    assert float(found[-1]["learning_rate"]) == pytest.approx(0.01 * (1 / 6) ** 0.9, rel=1e-4)
    assert float(found[1]["unsupervised_weight"]) == pytest.approx(np.exp(-5 * 0.5**2), rel=1e-4)
    assert [float(row["unsupervised_weight"]) for row in found[2:]] == [1.0] * 4


def test_iterations_that_are_no_whole_epochs_are_done_exactly(run_tiny: Any, tmp_path: Path) -> None:
    run_tiny(output_dir=str(tmp_path), max_iterations=5, iterations_per_epoch=2, val_interval=50)
    assert weights(tmp_path / "checkpoints" / "iteration_00000005.pt")["iteration"] == 5
    assert rows(tmp_path)[-1]["iteration"] == "5"


def test_mixed_precision_on_the_cpu_trains_and_validates(run_tiny: Any, tmp_path: Path) -> None:
    run_tiny(output_dir=str(tmp_path), amp=True, max_iterations=2, val_interval=2)
    assert all(np.isfinite(float(row["loss"])) for row in rows(tmp_path))
    assert len(rows(tmp_path, "validation")) == 1


def test_labels_with_ignored_voxels_train_and_validate(run_tiny: Any, tiny_data: Any, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(tiny_data.folder, folder)
    content = json.loads(tiny_data.data_list.read_text())
    for case in (*content["labeled"], *content["validation"]):
        drawn = nib.load(folder / case["label"])
        array = np.asarray(drawn.dataobj).astype(np.uint8)
        array[: array.shape[0] // 2] = 255
        nib.save(nib.Nifti1Image(array, drawn.affine), folder / case["label"])
    data_list = folder / "data_list.json"
    data_list.write_text(json.dumps({**content, "ignored": 255}))
    run_tiny(dataset_dir=str(folder), data_list_file=str(data_list), output_dir=str(tmp_path / "run"))
    (row,) = rows(tmp_path / "run", "validation")
    assert 0 <= float(row["mean_dice"]) <= 1


def test_the_supervised_bundle_trains_without_looking_at_an_unlabeled_scan(
    tiny_data: Any, run_tiny: Any, tmp_path: Path
) -> None:
    from semi_med.recipes.compose import compose

    data = tmp_path / "data"
    shutil.copytree(tiny_data.folder, data)
    for number in range(3, 7):
        (data / "images" / f"case_{number}.nii.gz").unlink()
    runner = replace(run_tiny, bundle=compose("supervised", "la", tmp_path / "supervised_la"))
    for key in [key for key in run_tiny.settings if key.startswith("peer_def#")]:
        runner.settings.pop(key)
    runner(output_dir=str(tmp_path / "run"), dataset_dir=str(data), data_list_file=str(data / "data_list.json"))
    assert list(weights(tmp_path / "run" / "models" / "model.pt")) == ["model"]
    assert {"supervised", "loss"} <= rows(tmp_path / "run")[0].keys()


def test_a_change_of_the_network_goes_for_both_networks(run_tiny: Any, runs: list[int], tmp_path: Path) -> None:
    for key in [key for key in run_tiny.settings if key.startswith("peer_def#")]:
        run_tiny.settings.pop(key)
    run_tiny(output_dir=str(tmp_path / "run"))
    config = json.loads((tmp_path / "run" / "configs" / "inference.json").read_text())
    assert config["peer_def"].pop("upsampling") == "interpolated"
    assert config["network_def"].pop("upsampling") == "transposed"
    assert config["peer_def"] == config["network_def"]
    assert config["network_def"]["base_filters"] == 2


def test_a_network_that_is_named_is_changed_alone(run_tiny: Any, runs: list[int], tmp_path: Path) -> None:
    run_tiny(output_dir=str(tmp_path / "run"), **{"peer_def#base_filters": 3})
    config = json.loads((tmp_path / "run" / "configs" / "inference.json").read_text())
    assert (config["network_def"]["base_filters"], config["peer_def"]["base_filters"]) == (2, 3)


# ---- resume --------------------------------------------------------------------------------------------------------


def test_a_run_that_was_stopped_ends_as_the_unbroken_one(run_tiny: Any, trained: Path, tmp_path: Path) -> None:
    settings = {"output_dir": str(tmp_path / "run"), "learning_rate": 0.02, "train#handlers#1#interval": 1}

    class PulledPlug(Exception):
        pass

    iterate, count = SemiSupervisedTrainer._iteration, []

    def stop_in_the_fourth(self: Any, *args: Any) -> Any:
        count.append(1)
        if len(count) == 4:
            raise PulledPlug
        return iterate(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SemiSupervisedTrainer, "_iteration", stop_in_the_fourth)
        with pytest.raises(Exception):  # noqa: B017 - MONAI wraps it
            run_tiny(**settings)
    assert [row["iteration"] for row in rows(tmp_path / "run")] == ["1", "2", "3"]
    record = (tmp_path / "run" / "run.json").read_bytes()
    run_tiny(resume=True, **settings)
    assert rows(tmp_path / "run") == rows(trained)
    assert rows(tmp_path / "run", "validation") == rows(trained, "validation")
    for name in ("model.pt", "model_best_validation.pt"):
        assert equal(weights(tmp_path / "run" / "models" / name), weights(trained / "models" / name))
    assert (tmp_path / "run" / "run.json").read_bytes() == record


def test_a_folder_with_a_run_is_refused_and_left_alone(run_tiny: Any, trained: Path, error_of: ErrorOf) -> None:
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    error = error_of(lambda: run_tiny(output_dir=str(trained), learning_rate=0.5))
    assert error.code == "OUTPUT_EXISTS"
    assert {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()} == before


def test_resuming_with_other_settings_is_refused_and_says_which(
    run_tiny: Any, trained: Path, error_of: ErrorOf
) -> None:
    error = error_of(lambda: run_tiny(output_dir=str(trained), resume=True, **{"method#cutmix": False}))
    assert error.code == "RESUME_MISMATCH"
    assert "method#cutmix: True in the checkpoint, False here" in str(error)


# ---- watching pseudo-labels ----------------------------------------------------------------------------------------


@pytest.fixture
def open_data(tiny_data: Any, tmp_path: Path) -> dict[str, str]:
    """The same data set with all labels readable."""
    folder = tmp_path / "open"
    shutil.copytree(tiny_data.folder, folder)
    shutil.copytree(tiny_data.hidden, folder, dirs_exist_ok=True)
    return {"dataset_dir": str(folder), "data_list_file": str(folder / "data_list.json")}


def test_monitoring_adds_curves_and_changes_no_loss(
    run_tiny: Any, open_data: dict[str, str], trained: Path, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"learning_rate": 0.02, "train#handlers#1#interval": 1, **open_data}
    run_tiny(output_dir=str(tmp_path / "run"), monitor_pseudo_labels=True, **settings)
    watched = rows(tmp_path / "run")
    assert all(0 <= float(row["pseudo_label_dice"]) <= 1 for row in watched)
    extra = {"pseudo_label_dice", "dynamic_label_dice"}
    assert [{k: v for k, v in row.items() if k not in extra} for row in watched] == rows(trained)
    assert equal(weights(tmp_path / "run" / "models" / "model.pt"), weights(trained / "models" / "model.pt"))


def test_monitoring_finds_a_monitor_label_that_cannot_be_read(run_tiny: Any, tmp_path: Path, error_of: ErrorOf) -> None:
    error = error_of(lambda: run_tiny(output_dir=str(tmp_path / "run"), monitor_pseudo_labels=True))
    assert error.code == "PROBLEMS"
    assert "case_3.nii.gz" in str(error)


# ---- evaluation ----------------------------------------------------------------------------------------------------


def test_the_evaluation_overlay_scores_the_test_section_by_case(
    run_tiny: Any, open_data: dict[str, str], trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained, tmp_path / "run")
    run_tiny("train", "evaluate", run_id="evaluating", output_dir=str(tmp_path / "run"), **open_data)
    with (tmp_path / "run" / "evaluation" / "mean_dice_raw.csv").open() as file:
        table = {row["filename"]: float(row["mean"]) for row in csv.DictReader(file)}
    assert set(table) == {"case_8", "case_9"}

    from semi_med.inference import Predictor, read_label

    predictor = Predictor.load(trained, device="cpu")
    for case, dice in table.items():
        label = read_label(Path(open_data["dataset_dir"]) / "labels" / f"{case}.nii.gz").array
        ours = predictor(Path(open_data["dataset_dir"]) / "images" / f"{case}.nii.gz").label
        by_hand = 2 * np.sum((ours == 1) & (label == 1)) / (np.sum(ours == 1) + np.sum(label == 1))
        assert dice == pytest.approx(by_hand, abs=2e-3)  # cached cases are rounded to float16, a few voxels flip


def test_evaluation_without_weights_says_how_to_get_them(run_tiny: Any, tmp_path: Path, error_of: ErrorOf) -> None:
    error = error_of(lambda: run_tiny("train", "evaluate", run_id="evaluating", output_dir=str(tmp_path)))
    assert error.code == "NO_WEIGHTS"
    assert "Train first" in str(error)


# ---- the way of MONAI Label ----------------------------------------------------------------------------------------


def test_the_overrides_of_monai_label_train_and_write_the_model(
    tiny_bundle: Path, tiny_data: Any, run_tiny: Any, trained: Path, tmp_path: Path
) -> None:
    """As `monailabel.tasks.train.bundle` calls it, for the second time: with a loader of the model that is there."""
    from monai.bundle import run

    bundle = tmp_path / "cotrain_la"
    shutil.copytree(tiny_bundle, bundle)
    (bundle / "models").mkdir()
    shutil.copy(trained / "models" / "model.pt", bundle / "models")
    raw = json.loads((bundle / "configs" / "train.json").read_text())["train"]["handlers"]
    loader = {
        "_target_": "CheckpointLoader",
        "load_path": str(bundle / "models" / "model.pt"),
        "load_dict": {"model": "$@network"},
        "strict": False,
    }
    images = sorted((tiny_data.folder / "images").glob("*.nii.gz"))
    items = [{"image": str(p), "label": str(tiny_data.folder / "labels" / p.name)} for p in images]
    tiny = {k: v for k, v in run_tiny.settings.items() if not k.startswith(("train#", "data", "device"))}
    before = weights(bundle / "models" / "model.pt")
    run(
        run_id="run",
        init_id=None,
        final_id=None,
        config_file=str(bundle / "configs" / "train.json"),
        logging_file=False,
        bundle_root=str(bundle),
        device="cpu",
        **{
            **tiny,
            "train#trainer#max_epochs": 1,
            "train#dataset#data": items[:2],
            "train#unlabeled_dataset#data": [{"image": item["image"]} for item in items[3:6]],
            "validate#dataset#data": items[2:3] + items[7:8],
            "train#handlers": [loader, *raw],
            "displayable_configs": {"max_epochs": 1},
        },
    )
    after = weights(bundle / "models" / "model.pt")
    assert set(after) == {"model", "peer"}
    assert not equal(after, before)
    assert len(rows(bundle, "validation")) == 1


def test_two_labels_and_no_validation_still_give_a_model(run_tiny: Any, tmp_path: Path) -> None:
    run_tiny(output_dir=str(tmp_path), **{"validate#dataset#data": []})
    assert weights(tmp_path / "models" / "model.pt")
    assert not (tmp_path / "models" / "model_best_validation.pt").exists()


# ---- wrong settings ------------------------------------------------------------------------------------------------

MISSPELT = {
    "top level": ({"lerning_rate": 0.1}, "there is no setting --lerning_rate. Did you mean --learning_rate?"),
    "in a section": ({"train#trainr": 1}, "there is no setting --train#trainr. Did you mean --train#trainer?"),
    "of a method": ({"method#cutmx": False}, "there is no setting --method#cutmx. Did you mean --method#cutmix?"),
    "of a network": ({"network_def#level": 2}, "Did you mean --network_def#levels?"),
    "of torch": ({"optimizer#weight_deccay": 0.0}, "Did you mean --optimizer#weight_decay?"),
    "of another file": ({"section": "test"}, "--section. It is a setting of configs/evaluate.json, which is not run"),
    "of the metadata": ({"task": "la"}, "there is no setting --task"),
}


@pytest.mark.parametrize("what", MISSPELT)
def test_a_setting_that_is_none_is_refused_with_the_nearest(
    run_tiny: Any, runs: list[int], tmp_path: Path, what: str, error_of: ErrorOf
) -> None:
    settings, text = MISSPELT[what]
    error = error_of(lambda: run_tiny(output_dir=str(tmp_path / "run"), **settings))
    assert error.code == "SETTING"
    assert error.exit_code == 2
    assert text in str(error)
    assert runs == []
    assert not (tmp_path / "run").exists()


def test_a_misspelt_section_trains_nothing_and_the_nearest_is_named(
    run_tiny: Any, runs: list[int], tmp_path: Path, error_of: ErrorOf
) -> None:
    """MONAI itself refuses it, before anything of the bundle is looked at."""
    error = error_of(lambda: run_tiny(output_dir=str(tmp_path / "run"), **{"trian#trainer#max_epochs": 1}))
    assert "did you mean 'train'?" in str(error)
    assert runs == []


@pytest.mark.parametrize(
    "settings",
    [
        {"network_def": {"_target_": "semi_med.networks.VNet", "base_filters": 2, "levels": 2, "dropout": 0.0}},
        {"labeled_augment#noise": 0.1},
        {"optimizer#nesterov": True},
        {"validate#dataloader#pin_memory": False},
    ],
)
def test_arguments_that_a_component_takes_are_accepted(
    run_tiny: Any, runs: list[int], tmp_path: Path, settings: dict[str, Any]
) -> None:
    if "network_def" in settings:
        for key in [key for key in run_tiny.settings if key.startswith("network_def#")]:
            run_tiny.settings.pop(key)
    run_tiny(output_dir=str(tmp_path), **settings)
    assert runs == [4]


@pytest.mark.parametrize(("word", "meant"), [("false", False), ("true", True), ("False", False), (False, False)])
def test_true_and_false_on_the_command_line_mean_what_they_say(
    run_tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: Any, meant: bool
) -> None:
    """MONAI's command line hands on `--method#cutmix false` as the text "false"."""
    seen: list[Any] = []

    def look(self: Any) -> None:
        seen.extend([self.method.cutmix, self.gradient_clip, self.amp])

    monkeypatch.setattr(SemiSupervisedTrainer, "run", look)
    run_tiny(output_dir=str(tmp_path), gradient_clip="null", amp=False, resume="false", **{"method#cutmix": word})
    assert seen == [meant, None, False]
    assert json.loads((tmp_path / "run.json").read_text())["changed"].get("method#cutmix", True) is meant


KINDS = {
    "a word": ({"method#cutmix": "perhaps"}, "--method#cutmix wants true or false, got 'perhaps'. The default is True"),
    "a comma": ({"learning_rate": (0, 1)}, "--learning_rate wants a number, got (0, 1)"),  # fire's reading of 0,01
    "a text": ({"max_iterations": "many"}, "--max_iterations wants a number, got 'many'"),
    "one number": ({"crop_size": 16}, "--crop_size wants a list such as [1, 2, 3], got 16"),
    "truth for a number": ({"batch_size": True}, "--batch_size wants a number, got True"),
}


@pytest.mark.parametrize("what", KINDS)
def test_a_value_of_another_kind_is_refused(
    run_tiny: Any, runs: list[int], tmp_path: Path, what: str, error_of: ErrorOf
) -> None:
    settings, text = KINDS[what]
    error = error_of(lambda: run_tiny(output_dir=str(tmp_path), **settings))
    assert error.code == "SETTING"
    assert text in str(error)
    assert runs == []


def test_a_data_set_that_is_not_there_is_explained(run_tiny: Any, tmp_path: Path, error_of: ErrorOf) -> None:
    error = error_of(lambda: run_tiny(output_dir=str(tmp_path / "run"), dataset_dir=str(tmp_path / "nothing")))
    assert error.code == "MISSING"
    for part in (
        "folder is missing",
        "10 scans",
        "atriaseg2018",
        "semi-med prepare la",
        "--dataset_dir",
        "semi-med demo",
    ):
        assert part in str(error)
    assert not (tmp_path / "run").exists()


def test_a_missing_data_list_is_explained(run_tiny: Any, tmp_path: Path, error_of: ErrorOf) -> None:
    error = error_of(lambda: run_tiny(output_dir=str(tmp_path), data_list_file=str(tmp_path / "x.json")))
    assert error.code == "MISSING"
    assert "--data_list_file" in str(error)


def test_an_output_that_cannot_be_written_is_refused_before_the_data_are_read(
    run_tiny: Any, tmp_path: Path, error_of: ErrorOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_yet(*_: object, **__: object) -> None:
        raise AssertionError("the data were read first")

    monkeypatch.setattr("semi_med.data.validation.check_sections", not_yet)
    (tmp_path / "file").write_text("")
    error = error_of(lambda: run_tiny(output_dir=str(tmp_path / "file" / "run")))
    assert error.exit_code == 2
    assert "another" in str(error)
