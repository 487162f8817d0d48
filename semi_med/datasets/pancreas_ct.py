"""Pancreas-CT: abdominal CT with contrast agent, of the National Institutes of Health (Roth et al., TCIA 2016).

The download has one DICOM series a patient, `PANCREAS_0001/<study>/<series>/1-001.dcm` and on, and apart from it the
labels `label0001.nii.gz`.

Oddities, which spoil everything when they are missed:

- **Labels have flipped axes.** Their headers place them elsewhere; their voxels run as those of the DICOM slices do:
  along rows, down columns, upwards. So voxels are paired as they are stored. That this fits is measured for each case:
  most of the label must be soft tissue (-50 to 250 HU). If another flip fits clearly better it is taken, and noted.
- **Cases 25 and 70 were withdrawn**: they show the scan of case 2 again, cropped a little differently. In protocol A
  cases 2 and 70 train, and 25 is in the test: one of its 20 test cases is trained on. There are lists without them.
- Distances between slices in the labels' headers are not always those of the CT. Here the CT counts.

Two protocols are in use whose numbers differ by 1 to 3 Dice; they are two data sets, never in one table:

- **A** (MC-Net, DTC, TraCoCo, AD-MT, Co-BioNet): 82 cases, 62 and 20. 1 mm by cubic B-spline; cropped round the
  expert's label in i and j (enlarged to 96, margin 25), all slices kept. For training, intensities are cut to -125 to
  275 HU and brought to mean 0 and SD 1 within the crop.
- **B** (CoraNet, BCP, SDCL, CauSSL): 80 cases, 12 and 50 and 18. Linear interpolation. The published script takes the
  distance of rows for that of slices, so that slices are not 1 mm apart; this is kept, and the affine says so.
  Cropped on all three axes (margin 25, then enlarged to 96). Intensities: -125 to 275 HU become 0 to 1.

What is stored are Hounsfield units on the grid of the protocol: window and scaling are the bundle's, so that it can be
given any CT. The region of interest is given away by the crop, in the test too, as in every published figure.
**No flips and no turns in augmentation**: with them Dice falls to about 41, since the pancreas is found by its side.

Differs from the published scripts: margins are equal on both sides (A loses a voxel at one end, B gains one); the
spline is exact within the crop; Hounsfield units are rounded to whole numbers.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from semi_med.data.data_list import DataList
from semi_med.datasets import pancreas_ct_ids as ids
from semi_med.datasets.boxes import box_of, crop_interval, moved
from semi_med.datasets.found import by_name, files_under, layout_error, refuse_labels_alone
from semi_med.datasets.lists import SEEDS, possible_lists, published_lists, write_all
from semi_med.datasets.prepared import (
    MadeCase,
    PreparedDataset,
    SourceCase,
    check_source,
    finish,
    prepare_cases,
)
from semi_med.datasets.record import About, planned
from semi_med.datasets.resampling import resample_image, resample_label
from semi_med.errors import InputError
from semi_med.inference.io import Scan, read_image, read_label

LEAST, MARGIN = 96, 25  # voxels
WINDOW = (-125, 275)  # HU
VALIDATION = 4
SOFT_TISSUE = (-50, 250)  # HU
_FITS = 0.7  # share of a label that is soft tissue; the rest is fat and air at its border
_CLEARLY = 0.05  # by which another flip must fit better


@dataclass(frozen=True)
class Protocol:
    """One of the two, with its split by number of patients.

    Attributes:
        name: "A" or "B".
        order: of the interpolation.
        train: in the published order.
        labeled: published numbers of labels.
    """

    name: str
    order: int
    train: tuple[int, ...]
    test: tuple[int, ...]
    labeled: tuple[int, ...]

    @property
    def about(self) -> About:
        """The data set of this protocol."""
        return About(
            name=f"pancreas_ct_{self.name.lower()}",
            modality={"0": "CT"},
            labels={"0": "background", "1": "pancreas"},
            reference=(
                "Roth et al., Data from Pancreas-CT, The Cancer Imaging Archive 2016, "
                "doi:10.7937/K9/TCIA.2016.tNB1kqBU; Roth et al., DeepOrgan: multi-level deep convolutional networks "
                "for automated pancreas segmentation, MICCAI 2015; Clark et al., The Cancer Imaging Archive, Journal "
                "of Digital Imaging 26:1045, 2013"
            ),
            licence="CC BY 3.0",
            origin="Pancreas-CT, The Cancer Imaging Archive, "
            "https://www.cancerimagingarchive.net/collection/pancreas-ct/",
        )


PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        "A": Protocol("A", 3, ids.A_TRAIN, ids.A_TEST, (6, 12)),
        "B": Protocol("B", 1, (*ids.B_LABELED, *ids.B_UNLABELED), ids.B_TEST, (12,)),
    }
)


def protocol_of(name: str) -> Protocol:
    """The protocol of this name.

    Raises:
        InputError: code SETTING.
    """
    if name not in PROTOCOLS:
        raise InputError(
            f"the protocol is A or B, not {name!r}", fix="See docs/datasets/pancreas_ct.md.", code="SETTING"
        )
    return PROTOCOLS[name]


# ---- lists ---------------------------------------------------------------------------------------------------------


def build_lists(protocol: str) -> dict[str, DataList]:
    """The data lists of a protocol by file name without suffix.

    `labeled_06` and so on as published, with 4 cases taken for validation; `..._seed1` and on. Of A also
    `..._without_withdrawn`, which are those that a download of today allows for, and in which no scan is both trained
    on and tested; only these have seeds.

    Args:
        protocol: "A" or "B".
    """
    chosen = protocol_of(protocol)
    lists = _lists(chosen, chosen.train, chosen.test)
    if set(ids.WITHDRAWN) & {*chosen.train, *chosen.test}:
        twice = (
            "As published: PANCREAS_0070 of the training and PANCREAS_0025 of the test show the scan of PANCREAS_0002."
        )
        lists = _lists(chosen, chosen.train, chosen.test, note=twice, seeds=())
        train, test = ([n for n in numbers if n not in ids.WITHDRAWN] for numbers in (chosen.train, chosen.test))
        without = _lists(chosen, train, test, note="The withdrawn cases 25 and 70 are left out.", lost=ids.WITHDRAWN)
        lists |= {f"{name}_without_withdrawn": each for name, each in without.items()}
    return lists


def write_lists(folder: str | Path) -> tuple[Path, ...]:
    """Write the lists of both protocols into `<folder>_a` and `<folder>_b`, and name the files."""
    folder = Path(folder)
    return tuple(
        path
        for name in PROTOCOLS
        for path in write_all(build_lists(name), folder.with_name(f"{folder.name}_{name.lower()}"))
    )


def _lists(
    protocol: Protocol,
    train: Sequence[int],
    test: Sequence[int],
    *,
    note: str = "",
    lost: Sequence[int] = (),
    seeds: Sequence[int] = SEEDS,
) -> dict[str, DataList]:
    pool = [[planned(_name(number))] for number in train]
    lists = published_lists(
        protocol.about,
        train=pool[:-VALIDATION],
        validation=pool[-VALIDATION:],
        test=[[planned(_name(number))] for number in test],
        labeled=protocol.labeled,
        unit="training scans",
        rest=f"Validation: the last {VALIDATION} training scans of the published order, the same in every list and "
        f"taken from the unlabeled ones. Test: the published test scans. {note}".strip(),
        seeds=seeds,
    )
    for count in protocol.labeled:  # a published label that was lost is not made up for by the next scan
        kept = [number for number in protocol.train[:count] if number not in lost]
        if len(kept) < count:
            lists[f"labeled_{count:02d}"] = _keep_labels(lists[f"labeled_{count:02d}"], kept, count)
    return lists


def _keep_labels(data_list: DataList, kept: Sequence[int], count: int) -> DataList:
    named = {_name(number) for number in kept}
    moved_back = [planned(case.name).listed(unlabeled=True) for case in data_list.labeled if case.name not in named]
    return data_list.model_copy(
        update={
            "labeled": [case for case in data_list.labeled if case.name in named],
            "unlabeled": [*moved_back, *data_list.unlabeled],
            "description": data_list.description.replace(
                f"the first {count} training scans", f"{len(kept)}, those left of the first {count} training scans"
            ),
        }
    )


def _name(number: int) -> str:
    return f"PANCREAS_{number:04d}"


# ---- preparation ---------------------------------------------------------------------------------------------------


def prepare(
    source: str | Path,
    target: str | Path,
    *,
    protocol: str,
    labels: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 2,
) -> PreparedDataset:
    """Prepare Pancreas-CT by one of the two protocols: Hounsfield units, int16, resampled and cropped.

    Args:
        source: a folder with `PANCREAS_0001` and so on at any depth.
        target: a missing or empty folder, or one that an earlier call from the same source left unfinished.
        protocol: "A" or "B", see above.
        labels: the folder of `label0001.nii.gz` and so on, if it does not lie in the source.
        progress: called with (cases done, cases in all) after each case.
        workers: threads; each holds one case in memory (about 1.5 GB).

    Raises:
        InputError: if there is no scan, or the target holds something else.
        ProblemsError: listing every case that is at fault; the others are written, and a next call keeps them.
    """
    source, target = check_source(source, target)
    chosen = protocol_of(protocol)
    cases, notes = _find(source, Path(labels) if labels else source)
    if protocol == "B" and any(case.name in _withdrawn() for case in cases):
        cases = [case for case in cases if case.name not in _withdrawn()]
        notes = [*notes, f"{' and '.join(_withdrawn())} are withdrawn and no part of protocol B: left out."]
    done = prepare_cases(
        cases,
        target,
        source=source,
        about=chosen.about,
        recipe={"protocol": protocol, "least": LEAST, "margin": MARGIN, "order": chosen.order, "unit": "HU"},
        make=lambda case: _make(case, chosen),
        progress=progress,
        workers=workers,
    )
    lists, remarks = possible_lists(done, build_lists(protocol), unit="scans")
    return finish(done, lists, notes=[*notes, *remarks])


def _withdrawn() -> tuple[str, ...]:
    return tuple(_name(number) for number in ids.WITHDRAWN)


def _find(source: Path, labels_folder: Path) -> tuple[list[SourceCase], list[str]]:
    files = list(files_under(source))
    images: dict[str, Path] = {}
    for path in files:
        place = next((p for p in path.parents if re.fullmatch(r"PANCREAS_\d{4}", p.name)), None)
        if place is None:
            continue
        if images.setdefault(place.name, place) != place:
            raise InputError(
                f"this patient is there twice, also as {images[place.name]}",
                where=place,
                fix="Remove one.",
                code="DUPLICATE",
            )
    if not images:
        raise layout_error("PANCREAS_0001/<study>/<series>/1-001.dcm", where=source)
    found = files if labels_folder == source else list(files_under(labels_folder))
    labels = by_name(found, r"label(?P<name>\d{4})\.nii(\.gz)?", where=labels_folder)
    named = {f"PANCREAS_{number}": path for number, path in labels.items()}
    # the archive still has the labels of the scans that it took back
    gone = [name for name in _withdrawn() if name in named and name not in images]
    refuse_labels_alone(images, {name: path for name, path in named.items() if name not in gone}, where=labels_folder)
    notes = [f"{' and '.join(gone)} are withdrawn and not there: their labels are not used."] if gone else []
    same = _name(ids.SAME_SCAN)
    cases = [
        SourceCase(name, images[name], named.get(name), subject=same if name in _withdrawn() else name)
        for name in sorted(images)
    ]
    return cases, notes


def _make(case: SourceCase, protocol: Protocol) -> MadeCase:
    (folder,) = case.images
    scan = read_image(folder)
    if not case.labels:
        zoom, shape = grid(protocol, scan)
        box: Sequence[tuple[int, int]] = [(0, size) for size in shape]
        image = _stored(resample_image(scan.array, box, zoom=zoom, order=protocol.order))
        return MadeCase(image, None, _scaled(scan, zoom), (*scan.warnings, "no label: kept whole, not cropped"))
    (label_file,) = case.labels
    stored, notes = _read_pancreas(label_file, scan)
    label, flips, share = fit_label(stored.array, scan.array, where=label_file)
    if flips:
        notes = (*notes, f"LABEL_FLIP: the label fits the scan only with its axis {' and '.join(flips)} flipped")
    zoom, shape = grid(protocol, scan)
    label = resample_label(label, shape, zoom=zoom)
    if not label.any():
        raise InputError(
            "nothing of the label is left at 1 mm", where=label_file, fix="Look at it.", code="EMPTY_LABEL"
        )
    box = crop_box(protocol, label)
    image = _stored(resample_image(scan.array, box, zoom=zoom, order=protocol.order))
    start = [low for low, _ in box]
    label = label[tuple(slice(low, high) for low, high in box)]
    details = {"label_flips": list(flips), "soft_tissue": round(share, 4), "spacing_mm": _rounded(scan.spacing)}
    return MadeCase(image, label, moved(_scaled(scan, zoom), start), notes, details=details)


def _rounded(numbers: Sequence[float]) -> list[float]:
    return [round(number, 6) for number in numbers]


def _stored(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image), -32768, 32767).astype(np.int16)


def _read_pancreas(path: Path, scan: Scan) -> tuple[Scan, tuple[str, ...]]:
    """The label, which must have the scan's shape and hold 0 and 1, and what is odd."""
    label = read_label(path)
    if label.array.shape != scan.array.shape:
        shapes = [" x ".join(map(str, array.shape)) for array in (label.array, scan.array)]
        raise InputError(
            f"the label has {shapes[0]} voxels, its CT {shapes[1]}",
            where=path,
            fix="Get the label and the whole series again; the numbers in both names must be the same patient's.",
            code="GEOMETRY",
        )
    if int(label.array.max()) != 1:
        raise InputError(
            f"a label of 0 and 1 was wanted, the largest value is {label.array.max()}",
            where=path,
            fix="Get the file again." if label.array.max() == 0 else "Take the archive's own labels.",
            code="LABEL_VALUES",
        )
    notes = scan.warnings
    between, here = label.spacing[2], scan.spacing[2]
    if abs(between - here) > 0.01 * here:
        notes = (*notes, f"SPACING: the label says {between:.3g} mm between slices, the CT {here:.3g}; the CT counts")
    return label, notes


def fit_label(label: np.ndarray, hounsfield: np.ndarray, *, where: Path) -> tuple[np.ndarray, tuple[str, ...], float]:
    """The label with its axes as those of the CT.

    Args:
        label: (i, j, k) 0 and 1, not empty.
        hounsfield: (i, j, k) of the same shape.
        where: the label's file, for the error.

    Returns:
        the label, which of its axes were flipped ("i", "j", "k"), and the share of it that is soft tissue. As stored,
        unless a flip fits by more than 0.05 better.

    Raises:
        InputError: code LABEL_FIT, if it does not fit with any flips, or with several equally.
    """
    places = np.nonzero(label)
    low, high = SOFT_TISSUE
    shares: dict[tuple[str, ...], float] = {}
    for flips in itertools.product((False, True), repeat=3):
        index = tuple(
            size - 1 - place if flip else place for place, size, flip in zip(places, label.shape, flips, strict=True)
        )
        values = hounsfield[index]
        name = tuple(axis for axis, flip in zip("ijk", flips, strict=True) if flip)
        shares[name] = float(np.mean((values >= low) & (values <= high)))
    best = max(shares, key=lambda name: shares[name])
    chosen = () if shares[()] >= shares[best] - _CLEARLY else best
    rivals = [name for name in shares if name != chosen and shares[name] >= shares[chosen] - _CLEARLY]
    if shares[chosen] < _FITS or (chosen and rivals):
        raise InputError(
            f"the label does not lie on its CT: {shares[()]:.0%} of it is soft tissue as stored, at best "
            f"{shares[best]:.0%}{f' with {chr(32).join(best)} flipped' if best else ''}",
            where=where,
            fix="Look at both; the label is another patient's, or the series has other slices.",
            code="LABEL_FIT",
        )
    axes = tuple("ijk".index(axis) for axis in chosen)
    return np.flip(label, axes) if axes else label, chosen, shares[chosen]


def grid(protocol: Protocol, scan: Scan) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """New voxels for one old one on each axis, and the shape of the whole scan on the new grid."""
    if protocol.name == "A":
        zoom: tuple[float, ...] = scan.spacing
        return zoom, tuple(int(size * factor + 1e-6) for size, factor in zip(scan.array.shape, zoom, strict=True))
    zoom = (scan.spacing[1],) * 3  # the published script's slip: slices as if they were as far apart as rows
    return zoom, tuple(round(size * factor) for size, factor in zip(scan.array.shape, zoom, strict=True))


def _scaled(scan: Scan, zoom: Sequence[float]) -> np.ndarray:
    return scan.affine @ np.diag([*(1 / factor for factor in zoom), 1.0])


def crop_box(protocol: Protocol, label: np.ndarray) -> list[tuple[int, int]]:
    """What is kept of the new grid, from the label on it."""
    found = box_of(label != 0)
    if protocol.name == "A":
        kept = [
            crop_interval(low, high, size, least=LEAST, margin=MARGIN)
            for (low, high), size in zip(found[:2], label.shape[:2], strict=True)
        ]
        return [*kept, (0, label.shape[2])]
    return [
        crop_interval(max(low - MARGIN, 0), min(high + MARGIN, size), size, least=LEAST, margin=0)
        for (low, high), size in zip(found, label.shape, strict=True)
    ]
