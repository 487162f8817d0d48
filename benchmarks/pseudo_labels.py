"""What does a network believe of the pictures that nobody labelled? Panels and a table, at several iterations of a run.

    python benchmarks/pseudo_labels.py <run> <data> <data list> <output.png> [--iterations 100 600] [--show 8]

Of the unlabelled pictures of the list, some are drawn: a row for each iteration whose checkpoint the run has, the
pseudo-label in orange, the hidden label in blue, with their overlap and the confidence of the picture over all pixels
and over the predicted foreground. Printed: how well each of both confidences orders the pictures by overlap (Spearman's
rho), and the overlap of those that pass a threshold. The network is in evaluation mode.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from monai.transforms import LoadImaged
from scipy.stats import spearmanr

from semi_med.data.data_list import Case, load_data_list
from semi_med.inference.bundle import load_bundle
from semi_med.inference.io import read_label
from semi_med.inference.reader import ScanReader
from semi_med.ops import image_confidence, overlap

GATES = ("image", "foreground")


@dataclass(frozen=True)
class Belief:
    """A picture (H, W) with its pseudo-label and hidden label, the overlap of both, and a confidence for each gate."""

    image: np.ndarray
    label: np.ndarray
    hidden: np.ndarray
    dice: float
    confidence: dict[str, float]


def beliefs(run: Path, iteration: int, cases: list[Case], data: Path) -> list[Belief]:
    """Of the network of an iteration as it predicts: with windows where it was trained on crops."""
    bundle = load_bundle(run, weights=None, network="1", device=torch.device("cpu"))
    checkpoint = torch.load(run / "checkpoints" / f"iteration_{iteration:08d}.pt", weights_only=True)
    bundle.networks[0].load_state_dict(checkpoint["networks"]["network"])
    load = LoadImaged("image", reader=ScanReader(channels=bundle.channels, flat=True), ensure_channel_first=True)
    found = []
    for case in cases:
        image = bundle.preprocessing(load({"image": str(data / case.files[0])}))["image"].as_tensor()
        hidden = torch.as_tensor(read_label(data / str(case.monitor_label)).array.astype(np.int64)).squeeze()
        hidden = torch.nn.functional.interpolate(hidden[None, None].float(), image.shape[1:3], mode="nearest").long()
        with torch.no_grad():
            probs = bundle.inferer(image[None], bundle.networks)
        confidence, label = probs.squeeze(-1).max(1, keepdim=True)
        found.append(
            Belief(
                image[0, ..., 0].numpy().T,
                label[0, 0].numpy().T,
                hidden[0, 0].numpy().T,
                float(overlap(label, hidden)),
                {gate: float(image_confidence(confidence, label, gate=gate)) for gate in GATES},
            )
        )
    return found


def draw(rows: dict[int, list[Belief]], shown: list[int], path: Path) -> None:
    """A row for each iteration, a column for each picture."""
    figure, grid = plt.subplots(
        len(rows), len(shown), figsize=(2.0 * len(shown), 2.4 * len(rows)), squeeze=False, layout="constrained"
    )
    for axes_of_row, (iteration, row) in zip(grid, rows.items(), strict=True):
        for axes, one in zip(axes_of_row, (row[place] for place in shown), strict=True):
            axes.imshow(one.image, cmap="gray")
            for label, colour in ((one.hidden, "#3fa7ff"), (one.label, "#ff9a3c")):
                if label.any() and not label.all():
                    axes.contour(label > 0, levels=[0.5], colors=colour, linewidths=1.2)
            said = " ".join(f"{one.confidence[gate]:.2f}" for gate in GATES)
            axes.set_title(f"Dice {one.dice:.2f}  conf. {said}", fontsize=7)
            axes.set_xticks([]), axes.set_yticks([])
        axes_of_row[0].set_ylabel(f"iteration {iteration}", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Draw and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("run", "data", "data_list", "output"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--iterations", type=int, nargs="+", help="by default the first and last checkpoint")
    parser.add_argument("--show", type=int, default=8, help="pictures drawn")
    parser.add_argument("--count", type=int, default=200, help="pictures counted")
    parser.add_argument("--threshold", type=float, default=0.9)
    given = parser.parse_args()
    there = sorted(int(path.stem.split("_")[1]) for path in (given.run / "checkpoints").glob("iteration_*.pt"))
    cases = [case for case in load_data_list(given.data_list).unlabeled if case.monitor_label]
    cases = [cases[int(place)] for place in np.linspace(0, len(cases) - 1, min(given.count, len(cases)))]
    rows = {}
    for iteration in given.iterations or sorted({there[0], there[-1]}):
        rows[iteration] = row = beliefs(given.run, iteration, cases, given.data)
        dice = np.array([one.dice for one in row])
        empty = [not one.label.any() for one in row]
        print(f"iteration {iteration}: {len(row)} pictures, overlap {dice.mean():.3f}, {np.mean(empty):.0%} empty")
        for gate in GATES:
            sure = np.array([one.confidence[gate] for one in row])
            passing = sure >= given.threshold
            mean = f"{dice[passing].mean():.3f}" if passing.any() else "none"
            rho = spearmanr(sure, dice)[0]
            print(f"  {gate:<10} rho {rho:+.2f}, {passing.mean():.0%} pass {given.threshold}, their overlap {mean}")
    shown = [int(place) for place in np.linspace(0, len(cases) - 1, min(given.show, len(cases)))]
    draw(rows, shown, given.output)
    print(given.output)


if __name__ == "__main__":
    main()
