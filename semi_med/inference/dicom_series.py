"""Which volumes the files of a folder hold, and what else lies there. No file is passed over without being counted."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from semi_med.errors import InputError
from semi_med.inference.byte_check import COPY_AGAIN
from semi_med.inference.dicom_files import HEAD, FileSet, kind_of
from semi_med.inference.dicom_geometry import Plane, arrange
from semi_med.inference.dicom_headers import SPLITTING, Slice, read_header
from semi_med.inference.dicom_objects import Other, Unusable

_MAX_PARTS = 1000  # volumes that one series may hold


@dataclass(frozen=True)
class Volume:
    """Slices that belong together.

    Attributes:
        slices: in the order of the files.
        part: what sets it apart from the other volumes of its series, "" if there is one.
        copies: files that were left out because they are exact copies of others.
    """

    slices: tuple[Slice, ...]
    part: str = ""
    copies: int = 0

    @property
    def planes(self) -> list[Plane]:
        """Of the slices."""
        return [one.plane for one in self.slices]


@dataclass
class Survey:
    """What was found.

    Attributes:
        volumes: in the order in which they are listed.
        ignored: number of files (of frames, for localizers) that are no images of a volume, by kind.
        problems: files that cannot be used, with the hash of their series, "" if even that is unknown.
    """

    volumes: list[Volume] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    problems: list[tuple[str, InputError]] = field(default_factory=list)


def survey(files: FileSet, *, progress: Callable[[int], None]) -> Survey:
    """Looks at the header of every file.

    Args:
        files: what lies in the folder.
        progress: called with the index of each file before it is opened.
    """
    found = Survey()
    slices: dict[str, list[Slice]] = defaultdict(list)
    others: list[tuple[int, Other]] = []
    for index in range(len(files.names)):
        progress(index)
        try:
            read = _read(files, index)
        except Unusable as error:
            problem = f"{files.label(index)} cannot be used: {error.problem}"
            found.problems.append((error.series, InputError(problem, fix=error.fix, code=error.code)))
            continue
        if isinstance(read, str):
            found.ignored[read] += 1
        elif isinstance(read, Other):
            others.append((index, read))
        else:
            for one in read:
                slices[one.header.series].append(one)
    for index, other in others:
        if other.series in slices:
            problem = f"{files.label(index)} belongs to an image series, but is a {other.kind}"
            fix = "If it does not belong there, take it out of the folder."
            found.problems.append((other.series, InputError(problem, fix=fix, code="MIXED_SERIES")))
        found.ignored[other.kind] += 1
    for group in slices.values():
        images = [one for one in group if not one.localizer]
        found.ignored["localizer"] += len(group) - len(images)
        if images:
            found.volumes += _volumes(images, files)
    found.ignored += Counter()  # drops zeros
    found.volumes.sort(key=lambda volume: (volume.slices[0].header.number, volume.slices[0].header.series))
    return found


def choose(found: Survey, wanted: int | str | None) -> Volume:
    """The volume that is meant.

    Args:
        found: by `survey`.
        wanted: number in the list, or the beginning of a series' hash; None if there must be only one.

    Raises:
        InputError: code NO_IMAGES, SERIES, or that of a file that may belong to the volume and cannot be used.
    """
    if not found.volumes:
        if found.problems:
            raise found.problems[0][1]
        left = ", ".join(f"{count} {kind}" for kind, count in sorted(found.ignored.items()))
        raise InputError(
            "there is no CT, MR or PET image here" + (f", only {left}" if left else ""),
            fix="Name the folder of a series.",
            code="NO_IMAGES",
        )
    volume = _chosen(found.volumes, wanted)
    # damage may also have changed the UID of a file's series; only who chose a series has seen the others
    own = ("", volume.slices[0].header.series)
    blocking = [error for series, error in found.problems if wanted is None or series in own]
    if blocking:
        more = f" (and {len(blocking) - 1} more files)" if len(blocking) > 1 else ""
        raise InputError(f"{blocking[0].problem}{more}", fix=blocking[0].fix, code=blocking[0].code)
    return volume


def describe(volume: Volume, number: int) -> str:
    """One line about a volume without any text from its files."""
    header, plane = volume.slices[0].header, volume.slices[0].plane
    spacing = " x ".join(f"{size:.3g}" for size in plane.spacing[::-1]) + " mm" if plane.spacing else "spacing unknown"
    part = f", {volume.part}" if volume.part else ""
    return (
        f"{number}: {header.modality}, {len(volume.slices)} slices of {plane.columns} x {plane.rows}, {spacing}"
        f"{part} ({header.series})"
    )


def _chosen(volumes: Sequence[Volume], wanted: int | str | None) -> Volume:
    if wanted is None:
        matches = list(volumes)
    elif isinstance(wanted, int) or (wanted.isdecimal() and len(wanted) < 6):
        matches = [volumes[int(wanted) - 1]] if 1 <= int(wanted) <= len(volumes) else []
    else:
        matches = [volume for volume in volumes if volume.slices[0].header.series.startswith(wanted.lower())]
    if len(matches) == 1:
        return matches[0]
    listed = "; ".join(describe(volume, number) for number, volume in enumerate(volumes[:20], 1))
    asked = "one series is wanted" if wanted is None else f"series {wanted} is none or several of them"
    raise InputError(
        f"{asked}, there are {len(volumes)}: {listed}",
        fix="Choose with --series N (semi-med series lists them), or name the folder of one series.",
        code="SERIES",
    )


def _read(files: FileSet, index: int) -> list[Slice] | Other | str:
    """The slices of a file, or what else it is."""
    try:
        with files.open(index) as stream:
            head = stream.read(HEAD)
            kind = kind_of(files.names[index], head)
            if kind is not None and kind != "DICOM":
                return kind
            if kind == "DICOM":
                stream.seek(0)
                return read_header(stream, index)
    except OSError as error:
        raise Unusable(f"it cannot be opened ({error.strerror or error})", code="UNREADABLE") from None
    if not head:
        raise Unusable("it is empty (0 bytes)", code="EMPTY_FILE")
    raise Unusable(
        "it is neither DICOM nor a kind of file that is known to be none, so it may be a damaged slice",
        fix=f"{COPY_AGAIN} If it is no slice, take it out of the folder.",
    )


def _volumes(images: list[Slice], files: FileSet) -> Iterator[Volume]:
    """The volumes of one series: usually one; several if a tag tells repeated places apart."""
    images, copies = _without_copies(images, files)
    if _code_of(images) == "DUPLICATE_SLICE" and (split := _split(images)):
        names, parts = split
        for number, part in enumerate(parts, 1):
            yield Volume(tuple(part), f"{' and '.join(names)} {number} of {len(parts)}", copies)
        return
    yield Volume(tuple(images), "", copies)


def _split(images: Sequence[Slice]) -> tuple[tuple[str, ...], list[list[Slice]]] | None:
    """Tags, and the volumes of equal size without repeated places that they sort the slices into."""
    varying = [name for name in SPLITTING if len({one.tells.get(name) for one in images}) > 1]
    for names in (*itertools.combinations(varying, 1), *itertools.combinations(varying, 2)):
        groups: dict[tuple[str | None, ...], list[Slice]] = defaultdict(list)
        for one in images:
            groups[tuple(one.tells.get(name) for name in names)].append(one)
        sizes = {len(group) for group in groups.values()}
        if len(sizes) > 1 or len(groups) > _MAX_PARTS or sizes == {1}:
            continue
        parts = [groups[key] for key in sorted(groups, key=_natural)]
        if all(_code_of(part) in ("", "SLICE_GAP") for part in parts):
            return names, parts
    return None


def _natural(key: tuple[str | None, ...]) -> list[tuple[int, float, str]]:
    """Numbers by size, before words."""
    order = []
    for value in key:
        try:
            order.append((0, float(value or 0), ""))
        except ValueError:
            order.append((1, 0.0, value or ""))
    return order


def geometry(volume: Volume) -> tuple[float | None, str]:
    """Mm between slices, and the code of what keeps the slices from making a volume, "" if nothing does."""
    try:
        return arrange(volume.planes).step, ""
    except InputError as error:
        return None, error.code


def _code_of(images: Sequence[Slice]) -> str:
    return geometry(Volume(tuple(images)))[1]


def _without_copies(images: list[Slice], files: FileSet) -> tuple[list[Slice], int]:
    """Leaves out files that are byte for byte copies of another one; they would be slices at one place."""
    by_instance: dict[str, set[int]] = defaultdict(set)
    for one in images:
        by_instance[one.header.instance].add(one.header.file)
    dropped: set[int] = set()
    for indices in by_instance.values():
        seen: set[bytes] = set()
        for index in sorted(indices) if len(indices) > 1 else ():
            with files.open(index) as stream:
                digest = hashlib.sha256(stream.read()).digest()
            if digest in seen:
                dropped.add(index)
            seen.add(digest)
    return [one for one in images if one.header.file not in dropped], len(dropped)
