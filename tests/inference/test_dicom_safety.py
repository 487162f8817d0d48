"""Hostile files cost one series, never the program; and nobody's name leaves a file."""

from __future__ import annotations

import gzip
import io
import json
import os
import stat
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from semi_med import cli
from semi_med.errors import SemiMedError
from semi_med.inference import dicom_process, dicom_worker
from semi_med.inference.batch import predict
from semi_med.inference.dicom import file_name, find_series, is_dicom, read_dicom
from semi_med.inference.dicom_process import Child
from semi_med.inference.io import read_image
from tests.corpus.dicom_corpus import CANARY, CORPUS, IDENTITY, plan_series, save
from tests.corpus.dicom_fuzz import fuzz

SMALL = (4, 8, 6)


@pytest.fixture
def bad_child(monkeypatch) -> Iterator[Callable[[str], None]]:
    """Lets the next children run this at the third file."""
    dicom_process.close()

    def use(action: str) -> None:
        start = (
            "import os, signal, time; from semi_med.inference import dicom_worker, dicom_volume\n"
            "def act(*args, progress, **rest):\n    progress(2)\n    " + action + "\n"
            "dicom_volume.read_volume = act\ndicom_worker.serve()"
        )
        monkeypatch.setattr(dicom_process, "_START", start)

    yield use
    dicom_process.close()


@pytest.mark.parametrize(
    "action, code",
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "DECODER_CRASH"),
        ("os._exit(0)", "DECODER_CRASH"),
        ("bytearray(2**45)", "MEMORY"),
    ],
    ids=["signal", "exit", "memory"],
)
def test_a_child_that_fails_is_an_error_and_the_parent_lives(tmp_path, bad_child, action, code):
    plan_series(shape=SMALL).write(tmp_path)
    bad_child(action)
    with pytest.raises(SemiMedError) as caught:
        read_image(tmp_path)
    assert caught.value.code == code
    if code == "DECODER_CRASH":
        assert "at file 3" in caught.value.problem


def test_what_a_child_sends_is_not_believed(tmp_path):
    lie = "import sys; sys.stdin.readline(); sys.stdout.buffer.write({!r}); sys.stdout.flush(); sys.stdin.readline()"
    header = dicom_worker.FRAME.pack
    content = json.dumps({"shape": [2, 2, 2], "dtype": "<f4"}).encode()
    for frames in (
        b"rubbish" * 9,
        header(b"R", 2**40),
        header(b"R", len(content)) + content + header(b"V", 2**60),
        header(b"R", len(content)) + content + header(b"V", 8),
    ):
        child = Child([sys.executable, "-c", lie.format(header(b"P", 8) + bytes(8) + frames)])
        with pytest.raises(SemiMedError) as caught:
            child.ask({}, timeout=20)
        assert caught.value.code == "DECODER_CRASH"
        assert not child.alive


def test_a_child_that_hangs_is_ended(tmp_path):
    child = Child([sys.executable, "-c", "import time; time.sleep(60)"])
    with pytest.raises(SemiMedError) as caught:
        child.ask({}, timeout=0.2)
    assert caught.value.code == "TIMEOUT"
    assert not child.alive


@pytest.mark.skipif(not hasattr(os, "getsid"), reason="sessions are of POSIX")
def test_ctrl_c_at_the_terminal_does_not_reach_the_child():
    child = Child([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        assert os.getsid(child._process.pid) != os.getsid(0)
    finally:
        child.kill()


def test_a_child_that_reads_can_be_stopped(tmp_path, bad_child):
    plan_series(shape=SMALL).write(tmp_path)
    bad_child("time.sleep(600)")
    caught: list[SemiMedError] = []

    def read() -> None:
        try:
            read_image(tmp_path)
        except SemiMedError as error:
            caught.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    until = time.monotonic() + 60
    while not dicom_process._reading and time.monotonic() < until:
        time.sleep(0.01)
    dicom_process.stop_reading()
    reader.join(60)
    assert [error.code for error in caught] == ["STOPPED"]
    assert not dicom_process._reading


def test_a_child_that_rested_too_long_is_replaced(tmp_path):
    plan = plan_series(shape=SMALL)
    plan.write(tmp_path)
    read_image(tmp_path)
    assert len(dicom_process._idle) == 1
    dicom_process._idle[0]._process.kill()
    np.testing.assert_array_equal(read_image(tmp_path).array, plan.real)


def test_threads_and_forks_have_children_of_their_own(tmp_path):
    plans = [plan_series(shape=SMALL, values=np.full(SMALL, 100 * n)) for n in range(3)]
    folders = [plan.write(tmp_path / str(n)) for n, plan in enumerate(plans)]
    found: dict[int, float] = {}
    threads = [
        threading.Thread(target=lambda n=n: found.__setitem__(n, float(read_image(folders[n]).array[0, 0, 0])))
        for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: 100.0 * n - 1024 for n in range(3)}
    assert dicom_process._idle
    process = os.fork()
    if process == 0:  # as a data-loading worker
        os._exit(0 if not dicom_process._idle and read_image(folders[2]).array[0, 0, 0] == 200 - 1024 else 1)
    assert os.waitpid(process, 0)[1] == 0
    np.testing.assert_array_equal(read_image(folders[0]).array, plans[0].real)


def test_a_file_that_announces_gigabytes_takes_none(tmp_path):
    plan = plan_series(shape=SMALL)
    for one in plan.slices:
        one.Rows, one.Columns = 65535, 65535
    with pytest.raises(SemiMedError) as caught:
        read_image(plan.write(tmp_path))
    assert caught.value.code in ("TOO_LARGE", "MEMORY", "TRUNCATED")


def test_deep_sequences_are_no_crash(tmp_path):
    plan = plan_series(shape=SMALL)
    plan.write(tmp_path)
    path = tmp_path / "IM0001.dcm"
    data = path.read_bytes()
    place = data.index(b"\x10\x00\x10\x00PN")
    nested = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 5000
    path.write_bytes(data[:place] + nested + data[place:])
    with pytest.raises(SemiMedError, match="file 2 of 4"):
        read_image(tmp_path)


@pytest.mark.parametrize(
    "syntax, first_seed", [("native", 0), ("rle", 340), ("jpeg2000", 0), ("jpeg_lossless", 0), ("jpeg_ls", 0)]
)
def test_damaged_slices_are_refused_or_read_sanely(tmp_path, syntax, first_seed):
    # two of the damaged run lengths make their decoder panic
    outcome = fuzz(tmp_path / "series", 45, syntax=syntax, first_seed=first_seed)
    assert (outcome.partial, outcome.insane, dict(outcome.escaped), dict(outcome.crashes)) == (0, 0, {}, {})
    assert outcome.refused.total() > 20
    assert outcome.refused.total() + outcome.same + outcome.other == 45
    assert outcome.slowest < 10


# ---- identity --------------------------------------------------------------------------------------------------------


def canaries_in(text: str) -> list[str]:
    return [value for value in (CANARY, IDENTITY["PatientBirthDate"], "DOE_JANE") if value in text]


def test_no_identifier_leaves_a_file(tmp_path, bundle, capsys, caplog):
    folders = []
    for case in CORPUS:
        case.write(tmp_path / "in" / case.name)
        for path in sorted((tmp_path / "in" / case.name).rglob("*.dcm")):
            path.rename(path.with_name(f"DOE_JANE_{path.name}"))
        folders.append(tmp_path / "in" / case.name)
    plan_series(BurnedInAnnotation="YES").write(tmp_path / "in" / "burned_in")
    folders.append(tmp_path / "in" / "burned_in")
    texts = []
    for folder in folders:
        found = find_series(folder)
        texts += [repr(found), *map(str, found.problems)]
        try:
            texts += read_image(folder).warnings
        except SemiMedError as error:
            texts.append(str(error))
    rows = predict(bundle, folders, tmp_path / "out", series="all")
    for command in (["series", str(folders[4])], ["series", str(folders[6]), "--json"]):
        run_cli(command)
    texts += [repr(rows), *caplog.messages, *capsys.readouterr()]
    assert {row["code"] for row in rows} >= {"SLICE_GAP", "TRUNCATED", "ORIENTATION", "SCALING"}
    assert canaries_in("\n".join(texts)) == []
    # a DICOM segmentation must say whose it is; what it may say is held by test_dicom_seg.py
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.suffix != ".dcm"]
    assert len(written) > 5
    for path in written:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        assert canaries_in(f"{path.name} {content!r}") == []


def run_cli(arguments: list[str]) -> int:
    """Exit code of the command line."""
    old = sys.argv
    sys.argv = ["semi-med", *arguments]
    try:
        cli.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        sys.argv = old
    return 0


def test_the_canaries_are_in_the_files(tmp_path):
    path = save(plan_series(shape=SMALL).slices[0], tmp_path / "x.dcm")
    assert len(IDENTITY) == 20
    assert all(value.encode() in path.read_bytes() for value in IDENTITY.values())


def test_a_name_is_shown_only_to_who_asks(tmp_path, capsys):
    plan_series(shape=SMALL).write(tmp_path, names=lambda k: f"DOE_JANE_{k}.dcm")
    (tmp_path / "DOE_JANE_2.dcm").write_bytes(b"")
    with pytest.raises(SemiMedError) as caught:
        read_image(tmp_path)
    assert "file 3 of 4" in str(caught.value)
    assert "--file N" in str(caught.value)
    assert canaries_in(str(caught.value)) == []
    assert file_name(tmp_path, 3) == "DOE_JANE_2.dcm"
    assert run_cli(["series", str(tmp_path), "--file", "3"]) == 0
    assert capsys.readouterr().out == "DOE_JANE_2.dcm\n"
    assert run_cli(["series", str(tmp_path), "--file", "9"]) == 2


def test_burned_in_text_is_a_warning_or_an_error(tmp_path, code_of):
    plan_series(shape=SMALL, BurnedInAnnotation="YES").write(tmp_path)
    assert read_image(tmp_path).warnings[0].startswith("PHI_PIXELS: ")
    assert code_of(lambda: read_image(tmp_path, dicom={"burned_in": "error"})) == "PHI_PIXELS"


# ---- archives --------------------------------------------------------------------------------------------------------


def zipped(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return path


def test_a_zip_is_read_as_its_folder_would_be(tmp_path):
    plan = plan_series(shape=SMALL)
    path = zipped(plan.write(tmp_path / "a" / "b"), tmp_path / "case.zip")
    scan = read_image(path)
    np.testing.assert_array_equal(scan.array, plan.real)
    assert is_dicom(path)
    assert file_name(path, 2) == "IM0001.dcm"


def _link() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("link.dcm")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    "member",
    ["../x.dcm", "a/../../x.dcm", "/etc/x.dcm", "C:\\x.dcm", "a\\..\\x.dcm", _link(), "IM0000.dcm"],
    ids=["up", "inside-up", "absolute", "drive", "backslash", "link", "twice"],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_that_reaches_outside_is_refused(tmp_path, code_of, member):
    path = zipped(plan_series(shape=SMALL).write(tmp_path / "a"), tmp_path / "case.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(member, b"x")
    before = sorted(tmp_path.rglob("*"))
    assert code_of(lambda: read_image(path)) == "ARCHIVE"
    assert sorted(tmp_path.rglob("*")) == before


def test_an_archive_that_unpacks_to_gigabytes_is_refused(tmp_path, code_of):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive, archive.open("x", "w") as stream:
        for _ in range(70):
            stream.write(bytes(2**20))
    assert code_of(lambda: read_image(path)) == "ARCHIVE"


@pytest.mark.parametrize("where", [0.02, 0.5, 0.97])
def test_a_damaged_archive_is_refused(tmp_path, where):
    path = zipped(plan_series(shape=SMALL).write(tmp_path / "a"), tmp_path / "case.zip")
    data = bytearray(path.read_bytes())
    start = int(len(data) * where)
    data[start : start + 40] = bytes(40)
    path.write_bytes(data)
    with pytest.raises(SemiMedError) as caught:
        read_dicom(path)
    assert caught.value.code in ("ARCHIVE", "UNREADABLE", "CORRUPT")


def test_an_encrypted_archive_is_refused(tmp_path, code_of):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x", b"abc")
    data = bytearray(buffer.getvalue())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "x.zip").write_bytes(data)
    assert code_of(lambda: read_dicom(tmp_path / "x.zip")) == "ARCHIVE"
