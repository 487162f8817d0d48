"""From what the command line asks for to a plan on disk: made, found again, extended, or refused."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semi_med.compare.lists import Base, RunLists, find_base, load_base, make_lists
from semi_med.compare.locks import locked
from semi_med.compare.overrides import check_names, check_overrides, meaning, parse_overrides
from semi_med.compare.plan import (
    FLOOR,
    OWN_TASK,
    RECORD,
    Plan,
    about,
    make_jobs,
    read_plan,
    recipe_digest,
    task_of,
    with_earlier,
    write_plan,
)
from semi_med.compare.variants import Arms, check_variants, parse_arms
from semi_med.data.data_list import DataList, data_list_text, save_data_list
from semi_med.errors import InputError, ProblemsError, SemiMedError
from semi_med.recipes.compose import Task, compose, compose_config, find_task, tasks

PARTS = (
    *("lists", "bundles", "runs", "predictions", "tables", "logs", "locks"),
    *(RECORD, OWN_TASK, "jobs.txt", "comparison.html", "comparison.csv", "summary.csv"),
)


@dataclass(frozen=True)
class Request:
    """What is asked for; None and empty for what was not said.

    With a task it is a whole command: what it does not say is the default. Without, it goes on with the plan of the
    folder, and may add methods, variants (`NAME=METHOD`, or those of a file), numbers of labels and seeds.
    """

    folder: Path
    task: str | None = None
    methods: Sequence[str] = ()
    labeled: Sequence[int] = ()
    seeds: int | None = None
    dataset_dir: Path | None = None
    data_list: Path | None = None
    iterations: int | None = None
    settings: Sequence[str] = ()
    all_labels: bool | None = None
    variants: Path | None = None


def prepare_plan(request: Request) -> Plan:
    """Make or extend the plan of a folder, and write it with its lists and bundles.

    Raises:
        InputError: something that was asked for cannot be, or differs from the plan that is there.
        ProblemsError: naming all that differs, or every fault of the data lists.
    """
    folder = request.folder
    if folder.exists() and not folder.is_dir():
        raise InputError("a folder was wanted, this is a file", where=folder, fix="Choose another.", code="TARGET")
    old = read_plan(folder)
    if old is None:
        _check_free(folder)
        _check_complete(request)
    with locked(folder, "plan", wait=True):
        old = read_plan(folder)
        base = _base(request, old)
        plan, lists = _planned(request, old, base)
        _check_files(lists, Path(plan.dataset_dir))
        _write(plan, lists, base, folder, task=_task(request, old))
    return plan


def _check_free(folder: Path) -> None:
    foreign = sorted(path.name for path in folder.iterdir() if path.name not in PARTS) if folder.is_dir() else []
    if foreign:
        raise InputError(
            f"the folder holds something else ({', '.join(foreign[:3])})",
            where=folder,
            fix="Choose a missing or empty folder with -o.",
            code="OUTPUT_EXISTS",
        )


def _check_complete(request: Request) -> None:
    given = {
        "--task": request.task,
        "--methods": request.methods or request.variants,
        "--labeled": request.labeled,
        "--seeds": request.seeds,
    }
    if missing := [name for name, value in given.items() if not value]:
        raise InputError(
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} needed to plan a comparison",
            where=request.folder,
            fix="For example --task hippocampus --methods mean_teacher cotrain --labeled 4 8 --seeds 3.",
            code="SETTING",
        )


def _task(request: Request, old: Plan | None) -> Task:
    """The task that is asked for, or that of the plan.

    Raises:
        InputError: code SETTING, there is no such task; code DIFFERENT, the folder keeps another one of this name.
    """
    if request.task is None:
        return task_of(old.task if old else "", request.folder)
    if not Path(request.task).is_dir():
        check_names("task", [request.task], known=tasks())
    task = find_task(request.task)
    kept = request.folder / OWN_TASK
    if kept.is_dir() and (task.recipe or _texts(task.folder) != _texts(kept)):
        raise InputError(
            f"the comparison was planned for another task {task.name} than that of {request.task}",
            where=kept,
            fix="Choose another folder with -o, or go on without --task.",
            code="DIFFERENT",
        )
    return task


def _texts(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.json")}


def _dataset_dir(request: Request, old: Plan | None) -> Path:
    folder = Path(request.dataset_dir or _usual_dir(request, old)).absolute()
    if not folder.is_dir():
        raise InputError(
            "the data set's folder is missing", where=folder, fix="Name it with --dataset-dir.", code="MISSING"
        )
    return folder


def _usual_dir(request: Request, old: Plan | None) -> str:
    if old and not request.task:
        return old.dataset_dir
    task = _task(request, old)
    own = None if task.recipe else compose_config("train", method=FLOOR, task=task).get("dataset_dir")
    return str(own or f"data/{task.name}")


def _base(request: Request, old: Plan | None) -> Base:
    """The base that is asked for; an earlier plan keeps its own, so that the file itself need not stay."""
    task, folder = _task(request, old), _dataset_dir(request, old)
    if old is None:
        return find_base(task, dataset_dir=folder, data_list=request.data_list)
    kept = load_base(request.folder / "lists" / "base", published=old.base["published"], source=old.base["source"])
    if request.data_list is None and not request.task:
        return kept
    try:
        return find_base(task, dataset_dir=folder, data_list=request.data_list)
    except InputError as error:
        if request.data_list is None and error.code == "MISSING":
            return kept
        raise


def _planned(request: Request, old: Plan | None, base: Base) -> tuple[Plan, RunLists]:
    task = _task(request, old)
    arms = parse_arms(request.methods, file=request.variants, known=old.variants if old else {})
    chosen = _union((FLOOR,), old.methods if old else (), arms.names)
    recipes = {name: arms.variants.get(name, name) for name in chosen}
    labeled = tuple(sorted(_union(old.labeled if old else (), request.labeled)))
    count = max(request.seeds or 0, len(old.seeds) if old else 0)
    seeds = tuple(range(1, count + 1))
    fresh = old is None or request.task is not None
    default = bool(request.all_labels) if request.all_labels is not None else True
    all_labels = default if old is None else old.all_labels if request.all_labels is None else request.all_labels
    iterations = request.iterations or (_default_iterations(task) if fresh or old is None else old.iterations)
    settings = _settings(request, arms, old, fresh=fresh)
    involved = with_earlier(list(recipes.values()))
    check_overrides(settings, {**recipes, **{name: name for name in involved}}, task=task)
    check_variants(arms.variants, settings, compared=chosen)
    _check_classes(base, settings, task=task)
    lists = make_lists(base, labeled=labeled, seeds=seeds, all_labels=all_labels)
    _check_unlabeled(lists, recipes)
    plan = Plan(
        task=task.name,
        methods=chosen,
        labeled=labeled,
        seeds=seeds,
        all_labels=all_labels,
        iterations=iterations,
        settings=settings,
        dataset_dir=str(_dataset_dir(request, old)),
        base={"sha256": base.sha256, "source": base.source, "published": base.published},
        recipes=_recipes(involved, task, old),
        unit=lists.unit,
        pool=lists.pool,
        notes=lists.notes,
        jobs=make_jobs(
            chosen, lists.names, iterations=iterations, known=old.jobs if old else (), variants=arms.variants
        ),
        variants=dict(arms.variants),
        asked="" if task.recipe else request.task or (old.asked if old else ""),
    )
    plan = dataclasses.replace(plan, notes=(*lists.notes, *_notes_on(plan)))
    if old is not None:
        check_extends(plan, old, folder=request.folder)
    return plan, lists


def _settings(request: Request, arms: Arms, old: Plan | None, *, fresh: bool) -> dict[str, dict[str, str]]:
    """The settings that are asked for; those of the plan stay where a command only adds to it.

    A whole command says all of them, but for variants that it does not name.
    """
    asked = parse_overrides([*arms.settings, *request.settings], variants=arms.variants)
    kept = {name: dict(own) for name, own in old.settings.items()} if old else {}
    if fresh:
        named = {*arms.names, *asked}
        kept = {name: own for name, own in kept.items() if old and name in old.variants and name not in named}
    return {name: {**kept.get(name, {}), **asked.get(name, {})} for name in (*kept, *(asked.keys() - kept.keys()))}


def _union(*groups: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(value for group in groups for value in group))


def _default_iterations(task: Task) -> int:
    return int(compose_config("train", method=FLOOR, task=task)["max_iterations"])


def _check_classes(base: Base, settings: Mapping[str, Mapping[str, str]], *, task: Task) -> None:
    first = next(iter(base.lists.values()))
    wanted = meaning(settings.get("", {}).get("classes", compose_config("train", method=FLOOR, task=task)["classes"]))
    if len(first.labels) != wanted:
        raise InputError(
            f"the data list has {len(first.labels)} classes with the background, the task {task.name} has {wanted}",
            where=base.source,
            fix="Choose the task of these data with --task.",
            code="CLASSES",
        )


def _check_unlabeled(lists: RunLists, recipes: Mapping[str, str]) -> None:
    learners = [method for method, recipe in recipes.items() if about(recipe).get("unlabeled")]
    for (labeled, _), name in lists.names.items():
        if labeled is not None and learners and not lists.lists[name].unlabeled:
            raise InputError(
                f"with {labeled} labelled {lists.unit}s no unlabelled one is left for {', '.join(learners)}",
                where="--labeled",
                fix=f"Choose a number below {lists.pool}.",
                code="LABELED",
            )


def _notes_on(plan: Plan) -> list[str]:
    notes = []
    for method in plan.methods:
        title, recipe = plan.title_of(method), plan.recipe_of(method)
        own = {**(plan.settings.get(recipe, {}) if recipe != method else {}), **plan.settings.get(method, {})}
        if own:
            shown = ", ".join(f"{name}={value}" for name, value in own.items())
            notes.append(f"{title} ran with settings of its own: {shown}.")
        if before := about(recipe).get("before"):
            first = int(before["share"] * plan.iterations)
            notes.append(
                f"{title}: the first {first:,} of the {plan.iterations:,} iterations are its pre-training, so that all "
                "methods make the same number of updates."
            )
    return notes


def _recipes(involved: Sequence[str], task: Task, old: Plan | None) -> dict[str, str]:
    """Digests of the recipes: of methods that are planned already those of their bundles, which lie in the folder.

    Raises:
        InputError: code DIFFERENT, a method is added and the recipes have changed since, so that it would not be
            trained like the others.
    """
    known = dict(old.recipes) if old is not None else {}
    added = [method for method in involved if method not in known]
    changed = [method for method, digest in known.items() if digest != recipe_digest(method, task)]
    if known and added and changed:
        raise InputError(
            f"{', '.join(added)} cannot be added: the recipes of {', '.join(changed)} have changed since this "
            "comparison was planned, and new runs would differ from those there in more than the method",
            where="--methods",
            fix="Start a comparison of all of them in another folder with -o, or add it with the version that planned "
            "this one.",
            code="DIFFERENT",
        )
    return {method: known.get(method) or recipe_digest(method, task) for method in involved}


def check_extends(plan: Plan, old: Plan, *, folder: Path) -> None:
    """Refuse a plan that would change what runs of an earlier one meant.

    Raises:
        ProblemsError: code of each problem DIFFERENT, naming both values.
    """
    pairs = {
        "--task": (old.task, plan.task),
        "--iterations": (old.iterations, plan.iterations),
        "--dataset-dir": (old.dataset_dir, plan.dataset_dir),
        "--data-list": (_named(old.base), _named(plan.base)),
        "--all-labels": (True, plan.all_labels) if old.all_labels else (False, False),
    }
    pairs |= {f"--methods {name}": (method, plan.variants.get(name)) for name, method in old.variants.items()}
    there = {"", *old.methods, *old.recipes}  # others are added here, with what settings they like
    for method in sorted({*old.settings, *plan.settings} & there):
        before, after = old.settings.get(method, {}), plan.settings.get(method, {})
        for name in sorted({*before, *after}):
            pairs[f"--set {method + ':' if method else ''}{name}"] = (before.get(name), after.get(name))
    problems: list[SemiMedError] = [
        InputError(f"{_shown(before)} in the folder's plan, {_shown(after)} here", where=name, code="DIFFERENT")
        for name, (before, after) in pairs.items()
        if before != after
    ]
    if problems:
        title = f"{folder}: the folder holds a comparison with other settings; choose another with -o"
        raise ProblemsError(problems, title=title)


def _named(base: Mapping[str, Any]) -> str:
    return f"{base['source']} with SHA-256 {base['sha256'][:8]}"


def _shown(value: Any) -> str:
    return "not set" if value is None else str(value)


def _check_files(lists: RunLists, dataset_dir: Path) -> None:
    """Refuse to begin where a file is missing, the test's too, as that would show only after the trainings.

    Only names are looked for. Contents are checked by each training, those of the test when it is measured.
    """
    files = {
        file
        for one in lists.lists.values()
        for section in ("labeled", "unlabeled", "validation", "test")
        for case in getattr(one, section)
        for file in (*case.files, case.label, case.monitor_label)
        if file
    }
    missing = sorted(file for file in files if not (dataset_dir / file).exists())
    if missing:
        raise InputError(
            f"{len(missing)} of the {len(files)} files of the data list are missing: {', '.join(missing[:5])}",
            where=dataset_dir,
            fix="Name the folder that the list's paths are relative to with --dataset-dir.",
            code="NOT_FOUND",
        )


def _write(plan: Plan, lists: RunLists, base: Base, folder: Path, *, task: Task) -> None:
    for name, data_list in base.lists.items():
        _save_once(data_list, folder / "lists" / "base" / f"{name}.json")
    for name, data_list in lists.lists.items():
        _save_once(data_list, folder / "lists" / f"{name}.json")
    if not task.recipe and not (folder / OWN_TASK).exists():
        shutil.copytree(task.folder, folder / OWN_TASK)
    for method in plan.recipes:
        _write_bundle(method, task_of(plan.task, folder), folder / "bundles" / f"{method}_{plan.task}")
    write_plan(plan, folder)


def _save_once(data_list: DataList, path: Path) -> None:
    if not path.is_file():
        save_data_list(data_list, path)
    elif path.read_text(encoding="utf-8") != data_list_text(data_list):
        raise InputError(
            "this list differs from what would be written here, and runs may have used it",
            where=path,
            fix="Restore it, or choose another folder with -o.",
            code="DIFFERENT",
        )


def _write_bundle(method: str, task: Task, target: Path) -> None:
    """Compose a bundle that is not there, at once: a job that runs may read it."""
    if target.is_dir():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".new_") as temporary:
        compose(method, task, Path(temporary) / target.name).rename(target)
