"""How long a batch takes to make, against a training step.

    python benchmarks/data_path.py <folder with images/ and labels/> [--cases 16] [--device cpu] [--step]

Prints milliseconds for cutting 2 + 2 crops of 112x112x80 (the unlabelled ones with the margin that shifted crops
need), for the augmentation on the device, both together, batches a second of the pipeline alone, and with `--step`
the time of a whole co-training step and the share of it that data take.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from monai.transforms import Compose, LoadImaged, NormalizeIntensityd, Orientationd

from semi_med.data.augment import Augment, View
from semi_med.data.cases import CachedCases
from semi_med.data.crops import CropBatches, PairedBatches
from semi_med.engines import SemiSupervisedTrainer
from semi_med.methods import CoTraining
from semi_med.networks import VNet

CROP, SHIFT = (112, 112, 80), (28, 28, 20)


def median_ms(work: Callable[[int], object], *, repeats: int) -> float:
    """Median time of `work(i)` in milliseconds, after two calls to warm up."""
    times = []
    for i in range(repeats + 2):
        start = time.perf_counter()
        work(i)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times[2:])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cases", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--step", action="store_true")
    parser.add_argument("--amp", action="store_true")
    parser.add_argument("--channels-last", action="store_true")
    arguments = parser.parse_args()

    files = sorted((arguments.data / "images").glob("*.nii.gz"))[: arguments.cases]
    items = [{"image": str(file), "label": str(arguments.data / "labels" / file.name)} for file in files]
    keys = ["image", "label"]
    transform = Compose(
        [
            LoadImaged(
                keys,
                reader="semi_med.inference.reader.ScanReader",
                ensure_channel_first=True,
                allow_missing_keys=True,
            ),
            Orientationd(keys, axcodes="RAS", labels=None, allow_missing_keys=True),
            NormalizeIntensityd("image"),
        ]
    )
    half = len(items) // 2
    start = time.perf_counter()
    labeled = CachedCases(items[:half], transform)
    unlabeled = CachedCases(items[half:], transform, keys=("image",))
    labeled.load()
    unlabeled.load()
    print(f"reading and normalising {len(items)} cases once: {time.perf_counter() - start:.1f} s")

    pairs = PairedBatches(
        CropBatches(labeled, CROP, 2), CropBatches(unlabeled, CROP, 2, margin=SHIFT, stream="unlabeled")
    )
    view = View(CROP, Augment(flip_axes=(0, 1), turn_planes=((0, 1),)))
    generator = torch.Generator().manual_seed(0)

    def views(pair: tuple) -> list:
        on_device = [
            {k: v.to(arguments.device) if isinstance(v, torch.Tensor) and k != "margin" else v for k, v in part.items()}
            for part in pair
        ]
        return [view(part, generator) for part in on_device]

    cut = median_ms(pairs.pair, repeats=arguments.repeats)
    pair = pairs.pair(0)
    changed = median_ms(lambda i: views(pair), repeats=arguments.repeats)
    both = median_ms(lambda i: views(pairs.pair(i)), repeats=arguments.repeats)
    stream = iter(pairs)
    start = time.perf_counter()
    for _ in range(arguments.repeats):
        views(next(stream))
    rate = arguments.repeats / (time.perf_counter() - start)
    print(f"cut 2 + 2 crops: {cut:.1f} ms; views on {arguments.device}: {changed:.1f} ms; both: {both:.1f} ms")
    print(f"pipeline alone, cutting ahead in its thread: {rate:.0f} batches/s")
    if arguments.step:
        step(pairs, view, both, arguments)


def step(pairs: PairedBatches, view: View, data_ms: float, arguments: argparse.Namespace) -> None:
    """Time whole training steps."""
    method = CoTraining(
        network=VNet().to(arguments.device), peer=VNet(upsampling="interpolated").to(arguments.device), max_shift=SHIFT
    )
    parameters = [p for network in method.networks().values() for p in network.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9)
    times: list[float] = []

    class Clock:
        def attach(self, engine: SemiSupervisedTrainer) -> None:
            from ignite.engine import Events

            engine.add_event_handler(Events.ITERATION_COMPLETED, lambda _: times.append(time.perf_counter()))

    trainer = SemiSupervisedTrainer(
        arguments.device,
        1,
        pairs,
        method,
        optimizer,
        labeled_view=view,
        unlabeled_view=view,
        epoch_length=6,
        amp=arguments.amp,
        channels_last=arguments.channels_last,
        train_handlers=[Clock()],
    )
    trainer.run()
    seconds = statistics.median(b - a for a, b in itertools.pairwise(times[1:]))
    print(
        f"co-training step (amp {arguments.amp}, channels last {arguments.channels_last}): {seconds:.2f} s; "
        f"data are {data_ms / seconds / 10:.2f} % of it"
    )


if __name__ == "__main__":
    main()
