"""`semi-med init`: a person's folder becomes a bundle that can be trained, with the reasons of every choice."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from semi_med.data.data_list import DataList, save_data_list
from semi_med.data.members import subject_pattern
from semi_med.data.pairs import find_pairs
from semi_med.errors import InputError
from semi_med.files import write_atomically
from semi_med.launch import parse_setting
from semi_med.planning import rules, words
from semi_med.planning.fingerprint import Fingerprint, take_fingerprint
from semi_med.planning.machine import Machine, look_at_machine
from semi_med.planning.parts import Parts, task_parts
from semi_med.planning.plan import Plan, Wishes, make_plan
from semi_med.planning.rules import Choice
from semi_med.planning.sections import make_list
from semi_med.planning.settings import check_name, with_given, with_settings
from semi_med.planning.trial import Trial, run_trial, write_parts
from semi_med.recipes.compose import TASK_OF_A_BUNDLE, about_method, compose, methods, to_json

MODALITIES = ("CT", "MR", "other")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_MADE = ("configs", "docs", "data_lists", "LICENSE")
_TRAINED = ("models", "checkpoints", "logs", "cache", "run.json")

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Request:
    """What is asked for; see `semi-med init --help`."""

    name: str
    images: Path
    labels: Path | None = None
    output: Path | None = None
    method: str = "cotrain"
    subject_pattern: str | None = None
    class_names: Sequence[str] = ()
    modality: str | None = None
    ignored: int | None = None
    device: str | None = None
    memory_gb: float | None = None
    settings: Sequence[str] = ()
    overwrite: bool = False
    trial: bool = True
    wishes: Wishes = field(default_factory=Wishes)

    @property
    def target(self) -> Path:
        """The bundle's folder."""
        return self.output or Path(self.name)


@dataclass(frozen=True)
class Planned:
    """A plan, and all that is needed to write its bundle.

    Attributes:
        request: what was asked for.
        found: the fingerprint.
        machine: that it was made for.
        plan: the choices.
        data_list: the cases in their sections.
        parts: of the task.
        dataset_dir: what the list's paths are relative to.
    """

    request: Request
    found: Fingerprint
    machine: Machine
    plan: Plan
    data_list: DataList
    parts: Parts
    dataset_dir: Path

    def as_json(self) -> dict[str, Any]:
        """For `plan.json` and `--json`."""
        return {
            "name": self.request.name,
            "method": self.request.method,
            "dataset_dir": str(self.dataset_dir),
            "fingerprint": self.found.as_json(),
            "label_values": self.found.label_values,
            "machine": asdict(self.machine),
            "sections": self.data_list.counts(),
            "settings": list(self.request.settings),
            **self.plan.as_json(),
        }


def plan_folder(request: Request, *, progress: Progress | None = None) -> Planned:
    """Read the folder and decide; nothing is written.

    Raises:
        InputError: a folder, a file or a wish cannot be used.
        ProblemsError: every fault of the files.
        ResourceError: no training step fits the memory.
    """
    _check(request)
    about = about_method(request.method)
    machine = look_at_machine(request.device, request.memory_gb)
    pattern = None if request.subject_pattern is None else subject_pattern(request.subject_pattern)
    pairs = find_pairs(request.images, request.labels)
    found, subjects = take_fingerprint(
        pairs,
        subject_pattern=pattern,
        class_names=request.class_names,
        modality=request.modality,
        ignored=request.ignored,
        progress=progress,
    )
    validation, test, why = rules.held_out(found.labeled_subjects)
    wishes = request.wishes
    data_list, notes = make_list(
        request.name,
        pairs,
        found,
        subjects=subjects,
        validation=validation if wishes.validation is None else wishes.validation,
        test=test if wishes.test is None else wishes.test,
        labeled=wishes.labeled,
        seed=wishes.seed,
        allow_missing_class=_is_set(request, "allow_missing_class"),
    )
    learns = bool(about.get("unlabeled"))
    if learns and not data_list.unlabeled:
        raise _nothing_unlabeled(request.method, found)
    counts = data_list.counts()
    options = [f"--{name}" for name in ("validation", "test", "labeled") if getattr(wishes, name) is not None]
    ruled = None in (wishes.validation, wishes.test)
    why = "; ".join([*([why] if ruled else []), *([f"{', '.join(options)} as given"] if options else [])])
    given = bool(options or wishes.seed)
    held = Choice("sections", counts, why, "--validation, --test, --labeled, --seed", given)
    found = replace(found, notes=(*found.notes, *notes))

    def parts_of(choices: dict[str, Choice], page: str = "") -> Parts:
        said = {
            "preprocessing": words.preprocessing(choices),
            "split": f"{data_list.description} {why[:1].upper()}{why[1:]}.",
            "plan": page,
        }
        parts = task_parts(request.name, found, choices, dataset_dir=str(pairs.root), words=said)
        return with_settings(parts, request.settings, method=request.method)

    def try_it(choices: dict[str, Choice]) -> Trial:
        return run_trial(parts_of(choices), method=request.method, device=machine.device, memory_gb=machine.memory_gb)

    plan = make_plan(
        found.taught_by({case.name for case in data_list.labeled}),
        wishes,
        machine,
        cases=counts["labeled"] + (counts["unlabeled"] if learns else 0),
        networks=int(about["networks"]),
        try_it=try_it if request.trial else None,
    )
    shown = _as_given(plan.choices, request)
    if request.method != "fixmatchseg":
        del shown["small"]
    told = Plan({"sections": held, **shown}, plan.trial, plan.tried)
    parts = parts_of(plan.choices, words.plan_page(found, told, machine))
    return Planned(request, found, machine, told, data_list, parts, pairs.root)


def write_bundle(planned: Planned) -> Path:
    """Write the bundle of a plan at once, and name its folder.

    Raises:
        InputError: code OUTPUT_EXISTS, the folder holds something and is not to be replaced.
    """
    request, target = planned.request, planned.request.target
    check_target(request)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.absolute().parent, prefix=".semi_med_init_") as temporary:
        fresh = Path(temporary) / "bundle"
        write_parts(planned.parts, fresh / TASK_OF_A_BUNDLE)
        compose(request.method, fresh / TASK_OF_A_BUNDLE, fresh)
        save_data_list(planned.data_list, fresh / "data_lists" / "labeled.json")
        write_atomically(fresh / "configs" / "plan.json", to_json(planned.as_json()))
        for name in (*_MADE, *_TRAINED):
            old = target / name
            shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink(missing_ok=True)
        target.mkdir(exist_ok=True)
        for name in _MADE:
            (fresh / name).rename(target / name)
    return target


def check_target(request: Request) -> None:
    """Refuse to write over something.

    Raises:
        InputError: code OUTPUT_EXISTS.
    """
    target = request.target
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    ours = (target / "configs" / "plan.json").is_file()
    if ours and request.overwrite:
        return
    trained = " and its training" if (target / "models").exists() else ""
    raise InputError(
        f"a bundle of an earlier init{trained} lies here" if ours else "the folder holds something else",
        where=target,
        fix=f"Choose another with -o{', or replace it with --overwrite' if ours else ''}.",
        code="OUTPUT_EXISTS",
    )


def _check(request: Request) -> None:
    if not _NAME.fullmatch(request.name):
        raise InputError(
            f"a name of letters, digits, - and _ that begins with a letter was wanted, got {request.name!r}",
            where="NAME",
            fix="It names the bundle and its folder, for example left_atrium.",
            code="SETTING",
        )
    check_name("method", request.method, known=methods())
    if request.modality is not None:
        check_name("modality", request.modality, known=MODALITIES)
    wishes = request.wishes
    for option, number in (
        ("--batch", wishes.batch),
        ("--filters", wishes.filters),
        ("--iterations", wishes.iterations),
    ):
        if number is not None and number < 1:
            raise InputError(f"at least 1 was wanted, got {number}", where=option, code="SETTING")


def _as_given(choices: Mapping[str, Choice], request: Request) -> dict[str, Choice]:
    """The choices with what a person decided by `--set` and `--modality`."""
    made = with_given(choices, request.settings)
    if request.modality is not None:
        kept = made["normalisation"]
        reason = f"{kept.reason}; --modality says {request.modality}"
        made["normalisation"] = replace(kept, reason=reason, given=True)
    return made


def _is_set(request: Request, name: str) -> bool:
    given = dict(parse_setting(text) for text in request.settings)
    return str(given.get(name)).lower() == "true"


def _nothing_unlabeled(method: str, found: Fingerprint) -> InputError:
    return InputError(
        f"all {found.cases} scans have a label, and {method} learns from those that have none",
        where="--images",
        fix="Add scans without a label; or train with --method supervised; or hide labels with --labeled N, to see "
        "what unlabelled scans would bring.",
        code="NO_CASES",
    )
