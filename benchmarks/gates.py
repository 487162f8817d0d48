"""Which gate of SegMatch ranks pseudo-masks by their true quality?

    python benchmarks/gates.py <run> [<run> ...] [-o <folder>] [--again graded bce ...] [--iterations 500]

Each run is the folder of a finished SegMatch training whose data list has labels of unlabelled cases for monitoring
(any gate: the discriminator is trained under all of them). Of every unlabelled image (of volumes: of every slice) the
network of the last checkpoint makes a pseudo-mask of its middle, of the size of a training crop, in evaluation mode
and without augmentation; each of the four gates scores it, and its Dice with the hidden label is what the score should
tell (empty and rightly so counts as 1). Printed, and written to <folder>/gates.json and <folder>/<run>_gates.csv:
Spearman's and Pearson's correlation, the AUROC of telling masks with a Dice above 0.8, and the mean Dice of the better
half; for all images, and apart for those whose mask has foreground and for those whose mask is empty, which a gate can
see. Parting them by the hidden label instead would make every empty mask a wrong one, and so a gate that trusts empty
masks, most of which are right, look worse than chance. A gate that says the same of every image ranks nothing: its
figures are left out. These are figures of the training side: nothing is chosen by them.

With --again, a new discriminator is trained for the network as it is, with each of the losses named, on the same
labelled and unlabelled images: so the losses are compared on the same masks.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.transforms import ResizeWithPadOrCrop
from scipy import stats

from semi_med.engines.checkpoints import found_checkpoints
from semi_med.ops import IGNORED, overlap, pseudo_label

GATES = ("discriminator", "confidence", "confidence_map", "identity")
GOOD = 0.8
KINDS = {"where something was found": True, "where nothing was found": False}


def settings_of(run: Path) -> ConfigParser:
    """The configuration as it was run, with the hidden labels."""
    parser = ConfigParser()
    parser.read_config(str(run / "configs" / "train.json"))
    changed = json.loads((run / "run.json").read_text(encoding="utf-8"))["changed"]
    fixed = {"bundle_root": str(run), "output_dir": str(run), "device": "$torch.device('cpu')", "resume": True}
    for name, value in {**changed, **fixed, "monitor_pseudo_labels": True}.items():
        parser[name.replace("#", "::")] = value
    return parser


def method_of(run: Path, parser: ConfigParser) -> Any:
    """The method as the last checkpoint has it."""
    method = parser.get_parsed_content("method")
    state = torch.load(found_checkpoints(run)[-1], map_location="cpu", weights_only=True)
    for name, network in {**method.networks(), **method.discriminators()}.items():
        network.load_state_dict(state["networks"][name])
        network.eval()
    return method


def train_again(method: Any, parser: ConfigParser, loss: str, *, iterations: int, rate: float) -> None:
    """A new discriminator for the network as it is, on the batches and weak views of the run."""
    torch.manual_seed(0)
    method.discriminator_loss = loss
    method.discriminator = parser.get_parsed_content("discriminator_def", lazy=False)
    pairs = parser.get_parsed_content("train#dataloader")
    views = [parser.get_parsed_content(f"train#{side}_view") for side in ("labeled", "unlabeled")]
    optimizer = torch.optim.Adam(method.discriminator.parameters(), lr=rate, betas=(0.9, 0.99))
    for iteration in range(iterations):
        labeled, unlabeled = (
            view(batch, torch.Generator().manual_seed(2 * iteration + side))
            for side, (view, batch) in enumerate(zip(views, pairs.pair(iteration), strict=True))
        )
        with torch.no_grad():
            label = pseudo_label(method.network(unlabeled["weak"]))[0].masked_fill(~unlabeled["seen"], IGNORED)
            tried, found = (pseudo_label(method.network(labeled[key]))[0] for key in ("probe", "image"))
        shown = {
            **{"real_image": labeled["image"], "real_truth": labeled["label"]},
            "real_found": found,
            **{"made_image": unlabeled["weak"], "made_label": label},
            **{"tried_image": labeled["probe"], "tried_found": tried, "tried_truth": labeled["probe_label"]},
        }
        terms = method.discriminator_losses(shown, iteration)
        optimizer.zero_grad()
        terms["discriminator_loss"].backward()
        optimizer.step()
    method.discriminator.eval()


@torch.no_grad()
def judged(method: Any, parser: ConfigParser) -> list[dict[str, Any]]:
    """A row for each unlabelled image: its Dice and what each gate says."""
    cases, rows = parser.get_parsed_content("train#unlabeled_dataset"), []
    middle = ResizeWithPadOrCrop(parser["crop_size"])
    for index in range(len(cases)):
        arrays = cases.arrays(index)
        images = torch.from_numpy(np.array(arrays["image"], dtype=np.float32))[None]
        hidden = torch.from_numpy(np.array(arrays["monitor_label"], dtype=np.int64))[None]
        if images.dim() == 5 and len(parser["crop_size"]) == 2:  # every slice is an image; a picture has one
            images, hidden = (array[0].movedim(-1, 0) for array in (images, hidden))
        images, hidden = (torch.stack([middle(image) for image in batch]) for batch in (images, hidden))
        for place, (image, truth) in enumerate(zip(images.split(1), hidden.split(1), strict=True)):
            label, _, confidence = pseudo_label(method.network(image))
            rows.append(
                {
                    "case": cases.name(index) if len(images) == 1 else f"{cases.name(index)}_{place}",
                    "dice": float(overlap(label, truth)),
                    "found": bool((label > 0).any()),
                    **{gate: float(method.score(gate, image, label, confidence)) for gate in GATES},
                }
            )
    return rows


def ranked(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How well each gate ranks these images."""
    dice = np.array([row["dice"] for row in rows])
    good, found = dice > GOOD, {}
    for gate in GATES:
        score = np.array([row[gate] for row in rows])
        if len(rows) < 3 or np.ptp(score) == 0 or np.ptp(dice) == 0:
            continue
        best = score >= np.median(score)
        found[gate] = {
            "spearman": float(stats.spearmanr(score, dice).statistic),
            "pearson": float(stats.pearsonr(score, dice).statistic),
            "dice_of_the_better_half": float(dice[best].mean()),
        }
        if 0 < good.sum() < len(good):
            wins = stats.mannwhitneyu(score[good], score[~good]).statistic
            found[gate]["auroc"] = float(wins / (good.sum() * (~good).sum()))
    return {"images": len(rows), "mean_dice": float(dice.mean()), "good": float(good.mean()), "gates": found}


def main() -> None:
    """Judge the runs and print a table of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path())
    parser.add_argument("--again", nargs="*", default=[], help="losses to train a new discriminator with")
    parser.add_argument("--iterations", type=int, default=500, help="of a new discriminator")
    parser.add_argument("--rate", type=float, default=5e-4, help="its learning rate")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    summary = {}
    for run in arguments.runs:
        config = settings_of(run.resolve())
        method = method_of(run.resolve(), config)
        for loss in ("", *arguments.again):
            if loss:
                train_again(method, config, loss, iterations=arguments.iterations, rate=arguments.rate)
            name, rows = f"{run.name}{loss and '_' + loss}", judged(method, config)
            with (arguments.output / f"{name}_gates.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
            parts = {
                "all": rows,
                **{word: [row for row in rows if row["found"] is found] for word, found in KINDS.items()},
            }
            summary[name] = {which: ranked(part) for which, part in parts.items() if part}
            for which, result in summary[name].items():
                print(f"{name}, {which}: {result['images']} images, mean Dice {result['mean_dice']:.3f}", flush=True)
                for gate, numbers in result["gates"].items():
                    print(f"  {gate:15}", "  ".join(f"{key} {value:.3f}" for key, value in numbers.items()))
    (arguments.output / "gates.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
