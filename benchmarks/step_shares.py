"""What part of a FixMatchSeg step goes into making its views and into the distances of its boundary loss.

    python benchmarks/step_shares.py [--size 320] [--unlabeled 10] [--steps 3] [--device cpu] [--backbone NAME]

One labelled and `--unlabeled` unlabelled drawn pictures of 4 classes, the views and the network of `fixmatchseg_camus`.
Times are of the processor on a CPU, so that other work on the machine does not matter, and of the clock on a GPU.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import torch

from semi_med.data.augment import Augment, View
from semi_med.methods import FixMatchSeg
from semi_med.networks import EfficientUNet
from semi_med.ops import signed_distance
from semi_med.recipes.compose import compose_config
from semi_med.runtime import keep_freed_memory


def pictures(count: int, size: int, *, labeled: bool) -> dict[str, Any]:
    """Noise with nested discs, as a raw batch."""
    place = torch.linspace(-1, 1, size)
    away = torch.sqrt(place[:, None] ** 2 + place[None] ** 2)
    label = sum(((away < radius).byte() for radius in (0.7, 0.5, 0.25)), start=torch.zeros(size, size).byte())
    batch = {
        "context": torch.randn(count, 1, size, size) + label,
        "margin": torch.zeros(count, 2, 2, dtype=torch.int64),
    }
    return {**batch, "label_context": label.expand(count, 1, size, size).clone()} if labeled else batch


def main() -> None:
    """Measure and print as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--unlabeled", type=int, default=10)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--backbone", default="efficientnet-b4")
    given = parser.parse_args()
    device = torch.device(given.device)
    keep_freed_memory()

    def timed(action: Callable[[], Any]) -> tuple[float, Any]:
        if device.type != "cpu":
            torch.cuda.synchronize()
        clock = time.process_time if device.type == "cpu" else time.perf_counter
        start = clock()
        result = action()
        if device.type != "cpu":
            torch.cuda.synchronize()
        return clock() - start, result

    recipe = compose_config("train", method="fixmatchseg", task="camus")
    views = {
        side: View(
            (given.size, given.size),
            Augment(**{k: v for k, v in recipe[f"{side}_augment"].items() if k != "_target_"}),
            intensity_on=recipe["train"][f"{side}_view"].get("intensity_on", "context"),
        )
        for side in ("labeled", "unlabeled")
    }
    network = EfficientUNet(1, 4, backbone=given.backbone).to(device, memory_format=torch.channels_last)
    method = FixMatchSeg(network=network, threshold=0.0)  # every picture passes: the dearest step there is
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    raw = pictures(1, given.size, labeled=True), pictures(given.unlabeled, given.size, labeled=False)
    raw = tuple({key: value if key == "margin" else value.to(device) for key, value in part.items()} for part in raw)

    def see() -> tuple[dict[str, Any], dict[str, Any]]:
        return views["labeled"](raw[0], generator), views["unlabeled"](raw[1], generator)

    def step(seen: tuple[dict[str, Any], dict[str, Any]]) -> None:
        network.train()
        terms = method.losses(*seen, 0)
        optimizer.zero_grad(set_to_none=True)
        terms["loss"].backward()
        optimizer.step()

    view_s, step_s, distance_s = [], [], []
    for number in range(given.steps + 1):
        seconds, seen = timed(see)
        whole, _ = timed(lambda seen=seen: step(seen))  # type: ignore[misc]
        label = torch.cat([seen[0]["label"], seen[0]["label"].expand(given.unlabeled, -1, -1, -1)])
        distances, _ = timed(lambda label=label: signed_distance(label, 4))  # type: ignore[misc]
        if number:  # the first one warms up
            view_s.append(seconds), step_s.append(whole), distance_s.append(distances)
    middle = {
        name: sorted(v)[len(v) // 2] for name, v in (("view", view_s), ("step", step_s), ("distance", distance_s))
    }
    total = middle["view"] + middle["step"]
    result = {
        "device": given.device if device.type == "cpu" else torch.cuda.get_device_name(),
        "pictures": [1, given.unlabeled],
        "size": given.size,
        "backbone": given.backbone,
        "seconds": {name: round(value, 4) for name, value in middle.items()},
        "share of views": round(middle["view"] / total, 4),
        "share of distances": round(middle["distance"] / total, 4),
        "pictures per second": round((1 + given.unlabeled) / total, 2),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
