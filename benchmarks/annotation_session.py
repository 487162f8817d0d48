"""How good is the model after so many labels? Sessions of annotation, simulated over a real server on this machine.

    .venv-label/bin/python benchmarks/annotation_session.py <data> <output> [options]

<data> holds images/, labels/ and, if subjects have several scans, cases.csv (columns id, subject_group). It is split by
subject with a fixed seed: scans that the model is measured on, which the server never stores, and a pool. For every
method, strategy and seed a study is made of a draw of the pool and served with `semi-med label`. A client, MONAI
Label's own, plays the annotator: it submits the experts' labels of two scans, presses Train, has the held-out scans
segmented, asks for the next scan, submits its label, and so on. All cells of a seed begin with the same study and the
same two labels. Nothing is held out by the server itself (`--held-out 0`), so that every label trains.

Written: <output>/cells/<cell>.json for each finished cell (a cell that is there is not run again), rounds.csv with a
row for each round of each cell, and table.md.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.client import MONAILabelClient

from semi_med.files import write_atomically
from semi_med.inference.io import read_label
from semi_med.label_app.models import Bundle, top_of
from semi_med.recipes.compose import compose

SPLIT_SEED = 0
ADAMW = {  # in so few updates the recipes' SGD leaves a structure empty
    "_target_": "torch.optim.AdamW",
    "params": "$[p for network in @method.networks().values() for p in network.parameters() if p.requires_grad]",
    "lr": "@learning_rate",
    "weight_decay": 0.01,
}
SMALL = {  # a network and crops that a processor trains in seconds; the same for all methods
    "hippocampus": {
        "optimizer": json.dumps(ADAMW),
        "learning_rate": "0.002",
        "amp": "true",
        "channels_last": "true",
        "network_def#base_filters": "8",
        "network_def#levels": "3",
        "crop_size": "[24,32,24]",
        "stride": "[12,16,12]",
        "labeled_margin": "4",
        "max_shift": "[4,4,4]",
        "batch_size": "1",
        "unlabeled_batch_size": "1",
    },
}


@dataclass(frozen=True)
class Cell:
    """One session.

    Attributes:
        method: recipe name.
        strategy: of the server.
        seed: of the study, the first labels, and the trainings.
    """

    method: str
    strategy: str
    seed: int

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.method}-{self.strategy}-{self.seed}"


@dataclass(frozen=True)
class Split:
    """Ids of scans: one for each subject of the pool, and those that are measured on."""

    pool: list[str]
    measured: list[str]


def split(data: Path, measured: int) -> Split:
    """By subject, with a fixed seed."""
    subjects: dict[str, list[str]] = {}
    if (data / "cases.csv").is_file():
        with (data / "cases.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                subjects.setdefault(row["subject_group"], []).append(row["id"])
    else:
        subjects = {path.name: [path.name.removesuffix(".nii.gz")] for path in (data / "images").glob("*.nii.gz")}
    scans = [sorted(group)[0] for _, group in sorted(subjects.items())]
    random.Random(SPLIT_SEED).shuffle(scans)
    return Split(pool=scans[measured:], measured=sorted(scans[:measured]))


class Session:
    """A served study and the client that annotates it.

    Args:
        cell: what is tried.
        data: the scans and the experts' labels.
        found: the split.
        options: of the command line.
        folder: of the cell, made anew.
    """

    def __init__(self, cell: Cell, data: Path, found: Split, options: argparse.Namespace, *, folder: Path) -> None:
        self.cell, self.data, self.options, self.folder = cell, data, options, folder
        self.measured = found.measured
        shutil.rmtree(folder, ignore_errors=True)
        self.bundle = compose(cell.method, options.task, folder / "bundle" / cell.method)
        self.values = Bundle.read(self.bundle).labels
        self.scans = random.Random(cell.seed).sample(found.pool, min(options.pool, len(found.pool)))
        (folder / "study").mkdir()
        for scan in self.scans:
            (folder / "study" / f"{scan}.nii.gz").symlink_to((data / "images" / f"{scan}.nii.gz").resolve())
        self.client: Any = None

    @contextlib.contextmanager
    def served(self) -> Iterator[None]:
        """With a server for the study."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "semi_med.cli", "label", "--studies", self.folder / "study", "--held-out", 0]
        command += ["--bundle", self.bundle, "--port", port, "--iterations", self.options.iterations]
        command += ["--links-to", self.data.resolve()]
        settings = {**SMALL.get(self.options.task, {}), **dict(one.split("=", 1) for one in self.options.set)}
        known = Bundle.read(self.bundle).settings
        settings = {name: value for name, value in settings.items() if top_of(name) in known}
        command += [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        if self.options.device:
            command += ["--device", self.options.device]
        with (self.folder / "server.txt").open("wb") as log:
            process = subprocess.Popen([str(word) for word in command], stdout=log, stderr=log)
        self.client = MONAILabelClient(f"http://127.0.0.1:{port}", tmpdir=str(self.folder))
        try:
            while not self._is_up():
                if process.poll() is not None:
                    raise SystemExit(f"the server ended: {(self.folder / 'server.txt').read_text()[-2000:]}")
                time.sleep(0.2)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)

    def _is_up(self) -> bool:
        with contextlib.suppress(OSError):
            return bool(self.client.info())
        return False

    def run(self) -> list[dict[str, Any]]:
        """All rounds; a row for each."""
        rows = []
        with self.served():
            labeled = self.scans[: self.options.start]
            for scan in labeled:
                self._submit(scan)
            for number in range(1, self.options.rounds + 1):
                rows.append({**self.cell.__dict__, "round": number, "labels": len(labeled), **self._round()})
                print(f"{self.cell.name} {rows[-1]}", flush=True)
                if number < self.options.rounds:
                    labeled += [self._next(number, step) for step in range(self.options.labels)]
        return rows

    def _round(self) -> dict[str, Any]:
        started = time.monotonic()
        anew = {"start_from_last_model": False} if self.options.anew else {}
        self.client.train_start(self.cell.method, {"seed": self.cell.seed, **anew})
        while (status := self.client.train_status())["status"] in ("SUBMITTED", "RUNNING"):
            time.sleep(0.5)
        if status["status"] != "DONE":
            raise SystemExit(f"{self.cell.name}: training ended as {status['status']}: {status['details'][-1:]}")
        trained = time.monotonic() - started
        stats = self.client.info()["train_stats"][self.cell.method]
        started = time.monotonic()
        dice = [self._dice(scan) for scan in self.measured]
        return {
            "unlabeled": stats["unlabeled"],
            "dice": round(statistics.fmean(dice), 4),
            "worst": round(min(dice), 4),
            "round_seconds": round(trained, 1),
            "seconds_a_scan": round((time.monotonic() - started) / len(dice), 2),
        }

    def _submit(self, scan: str) -> None:
        info = [{"name": name, "idx": value} for name, value in self.values.items()]
        label = self.data / "labels" / f"{scan}.nii.gz"
        self.client.save_label(scan, str(label), params={"label_info": info})

    def _next(self, number: int, step: int) -> str:
        seed = 1000 * self.cell.seed + 10 * number + step
        wanted = {"seed": seed} if self.cell.strategy == "random" else {}
        scan = str(self.client.next_sample(self.cell.strategy, wanted)["id"])
        self._submit(scan)
        return scan

    def _dice(self, scan: str) -> float:
        """Of a scan that is sent along, the mean over its structures."""
        file, _ = self.client.infer(self.cell.method, "", {}, file=str(self.data / "images" / f"{scan}.nii.gz"))
        found, truth = read_label(file).array, read_label(self.data / "labels" / f"{scan}.nii.gz").array
        Path(file).unlink()
        both = [(found == value, truth == value) for value in self.values.values()]
        return statistics.fmean(2 * np.sum(a & b) / (np.sum(a) + np.sum(b)) for a, b in both if np.sum(a) + np.sum(b))


def table(rows: list[dict[str, Any]]) -> str:
    """Mean Dice over seeds, and each seed's, by labels and arm."""
    arms = list(dict.fromkeys((row["method"], row["strategy"]) for row in rows))
    head = "| labels | " + " | ".join(f"{method}, {strategy}" for method, strategy in arms) + " |"
    lines = [head, "|---" * (len(arms) + 1) + "|"]
    for labels in sorted({row["labels"] for row in rows}):
        cells = []
        for arm in arms:
            own = [row for row in rows if (row["method"], row["strategy"]) == arm and row["labels"] == labels]
            dice = [100 * row["dice"] for row in own]
            seconds = statistics.fmean(row["round_seconds"] for row in own) if own else 0
            each = ", ".join(f"{one:.1f}" for one in dice)
            cells.append(f"{statistics.fmean(dice):.1f} ({each}; {seconds:.0f} s)" if own else "")
        lines.append(f"| {labels} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def as_csv(rows: list[dict[str, Any]]) -> str:
    """A row for each round."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def main() -> None:
    """Run the cells that are not there, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--task", default="hippocampus", help="recipe of the data")
    parser.add_argument("--methods", nargs="+", default=["cotrain", "supervised"])
    parser.add_argument("--strategies", nargs="+", default=["disagreement", "random"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--rounds", type=int, default=4, help="trainings of a session")
    parser.add_argument("--start", type=int, default=2, help="labels before the first training")
    parser.add_argument("--labels", type=int, default=2, help="labels between two trainings")
    parser.add_argument("--pool", type=int, default=40, help="scans of a study")
    parser.add_argument("--measured", type=int, default=20, help="scans that the model is measured on")
    parser.add_argument("--iterations", type=int, default=150, help="updates of a training")
    parser.add_argument("--anew", action="store_true", help="every round begins with new networks")
    parser.add_argument("--device", help="by default CUDA if there is one")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the bundle")
    options = parser.parse_args()

    found = split(options.data, options.measured)
    chosen = {key: value for key, value in vars(options).items() if key not in ("data", "output", "methods")}
    rows: list[dict[str, Any]] = []
    for seed in options.seeds:
        for method in options.methods:
            for strategy in options.strategies:
                cell = Cell(method, strategy, seed)
                record = options.output / "cells" / f"{cell.name}.json"
                if not record.is_file():
                    session = Session(cell, options.data, found, options, folder=options.output / "work" / cell.name)
                    write_atomically(record, json.dumps({"options": chosen, "rows": session.run()}, indent=1))
                rows += json.loads(record.read_text(encoding="utf-8"))["rows"]
                write_atomically(options.output / "rounds.csv", as_csv(rows))
                write_atomically(options.output / "table.md", table(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
