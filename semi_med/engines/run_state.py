"""What a checkpoint holds beside weights: random numbers, and the settings that decide the course of a run."""

from __future__ import annotations

import inspect
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from semi_med.data.cases import case_of
from semi_med.data.crops import CropBatches


def random_state() -> dict[str, Any]:
    """State of the global generators of torch, NumPy and Python, in types that `weights_only` loading takes."""
    version, keys, position, has_gauss, gauss = np.random.get_state()
    numbers = torch.from_numpy(np.asarray(keys).astype(np.int64))
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [str(version), numbers, int(position), int(has_gauss), float(gauss)],
        "python": random.getstate(),
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Put the global generators where `random_state` found them; CUDA's only on as many devices."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    version, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((version, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    python_version, numbers, python_gauss = state["python"]
    random.setstate((python_version, tuple(numbers), python_gauss))


def run_settings(trainer: Any) -> dict[str, Any]:
    """What decides the course of a run. Not in it, so free to change on the way: learning rate, gradient_clip, amp."""
    optimizer = {k: v for k, v in trainer.optimizer.defaults.items() if k not in ("lr", "foreach", "fused")}
    settings = {
        "max_iterations": trainer.total_iterations,
        "epoch_length": trainer.state.epoch_length,
        "seed": trainer.seed,
        **({"first_iteration": trainer.first_iteration} if trainer.first_iteration else {}),
        **({"sampling": trainer.batches.sampling} if trainer.batches.sampling != "explicit" else {}),
        "average_decay": trainer.average_decay,
        "method": type(trainer.method).__name__,
        **_plain("method", vars(trainer.method)),
        "optimizer": type(trainer.optimizer).__name__,
        **_plain("optimizer", optimizer),
        "lr_scheduler": type(trainer.lr_scheduler).__name__,
        **_plain("lr_scheduler", _arguments(trainer.lr_scheduler)),
    }
    if (theirs := getattr(trainer, "discriminator_optimizer", None)) is not None:
        own = {k: v for k, v in theirs.defaults.items() if k not in ("lr", "foreach", "fused")}
        settings |= {"discriminator_optimizer": type(theirs).__name__, **_plain("discriminator_optimizer", own)}
        schedule = trainer.discriminator_lr_scheduler
        settings |= _plain("discriminator_lr_scheduler", _arguments(schedule))
    for name in ("labeled", "unlabeled"):
        batches = getattr(trainer.batches, name)
        if batches is not None:
            settings |= _of_batches(name, batches)
        view = getattr(trainer, f"{name}_view")
        settings |= _plain(f"{name}_view", {k: v for k, v in vars(view).items() if k != "crop_size"})
        for part in ("augment", "weak", "strong", "strong_placing", "probe"):
            if getattr(view, part, None) is not None:
                settings |= _plain(f"{name}_{part}", vars(getattr(view, part)))
    return settings


def _arguments(scheduler: Any) -> dict[str, Any]:
    """What a learning rate schedule was made with, without its position."""
    names = inspect.signature(type(scheduler).__init__).parameters
    return {k: v for k, v in vars(scheduler).items() if k in names and k != "last_epoch"} if scheduler else {}


def _of_batches(name: str, batches: CropBatches) -> dict[str, Any]:
    keys = ("crop_size", "batch_size", "margin", "seed", "world_size")
    cases = [case_of(item) for item in batches.cases.data]
    settings = {key: getattr(batches, key) for key in keys}
    if batches.label_fill:
        settings["label_fill"] = batches.label_fill
    if batches.second_crop != "same":
        settings["second_crop"] = batches.second_crop
    return {**_plain(f"{name}_batches", settings), f"{name} cases": cases}


def _plain(room: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings among some attributes, in types that a checkpoint can hold."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if key.startswith("_"):
            continue
        if isinstance(value, Mapping) and all(isinstance(part, list | tuple) for part in value.values()):
            value = [[name, *part] for name, part in value.items()]
        if isinstance(value, list | tuple):
            found[f"{room}#{key}"] = [list(v) if isinstance(v, list | tuple) else v for v in value]
        elif value is None or isinstance(value, bool | int | float | str):
            found[f"{room}#{key}"] = value
    return found


def differences(theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> list[str]:
    """One line for each setting in which a checkpoint (`theirs`) and this run (`mine`) differ."""
    return [
        f"{key}: {_difference(theirs.get(key), mine.get(key))}"
        for key in sorted(mine.keys() | theirs.keys())
        if mine.get(key) != theirs.get(key)
    ]


def _difference(theirs: Any, mine: Any) -> str:
    if not (isinstance(theirs, list) and isinstance(mine, list) and max(len(theirs), len(mine)) > 4):
        return f"{theirs} in the checkpoint, {mine} here"
    parts = []
    for place, values, others in (("in the checkpoint", theirs, mine), ("here", mine, theirs)):
        only = [str(value) for value in values if value not in others]
        shown = ", ".join(only[:4]) + (" ..." if len(only) > 4 else "")
        parts.append(f"{len(values)} {place}" + (f" (only there: {shown})" if only else ""))
    return ", ".join(parts) if sorted(map(str, theirs)) != sorted(map(str, mine)) else "the same in another order"
