"""The Train button: one round of the project's own training, on labelled and all unlabelled scans of the study."""

from __future__ import annotations

import csv
import datetime
import fcntl
import json
import logging
import math
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monailabel.interfaces.tasks.train import TrainTask

from semi_med import launch
from semi_med.errors import InputError, ResourceError, TrainingError
from semi_med.files import write_atomically
from semi_med.inference.trained_with import read_trained_with
from semi_med.label_app.models import Model, top_of
from semi_med.label_app.study import HeldOut, Sections, check_enough, sections_of, write_round

logger = logging.getLogger("semi_med.label")

MOST_ITERATIONS = 1_000_000
_NETWORKS = {"network_def", "peer_def"}
_EPOCHS = 20  # a bundle counts iterations; clients want epochs
_VALIDATIONS = 4
_POLL = 0.5  # seconds
_TELL = 5.0  # seconds between lines of progress


class Train(TrainTask):
    """Trains a round and lets it answer when it is finished. A round that is stopped or fails changes nothing.

    Args:
        model: that is trained.
        held_out: which labelled scans are not trained with.
        settings: of bundles, by name, for every round; those that this one has are taken.
        iterations: of a round, where the client does not say.

    Attributes:
        ends_with_parent: whether a training ends when the process does that started this one, even if it was killed.
    """

    def __init__(self, model: Model, held_out: HeldOut, *, settings: Mapping[str, Any], iterations: int) -> None:
        super().__init__(model.bundle.description)
        self.model, self.held_out, self.settings, self.iterations = model, held_out, dict(settings), iterations
        self.ends_with_parent = False

    def config(self) -> dict[str, Any]:
        """What a client may change, with what is taken otherwise."""
        return {"max_iterations": self.iterations, "seed": 0, "start_from_last_model": True}

    def check(self, request: Mapping[str, Any], datastore: Any) -> Sections:
        """What would be trained on.

        Raises:
            InputError: there is nothing to train on, or a wish of the client cannot be met.
        """
        self._wishes(request)
        sections = sections_of(datastore, self.held_out)
        check_enough(sections, self.model.bundle)
        return sections

    def __call__(self, request: Mapping[str, Any], datastore: Any) -> dict[str, Any]:
        """Trains; what a client has sent beyond `config` is not looked at.

        Raises:
            InputError: there is nothing to train on, or a wish of the client cannot be met.
            ResourceError: code BUSY, this model is being trained.
            TrainingError: code FAILED, with the last line of the training's log.
        """
        with _alone(self.model.folder) as lock:
            wishes, sections = self._wishes(request), self.check(request, datastore)
            folder = self.model.new_round()
            data_list = write_round(folder / "data", datastore, sections, bundle=self.model.bundle)
            settings = self._settings(wishes, data_list, folder)
            started = time.time()
            self._run(launch.training_command(self.model.bundle.folder, settings=settings), folder, lock)
            counts = {
                "labeled": len(sections.labeled),
                "unlabeled": len(sections.unlabeled) if self.model.bundle.needs_unlabeled else 0,
                "validation": len(sections.validation),
            }
            summary = {"round": folder.name, **counts, "seconds": round(time.time() - started, 1)}
            write_atomically(folder / "round.json", json.dumps({**summary, "networks": self._networks()}, indent=2))
            self.model.publish(folder)
            logger.info(f"round {folder.name} answers from here on: {summary}")
        return {**self.stats(), **summary}

    def stats(self) -> dict[str, Any]:
        """How far the newest round is and what it reached, under the names that MONAI Label's clients look for."""
        rounds = self.model.rounds()
        return _stats_of(rounds[-1], rounds[:-1]) if rounds else {}

    def _wishes(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The client's choices; what is left empty is as `config` has it."""
        given = {key: request[key] for key in self.config() if request.get(key) not in (None, "")}
        wishes = {**self.config(), **given}
        for name, most in (("max_iterations", MOST_ITERATIONS), ("seed", 2**31)):
            wishes[name] = _whole(name, wishes[name], least=int(name == "max_iterations"), most=most)
        wishes["start_from_last_model"] = str(wishes["start_from_last_model"]).lower() == "true"
        return wishes

    def _settings(self, wishes: Mapping[str, Any], data_list: Path, folder: Path) -> dict[str, Any]:
        iterations, bundle = wishes["max_iterations"], self.model.bundle
        weights = self._last_weights() if wishes["start_from_last_model"] else None
        own: dict[str, Any] = {
            "dataset_dir": data_list.parent,
            "data_list_file": data_list,
            "output_dir": folder,
            "max_iterations": iterations,
            "seed": wishes["seed"],
            "iterations_per_epoch": -(-iterations // _EPOCHS),
            "val_interval": max(1, iterations // _VALIDATIONS),
            "checkpoint_interval": iterations,
            "allow_missing_class": True,  # the first two labels seldom show every structure
            "pretrained": "null" if weights is None else weights,
        }
        if self.model.device is not None:
            own["device"] = self.model.device
        return {**own, **{key: value for key, value in self.settings.items() if top_of(key) in bundle.settings}}

    def _networks(self) -> dict[str, str]:
        """What the settings change of the bundle's networks."""
        return {key: str(value) for key, value in self.settings.items() if top_of(key) in _NETWORKS}

    def _last_weights(self) -> Path | None:
        """The model that answers, if what is trained now has networks of the same kind."""
        weights = self.model.weights()
        if weights is None:
            return None
        told = weights.parents[1] / "round.json"
        before = json.loads(told.read_text(encoding="utf-8")).get("networks", {}) if told.is_file() else {}
        other = set(read_trained_with(weights, weights.parents[1])) & _NETWORKS
        if before == self._networks() and not other:
            return weights
        logger.info(f"the networks are set otherwise than those of {weights.parents[1].name}: this round begins anew")
        return None

    def _run(self, command: list[str], folder: Path, lock: int) -> None:
        """Runs the training to its end; whatever ends this process's wait ends the training too."""
        log = folder / "log.txt"
        write_atomically(folder / "command.txt", f"{launch.shown(command)}\n")
        with log.open("wb") as stream:
            process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, pass_fds=(lock,))
        try:
            told, said, parent = 0.0, "", os.getppid()
            while process.poll() is None:
                time.sleep(_POLL)
                if self.ends_with_parent and os.getppid() != parent:
                    raise TrainingError("the server has ended", code="STOPPED")
                if time.monotonic() - told > _TELL and (line := _progress(folder)) != said:
                    told, said = time.monotonic(), line
                    logger.info(line)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if process.returncode or not (folder / "models" / "model.pt").is_file():
            raise TrainingError(
                f"the training ended with code {process.returncode}: {_reason(log)}",
                where=f"{self.model.name}/rounds/{folder.name}/log.txt",
                fix="Mend what it says" + ("; the model of before still answers." if self.model.current else "."),
                code="FAILED",
            )


def _whole(name: str, value: Any, *, least: int, most: int) -> int:
    try:
        number = int(value) if not isinstance(value, bool) else None
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or not least <= number <= most:
        raise InputError(
            f"a whole number from {least} to {most} is wanted, got {str(value)[:40]!r}", where=name, code="SETTING"
        )
    return number


@contextmanager
def _alone(folder: Path) -> Iterator[int]:
    """Holds the model's lock, which a training inherits, so that it is held as long as one lives."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "training.lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ResourceError(
                "this model is being trained", where=folder.name, fix="Wait for it, or stop it.", code="BUSY"
            ) from None
        yield stream.fileno()


def _reason(log: Path) -> str:
    """What a training said last: our own error with all its lines, or its last line."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    errors = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    return " ".join(lines[errors[-1] :]).removeprefix("error: ") if errors else (lines or ["it said nothing"])[-1]


def _rows(path: Path) -> list[dict[str, str]]:
    """Of a curve that is being written; half a row is none."""
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            return [row for row in csv.DictReader(stream) if None not in row.values()]
    except OSError:
        return []


def _progress(folder: Path) -> str:
    stats = _stats_of(folder, ())
    if not stats.get("iteration"):
        return ""
    dice = f", validation Dice {stats['best_metric']:.3f}" if "best_metric" in stats else ""
    done = f"iteration {stats['iteration']} of {stats['total_iterations']}"
    return f"round {folder.name}: {done}, loss {stats['train'].get('loss', math.nan):.3f}{dice}"


def _stats_of(folder: Path, before: Any) -> dict[str, Any]:
    """Numbers of a round; until it has a Dice of its own, that of the last round before which has one."""
    settings = _json(folder / "run.json").get("settings", {})
    total = int(settings.get("max_iterations", 0))
    train, validation = _rows(folder / "logs" / "train.csv"), _rows(folder / "logs" / "validation.csv")
    last = train[-1] if train else {}
    iteration, seconds = int(last.get("iteration", 0)), float(last.get("seconds", 0))
    finished = (folder / "round.json").is_file()
    epoch_length = max(1, -(-total // _EPOCHS))
    stats: dict[str, Any] = {
        "round": folder.name,
        "epoch": iteration // epoch_length,
        "total_epochs": -(-total // epoch_length),
        "iteration": iteration,
        "total_iterations": total,
        "start_ts": int(folder.stat().st_ctime if not settings else (folder / "run.json").stat().st_mtime),
        "total_time" if finished else "current_time": str(datetime.timedelta(seconds=int(seconds))),
        "train": {"loss": float(last.get("loss", math.nan))} if last else {},
        **{key: settings[key] for key in ("labeled", "unlabeled", "validation") if key in settings},
    }
    if validation:
        values = {key: float(value) for key, value in validation[-1].items() if key != "iteration" and value}
        name = "mean_dice"
        stats["best_metric"] = values[name]
        stats["eval"] = {"key_metric_name": name, "best_metric": values[name], "metrics": values}
    elif earlier := next((one for one in reversed(before) if _rows(one / "logs" / "validation.csv")), None):
        stats |= {key: value for key, value in _stats_of(earlier, ()).items() if key in ("best_metric", "eval")}
    return _without_nan(stats)


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: such numbers are left out."""
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items() if one == one}
    return value


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
