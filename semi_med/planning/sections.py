"""Which cases teach, which watch and which are kept for the end: a data list of a person's own folder, by subject."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from semi_med.data.data_list import SECTIONS, Case, DataList
from semi_med.data.pairs import Pair, Pairs
from semi_med.data.splits import Split, SplitCase, make_split
from semi_med.errors import InputError
from semi_med.ignored import IGNORED
from semi_med.planning.fingerprint import Fingerprint, relative

_MOST_DRAWS = 200
_REST = "{subject} (scans without a label)"


def make_list(
    name: str,
    pairs: Pairs,
    found: Fingerprint,
    *,
    subjects: Mapping[str, str],
    validation: int,
    test: int,
    labeled: int | None,
    seed: int,
    allow_missing_class: bool = False,
) -> tuple[DataList, tuple[str, ...]]:
    """The data list, and notes on what was left out.

    A subject is in one section. Scans without a label of a subject whose others have one are unlabelled cases if it
    teaches, under a name of their own, and left out if it is held out.

    Args:
        name: of the list.
        pairs: all cases.
        found: for the classes and channels.
        subjects: whom each case shows.
        validation: labelled subjects that are held out to watch the training.
        test: labelled subjects that are held out for the end.
        labeled: subjects that keep their labels; None for all that are left.
        seed: of the draw; where it leaves a class out of the cases that teach, the next one that does not.
        allow_missing_class: a class may be in none of the cases that teach.

    Raises:
        InputError: code SPLIT, no labelled subject is left; code MISSING_CLASS, each draw leaves a class out.
    """
    with_label = [case for case in pairs.cases if case.label]
    people = len({subjects[case.case] for case in with_label})
    if people - validation - test < 1:
        raise InputError(
            f"{validation} for validation and {test} for the test leave none of {people} labelled subjects to teach",
            where="--validation, --test",
            fix="Give smaller numbers, or label more.",
            code="SPLIT",
        )
    draw = partial(
        make_split,
        [SplitCase(_case(case, pairs, subjects)) for case in with_label],
        labeled=people - validation - test if labeled is None else labeled,
        validation=validation,
        test=test,
    )
    split, taken = (draw(seed=seed), seed) if allow_missing_class else _with_all_classes(draw, found, seed=seed)
    sections = {section: list(split.sections[section]) for section in SECTIONS}
    place = {case.subject: section for section, cases in sections.items() for case in cases}
    dropped = 0
    for pair in pairs.cases:
        if pair.label is None:
            case = _case(pair, pairs, subjects)
            where = place.get(case.subject)
            if where in ("validation", "test"):
                dropped += 1
            elif where == "labeled":
                rest = _REST.format(subject=case.subject)
                sections["unlabeled"].append(case.model_copy(update={"subject": rest}))
            else:
                sections["unlabeled"].append(case)
    notes = [f"{dropped} scans without a label show subjects that are held out, and were left out"] if dropped else []
    if taken != seed:
        notes.append(
            f"seed {seed} leaves a class out of the cases that teach, so that they were drawn with seed {taken}"
        )
    labels = {"0": "background", **{str(i): one.name for i, one in enumerate(found.classes, start=1)}}
    values, usual = found.label_values, list(range(len(labels)))
    own_numbers = values != usual or found.ignored not in (None, IGNORED)
    words = {"labeled": "teach", "unlabeled": "have their labels hidden", "validation": "watch", "test": "are kept"}
    drawn = ", ".join(f"{count} {words[section]}" for section, count in split.subjects.items())
    by_name = partial(sorted, key=lambda case: case.name)
    made = DataList(
        name=name,
        description=f"Labelled subjects drawn with seed {taken}: {drawn}.",
        modality={str(number): channel for number, channel in enumerate(found.channels)},
        labels=labels,
        file_values=values if own_numbers else None,
        ignored=found.ignored,
        labeled=by_name(sections["labeled"]),
        unlabeled=by_name(sections["unlabeled"]),
        validation=by_name(sections["validation"]),
        test=by_name(sections["test"]),
    )
    return made, tuple(notes)


def _with_all_classes(draw: Callable[..., Split], found: Fingerprint, *, seed: int) -> tuple[Split, int]:
    """A draw whose labelled cases show all classes, and its seed."""
    first: set[int] = set()
    for taken in range(seed, seed + _MOST_DRAWS):
        split = draw(seed=taken)
        shown = {value for case in split.sections["labeled"] for value in found.shown.get(case.name, ())}
        missing = set(found.label_values) - shown
        if not missing or not found.shown:
            return split, taken
        first = first or missing
    names = dict(zip(found.label_values, ("background", *(one.name for one in found.classes)), strict=True))
    raise InputError(
        f"{', '.join(f'{names[value]} (value {value})' for value in sorted(first))} would be in none of the "
        f"{len(split.sections['labeled'])} labelled cases that teach, whatever is drawn",
        where="the split",
        fix="Hold out fewer (--validation, --test), keep more labels (--labeled), label more scans that show it, try "
        "another --seed, or let it be with --set allow_missing_class=true.",
        code="MISSING_CLASS",
    )


def _case(pair: Pair, pairs: Pairs, subjects: Mapping[str, str]) -> Case:
    files = [relative(path, pairs.root) for path in pair.images]
    return Case(
        image=files[0] if len(files) == 1 else files,
        label=None if pair.label is None else relative(pair.label, pairs.root),
        case=pair.case,
        subject=subjects[pair.case],
    )
