"""Reading in threads and in processes, and surviving a reader that is killed."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from semi_med.data.read_cases import Job, read_cases
from semi_med.inference.io import write_label


def kill_at_seven(image, label):
    """A look at a case that ends its process when the first voxel is 7."""
    if image is not None and image.array[0, 0, 0] == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return float(image.array[0, 0, 0])


def first_voxel(image, label):
    return float(image.array[0, 0, 0])


@pytest.fixture
def files(tmp_path) -> list[str]:
    paths = []
    for number in range(5, 9):
        array = np.arange(24).reshape(2, 3, 4)
        array[0, 0, 0] = number
        paths.append(str(tmp_path / f"{number}.nii"))
        write_label(Path(paths[-1]), array.astype(np.uint8), affine=np.eye(4))
    return paths


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_give_the_content_of_each_case_in_order(files, workers):
    seen = []
    jobs = [Job((file,), look=first_voxel) for file in files]
    contents = read_cases(jobs, workers=workers, processes=False, progress=lambda *n: seen.append(n))
    assert [content.kept for content in contents] == [5, 6, 7, 8]
    assert seen == [(n, 4) for n in range(1, 5)]


def test_a_case_that_kills_its_reader_is_named_and_the_others_are_read(files):
    jobs = [Job((file,), look=kill_at_seven) for file in files]
    contents = list(read_cases(jobs, workers=2, processes=True))
    assert [content.kept for content in contents] == [5, 6, None, 8]
    (error,) = contents[2].image_errors[files[2]]
    assert (error.code, error.where, error.exit_code) == ("READER_KILLED", files[2], 3)


def test_the_structure_is_seen_without_reading(tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(b"no scan")
    (tmp_path / "b.nii.gz").touch()
    (tmp_path / "c.txt").write_text("x")
    jobs = [Job((str(tmp_path / name),), check="structure") for name in ("a.nii.gz", "b.nii.gz", "c.txt", "d.nii")]
    errors = [next(iter(c.image_errors.values())) for c in read_cases(jobs, workers=1, processes=True)]
    assert [[error.code for error in found] for found in errors] == [[], ["EMPTY_FILE"], ["FORMAT"], ["NOT_FOUND"]]
