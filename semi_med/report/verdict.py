"""The answer to "did the unlabelled scans help?", in words that the numbers carry."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from semi_med.errors import InputError
from semi_med.metrics.table import PairedDifference, paired_difference
from semi_med.report.views import RunView

# With fewer cases even a win in every one of them is not rare by chance: the sign test needs 6 for p < 0.05.
ENOUGH_CASES = 6
_SMALL = 0.01


@dataclass(frozen=True)
class Verdict:
    """One answer: `word` for machines and colours, `headline` and `sentences` for people."""

    word: Literal["better", "worse", "no clear difference", "no comparison"]
    headline: str
    sentences: tuple[str, ...]
    difference: PairedDifference | None = None


def judge(run: RunView, baseline: RunView | None) -> Verdict:
    """Judge a run against a baseline by the paired difference of Dice over cases."""
    if baseline is None:
        return Verdict(
            "no comparison",
            "One run alone cannot say",
            ("Train a second run on the labelled scans only, evaluate both on the same cases and compare them.",),
        )
    try:
        difference = paired_difference(run.table, baseline.table)
    except InputError as error:
        return Verdict("no comparison", "These runs cannot be compared", (f"{error}.",))
    if not difference.n:
        reason = "no case has a Dice value in both runs"
        return Verdict("no comparison", "These runs cannot be compared", (f"{reason.capitalize()}.",), difference)

    word: Literal["better", "worse", "no clear difference"]
    if difference.n < ENOUGH_CASES or not (difference.low > 0 or difference.high < 0):
        word, headline = "no clear difference", f"No clear difference between “{run.name}” and “{baseline.name}”"
    elif difference.mean > 0:
        word, headline = "better", f"Yes: “{run.name}” is better than “{baseline.name}”"
    else:
        word, headline = "worse", f"No: “{run.name}” is worse than “{baseline.name}”"
    return Verdict(word, headline, _sentences(difference, word), difference)


def signed(value: float, digits: int = 3) -> str:
    """A number with its sign, a true minus, and a dash where it is undefined."""
    if math.isnan(value):
        return "–"
    text = f"{abs(value):.{digits}f}"
    return text if float(text) == 0 else ("+" if value > 0 else "−") + text


def number(value: float, digits: int = 3) -> str:
    """A number, a true minus, and a dash where it is undefined."""
    return "–" if math.isnan(value) else f"{value:.{digits}f}".replace("-", "−")


def interval(low: float, high: float, digits: int = 3, *, sign: bool = False) -> str:
    """Two numbers as `low to high`, or words where there is no interval."""
    if math.isnan(low) or math.isnan(high):
        return "no interval"
    write = signed if sign else number
    return f"{write(low, digits)} to {write(high, digits)}"


def _sentences(found: PairedDifference, word: str) -> tuple[str, ...]:
    cases = f"{found.n} case" + ("s" if found.n != 1 else "")
    sentences = [
        f"Mean Dice {number(found.mean_a)} against {number(found.mean_b)}: a difference of {signed(found.mean)} "
        f"(95 % interval over {cases}: {interval(found.low, found.high, sign=True)}).",
        f"Better in {found.wins}, equal in {found.ties} and worse in {found.losses} of {cases}.",
    ]
    if found.n < ENOUGH_CASES:
        sentences.append(f"Fewer than {ENOUGH_CASES} cases cannot tell a real difference from chance.")
    elif word == "no clear difference":
        sentences.append("The interval includes zero: with these cases, either run may be the better one.")
    elif abs(found.mean) < _SMALL:
        sentences.append("The difference is small; ask whether it matters for what the masks are used for.")
    if found.n_undefined:
        sentences.append(f"{found.n_undefined} undefined Dice values were left out: see the table of cases.")
    return tuple(sentences)
