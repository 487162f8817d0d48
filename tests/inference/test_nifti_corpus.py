"""The verdict on each crafted file, and that every orientation is read as an independent reader places it."""

import itertools
import resource
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from semi_med.errors import InputError, SemiMedError
from semi_med.inference.io import read_image
from tests.corpus import nifti_corpus
from tests.corpus.nifti_corpus import CORPUS

REFUSED = [one for one in CORPUS if one.code is not None]
READ = [one for one in CORPUS if one.code is None]


def by_name(one):
    return one.name


def test_the_corpus_is_as_large_as_it_is_said_to_be():
    assert len({one.name for one in CORPUS}) == len(CORPUS) == 61


@pytest.mark.parametrize("one", REFUSED, ids=by_name)
def test_a_crafted_file_is_refused_by_its_code(tmp_path, one):
    path = one.write(tmp_path)
    with pytest.raises(SemiMedError) as caught:
        read_image(path)
    assert (caught.value.code, caught.value.where) == (one.code, path)
    assert caught.value.fix


@pytest.mark.parametrize("one", READ, ids=by_name)
def test_a_crafted_file_is_read_with_its_warning_and_right_values(tmp_path, one):
    scan = read_image(one.write(tmp_path))
    assert [text.partition(":")[0] for text in scan.warnings] == ([one.warning] if one.warning else [])
    np.testing.assert_array_equal(scan.array, one.values() if one.values else nifti_corpus.voxels())


def test_headers_that_ask_for_gigabytes_take_no_memory(tmp_path):
    paths = [one.write(tmp_path) for one in CORPUS if one.code == "TOO_LARGE"]
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from semi_med.errors import SemiMedError\n"
        "from semi_med.inference.io import read_image\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n"
        "        read_image(path)\n"
        "    except SemiMedError as error:\n"
        "        assert error.code == 'TOO_LARGE'\n"
        "status = Path('/proc/self/status').read_text().splitlines()\n"
        "print(next(line for line in status if 'VmHWM' in line).split()[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *map(str, paths)], capture_output=True, text=True, check=True)
    kilobytes = int(done.stdout)
    assert len(paths) == 3
    assert 10_000 < kilobytes < 300_000


def test_more_voxels_than_memory_can_hold_are_refused_before_they_are_read(tmp_path, monkeypatch):
    from semi_med.inference import byte_check

    monkeypatch.setattr(byte_check, "free_memory", lambda: 100 * 2**20)
    path = tmp_path / "a.nii"
    with path.open("wb") as stream:
        stream.write(nifti_corpus.patched(nifti_corpus.DIM, "4h", 3, 512, 512, 512)[: nifti_corpus.HEADER])
        stream.truncate(nifti_corpus.HEADER + 2 * 512**3)  # sparse: takes no room on the disk
    with pytest.raises(SemiMedError, match=r"take 0\.5 GB, 0\.1 GB of memory are free") as caught:
        read_image(path)
    assert (caught.value.code, caught.value.exit_code) == ("MEMORY", 3)


def test_free_memory_stays_below_the_limit_of_the_process():
    from semi_med.inference.byte_check import free_memory

    free, used = free_memory(), int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = used + 50 * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        limited = free_memory()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert free is not None and free > limited
    assert 0 < limited <= 50 * 2**20


def test_the_number_of_voxels_can_be_limited(tmp_path, monkeypatch):
    path = tmp_path / "a.nii"
    path.write_bytes(nifti_corpus.sound())
    monkeypatch.setenv("SEMI_MED_MAX_VOXELS", str(20 * 18 * 16))
    assert read_image(path).array.shape == nifti_corpus.SHAPE
    monkeypatch.setenv("SEMI_MED_MAX_VOXELS", str(20 * 18 * 16 - 1))
    with pytest.raises(InputError, match="more than the 5759 that are read"):
        read_image(path)
    monkeypatch.setenv("SEMI_MED_MAX_VOXELS", "many")
    with pytest.raises(InputError, match="SEMI_MED_MAX_VOXELS: a number above 0 was wanted"):
        read_image(path)


def test_two_frames_more_than_a_voxel_apart_are_an_error_where_it_is_strict(tmp_path):
    path = tmp_path / "a.nii"
    path.write_bytes(nifti_corpus.other_qform())
    with pytest.raises(InputError, match=r"up to 40\.00 mm, more than the 2 mm of a voxel") as caught:
        read_image(path, strict=True)
    assert caught.value.code == "QS_MISMATCH"
    path.write_bytes(nifti_corpus.patched(nifti_corpus.QOFFSET, "3f", -9, -20, 30))  # 1 mm: half a voxel
    assert read_image(path, strict=True).warnings[0].startswith("QS_MISMATCH")


def test_one_volume_of_several_is_read_when_it_is_named(tmp_path):
    stack = np.stack([nifti_corpus.voxels() + n for n in range(3)], -1)
    path = tmp_path / "a.nii.gz"
    path.write_bytes(nifti_corpus.packed(nifti_corpus.sound(stack)))
    scan = read_image(path, volume=2)
    np.testing.assert_array_equal(scan.array, nifti_corpus.voxels() + 2)
    assert scan.warnings == ("VOLUME: volume 2 of 3 was taken",)
    with pytest.raises(InputError, match="volume 3 was asked for, there are 3") as caught:
        read_image(path, volume=3)
    assert caught.value.code == "VOLUME"


def test_a_fourth_axis_is_the_channels_where_as_many_are_wanted(tmp_path):
    stack = np.stack([nifti_corpus.voxels() + n for n in range(3)], -1)
    path = tmp_path / "a.nii"
    path.write_bytes(nifti_corpus.sound(stack))
    np.testing.assert_array_equal(read_image(path, channels=3).array, stack)
    with pytest.raises(InputError, match=r"4 axes \(20 x 18 x 16 x 3\).*--volume K`, K from 0 to 2"):
        read_image(path, channels=2)


def test_a_vector_on_the_fifth_axis_is_the_channels_too(tmp_path):
    stack = np.stack([nifti_corpus.voxels() + n for n in range(3)], -1)
    path = tmp_path / "a.nii"
    path.write_bytes(nifti_corpus.sound(stack[..., None, :]))
    np.testing.assert_array_equal(read_image(path, channels=3).array, stack)


# ---- places --------------------------------------------------------------------------------------------------------

ORIENTATIONS = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))
MARKED = ((1, 2, 3), (5, 0, 4), (0, 6, 1))


def oblique(seed: int) -> np.ndarray:
    """A rotation by 1 to 45 degrees about a random axis, of voxels of three different sizes."""
    random = np.random.default_rng(seed)
    axis = random.normal(size=3)
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.deg2rad(random.uniform(1, 45))
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross) * random.uniform(
        0.4, 5, 3
    )
    affine[:3, 3] = random.uniform(-200, 200, 3)
    return affine


def aligned(axes: tuple[int, ...], signs: tuple[int, ...]) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = np.diag([1.0, 2.0, 3.5])[:, axes] * signs
    affine[:3, 3] = [-30, 12.5, 7]
    return affine


def positions(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """RAS mm of the three marked voxels, by our reader and by SimpleITK."""
    scan, image = read_image(path), sitk.ReadImage(str(path))
    ours, theirs = [], []
    array = sitk.GetArrayFromImage(image)
    for value in (1, 2, 3):
        (place,) = np.argwhere(scan.array == value)
        ours.append((scan.affine @ [*place, 1])[:3])
        (other,) = np.argwhere(array == value)[:, ::-1]
        theirs.append(np.array(image.TransformIndexToPhysicalPoint([int(n) for n in other])) * [-1, -1, 1])
    return np.array(ours), np.array(theirs)


def marked(path: Path, affine: np.ndarray) -> Path:
    array = np.zeros((6, 7, 5), np.uint8)
    for value, place in enumerate(MARKED, start=1):
        array[place] = value
    path.write_bytes(nifti_corpus.packed(nifti_corpus.sound(array, affine)))
    return path


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=lambda o: "".join(nib.aff2axcodes(aligned(*o))))
def test_marked_voxels_lie_where_an_independent_reader_places_them(tmp_path, orientation):
    affine = aligned(*orientation)
    ours, theirs = positions(marked(tmp_path / "a.nii.gz", affine))
    np.testing.assert_allclose(ours, theirs, atol=1e-3)
    np.testing.assert_allclose(ours, [(affine @ [*place, 1])[:3] for place in MARKED], atol=1e-4)


@pytest.mark.parametrize("seed", range(20))
def test_marked_voxels_of_an_oblique_grid_lie_where_an_independent_reader_places_them(tmp_path, seed):
    affine = oblique(seed)
    ours, theirs = positions(marked(tmp_path / "a.nii.gz", affine))
    np.testing.assert_allclose(ours, theirs, atol=2e-3)  # the quaternion that SimpleITK reads is float32
    np.testing.assert_allclose(ours, [(affine @ [*place, 1])[:3] for place in MARKED], atol=1e-4)
