"""A trial step: the real method, networks, crops and batch on the real device, measured in a process of its own.

The process takes one step to warm up and two that count, on noise of the right shape. Its peak memory is the largest
that the system saw of it (of a GPU, what torch reserved), so that nothing that was in memory before counts.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semi_med.errors import InputError, ResourceError
from semi_med.files import write_atomically
from semi_med.planning.parts import Parts

_STEPS = 2
_LONG = 5.0  # seconds of a step after which a second one would tell little
_LONGEST = 300.0  # seconds after which a trial is given up
_GIB = 2**30
_MARK = "semi_med trial: "


@dataclass(frozen=True)
class Trial:
    """What a step takes.

    Attributes:
        gigabytes: peak memory; None where the step did not fit.
        seconds: of one step, views included, as the clock has it.
        alone: what a step would take if nothing else ran, from the processor's time; of a GPU as `seconds`.
        words: why it did not fit, or nothing.
    """

    gigabytes: float | None
    seconds: float | None
    alone: float | None = None
    words: str = ""


def write_parts(parts: Parts, folder: Path) -> None:
    """Write the parts of a task as JSON files."""
    from semi_med.recipes.compose import to_json

    for name, content in parts.items():
        write_atomically(folder / f"{name}.json", to_json(content))


def run_trial(parts: Parts, *, method: str, device: str, memory_gb: float) -> Trial:
    """Measure a training step.

    Args:
        parts: of the task.
        method: recipe name.
        device: as torch names it.
        memory_gb: more than this does not fit.

    Raises:
        InputError: the step cannot be made, with what torch says.
    """
    with tempfile.TemporaryDirectory(prefix="semi_med_trial_") as folder:
        write_parts(parts, Path(folder))
        command = [sys.executable, "-m", "semi_med.planning.trial", folder, method, device, str(memory_gb)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST)
        except subprocess.TimeoutExpired:
            return Trial(None, None, words=f"a step took longer than {_LONGEST:.0f} s")
    line = next((line for line in done.stdout.splitlines() if line.startswith(_MARK)), None)
    if line is None and done.returncode < 0:
        return Trial(None, None, words="the process was killed, as it is for want of memory")
    if line is None:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise InputError(
            f"a trial step failed: {last}",
            where=f"{method} on {device}",
            fix="Another --crop, --batch or --method may go; semi-med --debug shows where.",
            code="TRIAL",
        )
    return Trial(**json.loads(line.removeprefix(_MARK)))


def main(folder: str, method: str, device: str, memory_gb: str) -> None:
    """What the process does: prints one line of JSON.

    Memory is looked at after the first step, which has the peak but for a little, so that a step that is far too large
    is not taken twice.
    """
    import torch

    try:
        found = measure(Path(folder), method=method, device=device, memory_gb=float(memory_gb))
    except (torch.OutOfMemoryError, MemoryError, ResourceError) as error:
        found = Trial(None, None, words=f"it does not fit: {type(error).__name__}")
    except RuntimeError as error:
        if "allocate memory" not in str(error):
            raise
        found = Trial(None, None, words="it does not fit: memory could not be allocated")
    sys.stdout.write(_MARK + json.dumps(found.__dict__) + "\n")


def measure(folder: Path, *, method: str, device: str, memory_gb: float) -> Trial:
    """Make the steps in this process."""
    import torch
    from monai.bundle import ConfigParser

    from semi_med.recipes.compose import compose_config
    from semi_med.runtime import keep_freed_memory

    torch.manual_seed(0)
    if device.startswith("cpu"):
        keep_freed_memory()
    config = compose_config("train", method=method, task=folder)
    config |= {"device": device, "pretrained": None, "bundle_root": str(folder)}
    parser = ConfigParser(config)
    trained = parser.get_parsed_content("method")
    optimizer = parser.get_parsed_content("optimizer")
    amp = bool(parser.get_parsed_content("amp"))
    views = [parser.get_parsed_content(f"train#{name}") for name in ("labeled_view", "unlabeled_view")]
    raw = [_noise(config, labeled=True)]
    raw += [_noise(config, labeled=False)] if config["needs_unlabeled"] else [{}]
    seconds, alone = [], []
    for number in range(1 + _STEPS):
        started, used = time.perf_counter(), time.process_time()
        batches = []
        for stream, (batch, view) in enumerate(zip(raw, views, strict=True)):
            moved = {key: value.to(device) if key != "margin" else value for key, value in batch.items()}
            batches.append(view(moved, torch.Generator().manual_seed(2 * number + stream)))
        for network in trained.networks().values():
            network.train()
        kind = torch.device(device).type
        with torch.autocast(kind, dtype=torch.float16 if kind == "cuda" else torch.bfloat16, enabled=amp):
            loss = trained.losses(*batches, number)["loss"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        trained.after_update(number)
        float(loss.detach())  # waits for a GPU
        seconds.append(time.perf_counter() - started)
        alone.append((time.process_time() - used) / torch.get_num_threads() if device == "cpu" else seconds[-1])
        if _peak_gb(device) > memory_gb or sum(seconds[1:]) > _LONG:
            break
    best, free = min(seconds[1:] or seconds), min(alone[1:] or alone)
    return Trial(round(_peak_gb(device), 3), round(best, 4), round(min(best, free), 4))


def _noise(config: Mapping[str, Any], *, labeled: bool) -> dict[str, Any]:
    """A batch as `CropBatches` gives it."""
    import torch

    crop = config["crop_size"]
    margin = config["labeled_margin"] if labeled else config["max_shift"]
    margin = [margin] * len(crop) if isinstance(margin, int) else margin
    shape = [size + 2 * free for size, free in zip(crop, margin, strict=True)]
    count = config["batch_size" if labeled else "unlabeled_batch_size"]
    batch = {
        "context": torch.randn(count, config["network_def"]["in_channels"], *shape).half(),
        "margin": torch.tensor([[[free, free] for free in margin]] * count),
    }
    if labeled:
        label = torch.zeros(count, 1, *shape, dtype=torch.uint8)
        for value in range(1, config["classes"]):  # slabs, so that every class is there
            label[..., value * shape[-1] // config["classes"] :] = value
        batch["label_context"] = label
    return batch


def _peak_gb(device: str) -> float:
    if device.startswith("cuda"):
        import torch

        return float(torch.cuda.max_memory_reserved(device)) / _GIB
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _GIB


if __name__ == "__main__":
    main(*sys.argv[1:])
