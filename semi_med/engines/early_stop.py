"""Ending a run when the validation section has not gained for a while."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from semi_med.errors import InputError


class EarlyStop:
    """Ends the run once a curve of `logs/validation.csv` has not improved for `patience` validations in a row.

    The decision is read from the curve alone, so that a resumed run stops where the unbroken one would have. The
    network of that iteration is the headline model, the best one lies beside it.

    Must stand behind `Validate` and before `Checkpoints` among the handlers.

    Args:
        output_dir: the run's folder.
        patience: validations without a better value; None never stops.
        column: of the curve; undefined values count as not better.
        larger_is_better: which way the column points.

    Raises:
        InputError: patience is below 1; from the run, the curve has no such column.
    """

    def __init__(
        self,
        output_dir: str | Path,
        *,
        patience: int | None = 9,
        column: str = "loss",
        larger_is_better: bool = False,
    ) -> None:
        if patience is not None and patience < 1:
            raise InputError(f"patience must be at least 1, not {patience}", fix="Set it to null to never stop early")
        self.path = Path(output_dir) / "logs" / "validation.csv"
        self.patience, self.column, self.sign = patience, column, -1.0 if larger_is_better else 1.0
        self._seen = 0

    def attach(self, engine: Engine) -> None:
        """Hang on the trainer's events."""
        if self.patience is not None:
            engine.add_event_handler(Events.STARTED, self._maybe)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._maybe)

    def _maybe(self, engine: Any) -> None:
        values = self._values()
        if len(values) == self._seen:
            return
        self._seen = len(values)
        without = len(values) - 1 - min(range(len(values)), key=lambda i: (values[i], i))
        assert self.patience is not None
        if without >= self.patience and engine.state.iteration < engine.total_iterations:
            engine.logger.info(
                f"stopped early at iteration {engine.state.iteration} of {engine.total_iterations}: validation "
                f"{self.column} has not improved {without} times in a row"
            )
            engine.terminate()

    def _values(self) -> list[float]:
        """The curve so far, smaller is better, undefined values last."""
        if not self.path.is_file():
            return []
        with self.path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        if rows and self.column not in rows[0]:
            raise InputError(
                f"the validation curve has no column {self.column!r}, but {', '.join(rows[0])}",
                where=self.path,
                fix="Choose one of these, or let Validate compute a loss",
                code="SETTING",
            )
        values = [self.sign * float(row[self.column] or "nan") for row in rows]
        return [math.inf if math.isnan(value) else value for value in values]
