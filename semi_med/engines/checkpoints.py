"""Checkpoints that survive being interrupted, and the models that come out of a run."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from semi_med.errors import InputError, ResourceError, TrainingError
from semi_med.files import write_atomically


def save_atomically(content: dict[str, Any], path: Path) -> str:
    """`torch.save` so that `path` is either the old file or the whole new one; returns its SHA-256.

    Raises:
        ResourceError: the disk is full or the folder cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    data = buffer.getvalue()
    try:
        write_atomically(path, data)
    except OSError as error:
        raise ResourceError(
            f"could not write {len(data)} bytes: {error.strerror or error}",
            where=path,
            fix="Free some space or choose another output_dir; earlier checkpoints are untouched",
            code="DISK",
        ) from error
    return hashlib.sha256(data).hexdigest()


def finite(state: Any) -> bool:
    """Whether every floating tensor in a nested state is finite."""
    if isinstance(state, torch.Tensor):
        return not state.is_floating_point() or bool(torch.isfinite(state).all())
    if isinstance(state, dict):
        return all(finite(value) for value in state.values())
    if isinstance(state, list | tuple):
        return all(finite(value) for value in state)
    return True


class Checkpoints:
    """Writes `checkpoints/iteration_XXXXXXXX.pt` and `models/model.pt`, and resumes from the newest whole one.

    A checkpoint is written to a temporary file of the same folder, synced and renamed; its SHA-256 lies beside it and
    the one before it is kept. `models/model.pt` holds the networks of the last iteration written: the headline model.
    On SIGTERM or Ctrl-C the iteration is finished, a checkpoint written and the run ended; a second Ctrl-C ends it at
    once.

    Args:
        output_dir: the run's folder.
        interval: iterations between checkpoints; one is always written at the end.
        resume: go on from the newest whole checkpoint of the folder.
        keep: how many checkpoints stay.

    Raises:
        InputError: on attaching: `resume` without a checkpoint, or checkpoints in the folder without `resume`.
    """

    def __init__(self, output_dir: str | Path, *, interval: int = 500, resume: bool = False, keep: int = 2) -> None:
        self.output_dir = Path(output_dir)
        self.folder = self.output_dir / "checkpoints"
        self.interval, self.resume, self.keep = interval, resume, keep
        self._signal: int | None = None
        self._old_handlers: dict[int, Any] = {}

    def attach(self, engine: Engine) -> None:
        """Resume now if asked to, and hang on the trainer's events."""
        if self.resume:
            self.restore(engine)
        elif self.found():
            raise InputError(
                f"the folder already holds a run ({self.found()[-1].name})",
                where=self.folder,
                fix="Add --resume true to go on with it, or choose another --output_dir",
                code="OUTPUT_EXISTS",
            )
        engine.add_event_handler(Events.STARTED, self._catch_signals)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._after_iteration)
        engine.add_event_handler(Events.COMPLETED, self._after_run)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._release_and_raise)

    def found(self) -> list[Path]:
        """Checkpoints of the folder, oldest first."""
        return sorted(self.folder.glob("iteration_*.pt"))

    def restore(self, engine: Any) -> None:
        """Load the newest checkpoint that is whole; says so when a damaged one was passed over."""
        for path in reversed(self.found()):
            try:
                state = self._read(path)
            except (ValueError, RuntimeError, OSError, EOFError, KeyError) as error:
                engine.logger.warning(f"{path.name} is damaged ({error}); the one before it is taken")
                continue
            engine.load_state_dict(state)
            engine.logger.info(f"Resumed from {path.name}: {state['iteration']} of {state['total_iterations']} iterations")
            return
        raise InputError(
            "there is no whole checkpoint to resume from",
            where=self.folder,
            fix="Start without --resume, or point --output_dir at the run's folder",
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
        """
        if engine.state.rank > 0:
            return
        state = engine.state_dict()
        if not (finite(state["networks"]) and finite(state["averages"])):
            raise TrainingError(
                f"weights are not finite at iteration {engine.state.iteration}; no checkpoint was written",
                where=self.folder,
                fix="Resume from the last checkpoint with a lower learning rate or gradient_clip",
                code="NOT_FINITE",
            )
        path = self.folder / f"iteration_{engine.state.iteration:08d}.pt"
        digest = save_atomically(state, path)
        write_atomically(path.with_suffix(".json"), json.dumps({"sha256": digest}).encode())
        save_atomically(engine.model_state(), self.output_dir / "models" / "model.pt")
        for old in self.found()[: -self.keep]:
            old.unlink()
            old.with_suffix(".json").unlink(missing_ok=True)

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
        self._release_signals()
        if self._signal is None:
            self.save(engine)

    def _catch_signals(self, engine: Any) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            self._old_handlers[number] = signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: Any) -> None:
        if self._signal is not None:
            self._release_signals()
            os.kill(os.getpid(), number)
        self._signal = number

    def _release_signals(self) -> None:
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        self._old_handlers = {}

    def _release_and_raise(self, engine: Any, error: BaseException) -> None:
        self._release_signals()
        raise error
