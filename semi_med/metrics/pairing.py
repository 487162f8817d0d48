"""Which prediction belongs to which label: by case name, with everything left over named."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from semi_med.data.pairs import without_ending
from semi_med.errors import InputError, ProblemsError
from semi_med.inference.io import READ_SUFFIXES, case_name

PREDICTION_ENDING = "_seg"
_FIRST_CHANNEL = "_0000"


@dataclass(frozen=True)
class Pairing:
    """Predictions and labels by case; `missing` are cases without prediction, `extra` predictions without label."""

    pairs: dict[str, tuple[Path, Path]]
    missing: tuple[str, ...]
    extra: tuple[Path, ...]


def pair_files(
    predictions: Path, labels: Path, *, cases: Collection[str] | Mapping[str, Path] | None = None
) -> Pairing:
    """Match `<case>_seg` or `<case>` to the label `<case>`, each a `.nii.gz`, `.png`, `.nrrd` or another format.

    A case `la_001_0000` that has no label may have that of `la_001`. Two single files are one pair whatever their
    names. Folders are searched below their first level where it holds no scan, and for labels that are named in
    `cases`.

    Args:
        predictions: a folder or a file.
        labels: a folder or a file.
        cases: the labels that count, each of which must be there; None for all. A mapping names the label of each
            case, wherever it lies.

    Raises:
        InputError: a path does not exist or holds no scan; both are the same place; nothing matches; a label of
            `cases` is missing.
        ProblemsError: a case has more than one label or prediction.
    """
    predictions, labels = Path(predictions), Path(labels)
    for path in (predictions, labels):
        if not path.exists():
            raise InputError("does not exist", where=path, fix="Check the path", code="MISSING")
    if predictions.samefile(labels):
        raise InputError(
            "predictions and labels are the same place", where=predictions, fix="Give two different paths", code="SAME"
        )
    if predictions.is_file() and labels.is_file():
        return Pairing({case_name(labels): (predictions, labels)}, (), ())

    label_files = dict(cases) if isinstance(cases, Mapping) else _labels(labels, cases)
    named = {path: case_of(path, label_files) for path in _scans(predictions)}
    found = _one_each({path: case for path, case in named.items() if case in label_files}, what="predictions")
    if not found:
        raise InputError(
            f"none of the {len(named)} predictions matches one of the {len(label_files)} labels "
            f"(for example {sorted(named.values())[0]!r} and {sorted(label_files)[0]!r})",
            where=predictions,
            fix=f"Name predictions <case>{PREDICTION_ENDING}.nii.gz or <case>.nii.gz (or .png) like the labels",
            code="NO_PAIRS",
        )
    return Pairing(
        pairs={case: (found[case], label_files[case]) for case in sorted(found)},
        missing=tuple(sorted(label_files.keys() - found.keys())),
        extra=tuple(sorted(path for path, case in named.items() if case not in label_files)),
    )


def _labels(folder: Path, cases: Collection[str] | None) -> dict[str, Path]:
    """The labels of a folder by case, those that count."""
    known = {path: case_name(path) for path in _scans(folder, below=cases is not None)}
    if cases is not None:
        known = {path: case for path, case in known.items() if case in cases}
    label_files = _one_each(known, what="labels")
    return label_files if cases is None else _only(label_files, cases, where=folder)


def _only(label_files: dict[str, Path], cases: Collection[str], *, where: Path) -> dict[str, Path]:
    if missing := sorted(set(cases) - label_files.keys()):
        raise InputError(
            f"wanted the labels of {len(set(cases))} cases, but {len(missing)} are missing: {', '.join(missing[:5])}",
            where=where,
            fix="Give the folder of their labels",
            code="MISSING",
        )
    return {case: path for case, path in label_files.items() if case in cases}


def _scans(path: Path, *, below: bool = False) -> list[Path]:
    files = [path] if path.is_file() else sorted(path.rglob("*") if below else path.iterdir())
    scans = [
        file
        for file in files
        if file.is_file() and not file.name.startswith(".") and _is_scan(file.name, READ_SUFFIXES)
    ]
    if not scans and path.is_dir() and not below:
        return _scans(path, below=True)
    if not scans:
        raise InputError(
            "holds no scan", where=path, fix=f"Give files that end in {', '.join(READ_SUFFIXES)}", code="EMPTY"
        )
    return scans


def _is_scan(name: str, suffixes: Sequence[str]) -> bool:
    return name.lower().endswith(tuple(suffixes))


def case_of(prediction: Path, label_files: Mapping[str, Path]) -> str:
    """The case whose label belongs to a prediction of this name; else what the name says without its ending."""
    name = case_name(prediction)
    case = name.removesuffix(PREDICTION_ENDING)
    for known in (name, case):
        if known in label_files:
            return known
    # the only channel of a case has a number, `la_001_0000`, that its label `la_001` lacks
    for known in dict.fromkeys((case, case.removesuffix(_FIRST_CHANNEL))):
        if known in label_files:
            return known
        # labels may have endings of their own, such as `_mask`
        found = [label for label in label_files if label.startswith(known) and without_ending(label) == known]
        if len(found) == 1:
            return found[0]
    # masks may be called as the files of the labels are, where a list calls the cases otherwise
    found = [known for known, path in label_files.items() if case_name(path) in (name, case)]
    return found[0] if len(found) == 1 else case


def _one_each(cases: dict[Path, str], *, what: str) -> dict[str, Path]:
    """Turn file to case into case to file; a case with two files is an error that names them."""
    files: dict[str, list[Path]] = {}
    for path, case in cases.items():
        files.setdefault(case, []).append(path)
    twice = [
        InputError(
            f"wanted one file, got {', '.join(path.name for path in paths)}", where=case, fix="Remove one", code="TWICE"
        )
        for case, paths in files.items()
        if len(paths) > 1
    ]
    if twice:
        raise ProblemsError(twice, title=f"The {what}")
    return {case: paths[0] for case, paths in files.items()}
