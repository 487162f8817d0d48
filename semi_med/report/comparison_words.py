"""A difference of two methods in words: what is shown, what is not, and what to be careful about."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from semi_med.metrics.comparison import FEW_SUBJECTS, GapShare, MethodDifference
from semi_med.report.verdict import ENOUGH_CASES

# Fewer runs cannot carry a claim about other runs: see the error rates in docs/statistics.md.
CLAIM_SEEDS = 3
FEW_SEEDS = 5
_SMALL = 0.01

Word = Literal["better", "worse", "better in these runs", "worse in these runs", "no clear difference"]


@dataclass(frozen=True)
class MethodVerdict:
    """One answer: `word` for machines and colours, `sentence` for people, `cautions` for those who quote it."""

    word: Word
    sentence: str
    cautions: tuple[str, ...] = ()
    holds: bool = True  # also when it is taken into account that the method was picked as the best


@dataclass(frozen=True)
class Choice:
    """The method is the best of several, and the difference with an interval that takes the choice into account."""

    best_of: int
    difference: MethodDifference


def judge_method(
    found: MethodDifference,
    *,
    name: str,
    baseline: str,
    labels: str,
    share: GapShare | None = None,
    choice: Choice | None = None,
) -> MethodVerdict:
    """Say what the paired difference of Dice shows.

    "better" and "worse" need an interval over seeds and subjects without zero, three seeds and six subjects. Where only
    the interval given these runs is without zero, and all seeds point one way, the word is "... in these runs".

    Args:
        found: method minus baseline.
        name: of the method.
        baseline: its name.
        labels: for example "8 labelled subjects".
        share: of the gap to all labels, said where the method is better.
        choice: set if the method was picked because it is the best.
    """
    word = _word(found)
    holds = choice is None or choice.best_of < 2 or choice.difference.low > 0 or choice.difference.high < 0
    sentence = _sentence(found, word, name, baseline, labels, share)
    return MethodVerdict(word, sentence, _cautions(found, word, choice), holds)


def points(value: float, *, sign: bool = False) -> str:
    """Dice in points of 100 with one digit and a true minus; a dash where it is undefined."""
    if math.isnan(value):
        return "–"
    text = f"{abs(value) * 100:.1f}"
    if float(text) == 0:
        return text
    return ("−" if value < 0 else "+" if sign else "") + text


def span(low: float, high: float, *, sign: bool = False) -> str:
    """Both ends in points as `low to high`, or words where there is no interval."""
    if math.isnan(low) or math.isnan(high):
        return "no interval"
    return f"{points(low, sign=sign)} to {points(high, sign=sign)}"


def percent(share: float, *, unit: str = "\u00a0%") -> str:
    """A share as a percentage with a true minus and a space that does not break; a dash where it is undefined."""
    return "–" if math.isnan(share) else f"{share * 100:.0f}{unit}".replace("-", "−")


def brief_names(names: Mapping[str, str]) -> dict[str, str]:
    """Names for figures and heads of tables: what stands before a bracket, where that still tells methods apart."""
    brief = {method: name.split(" (", 1)[0].strip() or name for method, name in names.items()}
    said = list(brief.values())
    return {method: name if said.count(name) == 1 else names[method] for method, name in brief.items()}


def label_words(labeled: int | None, unit: str) -> str:
    """Return "8 labelled subjects", "1 labelled scan" or "all labels"."""
    if labeled is None:
        return "all labels"
    return f"{labeled} labelled {unit}{'' if labeled == 1 else 's'}"


def seed_words(by_seed: Mapping[int, float]) -> str:
    """Differences by seed, as `seed 1: +2.3, seed 2: +8.2`."""
    return ", ".join(f"seed {seed}: {points(value, sign=True)}" for seed, value in by_seed.items())


def _word(found: MethodDifference) -> Word:
    if found.n_subjects < ENOUGH_CASES or found.mean == 0:
        return "no clear difference"
    if found.n_seeds >= CLAIM_SEEDS and (found.low > 0 or found.high < 0):
        return "better" if found.mean > 0 else "worse"
    one_way = found.seeds_better in (0, found.n_seeds)
    if one_way and (found.cases_low > 0 or found.cases_high < 0):
        return "better in these runs" if found.mean > 0 else "worse in these runs"
    return "no clear difference"


def _sentence(
    found: MethodDifference, word: Word, name: str, baseline: str, labels: str, share: GapShare | None
) -> str:
    size, sign = points(abs(found.mean)), 1 if found.mean >= 0 else -1
    ends = sorted((sign * found.low, sign * found.high)) if not math.isnan(found.low) else (math.nan, math.nan)
    level = f"{found.confidence * 100:g} % interval"
    if word in ("better", "worse"):
        text = f"{name} is {word} than {baseline} by {size} Dice, {level} {span(*ends)}, at {labels}"
        return text + (_share_words(share) if word == "better" else "")
    if word == "no clear difference":
        interval = span(found.low, found.high, sign=True)
        between = f"no clear difference between {name} and {baseline} at {labels}"
        said = interval if interval == "no interval" else f"{level} {interval}"
        return f"{between}: {points(found.mean, sign=True)} Dice, {said}"

    side, runs = word.split()[0], "this one run" if found.n_seeds == 1 else f"these {found.n_seeds} runs"
    text = f"{name} is {side} than {baseline} in {runs} by {size} Dice at {labels}"
    if found.n_seeds == 1:
        return f"{text}, {level} over test subjects {span(*ends)}; one run cannot speak for others"
    if ends[0] > 0:
        return f"{text}, {level} {span(*ends)}; {found.n_seeds} runs are too few to speak for others"
    return f"{text}, but {found.n_seeds} runs cannot show it for others: {level} {span(*ends)}"


def _share_words(share: GapShare | None) -> str:
    if share is None or math.isnan(share.share):
        return ""
    if share.share > 1:
        return f"; it goes beyond training on all labels ({percent(share.share, unit=' %')} of the gap)"
    return f"; it closes {percent(share.share, unit=' %')} of the gap to training on all labels"


def _cautions(found: MethodDifference, word: Word, choice: Choice | None) -> tuple[str, ...]:
    seeds, subjects = found.n_seeds, found.n_subjects
    said = []
    if seeds == 1:
        said.append("One seed: nothing is said about other labelled subjects or another start of the training.")
    elif seeds < CLAIM_SEEDS:
        said.append("Two seeds are too few for a claim about other runs; the interval can be too narrow.")
    elif seeds < FEW_SEEDS and (word.endswith("these runs") or word == "no clear difference"):
        said.append(f"{seeds} seeds are few: {FEW_SEEDS} or more would make the interval much narrower.")
    if 0 < found.seeds_better < seeds and word != "no clear difference":
        said.append(f"Not every seed agrees: better in {found.seeds_better} of {seeds}.")
    if subjects < FEW_SUBJECTS:
        said.append(f"Only {subjects} test subject{'' if subjects == 1 else 's'}: other subjects may say otherwise.")
    if 0 < abs(found.mean) < _SMALL and word != "no clear difference":
        said.append("Less than one Dice point: ask whether that matters for what the masks are used for.")
    if choice is not None and choice.best_of > 1 and word == "better":
        low, high = choice.difference.low, choice.difference.high
        holds = "it holds" if low > 0 or high < 0 else "it includes zero"
        said.append(
            f"Picked as the best of {choice.best_of} methods; an interval that takes the choice into account "
            f"(Bonferroni) is {span(low, high, sign=True)}: {holds}."
        )
    if found.n_undefined:
        said.append(f"{found.n_undefined} undefined Dice values were left out, never counted as 0.")
    return tuple(said)
