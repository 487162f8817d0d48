"""The errors a user meets. Each says what is wrong, where, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


class SemiMedError(Exception):
    """Base of every error that is the input's or the machine's fault, not a bug.

    Args:
        problem: what was wanted and what came, in one sentence without a final full stop.
        where: the file, folder, case or setting it is about.
        fix: the next step for the person who reads it.
        code: a short stable word for machines, for example `TRUNCATED`.
    """

    exit_code = 2

    def __init__(
        self, problem: str, *, where: str | Path | None = None, fix: str | None = None, code: str = "INPUT"
    ) -> None:
        self.problem, self.where, self.fix, self.code = problem, where, fix, code
        text = f"{where}: {problem}" if where is not None else problem
        super().__init__(f"{text}. {fix}" if fix else text)


class InputError(SemiMedError):
    """A file, a data list, a setting or an argument cannot be used as it is."""


class ResourceError(SemiMedError):
    """The machine lacks memory, disk space or a device."""

    exit_code = 3


class TrainingError(SemiMedError):
    """Training cannot go on, for example because a loss is not finite. Nothing good was overwritten."""

    exit_code = 3


class ProblemsError(InputError):
    """Many problems of one input at once, so that they can be mended in one go.

    Args:
        problems: one error for each problem found.
        title: what was looked at.
    """

    def __init__(self, problems: Sequence[SemiMedError], *, title: str) -> None:
        self.problems = list(problems)
        lines = "\n".join(f"  - {problem}" for problem in self.problems)
        count = f"{len(self.problems)} problem" + ("s" if len(self.problems) != 1 else "")
        super().__init__(f"{title}: {count} found\n{lines}", code="PROBLEMS")
        self.title = title

    def __reduce__(self) -> tuple[Any, ...]:
        """How a process hands this error to another one."""
        return _problems_error, (self.problems, self.title)


def _problems_error(problems: Sequence[SemiMedError], title: str) -> ProblemsError:
    return ProblemsError(problems, title=title)


def root_cause(error: BaseException) -> BaseException:
    """The project's own error inside a chain of exceptions; without one, the innermost exception."""
    chain = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None and inner not in chain:
        chain.append(inner)
    return next((link for link in chain if isinstance(link, SemiMedError)), chain[-1])
