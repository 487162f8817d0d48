"""From choices to the parts of a task, which bundles are composed from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from semi_med.planning.fingerprint import Fingerprint
from semi_med.planning.rules import Choice

Parts = dict[str, dict[str, Any]]
_READER = "semi_med.inference.reader.ScanReader"
_LABEL_READER = "semi_med.inference.reader.LabelReader"
_LABELS = ["label", "monitor_label"]


def task_parts(
    name: str, found: Fingerprint, choices: Mapping[str, Choice], *, dataset_dir: str, words: Mapping[str, str]
) -> Parts:
    """Contents of `about.json`, `shared.json`, `train.json`, `inference.json`, `unlabeled/train.json`, by name.

    Of small structures also what FixMatchSeg has for this task alone.

    Args:
        name: of the task.
        found: the fingerprint.
        choices: all that was decided, by name.
        dataset_dir: the folder that the data list's paths are relative to, absolute.
        words: what `about.json` says of preprocessing, split and plan.
    """
    value = {key: choice.value for key, choice in choices.items()}
    train = _train(value, found, dataset_dir=dataset_dir)
    inference: dict[str, Any] = {"preprocessing": {"transforms": _transforms(value, found, labels=False)}}
    inference["largest_component"] = value["parts"]
    if value["masks"] == "probabilities":
        inference["postprocessing"] = {"transforms": _masks_from_probabilities()}
    own: Parts = {}
    if value["small"]:
        own["fixmatchseg/train"] = {"ramp_share": 0.4, "method": {"gate": "foreground", "cutmix": True}}
    return own | {
        "about": _about(name, found, value, words),
        "shared": {
            "classes": len(found.classes) + 1,
            "crop_size": value["crop"],
            "stride": value["stride"],
            "network_def": {
                "_target_": "semi_med.networks.VNet",
                "in_channels": len(found.channels),
                "out_channels": "@classes",
                "spatial_dims": value["dimensions"],
                "base_filters": value["filters"],
                "levels": value["levels"],
                "normalization": "instance",
                "upsampling": "transposed",
                "dropout": 0.1,
            },
        },
        "train": train,
        "inference": inference,
        "unlabeled/train": {"unlabeled_batch_size": value["batch"]},
    }


def _about(name: str, found: Fingerprint, value: Mapping[str, Any], words: Mapping[str, str]) -> dict[str, Any]:
    labels = {"0": "background", **{str(i): one.name for i, one in enumerate(found.classes, start=1)}}
    kind = "CT" if found.ct else "colour pictures" if found.colour else "pictures" if found.pictures else "scans"
    about: dict[str, Any] = {
        "task": name,
        "title": name.replace("_", " "),
        "modality": kind,
        "dimensions": value["dimensions"],
        "channels": {str(number): channel for number, channel in enumerate(found.channels)},
        "labels": labels,
        "data_source": "a folder of the user's own",
        "data_reference": "No publication",
        "data_terms": "what the owner of the data says",
        **words,
    }
    if found.label_values != list(range(len(labels))):
        about["label_values"] = found.label_values
    if found.ignored is not None:
        about["ignored"] = found.ignored
    return about


def _train(value: Mapping[str, Any], found: Fingerprint, *, dataset_dir: str) -> dict[str, Any]:
    from semi_med.recipes.compose import common_part

    updates = value["iterations"]
    interval = max(1, updates // 20)
    moved = {"rotate": value["rotation"], "scale": [0.85, 1.2]}
    weak = {key: round(number / 2, 3) for key, number in value["strength"].items()}
    return {
        "dataset_dir": dataset_dir,
        "data_list_file": "$@bundle_root + '/data_lists/labeled.json'",
        "max_iterations": updates,
        "iterations_per_epoch": max(1, min(150, updates // 10)),
        "val_interval": interval,
        "checkpoint_interval": interval,
        "learning_rate": value["learning_rate"],
        "optimizer": {
            "_replace_": True,
            "_target_": "torch.optim.AdamW",
            "params": common_part("train")["optimizer"]["params"],
            "lr": "@learning_rate",
        },
        "batch_size": value["batch"],
        "cache_dir": "$@output_dir + '/cache'" if value["cache"] else None,
        "validation_stride": value["crop"],
        "labeled_margin": value["margin"],
        "max_shift": value["max_shift"],
        "labeled_augment": {"flip_axes": value["mirror"], "turn_planes": [], **moved, "affine_chance": 0.5, **weak},
        "unlabeled_augment": {
            "flip_axes": value["mirror"],
            "turn_planes": [],
            **moved,
            "affine_chance": 0.7,
            **value["strength"],
        },
        "train": {
            "unlabeled_view": {"intensity_on": "image"},
            "preprocessing": {"transforms": _transforms(value, found, labels=True)},
        },
    }


def _transforms(value: Mapping[str, Any], found: Fingerprint, *, labels: bool) -> list[dict[str, Any]]:
    """From files to what the network sees; with labels for training, of the image alone for prediction."""
    keys: Any = ["image", *_LABELS] if labels else "image"
    some = {"allow_missing_keys": True} if labels else {}
    return [
        *_loading(found, keys, some),
        {"_target_": "Orientationd", "keys": keys, "axcodes": value["axes"], "labels": None, **some},
        *_resampling(value["spacing"], keys, some),
        _normalising(value["normalisation"]),
    ]


def _loading(found: Fingerprint, keys: Any, some: Mapping[str, Any]) -> list[dict[str, Any]]:
    flat: dict[str, Any] = {"flat": True} if found.flat else {}
    channels = {} if len(found.channels) == found.files else {"channels": len(found.channels)}
    of_image, of_label = ({"_target_": _READER, **channels, **flat}, {"_target_": _LABEL_READER, **flat})
    readers: list[Any] = [one if len(one) > 1 else one["_target_"] for one in (of_image, of_label)]
    usual = {"_target_": "LoadImaged", "ensure_channel_first": True}
    image = {**usual, "keys": "image", "reader": readers[0]}
    label = {**usual, "keys": _LABELS, "reader": readers[1], **some}
    return [image] if keys == "image" else [image, label]


def _resampling(target: Sequence[float] | None, keys: Any, some: Mapping[str, Any]) -> list[dict[str, Any]]:
    if target is None:
        return []
    mode: Any = "bilinear" if keys == "image" else ["bilinear", "nearest", "nearest"]
    return [{"_target_": "Spacingd", "keys": keys, "pixdim": list(target), "mode": mode, **some}]


def _normalising(how: Mapping[str, Any]) -> dict[str, Any]:
    if how["kind"] != "ct":
        nonzero = {"nonzero": True} if how["kind"] == "nonzero" else {}
        return {"_target_": "NormalizeIntensityd", "keys": "image", **nonzero, "channel_wise": True}
    low, high = ((how[end] - how["mean"]) / how["sd"] for end in ("low", "high"))
    return {
        "_target_": "ScaleIntensityRanged",
        "keys": "image",
        "a_min": how["low"],
        "a_max": how["high"],
        "b_min": round(low, 5),
        "b_max": round(high, 5),
        "clip": True,
    }


def _masks_from_probabilities() -> list[dict[str, Any]]:
    """Probabilities are brought back to the scan's own grid before the class is chosen: smooth borders."""
    from semi_med.recipes.compose import common_part

    transforms = common_part("inference")["postprocessing"]["transforms"]
    invert = next(each for each in transforms if each["_target_"] == "Invertd")
    return [{**invert, "nearest_interp": False}, *(each for each in transforms if each is not invert)]
