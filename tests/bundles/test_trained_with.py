"""A prediction has what its model was trained with, wherever the training was and whatever came before it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semi_med.errors import InputError
from semi_med.inference.trained_with import SHARED, read_trained_with
from semi_med.recipes.compose import HERE


@pytest.fixture(scope="module")
def in_place(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path, tiny_data: Any) -> Any:
    """A copy of the bundle that was trained in its own folder, with a network and a crop of other sizes."""
    from tests.conftest import TINY_SETTINGS, BundleRunner

    folder = tmp_path_factory.mktemp("in_place") / "cotrain_la"
    shutil.copytree(tiny_bundle, folder)
    data = {"dataset_dir": str(tiny_data.folder), "data_list_file": str(tiny_data.data_list)}
    runner = BundleRunner(folder, {**TINY_SETTINGS, **data})
    runner(max_iterations=2)
    return runner


def masks_of_monai(bundle: Path, image: Path, tmp_path: Path, **overrides: Any) -> np.ndarray:
    """What `python -m monai.bundle run` writes for one image."""
    from monai.bundle import run

    from semi_med.inference import read_label

    images = tmp_path / "images"
    images.mkdir()
    shutil.copy(image, images)
    settings = {"dataset_dir": str(images), "output_dir": str(tmp_path / "out"), "device": "cpu", **overrides}
    run(config_file=str(bundle / "configs" / "inference.json"), logging_file=False, **settings)
    return read_label(tmp_path / "out" / f"{image.name.split('.')[0]}_seg.nii.gz").array


def test_the_bundles_files_stay_and_the_model_says_what_it_was_trained_with(in_place: Any, tiny_bundle: Path) -> None:
    for name in ("train", "inference"):
        file = Path("configs", f"{name}.json")
        assert (in_place.bundle / file).read_text() == (tiny_bundle / file).read_text()
    for name in ("model", "model_best_validation"):
        beside = json.loads((in_place.bundle / "models" / f"{name}.json").read_text())
        assert set(beside) == {"crop_size", "stride", "network_def", "peer_def"}
        assert (beside["crop_size"], beside["network_def"]["base_filters"]) == ([16, 16, 16], 2)
        assert beside["network_def"]["out_channels"] == "@classes"


def test_a_bundle_trained_in_place_predicts_wherever_it_is_copied(
    in_place: Any, tiny_data: Any, tmp_path: Path
) -> None:
    from semi_med.inference import Predictor

    moved = tmp_path / "elsewhere"
    shutil.copytree(in_place.bundle, moved)
    image = tiny_data.folder / "images" / "case_9.nii.gz"
    predictor = Predictor.load(moved, device="cpu")
    assert predictor.bundle.inferer.window == (16, 16, 16)
    assert np.array_equal(masks_of_monai(moved, image, tmp_path), predictor(image).label)
    best = Predictor.load(moved, device="cpu", weights=moved / "models" / "model_best_validation.pt")
    assert best(image).label.shape == (24, 22, 20)


def test_the_caller_of_a_prediction_has_the_last_word(
    in_place: Any, tiny_data: Any, tmp_path: Path, error_of: Any
) -> None:
    image, other = tiny_data.folder / "images" / "case_9.nii.gz", {"network_def#base_filters": 3}
    error = error_of(lambda: masks_of_monai(in_place.bundle, image, tmp_path, **other))
    assert "the shape in current model is torch.Size([3])" in str(error)


def test_a_bundle_trained_in_place_is_evaluated_with_its_network(in_place: Any, tiny_data: Any, tmp_path: Path) -> None:
    from monai.bundle import run

    settings = {key: in_place.settings[key] for key in ("dataset_dir", "data_list_file", "device")}
    files = [str(in_place.bundle / "configs" / f"{name}.json") for name in ("train", "evaluate")]
    settings |= {"bundle_root": str(in_place.bundle), "section": "validation"}
    run(run_id="evaluating", config_file=files, logging_file=False, **settings)
    assert (in_place.bundle / "evaluation" / "mean_dice_raw.csv").is_file()


def test_a_later_training_with_the_files_settings_takes_them_back(
    in_place: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from semi_med.inference import Predictor

    folder = tmp_path / "again"
    shutil.copytree(in_place.bundle, folder)
    shutil.rmtree(folder / "checkpoints")
    for name in ("train", "inference"):  # as if the bundle's own network were small
        file = folder / "configs" / f"{name}.json"
        content = json.loads(file.read_text())
        for network in ("network_def", "peer_def"):
            content[network] |= {"base_filters": 3, "levels": 2}
        file.write_text(json.dumps(content | {"crop_size": [16, 16, 16], "stride": [8, 8, 8]}))
    own = ("network_def", "peer_def", "crop_size", "stride")
    settings = {key: value for key, value in in_place.settings.items() if key.split("#")[0] not in own}
    replace(in_place, bundle=folder, settings=settings)(max_iterations=2)
    assert not (folder / "models" / "model.json").exists()
    assert Predictor.load(folder, device="cpu").bundle.networks[0].head.in_channels == 3


def test_a_run_in_a_runs_folder_is_known_by_its_own_network(in_place: Any, tmp_path: Path) -> None:
    """The folder of a run has the settings of its first training in `configs/inference.json`."""
    from semi_med.inference import Predictor

    run = tmp_path / "run"
    in_place(output_dir=str(run), max_iterations=2)
    assert not (run / "models" / "model.json").exists()
    shutil.rmtree(run / "checkpoints")
    wider = {f"{name}#base_filters": 3 for name in ("network_def", "peer_def")}
    replace(in_place, bundle=run)(max_iterations=2, **wider)
    assert json.loads((run / "configs" / "inference.json").read_text())["network_def"]["base_filters"] == 2
    assert Predictor.load(run, device="cpu").bundle.networks[0].head.in_channels == 3


def test_weights_from_elsewhere_bring_no_settings_that_could_run_code(in_place: Any, tmp_path: Path) -> None:
    from semi_med.inference import Predictor

    other = tmp_path / "models"
    shutil.copytree(in_place.bundle / "models", other)
    assert read_trained_with(other / "model.pt", in_place.bundle) == {}
    with pytest.raises(InputError, match="name the folder of that training instead") as caught:
        Predictor.load(in_place.bundle, device="cpu", weights=other / "model.pt")
    assert caught.value.code == "WEIGHTS"


@pytest.mark.parametrize("text", ['{"preprocessing": {}}', "[]", "{"])
def test_settings_that_no_training_writes_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "model.json").write_text(text)
    with pytest.raises(InputError, match="may stand here and nothing else"):
        read_trained_with(tmp_path / "models" / "model.pt", tmp_path)


def test_all_that_recipes_share_is_known() -> None:
    shared = {key for file in HERE.rglob("shared.json") for key in json.loads(file.read_text())}
    assert shared and shared <= set(SHARED)
