from __future__ import annotations

import os

import pytest

from semi_med.errors import InputError, SemiMedError
from semi_med.files import write_atomically


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    write_atomically(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SemiMedError, match="disk is full, 3 bytes") as caught:
        write_atomically(path, b"new")
    assert (caught.value.code, caught.value.exit_code) == ("DISK_FULL", 3)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_who_is_reading_the_old_file_meanwhile_reads_all_of_it(tmp_path):
    path = tmp_path / "a.txt"
    write_atomically(path, "old content")
    with path.open("rb", buffering=0) as reader:
        begun = reader.read(4)
        write_atomically(path, "new and longer content")
        assert begun + reader.read() == b"old content"
    assert path.read_text() == "new and longer content"


def test_a_written_file_follows_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a", b"")
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_the_folder_is_made_and_text_becomes_utf8(tmp_path):
    write_atomically(tmp_path / "new" / "folder" / "a.txt", "mm³\n")
    assert (tmp_path / "new" / "folder" / "a.txt").read_bytes() == b"mm\xc2\xb3\n"


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/a\.txt: this file cannot be written \(File exists\)") as caught:
        write_atomically(tmp_path / "file" / "a.txt", "")
    assert caught.value.code == "NOT_WRITABLE"
