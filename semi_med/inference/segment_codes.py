"""Which codes and colours stand for structures in DICOM segmentations. Pure data, nothing is imported."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from semi_med.errors import InputError

Code: TypeAlias = tuple[str, str, str]  # value, coding scheme, meaning

ANATOMY: Code = ("91723000", "SCT", "Anatomical Structure")
ABNORMAL: Code = ("49755003", "SCT", "Morphologically Abnormal Structure")
BODY: Code = ("123037004", "SCT", "Body structure")
PRIVATE_SCHEME = "99SEMIMED"

_ANATOMY = {
    "adrenal gland": ("23451007", "Adrenal gland"),
    "aorta": ("15825003", "Aorta"),
    "bladder": ("89837001", "Urinary bladder"),
    "blood vessel": ("59820001", "Blood Vessel"),
    "brain": ("12738006", "Brain"),
    "clavicle": ("51299004", "Clavicle"),
    "esophagus": ("32849002", "Esophagus"),
    "gallbladder": ("28231008", "Gallbladder"),
    "heart": ("80891009", "Heart"),
    "hippocampus": ("5366008", "Hippocampus"),
    "kidney": ("64033007", "Kidney"),
    "left atrium": ("82471001", "Left atrium"),
    "left ventricle": ("87878005", "Left ventricle"),
    "left ventricle myocardium": ("49848007", "Left Ventricle Myocardium"),
    "liver": ("10200004", "Liver"),
    "lung": ("39607008", "Lung"),
    "pancreas": ("15776009", "Pancreas"),
    "prostate": ("41216001", "Prostate"),
    "right atrium": ("73829009", "Right atrium"),
    "right ventricle": ("53085002", "Right ventricle"),
    "spleen": ("78961009", "Spleen"),
    "stomach": ("69695003", "Stomach"),
}
_ABNORMAL = {
    "edema": ("79654002", "Edema"),
    "lesion": ("52988006", "Lesion"),
    "necrosis": ("6574001", "Necrosis"),
    "neoplasm": ("108369006", "Neoplasm"),
}
_OTHER_WORDS = {
    "lv": "left ventricle",
    "oedema": "edema",
    "oesophagus": "esophagus",
    "rv": "right ventricle",
    "tumor": "neoplasm",
    "tumour": "neoplasm",
    "vessel": "blood vessel",
    "vessels": "blood vessel",
}
_SIDES = ("left", "right", "anterior", "posterior")
_COLOURS = (  # RGB, told apart in most kinds of colour blindness
    *((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66)),
    *((0, 114, 178), (213, 94, 0), (204, 121, 167), (150, 150, 150)),
)


@dataclass(frozen=True)
class Segment:
    """How one structure is described in a DICOM segmentation.

    Attributes:
        number: of the class in the label.
        name: of the class.
        category: what kind of thing it is.
        type: what it is.
        colour: RGB, 0 to 255.
    """

    number: int
    name: str
    category: Code
    type: Code
    colour: tuple[int, int, int]


def segments_of(classes: Mapping[int, str], given: Mapping[str, Any] | None = None) -> list[Segment]:
    """The segments of a label.

    A bundle's metadata may name the codes of its classes: `"segment_codes": {"left atrium": {"category": ["91723000",
    "SCT", "Anatomical Structure"], "type": ["82471001", "SCT", "Left atrium"], "colour": [230, 159, 0]}}`. Otherwise
    SNOMED CT codes are looked up for common names, for which a side or an end ("left kidney") does not matter; it stays
    in the segment's label. What is not known gets the category "Body structure" and a type of a private scheme,
    99SEMIMED, whose meaning is the name: no code is made up.

    Args:
        classes: names by number, without the background.
        given: what the metadata have under `segment_codes`.

    Raises:
        InputError: code BUNDLE, if an entry of the metadata cannot be read.
    """
    made = []
    for place, (number, name) in enumerate(sorted(classes.items())):
        category, kind = _known(name) or (BODY, (f"CLASS{number}", PRIVATE_SCHEME, name[:64]))
        colour: Any = _COLOURS[place % len(_COLOURS)]
        if entry := (given or {}).get(name):
            try:
                category, kind = (_code(entry[key]) for key in ("category", "type"))
                colour = tuple(int(part) for part in entry.get("colour", colour))
                if len(colour) != 3 or not all(0 <= part < 256 for part in colour):
                    raise ValueError("colour")
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise InputError(
                    f"segment_codes of {name!r} wants category and type as [value, scheme, meaning], and colour as RGB",
                    where="configs/metadata.json",
                    code="BUNDLE",
                ) from error
        made.append(Segment(number, name, category, kind, colour))
    return made


def _code(entry: Any) -> Code:
    value, scheme, meaning = (str(part) for part in entry)
    return value, scheme, meaning


def _known(name: str) -> tuple[Code, Code] | None:
    words = re.sub(r"[^a-z]+", " ", name.lower()).strip()
    without = " ".join(word for word in words.split() if word not in _SIDES)
    for known in (words, _OTHER_WORDS.get(words, ""), without, _OTHER_WORDS.get(without, "")):
        for category, table in ((ANATOMY, _ANATOMY), (ABNORMAL, _ABNORMAL)):
            for form in (known, known.removesuffix("s")):
                if form in table:
                    value, meaning = table[form]
                    return category, (value, "SCT", meaning)
    return None
