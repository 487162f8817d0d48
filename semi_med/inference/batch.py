"""Many scans with one bundle: reading, networks and writing overlap, a bad scan stops nothing, a stop loses nothing."""

from __future__ import annotations

import datetime
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from semi_med.errors import InputError, ProblemsError, SemiMedError
from semi_med.inference.batch_files import (
    BatchCase,
    CaseRow,
    Format,
    clashes,
    collect_cases,
    join_channels,
    listed_cases,
    make_output_folder,
    write_record,
    write_volumes,
)
from semi_med.inference.dicom import is_dicom, stop_reading
from semi_med.inference.dicom_seg import SegmentationInfo, check_highdicom, has_highdicom, segments_of, write_seg
from semi_med.inference.io import write_label, write_map
from semi_med.inference.manifest import Manifest, input_checksum, sha256
from semi_med.inference.naming import NAMINGS, Names, Naming, describe_bids
from semi_med.inference.precision import Precision
from semi_med.inference.predictor import Loaded, Prediction, Predictor
from semi_med.metrics.confidence import MEAN, expected_dice, read_calibration

T = TypeVar("T")
_READ_AHEAD = 2**26  # voxels of a scan beside which the next one is not read yet


@dataclass(frozen=True)
class Wanted:
    """What is written for each case.

    Attributes:
        format: of the labels; "nifti" also for pictures, "png" also for volumes of one slice.
        naming: of the files, after the case or as a BIDS derivative.
        dicom_seg: a DICOM SEG for each DICOM series: True, False, or None for "if highdicom is installed".
        skip_existing: cases that the folder's manifest has, with the same input and settings and whose files are
            unharmed, are left as they are.
        calibration: the `<table>_confidence.json` of an evaluation, which says what Dice to expect of a confidence.
    """

    format: Format = "auto"
    naming: Naming = "case"
    dicom_seg: bool | None = None
    skip_existing: bool = False
    calibration: Path | None = None

    def __post_init__(self) -> None:
        if self.naming not in NAMINGS:
            raise InputError(
                f"one of {', '.join(NAMINGS)} is wanted, not {self.naming!r}", where="naming", code="SETTING"
            )
        if self.dicom_seg:
            check_highdicom()


def predict(
    bundle: str | Path,
    inputs: Sequence[str | Path],
    output: str | Path,
    *,
    cases: Mapping[str, Sequence[Path]] | None = None,
    network: str = "1",
    largest_component: bool | None = None,
    device: str | None = None,
    weights: str | Path | None = None,
    precision: Precision = "bundle",
    maps: Sequence[str] = (),
    flips: bool = False,
    series: int | str | None = None,
    dicom: Mapping[str, Any] | None = None,
    format: Format = "auto",
    naming: Naming = "case",
    dicom_seg: bool | None = None,
    skip_existing: bool = False,
    calibration: str | Path | None = None,
    report: Callable[[CaseRow, int, int], None] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[CaseRow]:
    """Segments files, folders of scans and DICOM series; a case that fails is recorded and the others go on.

    Writes `<case>_seg.nii.gz` for every case, for a picture `<case>_seg.png`, and `volumes.csv` and `run.json`, each at
    once or not at all; `manifest.jsonl` grows with each case.

    Args:
        bundle: see `Predictor.load`.
        inputs: scans, folders of scans, and folders or zip archives of DICOM series.
        output: folder for the results; made if it is not there.
        cases: names and files of the cases, as a data list has them; then no input is looked through.
        network: see `Predictor.load`.
        largest_component: see `Predictor.load`.
        device: see `Predictor.load`.
        weights: see `Predictor.load`.
        precision: see `Predictor.load`.
        maps: see `Predictor.load`; written as `maps/<case>_<map>.nii.gz`.
        flips: see `Predictor.load`.
        series: of DICOM folders with several: a number, the beginning of a hash, or "all".
        dicom: `gaps`, `tilt` and `burned_in` of `semi_med.inference.dicom.read_dicom`.
        format: see `Wanted`.
        naming: see `Wanted`.
        dicom_seg: see `Wanted`.
        skip_existing: see `Wanted`.
        calibration: see `Wanted`.
        report: called after every case with its row, the number of finished cases and the number of all.
        progress: called while the networks run with the case, the number of finished windows and that of all.

    Returns:
        One row per case, in the order of the inputs; `status` is "done" or "failed".

    Raises:
        InputError: if the inputs, the bundle or the output folder cannot be used; no case has been touched then.
        ResourceError: if the device cannot be used, or the disk is full.
    """
    output, dicom = Path(output), dict(dicom or {})
    wanted = Wanted(format, naming, dicom_seg, skip_existing, None if calibration is None else Path(calibration))
    found = (
        collect_cases([Path(path) for path in inputs], output, series=series, format=format, several_channels=True)
        if cases is None
        else listed_cases(cases, output, series=series, format=format)
    )
    predictor = Predictor.load(
        bundle,
        weights=weights,
        network=network,
        largest_component=largest_component,
        device=device,
        precision=precision,
        maps=maps,
        flips=flips,
    )
    if cases is None:
        found = join_channels(
            found,
            output,
            channels=predictor.bundle.channels or 1,
            names=predictor.bundle.channel_names,
            in_one_file=predictor.bundle.in_one_file,
            format=format,
        )
    found = _named(found, output, naming, predictor.maps.names)
    make_output_folder(output)
    settings = {
        "bundle": Path(bundle).resolve().name,
        "weights": predictor.bundle.weights.name,
        "weights_sha256": predictor.bundle.sha256,
        "config_sha256": predictor.bundle.config_sha256,
        "network": network,
        "largest_component": predictor.bundle.largest_component,
        "window": list(predictor.bundle.inferer.window),
        "stride": list(predictor.bundle.inferer.stride),
        "amp": predictor.bundle.inferer.amp,
        "precision": precision,
        "maps": list(predictor.maps.names),
        "flips": flips,
        "dicom": {"series": series, **dicom},
        "classes": {str(predictor.bundle.values[index]): name for index, name in predictor.bundle.classes.items()},
    }
    batch = _Batch(predictor, output, wanted, dicom, settings, progress)
    return batch.run(found, report)


def _named(cases: Sequence[BatchCase], output: Path, naming: Naming, maps: Sequence[str]) -> list[BatchCase]:
    """The cases with the labels called as is wanted; no file of theirs is that of another, or an input."""
    made = [
        replace(case, target=Names.of(case.target, case.name, case.image, output, naming=naming).label)
        for case in cases
    ]

    def written(case: BatchCase) -> list[Path]:
        names = _names_of(case, output, naming)
        return [names.label, names.segmentation, *map(names.map, maps)]

    if problems := clashes(made, {path.resolve() for case in cases for path in (case.image, *case.further)}, written):
        raise ProblemsError(problems, title="inputs")
    return made


def _names_of(case: BatchCase, output: Path, naming: Naming) -> Names:
    """Of all files of a case whose label has its name already."""
    return replace(Names.of(case.target, case.name, case.image, output, naming=naming), label=case.target)


class _Batch:
    """One run over the cases."""

    def __init__(
        self,
        predictor: Predictor,
        output: Path,
        wanted: Wanted,
        dicom: Mapping[str, Any],
        settings: Mapping[str, Any],
        progress: Callable[[str, int, int], None] | None,
    ) -> None:
        self._predictor, self._output, self._wanted, self._dicom = predictor, output, wanted, dicom
        self._progress = progress
        self._calibration: dict[str, dict[str, float]] = {}
        if wanted.calibration is not None:
            self._calibration = read_calibration(wanted.calibration)
        written = {
            "format": wanted.format,
            "naming": wanted.naming,
            "dicom_seg": self._writes_seg,
            "calibration": self._calibration,
        }
        self._settings = {**settings, **written}
        self._manifest: Manifest | None = None

    @property
    def _writes_seg(self) -> bool:
        return has_highdicom() if self._wanted.dicom_seg is None else self._wanted.dicom_seg

    def run(self, cases: Sequence[BatchCase], report: Callable[[CaseRow, int, int], None] | None) -> list[CaseRow]:
        """Segments all; the record is written even if it is interrupted."""
        started, clock = datetime.datetime.now(datetime.timezone.utc), time.perf_counter()
        self._manifest = Manifest(self._output, self._settings)
        rows: list[CaseRow] = []
        try:
            if self._wanted.naming == "bids":
                bundle = self._predictor.bundle
                describe_bids(
                    self._output,
                    bundle=self._settings["bundle"],
                    weights=bundle.sha256,
                    labels={bundle.values[index]: name for index, name in bundle.classes.items()},
                )
            for row in self._rows(cases):
                rows.append(row)
                if report is not None:
                    report(row, len(rows), len(cases))
        finally:
            self._manifest.close()
            write_volumes(self._output / "volumes.csv", rows)
            write_record(
                self._output / "run.json",
                {
                    **self._settings,
                    "device": str(self._predictor.device),
                    "computed_in": self._predictor.precisions.chosen,
                },
                rows=rows,
                started=started.isoformat(timespec="seconds"),
                seconds=time.perf_counter() - clock,
            )
        return rows

    def _rows(self, cases: Sequence[BatchCase]) -> Iterator[CaseRow]:
        """One after the other; while the networks see one case, the next is read and the one before written."""
        with ThreadPoolExecutor(1, "read") as readers, ThreadPoolExecutor(1, "write") as writers:
            waiting = iter(cases)
            coming = _submit(readers, self._read, next(waiting, None))
            writing: Future[CaseRow] | None = None
            try:
                while coming is not None:
                    step = coming.result()
                    large = step.loaded is not None and step.loaded.intensities.size > _READ_AHEAD
                    coming = None if large else _submit(readers, self._read, next(waiting, None))
                    step = self._segment(step)
                    if writing is not None:
                        row, writing = writing.result(), None
                        yield row
                    writing = writers.submit(self._write, step)
                    if large:  # memory for one of these, not for two
                        del step
                        row, writing = writing.result(), None
                        yield row
                        coming = _submit(readers, self._read, next(waiting, None))
                if writing is not None:
                    row, writing = writing.result(), None
                    yield row
            except KeyboardInterrupt:
                stop_reading()
                if writing is not None:  # is finished, and belongs in the record
                    yield writing.result()
                raise
            finally:
                readers.shutdown(cancel_futures=True)

    def _read(self, case: BatchCase) -> _Step:
        step = _Step(case, _new_row(case))
        with step.guard():
            files = [case.image, *case.further]
            step.checksum = input_checksum(files)
            assert self._manifest is not None
            if self._wanted.skip_existing and (known := self._manifest.find(case.name, step.checksum)):
                step.row = {**step.row, **known, "skipped": True}  # type: ignore[typeddict-item]
                step.over = True
                return step
            step.loaded = self._predictor.read(files, dicom={**self._dicom, "series": case.series})
        return step

    def _segment(self, step: _Step) -> _Step:
        if step.over or step.loaded is None:
            return step
        with step.guard():
            shown = self._progress
            report = None if shown is None else lambda done, total: shown(step.case.name, done, total)
            step.segmented = self._predictor.segment(step.loaded, progress=report)
        step.loaded = None
        return step

    def _write(self, step: _Step) -> CaseRow:
        if step.over or step.segmented is None:
            return step.row
        with step.guard():
            prediction = self._predictor.finish(step.segmented)
            step.segmented = None
            clock = time.perf_counter()
            files, notes, lost = self._write_files(step.case, prediction)
            row = step.row
            row["status"], row["output"] = "done", _relative(step.case.target, self._output)
            row["outputs"] = {_relative(path, self._output): sha256(path) for path in files}
            row["volumes_ml"], row["voxels"] = prediction.volumes_ml, prediction.voxels
            for name, one in prediction.structures.items():
                expected = expected_dice(self._calibration, name, one.confidence)
                row["structures"][name] = _known({**asdict(one), "expected_dice": expected})
            row["confidence"] = _number(prediction.confidence)
            row["expected_dice"] = _number(self._expected(prediction))
            row["warnings"] = [*prediction.warnings, *notes]
            timings = {**prediction.seconds, "write": time.perf_counter() - clock}
            row["timings"] = {name: round(seconds, 3) for name, seconds in timings.items()}
            row["seconds"] = round(sum(timings.values()), 3)
            if lost is None:
                assert self._manifest is not None
                self._manifest.add(step.case.name, step.checksum, {**row})
            else:  # not in the manifest, so that --skip-existing takes the case again
                row["status"] = "failed"
                row["error"], row["code"] = _told(lost, step.case)
        return step.row

    def _expected(self, prediction: Prediction) -> float:
        """Of the case: by the line of the means over classes; with one class by that of the class."""
        names = [*prediction.structures]
        return expected_dice(self._calibration, MEAN if len(names) > 1 else names[0], prediction.confidence)

    def _write_files(self, case: BatchCase, prediction: Prediction) -> tuple[list[Path], list[str], Exception | None]:
        """The files of a case, each whole or not at all, warnings, and why its segmentation is not among them."""
        image = case.image
        names = _names_of(case, self._output, self._wanted.naming)
        notes: list[str] = []
        assert self._manifest is not None
        if self._manifest.wrote(case.name, _relative(names.segmentation, self._output)):  # with other settings
            names.segmentation.unlink(missing_ok=True)
        write_label(case.target, prediction.label, affine=prediction.affine, axes=prediction.axes)
        files = [case.target]
        for name, values in prediction.maps.items():
            write_map(names.map(name), values, affine=prediction.affine)
            files.append(names.map(name))
        if not self._writes_seg or not is_dicom(image):
            return files, notes, None
        try:
            self._write_seg(case, prediction, names.segmentation)
        except SemiMedError as error:
            if error.code == "DISK_FULL":
                raise
            if error.code == "NO_SEG" and not self._wanted.dicom_seg:  # nor will there be with the next attempt
                return files, [f"NO_SEG: {error.problem}"], None
            return files, notes, error
        except Exception as error:  # the label is there, and stays
            return files, notes, error
        return [*files, names.segmentation], notes, None

    def _write_seg(self, case: BatchCase, prediction: Prediction, target: Path) -> None:
        bundle = self._predictor.bundle
        numbers = {bundle.values[index]: name for index, name in bundle.classes.items() if index > 0}
        write_seg(
            target,
            case.image,
            prediction.label,
            choices={**self._dicom, "series": case.series},
            info=SegmentationInfo(
                segments=segments_of(numbers, bundle.codes),
                bundle=self._settings["bundle"],
                weights_sha256=bundle.sha256,
            ),
        )


@dataclass
class _Step:
    """A case on its way."""

    case: BatchCase
    row: CaseRow
    checksum: str = ""
    loaded: Loaded | None = None
    segmented: Any = None
    over: bool = False

    def guard(self) -> _Guard:
        return _Guard(self)


class _Guard:
    """Turns an error into the row of a failed case; one case must not stop the batch."""

    def __init__(self, step: _Step) -> None:
        self._step = step
        self._clock = time.perf_counter()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        step, row = self._step, self._step.row
        if not isinstance(error, Exception):
            return False
        if isinstance(error, SemiMedError) and error.code == "DISK_FULL":  # every further case would fail alike
            return False
        row["status"], row["output"] = "failed", None
        row["error"], row["code"] = _told(error, step.case)
        row["seconds"] = round(time.perf_counter() - self._clock, 3)
        step.over, step.loaded, step.segmented = True, None, None
        return True


def _told(error: Exception, case: BatchCase) -> tuple[str, str | None]:
    """What a record says about an error: a text without the folder of the scan, and a code."""
    if isinstance(error, SemiMedError):
        return f"{error.problem}. {error.fix}" if error.fix else error.problem, error.code
    return f"{type(error).__name__}: {error}".replace(f"{case.image.parent}/", ""), "UNEXPECTED"


def _new_row(case: BatchCase) -> CaseRow:
    return CaseRow(
        case=case.name,
        image=case.image.name,
        status="failed",
        output=None,
        outputs={},
        volumes_ml={},
        voxels={},
        structures={},
        confidence=None,
        expected_dice=None,
        warnings=[],
        error=None,
        code=None,
        seconds=0.0,
        timings={},
        skipped=False,
    )


def _submit(pool: ThreadPoolExecutor, action: Callable[[BatchCase], T], case: BatchCase | None) -> Future[T] | None:
    return None if case is None else pool.submit(action, case)


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {name: _number(value) for name, value in values.items()}


def _number(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, 6)
    return value
