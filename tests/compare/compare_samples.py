"""A data set of empty files to plan on, and trainings that only pretend."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from semi_med.compare.stages import Stage
from semi_med.data.data_list import load_data_list
from semi_med.data.identity import cases_digest, files_digest

ROW = {"class": 1, "class_name": "left atrium", "dice": 0.5, "jaccard": 1 / 3, "status": "ok"}
ROW |= dict.fromkeys(("hd95_mm", "asd_mm", "assd_mm", "hd95_voxel", "asd_voxel", "assd_voxel"), 1.0)
ROW |= {"prediction_ml": 1.0, "label_ml": 1.0}


NAMES = {"labeled": ["a1", "a2", "b", "c"], "unlabeled": ["d", "e"], "validation": ["v"], "test": ["t1", "t2"]}


def entry(name: str, *, key: str = "label") -> dict[str, str]:
    subject = name.rstrip("0123456789").upper()
    return {"image": f"images/{name}.nii.gz", key: f"labels/{name}.nii.gz", "subject": f"subject {subject}"}


def write_base(folder: Path, **sections: list[dict[str, str]]) -> Path:
    """Training subjects A (two scans), B, C labelled, D, E to watch; V for validation, T (two scans) for the test."""
    tree: dict[str, Any] = {"name": "x", "labels": {"0": "background", "1": "left atrium"}}
    for section, names in NAMES.items():
        key = "monitor_label" if section == "unlabeled" else "label"
        tree[section] = sections.get(section, [entry(name, key=key) for name in names])
        for item in tree[section]:
            for kind in {"image", key} & item.keys():
                path = folder / item[kind]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
    path = folder / "data_list.json"
    path.write_text(json.dumps(tree))
    return path


class Trainings:
    """Stands in for the processes that train: notes what was asked for, and leaves what a training leaves.

    Attributes:
        commands: one for each training begun.
        ends: exit code by number of the training, 0 if none is given; another code leaves a checkpoint half way.
    """

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.ends: dict[int, int] = {}

    def settings(self, number: int) -> dict[str, str]:
        words = self.commands[number][self.commands[number].index("training") + 1 :]
        return {name.removeprefix("--"): value for name, value in zip(words[::2], words[1::2], strict=True)}

    def run(self, command: list[str], *, log: Any = None, keep: Sequence[int] = ()) -> int:
        self.commands.append(command)
        code = self.ends.get(len(self.commands) - 1, 0)
        given = self.settings(len(self.commands) - 1)
        total = int(given["max_iterations"])
        train(given, Path(given["config_file"]).parents[1], iterations=total // 2 if code else total)
        log.write(b"hello\nerror: no luck\n" if code else b"done\n")
        return code


def train(given: dict[str, str], bundle: Path, *, iterations: int) -> None:
    """What a training that ran for some iterations leaves in its folder."""
    run, listed = Path(given["output_dir"]), json.loads(Path(given["data_list_file"]).read_text())
    learns = json.loads((bundle / "configs" / "train.json").read_text())["needs_unlabeled"]
    for folder in ("checkpoints", "models", "logs"):
        (run / folder).mkdir(parents=True, exist_ok=True)
    (run / "checkpoints" / f"iteration_{iterations:08d}.pt").touch()
    (run / "models" / "model.pt").write_text(f"{given['output_dir']} after {iterations}")
    (run / "logs" / "train.csv").write_text(f"iteration,seconds,loss\n1,1,1\n{iterations},{iterations * 3},0.5\n")
    if "resume" in given:
        return
    counts = {name: len(listed[name]) for name in ("labeled", "unlabeled", "validation")}
    counts["unlabeled"] *= int(learns)
    settings = {"data_list_file": given["data_list_file"], "max_iterations": int(given["max_iterations"])}
    settings |= {"seed": int(given["seed"]), **counts}
    changed = {name: value for name, value in given.items() if name not in ("config_file", "resume")}
    there = load_data_list(Path(given["data_list_file"]))
    data = {"cases_sha256": cases_digest(there), "files_sha256": files_digest(there, given["dataset_dir"])}
    content = {"bundle": bundle.name, "settings": settings, "changed": changed, "data": data}
    (run / "run.json").write_text(json.dumps(content))


def train_stage(stage: Stage, *, iterations: int | None = None) -> None:
    """The same as done by the command of a stage."""
    given = {name: str(value) for name, value in stage.settings.items()}
    train(given, stage.bundle, iterations=iterations or stage.iterations)
