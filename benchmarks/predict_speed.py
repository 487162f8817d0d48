"""Prediction beside the loop that the field tests with: the same windows, each side in a process of its own.

    python benchmarks/predict_speed.py SCAN [--label LABEL] [--rounds 2] [--threads 1] [-o results/predict_speed.json]

The loop is that of the left-atrium benchmarks: windows of 112 x 112 x 80 with strides of 18, 18 and 4 voxels, one at a
time in float32, softmax, sums in NumPy. Ours is `Predictor`, on the bundle `cotrain_la`. The scan is cropped to a few
windows. Weights are those of a short training on the scan's own label if there is one (`--label`), else random;
accuracy means nothing here, but probabilities should not all lie near one half when precisions are compared.

Loading the network is not counted, of ours nor what is done with it once (`prepare`).
What is compared is processor time, since the wall clock of a shared machine is not; sides take turns (A B C C B A).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from semi_med.files import write_atomically
from semi_med.inference import Predictor, read_image, read_label
from semi_med.inference.io import write_image
from semi_med.losses import dice_ce
from semi_med.networks import VNet
from semi_med.recipes.compose import compose

WINDOW, STRIDE = (112, 112, 80), (18, 18, 4)
SIZE = (148, 130, 88)  # 3 x 2 x 3 windows
SIDES = ("field", "float32", "bfloat16")


def field_loop(network: nn.Module, image: np.ndarray) -> np.ndarray:
    """Mean probabilities (classes, i, j, k) as the benchmark code computes them, written anew."""
    axes = list(zip(image.shape, WINDOW, STRIDE, strict=True))
    steps = [math.ceil((size - reach) / step) + 1 for size, reach, step in axes]
    scores, counts = np.zeros((2, *image.shape), np.float32), np.zeros(image.shape, np.float32)
    for i in range(steps[0]):
        for j in range(steps[1]):
            for k in range(steps[2]):
                numbers = zip((i, j, k), axes, strict=True)
                starts = [min(step * number, size - reach) for number, (size, reach, step) in numbers]
                place = tuple(slice(start, start + reach) for start, reach in zip(starts, WINDOW, strict=True))
                patch = torch.from_numpy(image[place][None, None].astype(np.float32))
                with torch.no_grad():
                    probs = torch.softmax(network(patch), dim=1).numpy()[0]
                scores[(slice(None), *place)] += probs
                counts[place] += 1
    return scores / counts


class Timed(nn.Module):
    """Counts the processor time of a network."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.seconds = 0.0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        clock = time.process_time()
        result = self.network(image)
        self.seconds += time.process_time() - clock
        return result


def run_side(side: str, folder: Path) -> None:
    """One side in this process; prints figures, leaves probabilities and label."""
    scan, prepare = folder / "scan.nii.gz", 0.0
    if side == "field":
        network = VNet().eval()
        network.load_state_dict(torch.load(folder / "bundle" / "models" / "model.pt", weights_only=True)["model"])
        clock, wall = time.process_time(), time.perf_counter()
        array = read_image(scan).array
        image = (array - array.mean()) / array.std()
        timed = Timed(network)
        probs = field_loop(timed, image)
        label = probs.argmax(0)
        used = time.process_time() - clock
    else:
        predictor = Predictor.load(folder / "bundle", device="cpu", precision=side, maps=["probabilities"])
        clock = time.process_time()
        networks, reduced, _ = predictor.precisions.networks_for(predictor.read(scan).data["image"])
        prepare = time.process_time() - clock
        clock, wall = time.process_time(), time.perf_counter()
        loaded = predictor.read(scan)
        (timed,) = predictor.precisions._networks = [Timed(networks[0])]
        assert reduced is None
        found = predictor.finish(predictor.segment(loaded))
        used = time.process_time() - clock
        probs, label = np.moveaxis(found.maps["probabilities"], -1, 0), found.label
    np.savez(folder / f"{side}.npz", probs=probs.astype(np.float32), label=label.astype(np.uint8))
    figures = {
        "seconds": used,
        "wall": time.perf_counter() - wall,
        "network": timed.seconds,
        "outside": 1 - timed.seconds / used,
        "prepare": prepare,
        "peak_gb": _peak(),
    }
    print(json.dumps(figures))


def _peak() -> float:
    """GB that this process has held at most, without what its parent had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / 1e9


def make_bundle(folder: Path, scan: np.ndarray, label: np.ndarray | None) -> None:
    """`cotrain_la` with weights: random, or of 60 steps on crops of the scan."""
    compose("cotrain", "la", folder)
    torch.manual_seed(0)
    network = VNet().train()
    if label is not None:
        image = torch.from_numpy((scan - scan.mean()) / scan.std()).float()[None, None]
        target = torch.from_numpy(label.astype(np.int64))[None, None]
        optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
        draw = np.random.default_rng(0)
        size = (64, 64, 48)
        for step in range(60):
            starts = [int(draw.integers(0, length - reach + 1)) for length, reach in zip(scan.shape, size, strict=True)]
            place = tuple(slice(start, start + reach) for start, reach in zip(starts, size, strict=True))
            loss = dice_ce(network(image[(..., *place)]), target[(..., *place)])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % 10 == 9:
                print(f"step {step + 1}: loss {float(loss):.3f}", file=sys.stderr)
    (folder / "models").mkdir(exist_ok=True)
    torch.save({"model": network.state_dict()}, folder / "models" / "model.pt")


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """Of two labels of one class."""
    return float(2 * np.count_nonzero(one & other) / max(np.count_nonzero(one) + np.count_nonzero(other), 1))


def main() -> None:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", type=Path)
    parser.add_argument("--label", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.side:
        run_side(arguments.side, arguments.scan)
        return
    image = read_image(arguments.scan).array
    starts = [max((length - wanted) // 2, 0) for length, wanted in zip(image.shape, SIZE, strict=True)]
    place = tuple(slice(start, start + wanted) for start, wanted in zip(starts, SIZE, strict=True))
    label = None if arguments.label is None else read_label(arguments.label).array[place]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_image(folder / "scan.nii.gz", image[place], affine=np.diag([0.625, 0.625, 0.625, 1.0]))
        make_bundle(folder / "bundle", image[place].astype(np.float32), label)
        runs: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
        for number in range(arguments.rounds):
            for side in SIDES if number % 2 == 0 else reversed(SIDES):
                command = [sys.executable, "-W", "ignore", __file__, str(folder), "--side", side]
                command += ["--threads", str(arguments.threads)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                runs[side].append(json.loads(done.stdout.splitlines()[-1]))
                print(side, runs[side][-1], file=sys.stderr)
        results = {side: dict(np.load(folder / f"{side}.npz")) for side in SIDES}
    middle = {side: {key: statistics.median(run[key] for run in runs[side]) for key in runs[side][0]} for side in SIDES}
    wanted = results["field"]
    report = {
        "size": list(wanted["label"].shape),
        "threads": arguments.threads,
        "trained": label is not None,
        "median": middle,
        "runs": runs,
        "faster": {side: middle["field"]["seconds"] / middle[side]["seconds"] for side in SIDES[1:]},
        "difference": {side: float(np.abs(results[side]["probs"] - wanted["probs"]).max()) for side in SIDES[1:]},
        "dice": {side: dice(results[side]["label"] == 1, wanted["label"] == 1) for side in SIDES[1:]},
        "foreground": float((wanted["label"] == 1).mean()),
    }
    print(json.dumps(report, indent=2))
    if arguments.output:
        write_atomically(arguments.output, json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
