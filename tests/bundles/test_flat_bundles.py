"""Bundles whose network sees pictures: the published numbers, and runs from pictures on disk to masks of their size."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image

from semi_med.inference.label_png import label_png
from semi_med.inference.predictor import predict
from semi_med.recipes.compose import compose, compose_config, methods
from tests.conftest import BundleRunner

PAPER = ("camus", "refuge", "isic", "scr")
SIZE = (44, 38)  # columns and rows of the pictures on disk; the network sees 32 x 32
SECTIONS = {"labeled": 3, "unlabeled": 6, "validation": 2, "test": 2}
TINY: dict[str, Any] = {
    "image_size": [32, 32],
    "crop_size": [32, 32],
    "max_iterations": 4,
    "iterations_per_epoch": 2,
    "val_interval": 2,
    "checkpoint_interval": 2,
    "early_stop_patience": None,
    "device": "cpu",
    "train#handlers#0#tensorboard": False,
}
SMALL_NETWORK = {
    "_target_": "semi_med.networks.VNet",
    "in_channels": 3,
    "out_channels": "@classes",
    "spatial_dims": 2,
    "base_filters": 4,
    "levels": 2,
    "dropout": 0.1,
}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Colour PNGs with a bright disc in a larger grey one, labels 0, 1, 2 as greys or with a palette, a data list."""
    folder = tmp_path_factory.mktemp("photographs")
    content: dict[str, Any] = {"name": "discs", "labels": {"0": "background", "1": "disc", "2": "cup"}}
    content["modality"] = {"0": "red", "1": "green", "2": "blue"}
    random, number = np.random.default_rng(0), 0
    columns, rows = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    for part in ("images", "labels"):
        (folder / part).mkdir()
    for section, count in SECTIONS.items():
        content[section] = []
        for _ in range(count):
            name = f"p{number:02d}_{'ED' if number % 2 else 'ES'}"
            away = np.hypot(columns - random.uniform(18, 26), rows - random.uniform(16, 22))
            label = (away < 11).astype(np.uint8) + (away < 6)
            image = (60 + 80 * label[..., None] + random.normal(0, 5, (*label.shape, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(image).save(folder / "images" / f"{name}.png")
            if number % 2:
                Image.fromarray(label).save(folder / "labels" / f"{name}.png")
            else:  # as `prepare` and `predict` write them
                file = folder / "labels" / f"{name}.png"
                file.write_bytes(label_png(label.T, path=file))
            key = {"unlabeled": "monitor_label"}.get(section, "label")
            content[section].append({"image": f"images/{name}.png", key: f"labels/{name}.png", "subject": name})
            number += 1
    (folder / "data_list.json").write_text(json.dumps(content))
    return folder


def runner(method: str, task: str, photographs: Path, folder: Path, **settings: Any) -> BundleRunner:
    data = {"dataset_dir": str(photographs), "data_list_file": str(photographs / "data_list.json")}
    return BundleRunner(compose(method, task, folder / f"{method}_{task}"), {**TINY, **data, **settings})


def curve(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / "logs" / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# ---- the published numbers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", PAPER)
def test_fixmatchsegs_numbers_are_the_published_ones(task: str) -> None:
    config = compose_config("train", method="fixmatchseg", task=task)
    assert (config["image_size"], config["crop_size"]) == ([320, 320], [320, 320])
    assert (config["learning_rate"], config["optimizer"]["_target_"]) == (0.001, "torch.optim.Adam")
    assert (config["early_stop_patience"], config["val_interval"]) == (9, config["iterations_per_epoch"])
    assert (config["method"]["threshold"], config["unsupervised_weight"]) == (0.9, 1.0)
    assert (config["batch_size"], config["mu"], config["reuse_labeled"]) == (1, 10, True)
    assert config["network_def"]["backbone"] == "efficientnet-b4"
    assert config["labeled_augment"]["rotate"] == config["unlabeled_augment"]["rotate"] == 20.0
    assert config["labeled_augment"]["elastic"] == config["unlabeled_augment"]["elastic"] > 0
    strong = {"sharpness", "contrast", "blur"}
    assert all(config["unlabeled_augment"][name] > 0 for name in strong)
    assert not strong & config["labeled_augment"].keys()
    assert config["train"]["unlabeled_view"]["intensity_on"] == "image"


@pytest.mark.parametrize("task", [*PAPER, "sunnybrook", "lgg"])
def test_the_floor_has_the_loss_optimizer_and_views_of_fixmatchseg(task: str) -> None:
    floor, method = (compose_config("train", method=name, task=task) for name in ("supervised", "fixmatchseg"))
    assert floor["method"]["loss"] == "dice_boundary"
    assert floor["method"]["boundary"] == method["method"]["boundary"]
    for name in ("optimizer", "lr_scheduler", "labeled_augment", "learning_rate", "batch_size", "early_stop_patience"):
        assert floor[name] == method[name]


@pytest.mark.parametrize("task", PAPER)
@pytest.mark.parametrize("method", methods())
def test_wherever_a_run_may_stop_early_there_is_a_loss_to_stop_by(method: str, task: str) -> None:
    config = compose_config("train", method=method, task=task)
    assert config["early_stop_patience"] is None or config["validation_loss"]["_target_"]


@pytest.mark.parametrize("task", PAPER)
@pytest.mark.parametrize("method", ["fixmatchseg", "supervised"])
def test_what_a_run_stops_by_is_the_loss_it_learns(method: str, task: str) -> None:
    config = compose_config("train", method=method, task=task)
    assert config["validation_loss"]["boundary"] == "@method#boundary"


@pytest.mark.parametrize("method", ["cps", "cotrain"])
def test_published_weights_go_to_both_networks(method: str) -> None:
    for name, place in (("train", ("peer",)), ("multi_gpu_train", ("peer", "module"))):
        found: Any = compose_config(name, method=method, task="camus")
        for key in place:
            found = found[key]
        assert "encoder_weights=None if @resume else @encoder_weights" in found


def test_a_data_sets_table_has_the_papers_columns() -> None:
    readme = compose_readme_of("camus")
    assert "--region endo=1 --region epi=1+2 --region la=3 --group-pattern 'E[DS]'" in readme


def compose_readme_of(task: str) -> str:
    from semi_med.recipes.compose import compose_readme

    return compose_readme(method="fixmatchseg", task=task)


# ---- runs ----------------------------------------------------------------------------------------------------------


def test_fixmatchseg_from_photographs_to_masks_of_their_size(photographs: Path, tmp_path: Path) -> None:
    backbone = {"network_def#backbone": "efficientnet-b0", "mu": 2, "monitor_pseudo_labels": True}
    run = runner("fixmatchseg", "refuge", photographs, tmp_path, **backbone)
    run(output_dir=str(tmp_path / "run"))

    train, validation = curve(tmp_path / "run", "train"), curve(tmp_path / "run", "validation")
    assert [row["iteration"] for row in validation] == ["2", "4"]
    assert all(float(row["loss"]) > 0 for row in validation)
    assert all(0 <= float(row["accepted"]) <= 1 and row["pseudo_label_dice"] for row in train)

    written = json.loads((tmp_path / "run" / "configs" / "inference.json").read_text())
    assert (written["image_size"], written["network_def"]["backbone"]) == ([32, 32], "efficientnet-b0")
    predict(tmp_path / "run", [photographs / "images"], tmp_path / "masks", device="cpu")
    masks = sorted((tmp_path / "masks").glob("*_seg.png"))
    assert len(masks) == sum(SECTIONS.values())
    with Image.open(masks[0]) as mask:
        assert mask.size == SIZE and mask.mode == "P"
        assert set(np.unique(np.asarray(mask))) <= {0, 1, 2}


def test_labels_with_a_palette_are_read_by_their_numbers(photographs: Path, tmp_path: Path) -> None:
    parser = ConfigParser(compose_config("train", method="supervised", task="refuge"))
    parser["image_size"] = None
    load = parser.get_parsed_content("train#preprocessing")
    for number in (0, 1):
        file = photographs / "labels" / f"p0{number}_{'ED' if number else 'ES'}.png"
        label = load({"image": str(photographs / "images" / file.name), "label": str(file)})["label"]
        assert label.shape == (1, *SIZE, 1)
        assert torch.equal(label[0, ..., 0], torch.from_numpy(np.asarray(Image.open(file)).T.astype(np.float32)))
        assert set(label.unique().tolist()) == {0, 1, 2}


def test_a_stride_that_was_trained_with_is_predicted_with(photographs: Path, tmp_path: Path) -> None:
    run = runner("supervised", "refuge", photographs, tmp_path, network_def=SMALL_NETWORK)
    run(output_dir=str(tmp_path / "run"), stride=[16, 16], max_iterations=2)
    assert json.loads((tmp_path / "run" / "configs" / "inference.json").read_text())["stride"] == [16, 16]


@pytest.mark.parametrize("method", ["cotrain", "mean_teacher", "bcp_pretrain"])
def test_other_methods_train_on_photographs_too(method: str, photographs: Path, tmp_path: Path) -> None:
    network: dict[str, Any] = {"network_def": SMALL_NETWORK, "batch_size": 2}
    if method == "cotrain":
        network["peer_def"] = {**SMALL_NETWORK, "upsampling": "interpolated"}
    run = runner(method, "refuge", photographs, tmp_path, **network)
    run(output_dir=str(tmp_path / "run"))
    assert len(curve(tmp_path / "run", "validation")) == 2


def test_a_resumed_run_ends_as_the_unbroken_one(photographs: Path, tmp_path: Path) -> None:
    run = runner("fixmatchseg", "refuge", photographs, tmp_path, network_def=SMALL_NETWORK, mu=2)
    run(output_dir=str(tmp_path / "whole"))
    run(output_dir=str(tmp_path / "parts"), **{"train#trainer#max_epochs": 2})
    for later in (tmp_path / "parts" / "checkpoints").glob("*4*"):
        later.unlink()
    run(output_dir=str(tmp_path / "parts"), resume=True)
    models = [
        torch.load(tmp_path / part / "models" / "model.pt", weights_only=True)["model"] for part in ("whole", "parts")
    ]
    assert all(torch.equal(models[0][key], models[1][key]) for key in models[0])


def test_the_pool_can_be_as_small_as_the_papers(photographs: Path, tmp_path: Path) -> None:
    run = runner("fixmatchseg", "refuge", photographs, tmp_path, network_def=SMALL_NETWORK, mu=2)
    run(output_dir=str(tmp_path / "run"), unlabeled_limit=4, reuse_labeled=False, max_iterations=2)
    settings = json.loads((tmp_path / "run" / "run.json").read_text())["settings"]
    assert settings["unlabeled"] == 4


def test_weights_of_an_encoder_come_from_a_file(photographs: Path, tmp_path: Path, error_of: Any) -> None:
    run = runner("fixmatchseg", "refuge", photographs, tmp_path, encoder_weights=str(tmp_path / "none.pth"))
    error = error_of(lambda: run(output_dir=str(tmp_path / "run")))
    assert "the file of encoder weights is missing" in str(error)
    run = runner("fixmatchseg", "refuge", photographs, tmp_path, network_def=SMALL_NETWORK, encoder_weights="imagenet")
    assert "VNet has no encoder with published weights" in str(error_of(lambda: run(output_dir=str(tmp_path / "run"))))


# ---- pictures at their own size --------------------------------------------------------------------------------------

SUPMIX = {"chase": (0.004, 320, 3, 2), "covid19": (0.001, 256, 1, 4)}
OWN_SIZE: dict[str, Any] = {
    "image_size": "null",  # a None from Python is left out by MONAI itself
    "intensity_mean": [123.675, 116.28, 103.53],
    "intensity_sd": [58.395, 57.12, 57.375],
    "crop_size": [16, 16],
    "stride": [8, 8],
    "network_def": SMALL_NETWORK,
    "batch_size": 2,
}
SMALL_RIVAL = {"discriminator_def#widths": [4, 8]}


@pytest.mark.parametrize("task", SUPMIX)
@pytest.mark.parametrize("method", ["supervised", "fixmatch", "unimatch", "supmix"])
def test_supmixs_numbers_are_the_published_ones(method: str, task: str) -> None:
    rate, crop, channels, classes = SUPMIX[task]
    config = compose_config("train", method=method, task=task)
    assert (config["learning_rate"], config["crop_size"], config["classes"]) == (rate, [crop, crop], classes)
    assert config["optimizer"] | {"params": ""} == {
        "_target_": "torch.optim.SGD",
        "params": "",
        "lr": "@learning_rate",
        "momentum": 0.9,
        "weight_decay": 0.0001,
    }
    assert (config["lr_scheduler"]["power"], config["lr_scheduler"]["total_iters"]) == (0.9, "@total_iterations")
    assert (config["batch_size"], config.get("unlabeled_batch_size", 4)) == (4, 4)
    network = config["network_def"]
    assert network["_target_"] == "semi_med.networks.DeepLabV3Plus"
    assert (network["backbone"], network["in_channels"]) == ("resnet101", channels)
    assert config["method"]["alpha"] == 1.0
    only_flips = {"_target_": "semi_med.data.augment.Augment", "flip_axes": [0]}
    assert config["labeled_augment"] == config["unlabeled_augment"] == only_flips
    if method == "supervised":
        return
    strong = config["unlabeled_strong"]
    jitter = [strong[name] for name in ("chance", "brightness", "contrast", "saturation", "hue")]
    assert jitter == [0.8, 0.5, 0.5, 0.5, 0.25]
    assert (strong["grey_chance"], strong["blur_chance"], strong["colors"]) == (0.2, 0.5, channels == 3)
    assert (config["method"]["threshold"], config["method"]["mixing_chance"]) == (0.95, 0.5)
    assert config["method"]["mixing"] == ("supmix" if method == "supmix" else "cutmix")
    views = {"fixmatch": None}.get(method, 2)
    assert config["train"]["unlabeled_view"].get("strong_views") == views


def test_a_photograph_keeps_its_size_in_training_and_prediction(photographs: Path, tmp_path: Path) -> None:
    run = runner("supmix", "refuge", photographs, tmp_path, **OWN_SIZE, **SMALL_RIVAL)
    run(output_dir=str(tmp_path / "run"), unlabeled_batch_size=2)
    train = curve(tmp_path / "run", "train")
    assert all(float(row["discriminator_loss"]) > 0 for row in train)
    assert len(curve(tmp_path / "run", "validation")) == 2
    assert list(torch.load(tmp_path / "run" / "models" / "model.pt", weights_only=True)) == ["model"]

    parser = ConfigParser(compose_config("train", method="supmix", task="chase"))
    file = photographs / "images" / "p01_ED.png"
    image = parser.get_parsed_content("train#preprocessing")({"image": str(file)})["image"]
    red = np.asarray(Image.open(file)).astype(np.float32)[..., 0].T
    assert image.shape == (3, *SIZE, 1)
    assert np.allclose(image[0, ..., 0], (red - 123.675) / 58.395, atol=1e-5)

    predict(tmp_path / "run", [photographs / "images"], tmp_path / "masks", device="cpu")
    masks = sorted((tmp_path / "masks").glob("*_seg.png"))
    assert len(masks) == sum(SECTIONS.values())
    assert {Image.open(mask).size for mask in masks} == {SIZE}


def test_what_is_predicted_of_a_photograph_is_what_its_windows_say_at_its_own_resolution(
    photographs: Path, tmp_path: Path
) -> None:
    """A network that answers for each pixel by its own value gives the same whatever the window, if nothing resizes."""
    pointwise = {**SMALL_NETWORK, "_target_": "torch.nn.Conv2d", "kernel_size": 1}
    pointwise = {key: pointwise[key] for key in ("_target_", "in_channels", "out_channels", "kernel_size")}
    run = runner("supervised", "refuge", photographs, tmp_path, **{**OWN_SIZE, "network_def": pointwise})
    run(output_dir=str(tmp_path / "run"))
    state = torch.load(tmp_path / "run" / "models" / "model.pt", weights_only=True)["model"]
    predict(tmp_path / "run", [photographs / "images" / "p01_ED.png"], tmp_path / "masks", device="cpu")
    (mask,) = (tmp_path / "masks").glob("*_seg.png")
    picture = torch.from_numpy(np.asarray(Image.open(photographs / "images" / "p01_ED.png")).astype(np.float32))
    scaled = (picture - torch.tensor([123.675, 116.28, 103.53])) / torch.tensor([58.395, 57.12, 57.375])
    wanted = (scaled @ state["weight"][:, :, 0, 0].T + state["bias"]).argmax(-1)
    assert torch.equal(torch.from_numpy(np.asarray(Image.open(mask))).long(), wanted)


@pytest.mark.parametrize("method", ["fixmatch", "unimatch"])
def test_fixmatch_and_unimatch_train_at_the_pictures_own_size(method: str, photographs: Path, tmp_path: Path) -> None:
    run = runner(method, "refuge", photographs, tmp_path, **OWN_SIZE, monitor_pseudo_labels=True)
    run(output_dir=str(tmp_path / "run"), unlabeled_batch_size=2)
    assert all(row["pseudo_label_dice"] for row in curve(tmp_path / "run", "train"))


def test_a_resumed_run_of_supmix_ends_as_the_unbroken_one_discriminator_included(
    photographs: Path, tmp_path: Path
) -> None:
    run = runner("supmix", "refuge", photographs, tmp_path, **OWN_SIZE, **SMALL_RIVAL, unlabeled_batch_size=2)
    run(output_dir=str(tmp_path / "whole"))
    run(output_dir=str(tmp_path / "parts"), **{"train#trainer#max_epochs": 2})
    for later in (tmp_path / "parts" / "checkpoints").glob("*4*"):
        later.unlink()
    run(output_dir=str(tmp_path / "parts"), resume=True)
    first, second = (
        torch.load(tmp_path / part / "checkpoints" / "iteration_00000004.pt", weights_only=True)["networks"]
        for part in ("whole", "parts")
    )
    assert first.keys() == {"network", "discriminator"}
    for name in first:
        assert all(torch.equal(first[name][key], second[name][key]) for key in first[name])


@pytest.mark.parametrize("network", ["DeepLabV3Plus", "EfficientUNet"])
def test_an_encoders_weights_are_asked_for_and_missing_ones_said(
    network: str, photographs: Path, tmp_path: Path, error_of: Any
) -> None:
    small = {"DeepLabV3Plus": "resnet18", "EfficientUNet": "efficientnet-b0"}[network]
    definition = {
        "_target_": f"semi_med.networks.{network}",
        "in_channels": 3,
        "out_channels": "@classes",
        "backbone": small,
    }
    missing = str(tmp_path / "none.pth")
    settings = {**OWN_SIZE, "network_def": definition, "encoder_weights": missing}
    run = runner("supervised", "refuge", photographs, tmp_path, **settings)
    assert "the file of encoder weights is missing" in str(error_of(lambda: run(output_dir=str(tmp_path / "run"))))


# ---- SegMatch ------------------------------------------------------------------------------------------------------


def test_segmatchs_numbers_are_those_its_page_names() -> None:
    config = compose_config("train", method="segmatch", task="lgg")
    assert config["network_def"]["_target_"] == "semi_med.networks.UNet"
    assert (config["network_def"]["base_filters"], config["network_def"]["normalization"]) == (32, "batch")
    assert (config["mu"], config["batch_size"], config["unsupervised_weight"]) == (2, 4, 1.0)
    assert (config["gate"], config["augmentation"]) == ("discriminator", "randaugment")
    optimizer = config["discriminator_optimizer"]
    assert (optimizer["_target_"], optimizer["betas"]) == ("torch.optim.Adam", [0.9, 0.99])
    assert config["discriminator_learning_rate"] == 0.0001
    assert (config["randaugment"]["number"], config["randaugment"]["magnitude"]) == (2, 10)
    policy = config["ctaugment"]
    assert (policy["bins"], policy["decay"], policy["threshold"]) == (17, 0.99, 0.8)


@pytest.mark.parametrize("task", [*PAPER, "sunnybrook", "lgg"])
def test_segmatchs_weak_views_are_flips_and_shifts_whatever_the_task_has(task: str) -> None:
    config = compose_config("train", method="segmatch", task=task)
    for side in ("labeled_augment", "unlabeled_augment"):
        kept = {key: value for key, value in config[side].items() if value not in (0, 0.0, [1.0, 1.0])}
        assert kept.keys() <= {"_target_", "translate", "flip_axes", "turn_planes", "elastic_smoothing", "chance"}
        assert kept["translate"] == 0.125
    assert "intensity_on" not in config["train"]["unlabeled_view"]


@pytest.mark.parametrize("gate", ["discriminator", "identity", "confidence", "confidence_map"])
def test_segmatch_trains_with_each_gate_and_with_learnt_magnitudes(
    gate: str, photographs: Path, tmp_path: Path
) -> None:
    settings = {"network_def": SMALL_NETWORK, "discriminator_def#base_filters": 4, "mu": 2, "gate": gate}
    run = runner("segmatch", "isic", photographs, tmp_path, classes=3, augmentation="ctaugment", **settings)
    run(output_dir=str(tmp_path / "run"), monitor_pseudo_labels=True, max_iterations=2)
    last = curve(tmp_path / "run", "train")[-1]
    assert {"probe_agreement", "discriminator_loss", "accepted_label_dice", "score"} <= last.keys()
    assert float(last["accepted"]) == 1 or gate != "identity"
    state = torch.load(tmp_path / "run" / "checkpoints" / "iteration_00000002.pt", weights_only=True)
    assert any((rates < 1).any() for rates in state["views"]["labeled"].values())


def test_an_augmentation_that_does_not_exist_is_refused(photographs: Path, tmp_path: Path, error_of: Any) -> None:
    run = runner("segmatch", "refuge", photographs, tmp_path, network_def=SMALL_NETWORK, augmentation="autoaugment")
    error = error_of(lambda: run(output_dir=str(tmp_path / "run")))
    assert "--augmentation must be one of randaugment, ctaugment, got 'autoaugment'" in str(error)
