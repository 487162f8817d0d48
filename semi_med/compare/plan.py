"""The plan of a comparison: what decides its runs, frozen in `compare.json`, and one job for each of them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from semi_med.compare.overrides import check_names
from semi_med.errors import InputError
from semi_med.files import write_atomically
from semi_med.recipes.compose import Task, TaskLike, about_method, compose_config, find_task, to_json

RECORD = "compare.json"
OWN_TASK = "task"  # in a comparison's folder: the parts of a task that is no recipe
FLOOR = "supervised"
_SCHEMA = 1
_CONFIGS = ("train", "inference")


@dataclass(frozen=True)
class Job:
    """One run: a method with some labels and a seed.

    Attributes:
        name: for example "cotrain_4_seed1" or "supervised_all_seed1".
        method: name of the method or of the variant.
        labeled: labelled subjects; None for all of the training pool.
        seed: of the run.
        data_list: name of its list in lists/, without suffix.
        iterations: of the method's own training.
        before: method of an earlier run that it starts from, "" for none.
        before_iterations: of that run; both together are the same for all jobs.
        before_setting: the setting that takes the earlier run's model.
    """

    name: str
    method: str
    labeled: int | None
    seed: int
    data_list: str
    iterations: int
    before: str = ""
    before_iterations: int = 0
    before_setting: str = ""


@dataclass(frozen=True)
class Plan:
    """Everything that decides the runs.

    Attributes:
        task: its name; a task of the person's own has its parts in the comparison's folder, see `task_of`.
        methods: names of methods and variants, in order of display; the floor is always among them.
        labeled: numbers of labelled subjects.
        seeds: of the runs.
        all_labels: whether the ceiling was asked for.
        iterations: updates of the networks in every job.
        settings: overrides; "" for all methods, else by method or variant.
        dataset_dir: where the data lie, absolute.
        base: `sha256`, `source` and `published` of what the data lists were made from.
        recipes: digest of every bundle's configuration, by recipe.
        unit: what `labeled` counts, "subject", "scan" or "picture".
        pool: how many of them have known labels.
        notes: what a reader of the result should know.
        jobs: in the order of jobs.txt; job k is line k.
        variants: name of each variant to the method that it is of, whose bundle it is trained with.
        asked: how a task of the person's own was asked for, a path; nothing for a recipe.
    """

    task: str
    methods: tuple[str, ...]
    labeled: tuple[int, ...]
    seeds: tuple[int, ...]
    all_labels: bool
    iterations: int
    settings: Mapping[str, Mapping[str, str]]
    dataset_dir: str
    base: Mapping[str, Any]
    recipes: Mapping[str, str]
    unit: str
    pool: int
    notes: tuple[str, ...]
    jobs: tuple[Job, ...]
    variants: Mapping[str, str] = field(default_factory=dict)
    asked: str = ""

    def recipe_of(self, method: str) -> str:
        """The recipe of a method, which is its name, or of a variant."""
        return self.variants.get(method, method)

    def title_of(self, method: str) -> str:
        """The name for people, of a variant "nogate (FixMatchSeg)"."""
        title = str(about(self.recipe_of(method))["name"])
        return f"{method} ({title})" if method in self.variants else title

    def job(self, wanted: str) -> Job:
        """A job by its name, or by its number from 1.

        Raises:
            InputError: code SETTING.
        """
        if wanted.isdigit():
            if not 1 <= int(wanted) <= len(self.jobs):
                raise InputError(f"there is no job {wanted}, there are 1 to {len(self.jobs)}", code="SETTING")
            return self.jobs[int(wanted) - 1]
        check_names("job", [wanted], known=[job.name for job in self.jobs])
        return next(job for job in self.jobs if job.name == wanted)


def read_plan(folder: Path) -> Plan | None:
    """The plan of a folder; None if it has none.

    Raises:
        InputError: the file is damaged or of another version.
    """
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("schema") != _SCHEMA:
            raise ValueError("it was written by another version of semi_med")
        jobs = tuple(Job(**job) for job in content.pop("jobs"))
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in content.items()
        }
        return Plan(**plain, jobs=jobs)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"this is no plan of a comparison ({error})",
            where=path,
            fix="Restore the file, or choose another folder with -o.",
            code="PLAN",
        ) from error


def write_plan(plan: Plan, folder: Path) -> None:
    """Write `compare.json` and `jobs.txt`."""
    write_atomically(folder / RECORD, to_json({"schema": _SCHEMA, **dataclasses.asdict(plan)}))
    write_atomically(folder / "jobs.txt", "".join(f"{job_line(job, folder)}\n" for job in plan.jobs))


def job_command(job: Job, folder: Path) -> list[str]:
    """The command that runs one job, wherever it is started."""
    return [*program(), "compare", "--job", job.name, "-o", str(folder.absolute())]


def job_line(job: Job, folder: Path) -> str:
    """The same as one line for a shell."""
    return shlex.join(job_command(job, folder))


def program() -> list[str]:
    """How to start semi-med from anywhere, with this environment's Python."""
    script = Path(sys.executable).parent / "semi-med"
    return [str(script)] if script.is_file() else [sys.executable, "-m", "semi_med.cli"]


def about(method: str) -> dict[str, Any]:
    """What a method's recipe says: `name`, `networks`, `unlabeled`, and `before` if it starts from an earlier run."""
    return about_method(method)


def task_of(name: str, folder: Path) -> Task:
    """The task of a comparison: the parts that its folder keeps of a task of the person's own, else the recipe."""
    kept = folder / OWN_TASK
    return Task(name, kept.absolute(), recipe=False) if (kept / "about.json").is_file() else find_task(name)


def with_earlier(methods: Sequence[str]) -> list[str]:
    """The methods and those of the runs that they start from."""
    earlier = [about(method)["before"]["method"] for method in methods if about(method).get("before")]
    return list(dict.fromkeys([*methods, *earlier]))


def recipe_digest(method: str, task: TaskLike) -> str:
    """Of the configurations that a bundle is trained and predicts with, as they are composed."""
    task = find_task(task)
    parts = [to_json(compose_config(name, method=method, task=task)) for name in _CONFIGS]
    text = "".join(parts).replace("{bundle}", f"{method}_{task.name}").replace("{task}", task.name)
    return hashlib.sha256(text.encode()).hexdigest()


def bundle_digest(bundle: Path) -> str:
    """The same of a bundle on disk."""
    parts = [(bundle / "configs" / f"{name}.json").read_bytes() for name in _CONFIGS]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def make_jobs(
    methods: Sequence[str],
    names: Mapping[tuple[int | None, int], str],
    *,
    iterations: int,
    known: Sequence[Job] = (),
    variants: Mapping[str, str] | None = None,
) -> tuple[Job, ...]:
    """One job for each method, number of labels and seed; with all labels for the floor only.

    Args:
        methods: names of methods and variants.
        names: name of the list by number of labels (None for all) and seed.
        iterations: of every job in all.
        known: jobs that keep their places; others follow them in the order of `_in_order`.
        variants: name of each variant to its method.

    Raises:
        InputError: too few iterations for a method that needs an earlier run.
    """
    recipes = {method: (variants or {}).get(method, method) for method in methods}
    wanted = [
        _job(method, labeled, seed, name=name, iterations=iterations, recipe=recipes[method])
        for (labeled, seed), name in names.items()
        for method in methods
        if labeled is not None or method == FLOOR
    ]
    places = {job.name for job in known}
    return (*known, *_in_order([job for job in wanted if job.name not in places], recipes))


def _in_order(jobs: Sequence[Job], recipes: Mapping[str, str]) -> list[Job]:
    """So that it can be stopped at any time with something to report, and does not end with one long job.

    Seed by seed; of a seed the floor and the ceiling first, without which a method says nothing, then the methods that
    take longest. Of the last seed those that take longest come first and the short floor last: it fills the gaps.
    """
    seeds = {job.seed for job in jobs}
    last = max(seeds) if len(seeds) > 1 else None

    def rank(job: Job) -> tuple[int, bool, int, bool]:
        said = about(recipes[job.method])
        floor_first = job.method != FLOOR and job.seed != last
        return job.seed, floor_first, -int(said["networks"]), not said.get("unlabeled")

    return sorted(jobs, key=rank)


def _job(method: str, labeled: int | None, seed: int, *, name: str, iterations: int, recipe: str) -> Job:
    job = Job(f"{method}_{'all' if labeled is None else labeled}_seed{seed}", method, labeled, seed, name, iterations)
    before = about(recipe).get("before")
    if not before:
        return job
    first = int(before["share"] * iterations)
    if not 1 <= first < iterations:
        raise InputError(
            f"{method} spends {before['share']:.0%} of its iterations on an earlier run; {iterations} are too few",
            where="--iterations",
            fix="Give more.",
            code="SETTING",
        )
    return dataclasses.replace(
        job,
        iterations=iterations - first,
        before=before["method"],
        before_iterations=first,
        before_setting=before["setting"],
    )
