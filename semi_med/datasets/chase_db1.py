"""CHASE_DB1: vessels of the retina in photographs of school children's eyes (Fraz et al., IEEE TBME, 2012).

28 photographs of 14 children, both eyes: `Image_01L.jpg`, `Image_01R.jpg` to `Image_14R.jpg`, 999 x 960 pixels. Two
observers drew the vessels: `Image_01L_1stHO.png` and `Image_01L_2ndHO.png`. Everything lies in one folder.

Oddities:

- Labels are pictures of one bit, 0 and 1.
- The first observer is the reference of every published figure. The second is stored beside it, in `labels_second`: the
  two agree at a Dice of about 0.8, which is what a person reaches.
- Left and right eye are one child and never in two sections: the subject is the child.

Two splits are in use. The *usual* one trains on the first 20 photographs (children 1 to 10) and tests on the last 8.
SupMix trains on 23 and tests on 5, without naming them: since children have two eyes, 23 and 5 leave a child on both
sides. Here the test has the 5 photographs, those of two children and one eye of a third, drawn with seed 0; the other
eye of the third child is in no section, so that 22 are left to train with. Likewise 5 labeled photographs are those of
two children and one eye of a third, whose other eye is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from semi_med.data.data_list import DataList
from semi_med.datasets.found import by_name, files_under, layout_error, refuse_labels_alone
from semi_med.datasets.lists import SEEDS, SPLIT_SEED, data_list_of, shuffled, write_all
from semi_med.datasets.photographs import ListsAndNotes, PhotographSet
from semi_med.datasets.prepared import PreparedDataset, SourceCase, some
from semi_med.datasets.record import About, PreparedCase, planned
from semi_med.datasets.stored import PNG

CHILDREN = tuple(f"{number:02d}" for number in range(1, 15))
NAMES = tuple(f"Image_{child}{eye}" for child in CHILDREN for eye in "LR")
USUAL_TRAIN = 10  # children
SUPMIX_TEST = 5  # photographs
LABELED = (2, 5)  # photographs: an eighth and a quarter of 23
SECOND = "second"

ABOUT = About(
    name="chase_db1",
    modality={"0": "red", "1": "green", "2": "blue"},
    labels={"0": "background", "1": "vessel"},
    reference=(
        "Fraz et al., An ensemble classification-based approach applied to retinal blood vessel segmentation, IEEE "
        "Transactions on Biomedical Engineering 59(9):2538-2548, 2012"
    ),
    licence="CC BY 4.0",
    origin="Kingston University, https://researchdata.kingston.ac.uk/96",
)


def prepare(
    source: str | Path,
    target: str | Path,
    *,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 2,
) -> PreparedDataset:
    """Prepare CHASE_DB1: photographs as PNG, the first observer as the label, the second beside it.

    Args:
        source: a folder with `Image_01L.jpg`, `Image_01L_1stHO.png` and so on at any depth.
        target: a missing or empty folder, or one that an earlier call from the same source left unfinished.
        progress: called with (cases done, cases in all) after each case.
        workers: threads.

    Raises:
        InputError: if there is no photograph, or the target holds something else.
        ProblemsError: listing every case that is at fault; the others are written, and a next call keeps them.
    """
    return _SET.prepare(source, target, progress=progress, workers=workers)


def _find(source: Path) -> list[SourceCase]:
    files = list(files_under(source))
    images = by_name(files, r"(?P<name>Image_\d{2}[LR])\.jpg", where=source)
    first, second = (
        by_name(files, rf"(?P<name>Image_\d{{2}}[LR])_{observer}HO\.png", where=source) for observer in ("1st", "2nd")
    )
    if not images:
        raise layout_error("Image_01L.jpg", where=source)
    refuse_labels_alone(images, {**first, **second}, where=source)
    return [
        SourceCase(
            name,
            path,
            first.get(name),
            extra={SECOND: second[name]} if name in second else {},
            subject=_child(name),
            group=name[-1],
            split="training" if name in NAMES[: 2 * USUAL_TRAIN] else "test",
        )
        for name, path in sorted(images.items())
    ]


def _child(name: str) -> str:
    return f"child_{name[6:8]}"


# ---- lists ---------------------------------------------------------------------------------------------------------


def build_lists() -> dict[str, DataList]:
    """The data lists of both splits; the names of the 28 photographs are known without them.

    `usual_...`: 20 and 8. `supmix_...`: 22 and 5, see the head of this module. `labeled_02` and `labeled_05` have 2 and
    5 labeled photographs. In all of them one child of the training is for validation, which neither split has.
    """
    cases = {name: planned(name, subject=_child(name), suffix=PNG) for name in NAMES}
    order = shuffled(CHILDREN, seed=SPLIT_SEED)
    supmix_test = [name for child in order[:3] for name in _eyes(child)][:SUPMIX_TEST]
    splits = {
        "usual": (CHILDREN[:USUAL_TRAIN], NAMES[2 * USUAL_TRAIN :], "the last 8 photographs, as usual"),
        "supmix": (
            sorted(order[3:]),
            sorted(supmix_test),
            f"{SUPMIX_TEST} photographs as for SupMix, drawn with seed {SPLIT_SEED}; the other eye of the third child "
            "is in no section, so that no child is on both sides",
        ),
    }
    lists: dict[str, DataList] = {}
    for prefix, (children, test, how) in splits.items():
        lists |= _lists_of(cases, prefix, children, test, how=how)
    return lists


def write_lists(folder: str | Path) -> tuple[Path, ...]:
    """Write the lists of both splits, and name the files."""
    return write_all(build_lists(), folder)


def _eyes(child: str) -> list[str]:
    return [f"Image_{child}{eye}" for eye in "LR"]


def _lists_of(
    cases: Mapping[str, PreparedCase], prefix: str, children: Sequence[str], test: Sequence[str], *, how: str
) -> dict[str, DataList]:
    held = shuffled(children, seed=SPLIT_SEED)[0]
    rest = f"Validation: one child of the training, drawn with seed {SPLIT_SEED}. Test: {how}."
    train = [child for child in children if child != held]
    lists = {}
    for count in LABELED:
        for seed in SEEDS:
            order = shuffled(train, seed=seed)
            chosen = -(-count // 2)  # children; of an odd number the last has an eye left out
            lists[f"{prefix}_labeled_{count:02d}_seed{seed}"] = _list(
                cases,
                labeled=[name for child in order[:chosen] for name in _eyes(child)][:count],
                unlabeled=[name for child in order[chosen:] for name in _eyes(child)],
                validation=_eyes(held),
                test=test,
                description=f"Labeled: {count} photographs of {chosen} children drawn with seed {seed}. {rest}",
            )
    everything = [name for child in train for name in _eyes(child)]
    lists[f"{prefix}_all_labeled"] = _list(
        cases,
        labeled=everything,
        unlabeled=[],
        validation=_eyes(held),
        test=test,
        description=f"Labeled: all {len(everything)} photographs of the training (upper bound). {rest}",
    )
    return lists


def _list(cases: Mapping[str, PreparedCase], *, description: str, **sections: Iterable[str]) -> DataList:
    listed = {
        section: [cases[name].listed(unlabeled=section == "unlabeled") for name in sorted(names)]
        for section, names in sections.items()
    }
    return data_list_of(ABOUT, description=description, **listed)


def _possible_lists(done: PreparedDataset) -> ListsAndNotes:
    """The lists of those splits whose training photographs are all there, and what is missing."""
    there = {name for name, case in done.entries.items() if case.label is not None}
    lists: dict[str, DataList] = {}
    notes = []
    for split in ("usual", "supmix"):
        chosen = {name: each for name, each in build_lists().items() if name.startswith(split)}
        every = chosen[f"{split}_all_labeled"]
        train, test = (
            sorted(case.name for case in cases if case.name not in there)
            for cases in ((*every.labeled, *every.validation), every.test)
        )
        if train:
            notes.append(f"{split} split: {len(train)} training photographs are not there, so no lists: {some(train)}")
            continue
        lists |= chosen
        if test:
            notes.append(f"{split} split: {len(test)} of the {len(every.test)} test photographs are not there")
    if without := [name for name, case in done.entries.items() if SECOND not in case.more_labels]:
        notes.append(f"{len(without)} photographs have no label of the second observer: {some(without)}")
    return lists, notes


_SET = PhotographSet(about=ABOUT, find=_find, lists=_possible_lists)
