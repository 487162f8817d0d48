"""Next Sample: which scan to label, by the disagreement of the two networks, at random, or the first one.

Scores are computed by a scoring task, mostly right after a training, and kept in a file of their own: a process that
writes MONAI Label's datastore beside the server could undo what the server has just written there.
"""

from __future__ import annotations

import json
import logging
import math
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy

from semi_med.errors import InputError, SemiMedError
from semi_med.files import write_atomically
from semi_med.label_app.models import Model
from semi_med.label_app.study import HeldOut, final_label, sections_of

logger = logging.getLogger("semi_med.label")

_AGAIN = 3600.0  # seconds
MOST_SCORED = 50  # scans after a round, drawn anew for each


class Scores:
    """What is known of the scans of a study by one model, in a file beside it.

    Args:
        model: that they are of.
    """

    def __init__(self, model: Model) -> None:
        self.model, self.file = model, model.folder / "scores.json"

    def read(self) -> dict[str, dict[str, Any]]:
        """Scan to its score and the round that gave it."""
        try:
            return dict(json.loads(self.file.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return {}

    def add(self, scan: str, **what: Any) -> None:
        """Keeps what a round says of a scan."""
        known = self.read()
        known[scan] = {**known.get(scan, {}), **what}
        write_atomically(self.file, json.dumps(known, indent=1, ensure_ascii=False))

    def left(self, scans: Sequence[str], *, most: int) -> list[str]:
        """Scans that the model that answers has not scored; a draw of them that makes `most` in all."""
        known, version = self.read(), self.model.version
        missing = [scan for scan in scans if known.get(scan, {}).get("round") != version]
        wanted = min(most, len(scans)) - (len(scans) - len(missing))
        drawn = random.Random(version).sample(sorted(missing), len(missing))
        return drawn[: max(0, wanted)]


class Disagree(ScoringMethod):
    """Scores scans without a label: 1 less the Dice that both networks' masks have with each other.

    0 where both say the same, 1 where they share nothing or find nothing. Of a method with one network the score is
    its entropy: the sum over the scan, divided by itself and the voxels that were found; 0 where it is sure.

    Args:
        model: whose networks are asked.
    """

    def __init__(self, model: Model) -> None:
        what = "disagreement of the two networks" if model.bundle.two_networks else "entropy of the network"
        super().__init__(f"Score scans without a label by the {what}")
        self.model, self.scores = model, Scores(model)

    def info(self) -> dict[str, Any]:
        """With what a client may change."""
        return {**super().info(), "config": {"max_samples": MOST_SCORED}}

    def left(self, request: Mapping[str, Any], datastore: Any) -> list[str]:
        """Scans that are still to be scored; none while there is no model."""
        if self.model.current is None:
            return []
        most = request.get("max_samples") or MOST_SCORED
        return self.scores.left(datastore.get_unlabeled_images(), most=int(most))

    def __call__(self, request: Mapping[str, Any], datastore: Any) -> dict[str, Any]:
        """Scores up to `max_samples` scans in all; a scan that cannot be read is passed over and named.

        With `max_seconds`, no scan is begun once these are over, and the others stay without a score.
        """
        scans, done, failed = self.left(request, datastore), 0, []
        over = time.monotonic() + float(request.get("max_seconds", math.inf))
        for number, scan in enumerate(scans, start=1):
            if number > 1 and time.monotonic() > over:
                break
            done, version = number, self.model.version
            try:
                score = self._score(Path(datastore.get_image_uri(scan)))
            except SemiMedError as error:
                logger.warning(f"{scan} cannot be scored: {error}")
                failed.append(scan)
                continue
            self.scores.add(scan, disagreement=round(score, 4), round=version)
            logger.info(f"scored {number} of {len(scans)}: {scan} {score:.3f}")
        return {"scored": done - len(failed), "failed": failed, "round": self.model.version}

    def _score(self, scan: Path) -> float:
        if self.model.bundle.two_networks:
            first, second = (self.model.predictor(network, quick=True)(scan).label for network in ("1", "2"))
            return 1 - agreement(first, second, self.model.bundle.values[1:])
        found = self.model.predictor(maps=("uncertainty",), quick=True)(scan)
        return entropy_share(found.maps["uncertainty"], found.label != self.model.bundle.values[0])


def agreement(first: np.ndarray, second: np.ndarray, values: Sequence[int]) -> float:
    """Mean Dice of two masks over the structures that either has; 0 if neither has any."""
    found = [_dice(first == value, second == value) for value in values]
    known = [dice for dice in found if not math.isnan(dice)]
    return float(np.mean(known)) if known else 0.0


def entropy_share(entropy: np.ndarray, found: np.ndarray) -> float:
    """Sum of an entropy map (0 to 1) divided by itself and the voxels found; 1 if nothing was found."""
    doubt, sure = float(entropy.sum(dtype=np.float64)), int(found.sum())
    return doubt / (doubt + sure) if sure else 1.0


def _dice(first: np.ndarray, second: np.ndarray) -> float:
    total = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / total if total else math.nan


class HeldOutDice(ScoringMethod):
    """Measures the model on labelled scans that were not trained with.

    Args:
        model: that is measured.
        held_out: says which these are.
    """

    def __init__(self, model: Model, held_out: HeldOut) -> None:
        super().__init__("Dice on the labelled scans that are held out")
        self.model, self.held_out, self.scores = model, held_out, Scores(model)

    def __call__(self, request: Mapping[str, Any], datastore: Any) -> dict[str, Any]:
        """Measures.

        Raises:
            InputError: there is no model yet; a scan or a label cannot be read.
        """
        self.model.require()
        result = {}
        for scan in sections_of(datastore, self.held_out).validation:
            label = final_label(scan, datastore, self.model.bundle).array
            found = self.model.predictor()(datastore.get_image_uri(scan)).label
            if found.shape != label.shape:
                raise InputError(
                    f"the label has {label.shape} voxels, the scan {found.shape}",
                    where=f"label of {scan}",
                    fix="Label it again.",
                    code="GEOMETRY",
                )
            dice = {name: _dice(found == value, label == value) for name, value in self.model.bundle.labels.items()}
            result[scan] = {name: round(value, 4) for name, value in dice.items() if not math.isnan(value)}
            self.scores.add(scan, dice=result[scan], dice_round=self.model.version)
        values = [value for one in result.values() for value in one.values()]
        return {"scans": result, "mean_dice": round(float(np.mean(values)), 4) if values else None}


class MostDisagreed(Strategy):
    """The scan without a label that the newest scores say most would be learned from; without scores one at random.

    A scan that somebody was given within the last hour is passed over, so that two people get two scans, and who asks
    again gets another one.

    Args:
        model: whose scores are used.
    """

    def __init__(self, model: Model) -> None:
        what = "two networks disagree most" if model.bundle.two_networks else "network is least sure"
        super().__init__(f"The scan on which the {what}")
        self.scores = Scores(model)

    def __call__(self, request: Mapping[str, Any], datastore: Any) -> dict[str, Any] | None:
        """Chooses."""
        scans = sorted(datastore.get_unlabeled_images())
        known = {scan: one for scan, one in self.scores.read().items() if scan in scans and "disagreement" in one}
        if not known:
            return AtRandom()(request, datastore)
        newest = max((one["round"] for one in known.values()), key=lambda name: (name != "bundle", name))
        ranked = {scan: one["disagreement"] for scan, one in known.items() if one["round"] == newest}
        given = {scan: _given(scan, datastore) for scan in ranked}
        free = [scan for scan in ranked if time.time() - given[scan] > _AGAIN]
        chosen = max(free, key=lambda scan: ranked[scan]) if free else min(ranked, key=lambda scan: given[scan])
        datastore.update_image_info(chosen, {"disagreement": ranked[chosen], "round": newest})
        return {"id": chosen, "disagreement": ranked[chosen], "round": newest}


def _given(scan: str, datastore: Any) -> float:
    """When a strategy last gave a scan to somebody, as MONAI Label notes it."""
    notes = datastore.get_image_info(scan).get("strategy") or {}
    return max((float(note.get("ts", 0)) for note in notes.values()), default=0.0)


class AtRandom(Strategy):
    """One of the scans without a label; with `seed` in the request the same one again."""

    def __init__(self) -> None:
        super().__init__("A scan at random")

    def info(self) -> dict[str, Any]:
        """With what a client may set; -1 draws anew at every call."""
        return {**super().info(), "config": {"seed": -1}}

    def __call__(self, request: Mapping[str, Any], datastore: Any) -> dict[str, Any] | None:
        """Chooses."""
        scans = sorted(datastore.get_unlabeled_images())
        seed = request.get("seed")
        chooser = random.Random(None if seed in (None, "", -1) else str(seed))
        return {"id": chooser.choice(scans)} if scans else None
