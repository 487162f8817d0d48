"""How often do the intervals of a comparison hold the truth? Results are made up, so the truth is known.

    python benchmarks/coverage.py [--trials 1000] [--markdown tables.md]

The difference of two methods, in Dice points, for seed s and subject u is

    truth + (a chance of the seed) + (a chance of the subject) + (a chance of that run on that subject)

Coverage does not depend on the truth, so that one minus it is how often a difference is claimed where there is none.
Three intervals are compared: of the runs on a subject taken as separate cases (what is often done), of the plain
two-way bootstrap, and of `semi_med.metrics.crossed`. The last table does the same for a share of a gap.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np

from semi_med.metrics.crossed import crossed_intervals, ratio_interval

SEEDS, SUBJECTS = (1, 2, 3, 5, 10), (10, 25, 50)
POINTS = 3.0  # the difference whose power is asked for
_PLAIN_RESAMPLES = 1000


class Chance(NamedTuple):
    """Standard deviations in Dice points; `skewed`: subjects have a long tail."""

    name: str
    seed: float
    subject: float
    run: float
    skewed: bool = False


CHANCES = (
    Chance("none from seeds", 0.0, 2.0, 2.0),
    Chance("small from seeds", 0.5, 2.0, 2.0),
    Chance("seeds 1 point", 1.0, 2.0, 2.0),
    Chance("seeds 3 points", 3.0, 2.0, 2.0),
    Chance("seeds 1 point, subjects with a long tail", 1.0, 2.0, 1.0, True),
)


def draw(chance: Chance, seeds: int, subjects: int, generator: np.random.Generator) -> np.ndarray:
    """One made-up comparison without any true difference (seeds, subjects)."""
    by_subject = generator.exponential(chance.subject, subjects) - chance.subject
    if not chance.skewed:
        by_subject = generator.normal(0, chance.subject, subjects)
    by_run = generator.normal(0, chance.run, (seeds, subjects))
    return generator.normal(0, chance.seed, (seeds, 1)) + by_subject + by_run


def separate(values: np.ndarray, generator: np.random.Generator) -> tuple[float, float]:
    """Percentile interval that takes every (seed, subject) for a case of its own."""
    flat = values.ravel()
    means = flat[generator.integers(0, flat.size, (_PLAIN_RESAMPLES, flat.size))].mean(axis=1)
    return tuple(np.percentile(means, [2.5, 97.5]))


def plain(values: np.ndarray, generator: np.random.Generator) -> tuple[float, float]:
    """Percentile interval of resampled seeds and resampled subjects, uncorrected."""
    shape = [(_PLAIN_RESAMPLES, size) for size in values.shape]
    rows, columns = (generator.integers(0, size[1], size) for size in shape)
    means = values[rows[:, :, None], columns[:, None, :]].mean(axis=(1, 2))
    return tuple(np.percentile(means, [2.5, 97.5]))


def coverage(chance: Chance, seeds: int, subjects: int, *, trials: int) -> dict[str, float]:
    """Per cent of trials in which each interval holds zero, and the power of ours."""
    generator = np.random.default_rng([seeds, subjects, CHANCES.index(chance)])
    held = dict.fromkeys(("separate", "plain", "ours"), 0)
    found = width = 0.0
    for trial in range(trials):
        values = draw(chance, seeds, subjects, generator)
        spans = {
            "separate": separate(values, generator),
            "plain": plain(values, generator),
            "ours": crossed_intervals(values, seed=trial)[0],
        }
        for name, (low, high) in spans.items():
            held[name] += low <= 0 <= high
        found += spans["ours"][0] + POINTS > 0
        width += spans["ours"][1] - spans["ours"][0]
    return {name: 100 * count / trials for name, count in held.items()} | {
        "power": 100 * found / trials,
        "width": width / trials,
    }


def share_coverage(seeds: int, subjects: int, *, trials: int) -> float:
    """Per cent of trials in which the interval of a share holds the true 60 % of a gap of 6 points."""
    generator = np.random.default_rng([seeds, subjects, 99])
    held = tried = 0
    for trial in range(trials):
        # a poor draw of labelled subjects widens the gap and the gain alike
        shared = draw(Chance("", 1.5, 2.0, 1.5), seeds, subjects, generator)
        gap = 6 + shared
        gain = 3.6 + 0.6 * shared + draw(Chance("", 0.5, 1.0, 1.5), seeds, subjects, generator)
        low, high = ratio_interval(gain, gap, seed=trial)
        if np.isfinite(low):
            tried += 1
            held += low <= 0.6 <= high
    return 100 * held / max(tried, 1)


def main() -> None:
    """Simulate and print the tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()

    lines = [
        "| chance of the seed | seeds | subjects | runs as separate cases | plain two-way | ours | width, points "
        f"| finds {POINTS:g} points |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for chance, seeds, subjects in itertools.product(CHANCES, SEEDS, SUBJECTS):
        if seeds == 1 and chance.seed:
            continue  # nothing is claimed about seeds that were not run
        row = coverage(chance, seeds, subjects, trials=arguments.trials)
        lines.append(
            f"| {chance.name} | {seeds} | {subjects} | {row['separate']:.1f} | {row['plain']:.1f} | "
            f"**{row['ours']:.1f}** | {row['width']:.1f} | {row['power']:.0f} % |"
        )
        print(lines[-1], flush=True)
    lines += ["", "| share of a gap: seeds | subjects | ours |", "|---|---|---|"]
    for seeds, subjects in itertools.product(SEEDS[1:], SUBJECTS):
        lines.append(f"| {seeds} | {subjects} | {share_coverage(seeds, subjects, trials=arguments.trials):.1f} |")
        print(lines[-1], flush=True)
    if arguments.markdown:
        arguments.markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
