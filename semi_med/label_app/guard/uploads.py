"""Files that clients send: verified whole, and named by the server, before the stock server has them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from semi_med.errors import InputError
from semi_med.inference.dicom_files import HEAD, ZipFiles, looks_like_dicom
from semi_med.inference.io import read_image, read_label, stored_shape
from semi_med.inference.picture_check import is_picture, picture_shape
from semi_med.label_app.guard.answers import Refused
from semi_med.label_app.guard.bodies import Form, too_large
from semi_med.label_app.guard.endpoints import Endpoint
from semi_med.label_app.guard.limits import Limits
from semi_med.label_app.guard.store import IMAGE_SUFFIXES
from semi_med.label_app.qupath import SUFFIX, read_annotations

_LABEL_SUFFIXES = tuple(suffix for suffix in IMAGE_SUFFIXES if suffix not in (".jpg", ".jpeg"))  # JPEG makes up values


def verify_files(form: Form, endpoint: Endpoint, *, limits: Limits, remote: bool, labeled: Path | None) -> None:
    """Reads every file of a form whole, and gives it a plain name with the ending of its format.

    Args:
        form: as it came; its files are renamed, of a session also unpacked.
        endpoint: says what each file is.
        limits: of bytes, also of an archive when unpacked.
        remote: the store is a DICOMweb server, to which OHIF sends labels without a header.
        labeled: the image that a label belongs to, if it is known.

    Raises:
        InputError: as `read_image`, `read_label` and `read_annotations` find it.
        Refused: 415 for another kind of file, 422.
    """
    kinds = set(endpoint.files.values())
    if "session" in kinds:
        form.files = [
            ("files", "", path) for path in _session_files([(n, p) for _, n, p in form.files], most=limits.upload)
        ]
        return
    names = [name for name, _, _ in form.files]
    if len(set(names)) < len(names):
        raise Refused(422, "one file is taken in a field, several came", code="FORM")
    for number, (name, given, path) in enumerate(form.files):
        kind = endpoint.files[name]
        if kind == "image":
            path = _named(path, _suffix(given, IMAGE_SUFFIXES))
            _read_image(path)
        elif remote and given.lower().endswith(".bin"):
            path = _named(path, ".bin")
        elif kind == "label" and given.lower().endswith(SUFFIX):
            path = _named(path, SUFFIX)
            _read_annotations(path, labeled)
        else:
            path = _named(path, _suffix(given, _LABEL_SUFFIXES))
            _read_label(path, labeled)
        form.files[number] = (name, given, path)


def stem(given: str) -> str:
    """A file's name without folders and the ending of its format, whatever system the client has."""
    name = re.split(r"[\\/]", given)[-1]
    suffix = next((s for s in IMAGE_SUFFIXES if name.lower().endswith(s)), "")
    return name[: -len(suffix)] if suffix else name


def _suffix(given: str, allowed: Sequence[str]) -> str:
    """The ending of a client's file; a file without a name is taken for NIfTI, as the stock server does."""
    if not given:
        return ".nii.gz"
    suffix = next((s for s in allowed if given.lower().endswith(s)), None)
    if suffix is None:
        raise Refused(415, f"files of the kinds {', '.join(allowed)} are taken here", code="FORMAT")
    return suffix


def _named(path: Path, suffix: str) -> Path:
    return path.rename(path.with_name(f"upload{path.name}{suffix}"))


def _read_image(path: Path) -> None:
    shape = stored_shape(path)
    channels = shape[3] if shape is not None and len(shape) > 3 else 1
    read_image(path, channels=channels, nonfinite="replace", sheared=True, flat=True)


def _read_label(path: Path, labeled: Path | None) -> None:
    found = read_label(path, sheared=True, flat=True).array.shape
    if labeled is None:
        return
    shape = picture_shape(labeled) if is_picture(labeled) else stored_shape(labeled)
    if shape is None:
        return
    plain = (*shape, 1)[:3]
    frames = (*shape[:2], shape[3]) if len(shape) == 4 and shape[2] == 1 else plain  # a sequence of flat pictures
    if found not in (plain, frames):
        wanted, got = (" x ".join(str(size) for size in sizes) for sizes in (plain, found))
        raise Refused(
            422, f"the label has {got} voxels, its image has {wanted}", fix="Draw it on that image.", code="GEOMETRY"
        )


def _read_annotations(path: Path, labeled: Path | None) -> None:
    """Polygons of QuPath, which lie on pictures."""
    if labeled is not None and not is_picture(labeled):
        raise Refused(422, "annotations are taken on pictures", fix="Submit a label file instead.", code="FORMAT")
    read_annotations(path)


# ---- sessions ------------------------------------------------------------------------------------------------------


def _session_files(given: Sequence[tuple[str, Path]], *, most: int) -> list[Path]:
    """The files of a session: one image, or the slices of a DICOM series, also from a zip archive."""
    (name, path), single = given[0], len(given) == 1
    if single and name.lower().endswith(".zip"):
        return _unpacked(_named(path, ".zip"), most=most)
    if single and name.lower().endswith(IMAGE_SUFFIXES):
        path = _named(path, _suffix(name, IMAGE_SUFFIXES))
        _read_image(path)
        return [path]
    return _series([path for _, path in given])


def _unpacked(archive: Path, *, most: int) -> list[Path]:
    """The members of an archive as files, never under their own names; `ZipFiles` refuses hostile archives."""
    files = ZipFiles(archive)
    folder = archive.with_name("unpacked")
    folder.mkdir()
    images = [i for i, name in enumerate(files.names) if name.lower().endswith(IMAGE_SUFFIXES)]
    wanted = images if len(images) == 1 else range(len(files.names))
    kept, room = [], most
    for number in wanted:
        if files.unpacked > room:
            raise too_large(most)
        try:
            with files.open(number) as stream:
                content = stream.read()
        except OSError:
            raise InputError("the archive is damaged", fix="Make it again.", code="ARCHIVE") from None
        if len(images) == 1 or looks_like_dicom(content[:HEAD]):
            path = folder / f"{number:06d}"
            path.write_bytes(content)
            room -= len(content)
            kept.append(path)
    archive.unlink()
    if len(images) == 1:
        return _session_files([(files.names[images[0]], kept[0])], most=most)
    if not kept:
        raise Refused(422, "there is neither one image nor a DICOM series in this archive", code="ARCHIVE")
    return _series(kept)


def _series(paths: Sequence[Path]) -> list[Path]:
    folder = paths[0].with_name("series")
    folder.mkdir()
    moved = [path.rename(folder / f"{number:06d}.dcm") for number, path in enumerate(paths, 1)]
    read_image(folder)  # in a process of its own, under limits
    return moved
