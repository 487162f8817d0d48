"""The app that MONAI Label loads: `monailabel start_server --app semi_med/label_app --studies DIR`.

`semi-med label` serves it too, and guards it.

`--conf` takes `bundles` (folders, separated by the system's path separator; by default cotrain_la), `work` (folder of
the models, by default `semi_med` in the study), `iterations` (of a round), `device`, `subject_pattern`, `held_out`
(share of the labelled subjects) and `settings` (JSON of a bundle's settings by name).
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import HTTPException
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.exception import MONAILabelException
from monailabel.tasks.activelearning.first import First
from monailabel.utils.async_tasks.utils import processes

from semi_med import __version__
from semi_med.errors import InputError, ResourceError, SemiMedError
from semi_med.inference.io import read_label
from semi_med.label_app.batch import BatchSegment
from semi_med.label_app.choose import AtRandom, Disagree, HeldOutDice, MostDisagreed
from semi_med.label_app.infer import Segment
from semi_med.label_app.models import check_settings, models_of
from semi_med.label_app.qupath import SUFFIX as ANNOTATIONS
from semi_med.label_app.qupath import annotations_xml, outlines
from semi_med.label_app.study import HELD_OUT, HeldOut
from semi_med.label_app.train import Train

logger = logging.getLogger("semi_med.label")

_MOST_ITERATIONS = 1000  # of a round, where nothing is said: an annotator waits for it
_SCORING_SECONDS = 60.0  # after a training, or as long as it took
_STATUS = {"NO_MODEL": 409, "NO_LABELS": 409, "NO_CASES": 409, "BUSY": 409, "NOT_FOUND": 404}


class SemiMedApp(MONAILabelApp):
    """Every bundle is a model that segments, trains, and chooses the next scan."""

    def __init__(self, app_dir: str, studies: str, conf: Mapping[str, str]) -> None:
        folders = [Path(one) for one in (conf.get("bundles") or "").split(os.pathsep) if one]
        self.models = models_of(folders, studies, work=conf.get("work"), device=conf.get("device"))
        work = next(iter(self.models.values())).folder.parent
        self.held_out = HeldOut(
            work / "held_out.json", conf.get("subject_pattern"), share=float(conf.get("held_out") or HELD_OUT)
        )
        self.settings = json.loads(conf.get("settings") or "{}")
        check_settings(self.settings, [model.bundle for model in self.models.values()])
        self.iterations = int(conf["iterations"]) if conf.get("iterations") else None
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=dict(conf),
            name="semi_med",
            description="Learns from the labelled scans and from all others of the study. Research only.",
            version=__version__,
        )

    def init_infers(self) -> dict[str, Any]:
        """One for each bundle."""
        return {name: Segment(model) for name, model in self.models.items()}

    def init_trainers(self) -> dict[str, Any]:
        """One for each bundle."""
        return {
            name: Train(
                model,
                self.held_out,
                settings=self.settings,
                iterations=self.iterations or min(model.bundle.iterations, _MOST_ITERATIONS),
            )
            for name, model in self.models.items()
        }

    def init_strategies(self) -> dict[str, Any]:
        """By disagreement, at random, the first."""
        return {**self._of_models("disagreement", MostDisagreed), "random": AtRandom(), "first": First()}

    def init_scoring_methods(self) -> dict[str, Any]:
        """What the strategy goes by, and Dice on what is held out."""
        return {
            **self._of_models("disagreement", Disagree),
            **self._of_models("dice", lambda model: HeldOutDice(model, self.held_out)),
        }

    def init_batch_infer(self) -> Any:
        """Scan after scan."""
        return BatchSegment()

    def _of_models(self, what: str, make: Any) -> dict[str, Any]:
        """The plain name for the first model, `<what>-<model>` for the others."""
        first, *others = self.models.values()
        return {what: make(first), **{f"{what}-{model.name}": make(model) for model in others}}

    def infer(self, request: dict[str, Any], datastore: Any = None) -> Any:
        """As MONAI Label's; errors are answers with a status and a sentence."""
        with answered():
            image = request.get("image")
            if isinstance(image, str) and not Path(image).exists() and image not in self.datastore().list_images():
                raise InputError("there is no such scan in the study", where=image[:100], code="NOT_FOUND")
            return super().infer(request, datastore)

    def infer_wsi(self, request: dict[str, Any], datastore: Any = None) -> Any:
        """As QuPath's Run asks for it: polygons over a picture, in the region that is marked, if one is."""
        with answered():
            model = self.models.get(str(request.get("model")))
            if model is None or model.bundle.dimensions != 2 or request.get("output") != "asap":
                raise InputError(
                    "annotations are given of pictures, as QuPath reads them",
                    where=str(request.get("model"))[:100],
                    fix="Ask a model of pictures for output=asap, or for a mask under /infer/.",
                    code="FORMAT",
                )
            found = self.infer({**request, "save_label": False}, datastore)
            mask = Path(found["file"])
            try:
                label = read_label(mask, flat=True).array
            finally:
                mask.unlink()
            if label.shape[2] > 1:
                raise InputError("annotations lie on a picture, this scan has slices", code="FORMAT")
            shapes = outlines(within(label, request), model.bundle.labels)
            return {"file": as_file(annotations_xml(shapes, model.bundle.labels)), "params": found["params"]}

    def check_training(self, name: str | None) -> None:
        """Answers with an error if a model, or any of them, has nothing to be trained on."""
        with answered():
            for trainer in self._trainers.values() if name is None else [self._trainer(name)]:
                trainer.check({}, self.datastore())

    def _trainer(self, name: Any) -> Train:
        if name not in self._trainers:
            raise InputError(f"there is no model {str(name)[:100]!r}", code="NOT_FOUND")
        return self._trainers[name]

    def train(self, request: dict[str, Any]) -> Any:
        """One round, then the scores that the next scan is chosen by.

        In a process of its own, as the server starts it, an error ends it with a sentence as its last line.
        """
        name = request.get("model")
        with answered() if self._server_mode else ended():
            trainer = self._trainer(name)
            trainer.ends_with_parent = not self._server_mode
            result = trainer(dict(request), self.datastore())
            # on a processor many large scans would take far longer than the training that somebody waits for
            limit = {"max_seconds": max(_SCORING_SECONDS, result["seconds"])}
            result["scoring"] = Disagree(trainer.model)(limit, self.datastore())
        return result

    def scoring(self, request: dict[str, Any], datastore: Any = None) -> Any:
        """As MONAI Label's; errors are answers with a status and a sentence."""
        with answered() if self._server_mode else ended():
            return super().scoring(request, datastore)

    def next_sample(self, request: dict[str, Any]) -> Any:
        """As MONAI Label's; an unknown strategy is the client's fault."""
        with answered():
            if request.get("strategy") not in self._strategies:
                raise InputError(
                    f"the strategies are {', '.join(self._strategies)}", where="strategy", code="NOT_FOUND"
                )
            return super().next_sample(request)

    def async_scoring(self, method: str | None, params: Any = None) -> Any:
        """Unasked only where scans are unscored: at the start, or after scans were added."""
        if method:
            return super().async_scoring(method, params)
        if not self._server_mode or processes("scoring") or processes("train"):
            return {}
        waiting = [
            name
            for name, one in self._scoring_methods.items()
            if isinstance(one, Disagree) and one.left({}, self.datastore())
        ]
        return {name: super(SemiMedApp, self).async_scoring(name) for name in waiting}

    def _download_dcmqi_tools(self) -> None:
        """Nothing is downloaded."""


def within(label: np.ndarray, request: Mapping[str, Any]) -> np.ndarray:
    """A label (columns, rows, 1) with nothing outside of the region that `location` and `size` mark, if they do."""
    location, size = request.get("location") or (0, 0), request.get("size") or (0, 0)
    if not any(size):
        return label
    place = tuple(slice(max(0, first), max(0, first + length)) for first, length in zip(location, size, strict=True))
    marked = np.zeros_like(label)
    marked[place] = label[place]
    return marked


def as_file(xml: str) -> str:
    """A temporary file, which the server removes when it is sent."""
    descriptor, file = tempfile.mkstemp(prefix="semi_med_", suffix=ANNOTATIONS)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(xml)
    return file


@contextmanager
def answered() -> Iterator[None]:
    """Lets a client get the sentence of an error, with a status that fits."""
    try:
        yield
    except SemiMedError as error:
        status = _STATUS.get(error.code, 503 if isinstance(error, ResourceError) else 422)
        raise HTTPException(status_code=status, detail=str(error)) from error
    except MONAILabelException as error:
        raise HTTPException(status_code=404, detail=str(error.msg)) from error


@contextmanager
def ended() -> Iterator[None]:
    """Lets a process of its own end with the sentence of an error, which the server shows as the task's last line."""
    try:
        yield
    except SemiMedError as error:
        raise SystemExit(f"error: {error}") from error
