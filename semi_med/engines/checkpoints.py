"""Checkpoints that survive being interrupted, and the models that come out of a run."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from semi_med.engines.curves import check_interval
from semi_med.errors import InputError, TrainingError
from semi_med.files import TEMPORARY_NAMES, write_atomically


def save_atomically(content: dict[str, Any], path: Path) -> str:
    """`torch.save` so that `path` is either the old file or the whole new one; returns its SHA-256.

    Raises:
        InputError: code NOT_WRITABLE.
        ResourceError: code DISK_FULL.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    data = buffer.getvalue()
    write_atomically(path, data)
    return hashlib.sha256(data).hexdigest()


def save_model(model: dict[str, Any], path: Path, trained_with: Mapping[str, Any] | None = None) -> None:
    """Write a model, and beside it as `<name>.json` what a prediction with it must have otherwise than its bundle.

    Raises:
        InputError: code NOT_WRITABLE.
        ResourceError: code DISK_FULL.
    """
    beside = path.with_suffix(".json")
    if trained_with:
        write_atomically(beside, json.dumps(trained_with, indent=2))
    save_atomically(model, path)
    if not trained_with:
        beside.unlink(missing_ok=True)


def finite(state: Any) -> bool:
    """Whether every floating tensor in a nested state is finite."""
    if isinstance(state, torch.Tensor):
        return not state.is_floating_point() or bool(torch.isfinite(state).all())
    if isinstance(state, dict):
        return all(finite(value) for value in state.values())
    if isinstance(state, list | tuple):
        return all(finite(value) for value in state)
    return True


def require_finite(state: Any, engine: Any) -> None:
    """Refuse to go on to write weights that are not finite.

    Raises:
        TrainingError: code NOT_FINITE.
    """
    if not finite(state):
        raise TrainingError(
            f"weights are not finite after iteration {engine.state.iteration}; they were not written",
            fix="Checkpoints written before it are whole. Lower the learning rate or set gradient_clip, then resume",
            code="NOT_FINITE",
        )


def found_checkpoints(output_dir: str | Path) -> list[Path]:
    """Checkpoints of a run's folder, oldest first, whole or not."""
    return sorted((Path(output_dir) / "checkpoints").glob("iteration_*.pt"))


def check_output(output_dir: str | Path, *, resume: bool) -> None:
    """Refuse a folder that holds a run unless it is resumed, and to resume where there is none.

    Raises:
        InputError: code OUTPUT_EXISTS or NO_CHECKPOINT.
    """
    found = found_checkpoints(output_dir)
    if found and not resume:
        raise InputError(
            f"the folder already holds a run ({found[-1].name})",
            where=output_dir,
            fix="Add --resume true to go on with it, or choose another --output_dir",
            code="OUTPUT_EXISTS",
        )
    if resume and not found:
        raise InputError(
            "there is no checkpoint to resume from",
            where=output_dir,
            fix="Start without --resume, or point --output_dir at the run's folder",
            code="NO_CHECKPOINT",
        )


class Checkpoints:
    """Writes `checkpoints/iteration_XXXXXXXX.pt` and `models/model.pt`, and resumes from the newest whole one.

    A checkpoint is written to a temporary file of the same folder, synced and renamed; its SHA-256 lies beside it and
    the one before it is kept. `models/model.pt` holds the networks of the last iteration written: the headline model.
    On SIGTERM or Ctrl-C the iteration is finished, a checkpoint written and the run ended; a second Ctrl-C ends it at
    once.

    Must stand behind handlers that write something for an iteration, so that a checkpoint is never ahead of them.

    Args:
        output_dir: the run's folder.
        interval: iterations between checkpoints; one is always written at the end.
        resume: go on from the newest whole checkpoint of the folder.
        keep: how many checkpoints stay.
        trained_with: settings that lie beside the model, see `save_model`.

    Raises:
        InputError: on attaching: `resume` without a checkpoint, or checkpoints in the folder without `resume`.
    """

    def __init__(
        self,
        output_dir: str | Path,
        *,
        interval: int = 500,
        resume: bool = False,
        keep: int = 2,
        trained_with: Mapping[str, Any] | None = None,
    ) -> None:
        self.output_dir, self.trained_with = Path(output_dir), trained_with
        self.folder = self.output_dir / "checkpoints"
        self.interval = check_interval(interval, "checkpoints")
        self.resume, self.keep = resume, max(1, keep)
        self._saved_at: int | None = None
        self._signal: int | None = None
        self._old_handlers: dict[int, Any] = {}

    def attach(self, engine: Engine) -> None:
        """Resume now if asked to, and hang on the trainer's events."""
        check_output(self.output_dir, resume=self.resume)
        self._sweep(engine)
        if self.resume:
            self.restore(engine)
        engine.add_event_handler(Events.STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._after_iteration)
        engine.add_event_handler(Events.COMPLETED, self._after_run)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._after_error)

    def _sweep(self, engine: Any) -> None:
        """Remove what a run that was killed while it wrote has left."""
        if engine.state.rank > 0:
            return
        for folder in (self.folder, self.output_dir / "models", self.output_dir / "logs"):
            for left in folder.glob(TEMPORARY_NAMES):
                left.unlink(missing_ok=True)

    def restore(self, engine: Any) -> None:
        """Load the newest checkpoint that is whole; says so when a damaged one was passed over.

        Raises:
            InputError: code NO_CHECKPOINT, none is whole; code RESUME_MISMATCH, it is of another run.
        """
        for path in reversed(found_checkpoints(self.output_dir)):
            try:
                state = self._read(path)
            except Exception as error:  # on rubbish the unpickler raises whatever it stumbles over
                engine.logger.warning(f"{path.name} is damaged ({error}); the one before it is taken")
                continue
            engine.load_state_dict(state)
            self._saved_at = state["iteration"]
            done, total = state["iteration"], state["total_iterations"]
            engine.logger.info(f"resumed from {path.name}: {done} of {total} iterations are done")
            return
        raise InputError(
            "all checkpoints are damaged, there is none to resume from",
            where=self.folder,
            fix="Copy them again if they came from elsewhere, or start again in another --output_dir",
            code="NO_CHECKPOINT",
        )

    @staticmethod
    def _read(path: Path) -> dict[str, Any]:
        data = path.read_bytes()
        sidecar = path.with_suffix(".json")
        if sidecar.is_file() and json.loads(sidecar.read_text())["sha256"] != hashlib.sha256(data).hexdigest():
            raise ValueError("its checksum differs")
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)

    def save(self, engine: Any) -> None:
        """Write a checkpoint and the model of this iteration.

        Raises:
            TrainingError: weights are not finite; nothing is written then.
            InputError: code NOT_WRITABLE; the checkpoints before it stay.
            ResourceError: code DISK_FULL; the checkpoints before it stay.
        """
        self._saved_at = engine.state.iteration
        if engine.state.rank > 0:
            return
        state, model = engine.state_dict(), engine.model_state()
        require_finite([state["networks"], state["averages"], model], engine)
        # The model first: where there is a checkpoint there is a model that is at least as new.
        save_model(model, self.output_dir / "models" / "model.pt", self.trained_with)
        path = self.folder / f"iteration_{engine.state.iteration:08d}.pt"
        path.with_suffix(".json").unlink(missing_ok=True)
        digest = save_atomically(state, path)
        write_atomically(path.with_suffix(".json"), json.dumps({"sha256": digest}))
        found = found_checkpoints(self.output_dir)
        place = found.index(path)
        # What is newer than this was damaged when the run was resumed.
        for other in [*found[: max(0, place + 1 - self.keep)], *found[place + 1 :]]:
            other.unlink()
            other.with_suffix(".json").unlink(missing_ok=True)

    def _after_iteration(self, engine: Any) -> None:
        if self._signal is not None:
            self.save(engine)
            name = signal.Signals(self._signal).name
            engine.logger.warning(
                f"{name}: stopped after iteration {engine.state.iteration}, checkpoint written. "
                "Go on with the same command and --resume true"
            )
            engine.exit_code = 128 + self._signal
            engine.terminate()
        elif engine.state.iteration % self.interval == 0 and engine.state.iteration < engine.total_iterations:
            self.save(engine)

    def _after_run(self, engine: Any) -> None:
        try:
            if self._saved_at != engine.state.iteration:
                self.save(engine)
        finally:
            self._release_signals()

    def _begin(self, engine: Any) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            self._old_handlers[number] = signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: Any) -> None:
        # A scheduler signals a whole group of processes, and the one that waits passes it on: SIGTERM may come twice.
        if self._signal is not None and number == signal.SIGINT:
            self._release_signals()
            os.kill(os.getpid(), number)
        self._signal = self._signal or number

    def _release_signals(self) -> None:
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        self._old_handlers = {}

    def _after_error(self, engine: Any, error: BaseException) -> None:
        self._release_signals()
