"""Bundles of photographs, whose class 0 is a class like the others: Cityscapes and VOC, for Dense FixMatch's tables."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image

from semi_med.data.two_views import TwoViews
from semi_med.datasets import cityscapes, pascal_voc
from semi_med.ignored import IGNORED
from semi_med.inference import predict
from semi_med.recipes.compose import compose, compose_config, methods
from tests.conftest import BundleRunner

TASKS = {"cityscapes": (cityscapes, 800, 89250, 0.01, 8), "voc": (pascal_voc, 512, 52910, 0.001, 16)}
SIZE = (44, 38)  # columns and rows
SECTIONS = {"labeled": 2, "unlabeled": 4, "validation": 2, "test": 1}
TINY: dict[str, Any] = {
    "allow_missing_class": True,  # of the 21 there are three
    "crop_size": [40, 48],  # a photograph is smaller along the second axis and larger along the first
    "max_shift": [4, 4],
    "network_def": {
        "_target_": "semi_med.networks.VNet",
        "in_channels": 3,
        "out_channels": "@classes",
        "spatial_dims": 2,
        "base_filters": 4,
        "levels": 2,
        "dropout": 0.1,
    },
    "max_iterations": 4,
    "iterations_per_epoch": 2,
    "val_interval": 2,
    "checkpoint_interval": 2,
    "batch_size": 2,
    "device": "cpu",
    "train#handlers#0#tensorboard": False,
}

every_task = pytest.mark.parametrize("task", TASKS)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey road below a sky with a bright disc; an outline of nobody knows what; a data list that counts class 0."""
    folder = tmp_path_factory.mktemp("photographs")
    content: dict[str, Any] = {"name": "street", "labels": {"0": "road", "1": "sky", "2": "sun"}}
    content |= {"modality": {"0": "red", "1": "green", "2": "blue"}, "ignored": IGNORED, "count_class_0": True}
    random, number = np.random.default_rng(0), 0
    columns, rows = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    for part in ("images", "labels"):
        (folder / part).mkdir()
    for section, count in SECTIONS.items():
        content[section] = []
        for _ in range(count):
            away = np.hypot(columns - random.uniform(12, 30), rows - 10)
            label = (rows < 22).astype(np.uint8) + (away < 7)
            image = (60 + 80 * label[..., None] + random.normal(0, 5, (*label.shape, 3))).clip(0, 255).astype(np.uint8)
            label[rows == 22] = IGNORED
            name = f"p{number}.png"
            Image.fromarray(image).save(folder / "images" / name)
            Image.fromarray(label).save(folder / "labels" / name)
            labels = {} if section == "unlabeled" else {"label": f"labels/{name}"}
            content[section].append({"image": f"images/{name}", "subject": name, **labels})
            number += 1
    (folder / "data_list.json").write_text(json.dumps(content))
    return folder


def settings_of(photographs: Path) -> dict[str, Any]:
    return {**TINY, "dataset_dir": str(photographs), "data_list_file": str(photographs / "data_list.json")}


@pytest.fixture(scope="module")
def trained(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[BundleRunner, Path]:
    folder = tmp_path_factory.mktemp("trained")
    run = BundleRunner(compose("densefixmatch", "voc", folder / "densefixmatch_voc"), settings_of(photographs))
    run(output_dir=str(folder / "run"))
    return run, folder / "run"


def curve(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / "logs" / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# ---- the numbers -----------------------------------------------------------------------------------------------------


@every_task
def test_the_numbers_of_dense_fixmatch_are_the_published_ones(task: str) -> None:
    _, crop, updates, rate, batch = TASKS[task]
    config = compose_config("train", method="densefixmatch", task=task)
    assert (config["crop_size"], config["max_iterations"], config["learning_rate"]) == ([crop, crop], updates, rate)
    assert (config["batch_size"], config["unlabeled_batch_size"]) == (batch, "@batch_size")
    optimizer = {key: config["optimizer"][key] for key in ("momentum", "nesterov", "weight_decay")}
    assert optimizer == {"momentum": 0.9, "nesterov": True, "weight_decay": 0.0005}
    assert config["lr_scheduler"]["power"] == 0.9
    method = config["method"]
    assert (method["threshold"], config["unsupervised_weight"], config["teacher_decay"]) == (0.5, 1.0, 0.99)
    assert (method["alpha"], method["alpha_unsupervised"]) == (1.0, 1.0)
    assert (config["crop_relation"], config["sampling"], config["reuse_labeled"]) == ("overlap", "explicit", False)
    assert config["ramp_share"] == 0.0
    strong = config["strong_augment"]
    assert (strong["number"], strong["magnitude"], strong["colors"], strong["cutout"]) == (2, 10, True, [0.1, 0.3])
    assert {"color", "invert", "shear", "rotate"} < set(strong["only"]) and "translate" not in strong["only"]
    network = config["network_def"]
    assert (network["backbone"], network["dilations"]) == ("resnet101", [12, 24, 36])
    assert config["labeled_augment"]["flip_axes"] == [0] and config["labeled_augment"]["scale"] == [1.0, 1.0]
    processes = {"cityscapes": 4, "voc": 2}[task]
    parallel = compose_config("multi_gpu_train", method="densefixmatch", task=task)
    assert parallel["batch_size"] * processes == parallel["unlabeled_batch_size"] * processes == batch


@every_task
def test_classes_and_channels_are_those_of_the_prepared_data(task: str) -> None:
    about = TASKS[task][0].ABOUT
    bundle = json.loads((compose_folder(task) / "about.json").read_text())
    assert bundle["labels"] == dict(about.labels) and bundle["channels"] == dict(about.modality)
    assert bundle["count_class_0"] is about.count_class_0 is True
    shared = json.loads((compose_folder(task) / "shared.json").read_text())
    assert shared["classes"] == len(about.labels)


def compose_folder(task: str) -> Path:
    from semi_med.recipes.compose import HERE

    return HERE / "tasks" / task


@every_task
@pytest.mark.parametrize("method", methods())
def test_class_0_counts_for_every_method_and_nothing_is_said_of_what_lies_outside(method: str, task: str) -> None:
    config = compose_config("train", method=method, task=task)
    shares = [config["method"][name] for name in ("alpha", "alpha_unsupervised") if name in config["method"]]
    assert set(shares) == {1.0} or (method in ("fixmatchseg", "segmatch") and not shares)
    assert config["validate"]["key_metric"]["mean_dice"]["include_background"] is True
    (validate,) = [h for h in config["train"]["handlers"] if h["_target_"] == "semi_med.engines.Validate"]
    assert validate["first_class"] == 0
    sides = [key for key in config["train"] if key.endswith("_batches")]
    assert {config["train"][side]["label_fill"] for side in sides} == {IGNORED}
    assert config["labeled_augment"]["label_fill"] == config["unlabeled_augment"]["label_fill"] == IGNORED


@pytest.mark.parametrize("task", ["la", "sunnybrook", "lgg"])
def test_elsewhere_class_0_is_the_background(task: str) -> None:
    config = compose_config("train", method="densefixmatch", task=task)
    assert config["validate"]["key_metric"]["mean_dice"]["include_background"] is False
    assert (config["method"]["alpha"], config["ramp_share"]) == (0.5, 0.4)
    assert "label_fill" not in config["train"]["labeled_batches"]


# ---- runs ------------------------------------------------------------------------------------------------------------


def test_a_run_measures_every_class_and_predicts_a_whole_photograph(
    trained: tuple[BundleRunner, Path], photographs: Path, tmp_path: Path
) -> None:
    _, folder = trained
    rows = curve(folder, "validation")
    assert [row["iteration"] for row in rows] == ["2", "4"]
    classes = [float(rows[-1][f"dice_{number}"]) for number in range(3)]
    assert all(0 <= value <= 1 for value in classes)
    matched = [float(row["matched"]) for row in curve(folder, "train")]
    assert all(0.2 < value < 1 for value in matched)
    predict(folder, [photographs / "images"], tmp_path / "masks", device="cpu")
    masks = list((tmp_path / "masks").glob("*_seg.png"))
    assert len(masks) == sum(SECTIONS.values())
    assert {Image.open(mask).size for mask in masks} == {SIZE}


def test_what_validation_and_evaluation_look_at_is_the_teacher(trained: tuple[BundleRunner, Path]) -> None:
    run, folder = trained
    run("train", "evaluate", run_id="evaluating", output_dir=str(folder), section="validation")
    with (folder / "evaluation" / "mean_dice_raw.csv").open(newline="") as file:
        found = [float(row["mean"]) for row in csv.DictReader(file)]
    last = float(curve(folder, "validation")[-1]["mean_dice"])
    assert len(found) == SECTIONS["validation"]
    assert np.mean(found) == pytest.approx(last, abs=1e-4)
    state = torch.load(folder / "models" / "model.pt", weights_only=True)
    checkpoint = torch.load(folder / "checkpoints" / "iteration_00000004.pt", weights_only=True)["networks"]
    for name, network in (("model", "teacher"), ("network", "network")):
        assert all(torch.equal(value, checkpoint[network][key]) for key, value in state[name].items())
    assert any(not torch.equal(value, state["network"][key]) for key, value in state["model"].items())


@pytest.mark.parametrize(("setting", "value"), [("crop_relation", "any"), ("sampling", "implicit")])
def test_another_relation_of_crops_or_another_sampling_is_another_run(
    setting: str, value: str, trained: tuple[BundleRunner, Path], error_of: Any
) -> None:
    run, folder = trained
    error = error_of(lambda: run(output_dir=str(folder), resume=True, **{setting: value}))
    assert error.code == "RESUME_MISMATCH" and value in str(error)


def test_cases_can_be_drawn_whether_they_have_a_label_or_not(
    trained: tuple[BundleRunner, Path], tmp_path: Path
) -> None:
    run, _ = trained
    run(output_dir=str(tmp_path), sampling="implicit", reuse_labeled=True, crop_relation="any")
    rows = curve(tmp_path, "train")
    assert all(np.isfinite(float(row[name])) for row in rows for name in ("loss", "unsupervised", "matched"))


@pytest.mark.parametrize("method", ["densefixmatch", "supervised", "mean_teacher"])
def test_neither_label_nor_pseudo_label_says_anything_of_the_padding(
    method: str, photographs: Path, tmp_path: Path
) -> None:
    """Photographs are 38 rows high, crops 48: ten rows belong to nobody, whatever the views do."""
    bundle = compose(method, "voc", tmp_path / f"{method}_voc")
    more = {"bundle_root": str(bundle), "output_dir": str(tmp_path / "run")}
    file = str(bundle / "configs" / "train.json")
    workflow = ConfigWorkflow(
        workflow_type="train", config_file=file, logging_file=False, **settings_of(photographs), **more
    )
    workflow.initialize()
    parts = [workflow.parser.get_parsed_content(f"train#{name}") for name in ("dataloader", "labeled_view")]
    seen = 0
    for iteration in range(4):
        labeled, unlabeled = parts[0].pair(iteration)
        view = parts[1](labeled, torch.Generator().manual_seed(iteration))
        padded = (view["image"] == 0).all(1, keepdim=True)
        assert (view["label"][padded] == IGNORED).all()
        assert (view["label"] != IGNORED).any()
        seen += int(padded.sum())
        if method == "densefixmatch":
            two = workflow.parser.get_parsed_content("train#unlabeled_view")
            assert isinstance(two, TwoViews)
            made = two(unlabeled, torch.Generator().manual_seed(iteration))
            padded = (made["weak"] == 0).all(1, keepdim=True)
            assert padded.any() and not made["seen"][padded].any()
            assert made["seen"][~padded].all()
    assert seen > 0
