"""A bundle inside the annotation loop: its classes, the rounds it was trained in, and the model that answers now."""

from __future__ import annotations

import difflib
import json
import os
import shutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semi_med.bundle_settings import merged
from semi_med.errors import InputError
from semi_med.label_app.guard.store import is_id

if TYPE_CHECKING:
    from semi_med.inference.predictor import Predictor

DEFAULT_BUNDLE = Path(__file__).parents[2] / "bundles" / "cotrain_la"
_KEPT = 3  # rounds whose models stay on the disk


@dataclass(frozen=True)
class Bundle:
    """What the loop must know of a bundle before anything is trained.

    Attributes:
        folder: of the bundle; nothing is written there.
        classes: name of every class index, background included.
        values: the number that label files have for each class index.
        channels: name of every image channel.
        dimensions: of the networks, 2 or 3.
        two_networks: whether it trains two that can disagree.
        needs_unlabeled: whether the method learns from unlabelled scans.
        description: of the method and the task.
        iterations: that the bundle trains for by itself.
        settings: names of what can be set for its training.
    """

    folder: Path
    classes: tuple[str, ...]
    values: tuple[int, ...]
    channels: tuple[str, ...]
    dimensions: int
    two_networks: bool
    needs_unlabeled: bool
    description: str
    iterations: int
    settings: frozenset[str]

    @classmethod
    def read(cls, folder: str | Path) -> Bundle:
        """Reads the configurations.

        Raises:
            InputError: code BUNDLE, it is no bundle of this project.
        """
        folder = Path(folder).absolute()
        train, inference, metadata = (_config(folder, name) for name in ("train", "inference", "metadata"))
        try:
            data = metadata["network_data_format"]
            classes = _names(data["outputs"]["pred"]["channel_def"])
            return cls(
                folder=folder,
                classes=classes,
                values=tuple(inference.get("label_values") or range(len(classes))),
                channels=_names(data["inputs"]["image"]["channel_def"]),
                dimensions=len(train["crop_size"]),
                two_networks="peer_def" in inference,
                needs_unlabeled=bool(train["needs_unlabeled"]),
                description=str(metadata["description"]),
                iterations=int(train["max_iterations"]),
                settings=frozenset(train),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"this is no bundle that semi-med wrote ({type(error).__name__}: {error})",
                where=folder,
                fix="Name one from bundles/, or write one with semi-med init or semi-med compose.",
                code="BUNDLE",
            ) from error

    @property
    def labels(self) -> dict[str, int]:
        """The number that label files have for each structure, by name; the background is none."""
        return dict(zip(self.classes[1:], self.values[1:], strict=True))


def check_settings(settings: Mapping[str, Any], bundles: Sequence[Bundle]) -> None:
    """Refuses settings that none of the bundles has; each bundle takes those that it has.

    Raises:
        InputError: code SETTING, with the nearest name that there is.
    """
    known = sorted(frozenset().union(*(bundle.settings for bundle in bundles)))
    for name in settings:
        if top_of(name) not in known:
            near = difflib.get_close_matches(top_of(name), known, n=1)
            fix = f"Did you mean --set {near[0]}?" if near else "See docs/README.md of the bundle."
            raise InputError(f"there is no setting {name}", where="--set", fix=fix, code="SETTING")


def top_of(name: str) -> str:
    """`network_def` of `network_def#base_filters`."""
    return name.replace("::", "#").partition("#")[0]


def _config(folder: Path, name: str) -> dict[str, Any]:
    path = folder / "configs" / f"{name}.json"
    if not path.is_file():
        raise InputError(
            "this file of the bundle is missing",
            where=path,
            fix="Name the folder of a bundle; semi-med init or semi-med compose writes one.",
            code="BUNDLE",
        )
    try:
        return merged(folder, name) if name != "metadata" else json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"this is no JSON ({error})", where=path, code="BUNDLE") from error


def _names(channel_def: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(channel_def[key] for key in sorted(channel_def, key=int))


def is_remote(studies: str) -> bool:
    """Whether a study is on a DICOMweb server."""
    return studies.startswith(("http://", "https://"))


def work_folder(studies: str, work: str | Path | None) -> Path:
    """Where the models of a study are: `semi_med` in its folder, unless another is named.

    Raises:
        InputError: code SETTING, none is named and the study has no folder.
    """
    if not work and is_remote(studies):
        raise InputError(
            "the study is on a server, and the models want a folder here",
            where="--work",
            fix="Name one with --work.",
            code="SETTING",
        )
    return Path(work or Path(studies).resolve() / "semi_med").absolute()


@dataclass
class Model:
    """A bundle and what became of it in a study.

    Every training is a round with a folder of its own, `rounds/0001` and so on, which is a bundle with its model.
    `current` is a link to the round that answers. It is changed at once, so that a prediction sees the old model or
    the new one. Before the first round the bundle itself answers, if it has a model.

    Attributes:
        name: as clients see it.
        bundle: that is trained.
        folder: of this model in the study.
        device: to predict and train on; None takes CUDA if there is one.
    """

    name: str
    bundle: Bundle
    folder: Path
    device: str | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _of: Path | None = field(default=None, repr=False)
    _loaded: dict[tuple[str, tuple[str, ...], bool], Predictor] = field(default_factory=dict, repr=False)

    @property
    def current(self) -> Path | None:
        """Folder of the model that answers; None if there is none yet."""
        published = self.folder / "current"
        if published.is_symlink():
            return published.resolve()
        return self.bundle.folder if (self.bundle.folder / "models" / "model.pt").is_file() else None

    @property
    def version(self) -> str:
        """Name of the round that answers, "bundle" before the first, nothing if there is no model."""
        current = self.current
        return "" if current is None else self._name(current)

    def name_of(self, predictor: Predictor) -> str:
        """Name of the round that a predictor is of."""
        return self._name(predictor.bundle.weights.parents[1])

    def _name(self, folder: Path) -> str:
        return "bundle" if folder == self.bundle.folder else folder.name

    def weights(self) -> Path | None:
        """File of the model that answers."""
        current = self.current
        return None if current is None else current / "models" / "model.pt"

    def require(self) -> Path:
        """Folder of the model that answers.

        Raises:
            InputError: code NO_MODEL.
        """
        current = self.current
        if current is None:
            raise InputError(
                "no model yet", where=self.name, fix="Label one scan, submit it and press Train.", code="NO_MODEL"
            )
        return current

    def predictor(self, network: str = "1", *, maps: Sequence[str] = (), quick: bool = False) -> Predictor:
        """The networks of the model that answers, loaded once a round.

        Args:
            network: "1", "2" or "mean".
            maps: what is wanted beside the label, see `Predictor.load`.
            quick: windows overlap by half of their size, whatever the bundle says.

        Raises:
            InputError: code NO_MODEL, or why the model cannot be loaded.
        """
        from semi_med.inference.predictor import Predictor

        wanted = (network, tuple(maps), quick)
        with self._lock:
            folder = self.require()
            if self._of != folder:
                self._of, self._loaded = folder, {}
            if wanted not in self._loaded:
                found = Predictor.load(folder, network=network, device=self.device, maps=maps)
                if quick:
                    window = found.bundle.inferer.window
                    found.bundle.inferer.stride = tuple(max(1, size // 2) for size in window)
                self._loaded[wanted] = found
            return self._loaded[wanted]

    def rounds(self) -> list[Path]:
        """Folders of all rounds, finished or not, oldest first."""
        return sorted(path for path in (self.folder / "rounds").glob("[0-9]*") if path.is_dir())

    def new_round(self) -> Path:
        """Makes the folder of the next round."""
        rounds = self.rounds()
        number = int(rounds[-1].name) + 1 if rounds else 1
        folder = self.folder / "rounds" / f"{number:04d}"
        folder.mkdir(parents=True)
        return folder

    def publish(self, finished: Path) -> None:
        """Lets a round answer from here on, and removes what older ones no longer need."""
        link = self.folder / f".current_{os.getpid()}"
        link.unlink(missing_ok=True)
        link.symlink_to(finished.relative_to(self.folder))
        link.replace(self.folder / "current")
        shutil.rmtree(finished / "checkpoints", ignore_errors=True)
        for old in self.rounds():
            if old < finished and not (old / "round.json").is_file():
                shutil.rmtree(old, ignore_errors=True)  # stopped, or failed
        for old in [one for one in self.rounds() if one < finished][: -_KEPT + 1]:
            shutil.rmtree(old / "models", ignore_errors=True)


def models_of(
    bundles: Sequence[Path], studies: str, *, work: str | Path | None = None, device: str | None = None
) -> dict[str, Model]:
    """A model for each bundle, by the name of its folder.

    Args:
        bundles: folders; none for `DEFAULT_BUNDLE`.
        studies: folder of the scans, or the address of a DICOMweb server.
        work: folder of the models, see `work_folder`.
        device: to predict and train on; None takes CUDA if there is one.

    Raises:
        InputError: one cannot be used or has a name that no request can have, or two have one name.
    """
    place, models = work_folder(studies, work), {}
    for folder in bundles or (DEFAULT_BUNDLE,):
        bundle = Bundle.read(folder)
        name = bundle.folder.name
        if not is_id(name) or name in models:
            problem = f"two bundles are called {name}" if name in models else f"no request can ask for {name!r}"
            fix = "Rename its folder: letters, digits and . _ - only, each name once."
            raise InputError(problem, where=folder, fix=fix, code="SETTING")
        models[name] = Model(name, bundle, place / name, device or None)
    return models
