"""What the files of a prediction are called: after the case, or as derivatives of a BIDS data set."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from semi_med.files import write_atomically
from semi_med.inference.io import READ_SUFFIXES
from semi_med.runtime import versions

Naming: TypeAlias = Literal["case", "bids"]
NAMINGS: tuple[Naming, ...] = get_args(Naming)
MAPS_FOLDER = "maps"  # apart from the labels, so that a folder of labels holds nothing else
BIDS_VERSION = "1.9.0"
_DATA_TYPES = ("anat", "func", "dwi", "perf", "pet", "fmap", "micr", "ct")
_BIDS_ENDINGS = {  # of the standard; a map of uncertainty has no name there
    "probabilities": "desc-semimed_probseg",
    "uncertainty": "desc-uncertainty_map",
    "disagreement": "desc-disagreement_map",
}


@dataclass(frozen=True)
class Names:
    """Where the files of one case go.

    Attributes:
        label: the label.
        stem: of BIDS names, the path up to the description; None otherwise.
        case: name of the case.
        folder: of all results.
    """

    label: Path
    case: str
    folder: Path
    stem: Path | None = None

    @classmethod
    def of(cls, label: Path, case: str, image: Path, folder: Path, *, naming: Naming) -> Names:
        """The names for a case whose label would be called after it."""
        if naming == "case":
            return cls(label, case, folder)
        stem = bids_stem(image, case, folder)
        suffix = ".nii.gz" if label.name.endswith(".nii.gz") else label.suffix
        return cls(stem.with_name(f"{stem.name}_desc-semimed_dseg{suffix}"), case, folder, stem)

    @property
    def segmentation(self) -> Path:
        """The DICOM SEG."""
        return self.label.with_name(f"{self.label.name.removesuffix('.nii.gz')}.dcm")

    def map(self, name: str) -> Path:
        """A map, by its name."""
        if self.stem is None:
            return self.folder / MAPS_FOLDER / f"{self.case}_{name}.nii.gz"
        return self.stem.with_name(f"{self.stem.name}_{_BIDS_ENDINGS[name]}.nii.gz")


def bids_stem(image: Path, case: str, folder: Path) -> Path:
    """`sub-01/ses-2/anat/sub-01_ses-2_acq-x` for `sub-01_ses-2_acq-x_T1w.nii.gz`.

    What is not called so is a subject of its own: `sub-scan7` for `scan 7.nii.gz`.
    """
    name = image.name
    for suffix in sorted(READ_SUFFIXES, key=len, reverse=True):
        if suffix and name.lower().endswith(suffix):
            name = name[: -len(suffix)]
            break
    parts = [part for part in name.split("_") if re.fullmatch(r"[a-zA-Z]+-[a-zA-Z0-9+]+", part)]
    entities = [part for part in parts if not part.startswith(("desc-", "space-"))]
    if not entities or not entities[0].startswith("sub-"):
        entities = [f"sub-{re.sub('[^a-zA-Z0-9]', '', case) or 'unnamed'}"]
    kind = image.parent.name if image.parent.name in _DATA_TYPES else "anat"
    session = [part for part in entities[1:] if part.startswith("ses-")][:1]
    return folder.joinpath(entities[0], *session, kind, "_".join(entities))


def describe_bids(folder: Path, *, bundle: str, weights: str, labels: Mapping[int, str]) -> Sequence[Path]:
    """Writes what makes a folder a derivative data set: its description, and the names of the labels.

    Args:
        folder: of all results.
        bundle: its name.
        weights: their SHA-256.
        labels: names by number.
    """
    made = {
        "Name": f"Segmentations by {bundle}",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [
            {
                "Name": "semi-med",
                "Version": versions()["semi-med"],
                "Description": f"bundle {bundle}, weights with SHA-256 {weights}",
            }
        ],
    }
    description, names = folder / "dataset_description.json", folder / "desc-semimed_dseg.tsv"
    write_atomically(description, json.dumps(made, indent=2, ensure_ascii=False) + "\n")
    lines = ["index\tname", *(f"{number}\t{name}" for number, name in labels.items())]
    write_atomically(names, "\n".join(lines) + "\n")
    return [description, names]
