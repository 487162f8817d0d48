"""The bundles for Pancreas-CT and BraTS: the published numbers, and a run on data as `prepare` writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from semi_med.data.data_list import DataList, save_data_list
from semi_med.datasets import brats2019
from semi_med.datasets.pancreas_ct import PROTOCOLS
from semi_med.datasets.prepared import MadeCase, PreparedDataset, SourceCase, prepare_cases
from semi_med.inference.batch import predict
from semi_med.recipes.compose import compose, compose_config, methods
from tests.conftest import TINY_SETTINGS, BundleRunner

SHAPE = (24, 22, 20)
AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])
TASKS = ("pancreas", "pancreasb", "brats", "bratsregions")


def transform(task: str, name: str) -> dict[str, Any]:
    """One transform of a task's preprocessing; the test fails if it is not there."""
    steps = compose_config("inference", method="cotrain", task=task)["preprocessing"]["transforms"]
    return next(step for step in steps if step["_target_"].rsplit(".", 1)[-1] == name)


# ---- the published numbers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_crops_and_strides_are_the_published_ones(task: str) -> None:
    for name in ("train", "inference"):
        config = compose_config(name, method="cotrain", task=task)
        assert (config["crop_size"], config["stride"]) == ([96, 96, 96], [16, 16, 16])


@pytest.mark.parametrize("task", ["pancreas", "pancreasb"])
@pytest.mark.parametrize("method", methods())
def test_no_method_flips_or_turns_the_pancreas(method: str, task: str) -> None:
    config = compose_config("train", method=method, task=task)
    for side in ("labeled_augment", "unlabeled_augment"):
        assert config[side].get("flip_axes") == config[side].get("turn_planes") == []


@pytest.mark.parametrize("task", ["pancreas", "pancreasb"])
def test_the_window_of_the_pancreas_is_the_published_one(task: str) -> None:
    window = transform(task, "ScaleIntensityRanged")
    assert [window[key] for key in ("a_min", "a_max", "b_min", "b_max", "clip")] == [-125, 275, 0.0, 1.0, True]


def test_protocol_a_brings_to_mean_0_and_sd_1_and_b_does_not() -> None:
    assert transform("pancreas", "NormalizeIntensityd")
    with pytest.raises(StopIteration):
        transform("pancreasb", "NormalizeIntensityd")


def test_iterations_and_labels_are_the_published_ones() -> None:
    for task, iterations, labeled in (("pancreas", 15000, 12), ("pancreasb", 15000, 12), ("brats", 30000, 25)):
        config = compose_config("train", method="cotrain", task=task)
        assert (config["max_iterations"], config["labeled"]) == (iterations, labeled)


@pytest.mark.parametrize("task", TASKS)
def test_the_list_that_a_bundle_trains_with_lies_in_it(task: str, tmp_path: Path) -> None:
    folder = compose("cotrain", task, tmp_path / f"cotrain_{task}")
    config = compose_config("train", method="cotrain", task=task)
    pattern = config["data_list_file"].split("'")[1]
    assert (folder / (pattern % config["labeled"]).lstrip("/")).is_file()


# ---- runs ----------------------------------------------------------------------------------------------------------


def scan(number: int) -> tuple[np.ndarray, np.ndarray]:
    """(i, j, k) with values from 0 to about 1000 within a ball of head's form, and labels within it."""
    random = np.random.default_rng(number)
    distance = np.linalg.norm((np.indices(SHAPE).T - (12, 11, 10)) / (11, 10, 9), axis=-1).T
    image = np.where(distance < 1, random.uniform(200, 400, SHAPE), 0)
    centre = np.linalg.norm(np.indices(SHAPE).T - (12, 11, 10), axis=-1).T
    label = np.select([centre < 2, centre < 3, centre < 5], [4, 1, 2], 0).astype(np.uint8)  # as BraTS has them
    return image + 300.0 * (label > 0), label


def save_brats(root: Path, number: int) -> None:
    folder = root / f"HGG/BraTS19_X_{number}"
    folder.mkdir(parents=True)
    image, label = scan(number)
    for what in ("flair", "t1", "t1ce", "t2"):
        nib.save(nib.Nifti1Image(image.astype(np.int16), AFFINE), folder / f"{folder.name}_{what}.nii.gz")
    nib.save(nib.Nifti1Image(label, AFFINE), folder / f"{folder.name}_seg.nii.gz")


def prepare_pancreas(folder: Path) -> PreparedDataset:
    """Four scans in Hounsfield units as `prepare pancreas_ct` stores them."""
    (folder.parent / "source").mkdir()
    (folder.parent / "source/x").write_text("x")

    def make(case: SourceCase) -> MadeCase:
        image, label = scan(int(case.name))
        return MadeCase((image - 200).astype(np.int16), (label > 0).astype(np.uint8), AFFINE)

    cases = [SourceCase(str(number), folder.parent / "source/x") for number in range(4)]
    about = PROTOCOLS["A"].about
    return prepare_cases(cases, folder, source=folder.parent / "source", about=about, recipe={}, make=make)


def write_list(done: PreparedDataset, labels: dict[str, str]) -> Path:
    entries = list(done.entries.values())
    listed = DataList(
        name="tiny",
        labels=labels,
        labeled=[entries[0].listed()],
        unlabeled=[entry.listed(unlabeled=True) for entry in entries[1:3]],
        validation=[entries[3].listed()],
    )
    save_data_list(listed, done.folder / "tiny.json")
    return done.folder / "tiny.json"


def train(task: str, data_list: Path, tmp_path: Path) -> Path:
    """The folder of a run of two iterations."""
    bundle = compose("cotrain", task, tmp_path / f"cotrain_{task}")
    settings = {**TINY_SETTINGS, "dataset_dir": str(data_list.parent), "data_list_file": str(data_list)}
    short = {"max_iterations": 2, "iterations_per_epoch": 2, "val_interval": 2, "checkpoint_interval": 2}
    BundleRunner(bundle, {**settings, **short})(output_dir=str(tmp_path / "run"), batch_size=1)
    return tmp_path / "run"


@pytest.mark.parametrize("variant", ["flair", "regions"])
def test_brats_is_prepared_and_trained_with_one_modality_and_with_four(tmp_path: Path, variant: str) -> None:
    for number in range(4):
        save_brats(tmp_path / "source", number)
    done = brats2019.prepare(tmp_path / "source", tmp_path / "data", variant=variant)
    data_list = write_list(done, dict(brats2019.about_of(variant).labels))
    run = train("brats" if variant == "flair" else "bratsregions", data_list, tmp_path)
    assert (run / "models/model.pt").is_file()
    if variant == "flair":  # a scan that is not cropped is segmented on its own grid
        whole = tmp_path / "source/HGG/BraTS19_X_1/BraTS19_X_1_flair.nii.gz"
        rows = predict(run, [whole], tmp_path / "out", device="cpu")
        assert [row["status"] for row in rows] == ["done"]
        assert nib.load(tmp_path / "out/BraTS19_X_1_flair_seg.nii.gz").shape == SHAPE


def test_the_pancreas_is_trained_from_hounsfield_units(tmp_path: Path) -> None:
    data_list = write_list(prepare_pancreas(tmp_path / "data"), dict(PROTOCOLS["A"].about.labels))
    run = train("pancreas", data_list, tmp_path)
    assert (run / "models/model.pt").is_file()
