"""What a job trains, step by step, and whether what lies in its folder is that."""

from __future__ import annotations

import csv
import functools
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semi_med.bundle_settings import merged
from semi_med.compare.overrides import meaning, settings_for
from semi_med.compare.plan import Job, Plan, about, bundle_digest, task_of
from semi_med.data.data_list import DataList, load_data_list
from semi_med.data.identity import cases_digest, files_digest
from semi_med.errors import InputError, ProblemsError, SemiMedError
from semi_med.files import write_atomically

# Where things are and what they run on; they do not decide what comes out.
_PLACES = ("bundle_root", "dataset_dir", "output_dir", "data_list_file", "pretrained", "resume", "device", "cache_dir")


GOES_ON = "first_iteration"  # setting of methods with an earlier run: where in the streams of batches they begin
ORIGIN = "compare.json"  # in a run's folder: what it was trained with, where `compare` started it


@dataclass(frozen=True)
class Stage:
    """One training.

    Attributes:
        method: recipe name.
        bundle: its folder.
        folder: of the run.
        data_list: file of the list.
        iterations: after which the run is done.
        seed: of the run.
        settings: for the command line, with all of the above.
        recipe: digest that the bundle's configuration has.
    """

    method: str
    bundle: Path
    folder: Path
    data_list: Path
    iterations: int
    seed: int
    settings: Mapping[str, Any]
    recipe: str

    @property
    def model(self) -> Path:
        """The networks of the last iteration."""
        return self.folder / "models" / "model.pt"


def stages_of(plan: Plan, job: Job, folder: Path, *, dataset_dir: Path | None = None) -> list[Stage]:
    """The trainings of a job, the earlier run first.

    Args:
        plan: that the job is of.
        job: one of its jobs.
        folder: of the comparison.
        dataset_dir: where the data lie on this machine; None for where the plan says.
    """
    run, data_list = folder / "runs" / job.name, folder / "lists" / f"{job.data_list}.json"
    recipe = plan.recipe_of(job.method)

    def stage(method: str, target: Path, iterations: int, more: Mapping[str, Any]) -> Stage:
        fixed = {
            "dataset_dir": dataset_dir or Path(plan.dataset_dir),
            "data_list_file": data_list,
            "output_dir": target,
            "max_iterations": iterations,
            "seed": job.seed,
        }
        if about(method).get("unlabeled") and _watchable(data_list):
            fixed["monitor_pseudo_labels"] = True
        bundle = folder / "bundles" / f"{method}_{plan.task}"
        if _settings_of(bundle).get("early_stop_patience") is not None:
            fixed["early_stop_patience"] = None  # all methods are trained for the same number of iterations
        task = task_of(plan.task, folder)
        own = settings_for(plan.settings, job.method, stage=method, task=task, recipe=recipe)
        settings = {**fixed, **own, **more}
        return Stage(method, bundle, target, data_list, iterations, job.seed, settings, plan.recipes[method])

    if not job.before:
        return [stage(recipe, run, job.iterations, {})]
    first = stage(job.before, run / "before", job.before_iterations, {})
    more: dict[str, Any] = {job.before_setting: first.model}
    # Bundles of plans made by earlier versions cannot go on in the streams of batches; their runs stay what they are.
    if GOES_ON in _settings_of(folder / "bundles" / f"{recipe}_{plan.task}"):
        more[GOES_ON] = job.before_iterations
    return [first, stage(recipe, run, job.iterations, more)]


def _settings_of(bundle: Path) -> dict[str, Any]:
    """The bundle's training configuration; empty before it is there."""
    config = bundle / "configs" / "train.json"
    return json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}


def _watchable(data_list: Path) -> bool:
    listed = _loaded(data_list)
    return bool(listed.unlabeled) and all(case.monitor_label is not None for case in listed.unlabeled)


def _loaded(data_list: Path) -> DataList:
    """The list as it is now; progress asks for it again and again."""
    try:
        state = data_list.stat()
    except OSError:
        return load_data_list(data_list)  # which says what is wrong
    return _load(data_list, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=256)
def _load(data_list: Path, changed: int, size: int) -> DataList:
    return load_data_list(data_list)


def course_of(stages: Sequence[Stage]) -> list[dict[str, Any]]:
    """All that decides what comes out of a job's trainings, without places on a machine, to be compared and kept."""
    return [
        {
            "method": stage.method,
            "recipe": stage.recipe,
            "cases": cases_digest(_loaded(stage.data_list)),
            "iterations": stage.iterations,
            "seed": stage.seed,
            "settings": {
                name: json.loads(json.dumps(meaning(value), default=str))
                for name, value in sorted(stage.settings.items())
                if name not in (*_PLACES, "max_iterations", "seed")
            },
        }
        for stage in stages
    ]


def is_trained(stage: Stage) -> bool:
    """Whether the last iteration's checkpoint and model are there."""
    return _checkpoint(stage.folder, stage.iterations).is_file() and stage.model.is_file()


def is_started(stage: Stage) -> bool:
    """Whether there is a checkpoint to go on from."""
    return any((stage.folder / "checkpoints").glob("iteration_*.pt"))


def _checkpoint(folder: Path, iteration: int) -> Path:
    return folder / "checkpoints" / f"iteration_{iteration:08d}.pt"


def progress_of(stage: Stage) -> tuple[int, float]:
    """Iterations done and seconds spent on them, as the run's curve has them."""
    iterations, seconds = 0, 0.0
    try:
        with (stage.folder / "logs" / "train.csv").open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                iterations, seconds = int(row["iteration"]), float(row["seconds"])
    except (OSError, KeyError, TypeError, ValueError):  # not there yet, or half a line
        pass
    return iterations, seconds


def minutes_of(stages: list[Stage]) -> float:
    """Training time of a job; NaN if a curve is missing."""
    found = [progress_of(stage) for stage in stages]
    return sum(seconds for _, seconds in found) / 60 if all(done for done, _ in found) else math.nan


def sha256_of(path: Path) -> str:
    """Of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_origin(stage: Stage) -> None:
    """Note in the run's folder, before it is trained, which list and which recipe it has."""
    listed, place = _loaded(stage.data_list), stage.settings["dataset_dir"]
    content = {"cases_sha256": cases_digest(listed), "files_sha256": files_digest(listed, place)}
    content["recipe"] = stage.recipe
    write_atomically(stage.folder / ORIGIN, json.dumps(content, indent=2) + "\n")


# ---- is it the same run? -------------------------------------------------------------------------------------------


def check_bundle(stage: Stage) -> None:
    """Refuse a bundle that was changed after the plan was made.

    Raises:
        InputError: code DIFFERENT or BUNDLE.
    """
    try:
        same = bundle_digest(stage.bundle) == stage.recipe
    except OSError as error:
        raise InputError(
            "this bundle of the comparison is missing",
            where=stage.bundle,
            fix="Start the comparison again, which writes it.",
            code="BUNDLE",
        ) from error
    if not same:
        raise InputError(
            "the bundle's configuration was changed after the comparison was planned",
            where=stage.bundle,
            fix="Remove this folder and start the comparison again; settings are changed with --set.",
            code="DIFFERENT",
        )


def check_same_run(stage: Stage) -> None:
    """Refuse a run folder that another command filled.

    Raises:
        ProblemsError: naming each setting that differs from the plan.
        InputError: there is no readable run.json.
    """
    path = stage.folder / "run.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        problems = list(_differences(stage, record))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"it cannot be told what was trained here ({error})",
            where=path,
            fix=f"Restore run.json, or remove {stage.folder} to train again.",
            code="RUN",
        ) from error
    if problems:
        raise ProblemsError(problems, title=f"{stage.folder} holds another run; move it away to train again")


def _differences(stage: Stage, record: Mapping[str, Any]) -> Iterator[SemiMedError]:
    listed, said = _loaded(stage.data_list), record["settings"]
    learns = bool(about(stage.method).get("unlabeled"))
    limit = meaning(stage.settings.get("unlabeled_limit", "null"))
    pairs = {
        "bundle": (stage.bundle.name, record["bundle"]),
        "max_iterations": (stage.iterations, said["max_iterations"]),
        "seed": (stage.seed, said["seed"]),
        "labeled": (len(listed.labeled), said["labeled"]),
        "unlabeled": (len(listed.unlabeled[:limit]) if learns else 0, said["unlabeled"]),
        "validation": (len(listed.validation), said["validation"]),
    }
    for name, (wanted, found) in [*pairs.items(), *_changed(stage, record["changed"]).items()]:
        if wanted != found:
            yield InputError(f"{wanted} in the plan, {found} in this run", where=name, code="DIFFERENT")
    yield from _other_data(stage, record, listed)


def _other_data(stage: Stage, record: Mapping[str, Any], listed: DataList) -> Iterator[SemiMedError]:
    """Whether the run saw the cases and files of the plan, from all that can be told about it; never by names alone."""
    origin, theirs = stage.folder / ORIGIN, Path(record["settings"]["data_list_file"])
    noted = dict(record.get("data") or {})
    if origin.is_file():
        noted |= json.loads(origin.read_text(encoding="utf-8"))
    if not {"cases_sha256", "data_list_sha256"} & noted.keys() and theirs.is_file():
        noted["cases_sha256"] = cases_digest(load_data_list(theirs))
    known = {
        "cases of data_list_file": ("cases_sha256", cases_digest(listed)),
        "content of data_list_file": ("data_list_sha256", sha256_of(stage.data_list)),  # of earlier versions
        "recipe": ("recipe", stage.recipe),
        "files of dataset_dir (names and sizes)": ("files_sha256", files_digest(listed, stage.settings["dataset_dir"])),
    }
    for name, (key, wanted) in known.items():
        found = noted.get(key)
        if found is not None and wanted is not None and found != wanted:
            yield InputError(f"{wanted[:12]} in the plan, {found[:12]} in this run", where=name, code="DIFFERENT")
    if not {"cases_sha256", "data_list_sha256"} & noted.keys():
        yield InputError(
            f"this run was made elsewhere by an earlier version, and its list {theirs} is not there to be compared",
            where="data_list_file",
            fix=f"Put that list where it says, or name the right one in data_list_file of {stage.folder / 'run.json'}.",
            code="UNKNOWN_LIST",
        )


def _changed(stage: Stage, changed: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Wanted and found value of every override of either."""
    defaults = merged(stage.bundle, "train")
    checked = (*_PLACES, "max_iterations", "seed")
    wanted = {name: meaning(value) for name, value in stage.settings.items() if name not in checked}
    found = {name: meaning(value) for name, value in changed.items() if name not in checked}
    pairs: dict[str, tuple[Any, Any]] = {}
    for name in wanted.keys() | found.keys():
        whole = any(name.startswith(f"{other}#") for other in wanted)  # inside what was replaced as a whole
        default = meaning(_default(defaults, name))
        mine, theirs = wanted.get(name, default), found.get(name, default)
        if not whole and not isinstance(mine, dict):
            pairs[name] = (mine, theirs)
    return pairs


def _default(config: Any, name: str) -> Any:
    for part in name.split("#"):
        if isinstance(config, list) and part.isdigit() and int(part) < len(config):
            config = config[int(part)]
        elif isinstance(config, Mapping):
            config = config.get(part)
        else:
            return None
    return config
