"""What a run says while it goes: a CSV, TensorBoard, and one line at a time or a bar."""

from __future__ import annotations

import csv
import io
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from semi_med.errors import InputError, ResourceError
from semi_med.files import write_atomically


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, out.getvalue())


def check_interval(interval: int, what: str) -> int:
    """The interval, if it is a number of iterations.

    Raises:
        InputError: code SETTING.
    """
    if interval < 1:
        raise InputError(f"{what} every {interval} iterations are impossible", fix="Give at least 1", code="SETTING")
    return interval


def forget_after(path: Path, iteration: int) -> None:
    """Drop the rows of a curve that lie after an iteration, as a resumed run writes them again, and torn ones."""
    rows = _rows(path)
    kept, last = [], 0
    for row in rows:
        whole = row["iteration"].isdigit() and None not in row.values()
        if whole and last < int(row["iteration"]) <= iteration:
            kept.append(row)
            last = int(row["iteration"])
    if len(kept) < len(rows):
        _write_rows(path, kept, list(rows[0]))


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Add a row to a CSV file, with a header if it is the first; a column that is new widens the file.

    Raises:
        InputError: code NOT_WRITABLE, the folder.
        ResourceError: code DISK_FULL.
    """
    header: list[str] = []
    if path.is_file():
        with path.open(newline="") as file:
            header = next(csv.reader(file), [])
    columns = list(dict.fromkeys([*header, *row]))
    if columns != header:
        _write_rows(path, [*_rows(path), row], columns)
        return
    try:
        with path.open("a", newline="") as file:
            csv.DictWriter(file, columns, restval="").writerow(row)
    except OSError as error:
        raise ResourceError(
            f"a row of the curve could not be written ({error.strerror})",
            where=path,
            fix="Free some space, then resume",
            code="DISK_FULL",
        ) from error


class Curves:
    """Every loss term and the health of the pseudo-labels, to `logs/train.csv` and to TensorBoard.

    `seconds` counts the time spent in training, over all parts of a resumed run. Of several processes only the first
    writes.

    Args:
        output_dir: the run's folder.
        interval: iterations between rows.
        tensorboard: write event files to `logs/tensorboard` as well.
    """

    def __init__(self, output_dir: str | Path, *, interval: int = 10, tensorboard: bool = True) -> None:
        self.folder = Path(output_dir) / "logs"
        self.path = self.folder / "train.csv"
        self.interval, self.tensorboard = check_interval(interval, "rows"), tensorboard
        self._writer: Any = None
        self._start = 0.0

    def attach(self, engine: Engine) -> None:
        """Hang on the trainer's events."""
        if getattr(engine.state, "rank", 0) > 0:
            return
        engine.add_event_handler(Events.STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._row)
        engine.add_event_handler(Events.COMPLETED, self._end)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._end)

    def _begin(self, engine: Any) -> None:
        forget_after(self.path, engine.state.iteration)
        if engine.state.iteration == 0:
            self.path.unlink(missing_ok=True)
        rows = _rows(self.path)
        self._start = time.monotonic() - float(rows[-1]["seconds"] if rows else 0.0)
        if self.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.folder / "tensorboard"), purge_step=engine.state.iteration + 1)

    def _row(self, engine: Any) -> None:
        iteration = engine.state.iteration
        if iteration % self.interval and iteration not in (1, engine.total_iterations):
            return
        terms = {name: float(value) for name, value in engine.state.output.items()}
        rate = engine.learning_rate
        seconds = time.monotonic() - self._start
        row = {"iteration": iteration, "seconds": f"{seconds:.2f}", "learning_rate": f"{rate:.6g}"}
        append_row(self.path, row | {name: f"{value:.6g}" for name, value in terms.items()})
        if self._writer is not None:
            for name, value in {**terms, "learning_rate": rate}.items():
                self._writer.add_scalar(f"train/{name}", value, iteration)

    def _end(self, engine: Any, error: BaseException | None = None) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class Progress:
    """A bar with the time left on a terminal; a plain line every `seconds` in a log. Only the first process shows it.

    Args:
        seconds: between lines where there is no terminal.
    """

    def __init__(self, *, seconds: float = 30.0) -> None:
        self.seconds = seconds
        self._bar: Any = None
        self._task: Any = None
        self._first = 0
        self._start = self._last = 0.0

    def attach(self, engine: Engine) -> None:
        """Hang on the trainer's events."""
        if getattr(engine.state, "rank", 0) > 0:
            return
        engine.add_event_handler(Events.STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._tick)
        engine.add_event_handler(Events.COMPLETED, self._end)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._end)

    def _begin(self, engine: Any) -> None:
        self._first, self._start = engine.state.iteration, time.monotonic()
        self._last = self._start
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[state]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task("training", total=engine.total_iterations, completed=self._first, state="")
            self._bar.start()

    def _tick(self, engine: Any) -> None:
        last = engine.state.iteration == engine.total_iterations
        if self._bar is not None:
            if engine.state.iteration % 10 == 0 or last:
                state = f"loss {float(engine.state.output['loss']):.3f}"
                self._bar.update(self._task, completed=engine.state.iteration, state=state)
            return
        moment = time.monotonic()
        if moment - self._last < self.seconds and not last and engine.state.iteration > self._first + 1:
            return
        self._last = moment
        done = engine.state.iteration - self._first
        left = (moment - self._start) / done * (engine.total_iterations - engine.state.iteration)
        print(
            f"iteration {engine.state.iteration}/{engine.total_iterations}  "
            f"loss {float(engine.state.output['loss']):.4f}  {(moment - self._start) / done:.2f} s/iteration  "
            f"{_clock(left)} left",
            file=sys.stderr,
            flush=True,
        )

    def _end(self, engine: Any, error: BaseException | None = None) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
