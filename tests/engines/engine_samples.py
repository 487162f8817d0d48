"""A complete co-training of two tiny networks on made-up cases in memory: 30 ms an iteration, 12 kB of weights."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.engines.evaluator import SupervisedEvaluator
from monai.handlers import MeanDice, from_engine
from monai.inferers import SimpleInferer
from monai.transforms import AsDiscreted, Compose
from torch import nn

from semi_med.data.augment import Augment, View
from semi_med.data.cases import CachedCases
from semi_med.data.crops import CropBatches, PairedBatches
from semi_med.engines import Checkpoints, Curves, SemiSupervisedTrainer, Validate
from semi_med.methods import CoTraining
from semi_med.networks import VNet

CROP, MARGIN = (8, 8, 8), (2, 2, 2)
SIZE = (12, 12, 12)


def cases(names: str, *, poisoned: str = "", keys: tuple[str, ...] = ("image", "label")) -> CachedCases:
    """Cases called by letters: noise with a bright cube; those of `poisoned` get a NaN that lies in every crop."""

    def read(item: dict[str, Any]) -> dict[str, np.ndarray]:
        random = np.random.default_rng(ord(item["image"]))
        label = np.zeros((1, *SIZE), dtype=np.uint8)
        a, b, c = random.integers(2, 5, 3)
        label[:, a : a + 5, b : b + 5, c : c + 5] = 1
        image = (label * 2 + random.normal(0, 1, label.shape)).astype(np.float32)
        return {"image": image, "label": label}

    made = CachedCases([{"image": name, "label": name, "case": name} for name in names], read, keys=keys)
    for name in poisoned:
        if name in names:
            made.arrays(names.index(name))["image"][:, 6, 6, 6] = np.nan
    return made


def evaluator(network: nn.Module, *, device: torch.device | str = "cpu", names: str = "v") -> SupervisedEvaluator:
    """Mean Dice on whole cases, as the bundles' validation computes it."""
    onehot = [AsDiscreted(keys="pred", argmax=True, to_onehot=2), AsDiscreted(keys="label", to_onehot=2)]
    return SupervisedEvaluator(
        device=torch.device(device),
        val_data_loader=torch.utils.data.DataLoader(cases(names), batch_size=1),
        network=network,
        inferer=SimpleInferer(),
        postprocessing=Compose(onehot),
        key_val_metric={
            "mean_dice": MeanDice(include_background=False, output_transform=from_engine(["pred", "label"]))
        },
    )


def make_trainer(
    folder: Path | None = None,
    *,
    iterations: int = 12,
    epoch_length: int = 4,
    seed: int = 0,
    resume: bool = False,
    validate: bool = True,
    val_interval: int = 3,
    checkpoint_interval: int = 3,
    learning_rate: float = 0.05,
    unlabeled: str = "tuvw",
    poisoned: str = "",
    device: str = "cpu",
    threshold: float = 0.0,
    handlers: list[Any] | None = None,
    base_filters: int = 2,
    **settings: Any,
) -> SemiSupervisedTrainer:
    """A trainer with dropout, batch norm, CutMix, augmentation, schedule, averaging; handlers if there is a folder."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    networks = {
        name: VNet(base_filters=base_filters, levels=2, dropout=0.5, upsampling=up).to(device)
        for name, up in (("network", "transposed"), ("peer", "interpolated"))
    }
    method = CoTraining(**networks, max_shift=MARGIN, ramp_iterations=6, threshold=threshold)
    parameters = [p for network in networks.values() for p in network.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=learning_rate, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=iterations, power=0.9)
    labeled = CropBatches(cases("abc", poisoned=poisoned), CROP, 2, seed=seed)
    pool = cases(unlabeled, poisoned=poisoned, keys=("image",))
    batches = CropBatches(pool, CROP, 2, margin=MARGIN, seed=seed, stream="unlabeled")
    augment = Augment(flip_axes=(0, 1), turn_planes=((0, 1),), rotate=10, gain=0.1, offset=0.1, noise=0.1)
    every: list[Any] = list(handlers or [])
    if folder is not None:
        looking = evaluator(networks["network"], device=device) if validate else None
        every += [
            Validate(looking, folder, interval=val_interval, tensorboard=False),
            Curves(folder, interval=1, tensorboard=False),
            Checkpoints(folder, interval=checkpoint_interval, resume=resume),
        ]
    return SemiSupervisedTrainer(
        device=device,
        max_epochs=-(-iterations // epoch_length),
        train_data_loader=PairedBatches(labeled, batches),
        method=method,
        optimizer=optimizer,
        lr_scheduler=schedule,
        labeled_view=View(CROP, augment),
        unlabeled_view=View(CROP, augment),
        epoch_length=epoch_length,
        max_iterations=iterations,
        seed=seed,
        train_handlers=every,
        **{"average_decay": 0.9, **settings},
    )


def curve(folder: Path, name: str = "train") -> list[dict[str, str]]:
    """Rows of a curve without the clock."""
    with (folder / "logs" / f"{name}.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def load(path: Path) -> dict[str, Any]:
    """A file written by a run, read as carefully as its users do."""
    return torch.load(path, map_location="cpu", weights_only=True)


def same(a: Any, b: Any) -> bool:
    """Whether two nested states are equal, tensors bit for bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def newest(folder: Path) -> Path:
    """The newest checkpoint of a run."""
    return sorted((folder / "checkpoints").glob("iteration_*.pt"))[-1]
