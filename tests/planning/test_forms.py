"""Forms in which a person's files may come: flat volumes, channels inside one NRRD or MetaImage file."""

import json

import nibabel as nib
import numpy as np
import pytest

from semi_med.data.pairs import find_pairs
from semi_med.errors import InputError, ProblemsError
from semi_med.inference.io import read_image, read_label, stored_shape
from semi_med.planning.fingerprint import take_fingerprint
from semi_med.planning.init import Request, plan_folder, write_bundle
from semi_med.planning.plan import Wishes

SHAPE = (20, 24, 18)


def found_in(root):
    return take_fingerprint(find_pairs(root / "images", root / "labels"))[0]


def write_itk(path, array):
    """(i, j, k) or (i, j, k, c) as a file of SimpleITK, whose arrays run the other way."""
    import SimpleITK

    path.parent.mkdir(parents=True, exist_ok=True)
    order = (2, 1, 0, 3)[: array.ndim]
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array.transpose(order), isVector=array.ndim == 4), str(path))
    return path


def write_nrrd_with_a_list(path, array):
    """Channels as the slowest axis, as other programs than SimpleITK write them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = [
        "NRRD0004",
        "type: float",
        "dimension: 4",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, array.shape))}",
        "space directions: (1,0,0) (0,1,0) (0,0,1) none",
        "kinds: domain domain domain list",
        "endian: little",
        "encoding: raw",
        "space origin: (0,0,0)",
    ]
    path.write_bytes(("\n".join(head) + "\n\n").encode() + array.astype("<f4").tobytes(order="F"))
    return path


def several_channels(number):
    random = np.random.default_rng(number)
    label = np.zeros(SHAPE, np.uint8)
    label[4:12, 5:15, 3:12] = 1
    image = random.normal(0, 1, (*SHAPE, 2)).astype(np.float32)
    image[..., 1] += 8 * label
    return image, label


WRITERS = {"a.nrrd": write_itk, "b.nrrd": write_nrrd_with_a_list, "a.mha": write_itk}


# ---- channels ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WRITERS)
def test_channels_in_one_file_are_found_and_read_wherever_the_file_has_them(tmp_path, name):
    image, label = several_channels(0)
    file = WRITERS[name](tmp_path / "images" / name, image)
    for number in range(1, 4):
        WRITERS[name](tmp_path / "images" / f"c{number}_{name}", several_channels(number)[0])
    write_itk(tmp_path / "labels" / name, label)
    assert stored_shape(file) == (*SHAPE, 2)
    assert np.array_equal(read_image(file, channels=2).array, image)
    found = found_in(tmp_path)
    assert (found.channels, found.files) == (("channel 0", "channel 1"), 1)
    assert found.median_size == SHAPE


@pytest.mark.parametrize("name", WRITERS)
def test_channels_that_nobody_knows_of_are_refused_with_what_to_do(tmp_path, name):
    with pytest.raises(InputError, match=r"this has 4 axes \(20 x 24 x 18 x 2\)") as caught:
        read_image(WRITERS[name](tmp_path / name, several_channels(0)[0]))
    assert "Channels are one file each, or as many as the data list's `modality` names" in caught.value.fix


@pytest.mark.parametrize("suffix", ["nrrd", "mha"])
def test_a_flat_picture_in_colour_is_no_volume_of_three_slices(tmp_path, suffix):
    import SimpleITK

    picture = SimpleITK.GetImageFromArray(np.zeros((9, 8, 3), np.uint8), isVector=True)
    SimpleITK.WriteImage(picture, str(tmp_path / f"p.{suffix}"))
    with pytest.raises(InputError, match=r"three axes in space and one of channels") as caught:
        read_image(tmp_path / f"p.{suffix}")
    assert "PNG" in caught.value.fix


# ---- two axes ------------------------------------------------------------------------------------------------------


def write_flat(root, cases=6, *, labeled=4):
    affine = np.diag([0.5, 0.7, 1, 1])
    for number in range(cases):
        random = np.random.default_rng(number)
        label = np.zeros((40, 48), np.uint8)
        label[8:24, 10 + number : 30] = 3
        image = random.normal(0, 1, label.shape) + 5.0 * (label > 0)
        for folder, array in (("images", image.astype(np.float32)), ("labels", label)):
            if folder == "images" or number < labeled:
                (root / folder).mkdir(parents=True, exist_ok=True)
                nib.save(nib.Nifti1Image(array, affine), root / folder / f"p{number}.nii.gz")
    return root


def test_files_of_two_axes_become_a_2d_bundle_that_trains_and_predicts_them(tmp_path):
    from monai.bundle import run

    from semi_med.inference import predict

    folder = write_flat(tmp_path / "data")
    asked = Request(
        "flat",
        folder / "images",
        labels=folder / "labels",
        output=tmp_path / "flat",
        device="cpu",
        memory_gb=8.0,
        trial=False,
        wishes=Wishes(crop=(32, 32), filters=2, iterations=2, validation=1, test=1),
    )
    planned = plan_folder(asked)
    assert planned.found.flat and not planned.found.pictures
    assert planned.found.median_size == (40, 48, 1)
    assert planned.found.median_spacing[:2] == (0.5, pytest.approx(0.7))
    bundle = write_bundle(planned)
    run("training", config_file=str(bundle / "configs/train.json"), logging_file=False, device="cpu")
    predict(bundle, [folder / "images"], tmp_path / "masks", device="cpu")
    mask = nib.load(tmp_path / "masks/p5_seg.nii.gz")
    assert mask.shape == (40, 48) and np.allclose(mask.affine, np.diag([0.5, 0.7, 1, 1]))
    assert set(np.unique(np.asarray(mask.dataobj))) <= {0, 3}
    plain = {"dataset_dir": str(folder / "images"), "output_dir": str(tmp_path / "monai"), "device": "cpu"}
    run(config_file=str(bundle / "configs/inference.json"), logging_file=False, **plain)
    assert np.array_equal(read_label(tmp_path / "monai/p5_seg.nii.gz", flat=True).array[..., 0], mask.dataobj)
    assert json.loads((bundle / "configs/plan.json").read_text())["choices"]["dimensions"]["value"] == 2


def test_a_flat_file_among_volumes_is_named_with_what_to_do(tmp_path):
    write_flat(tmp_path, cases=3, labeled=2)
    volume = nib.Nifti1Image(np.random.default_rng(0).normal(size=SHAPE), np.eye(4))
    nib.save(volume, tmp_path / "images/volume.nii.gz")
    with pytest.raises(ProblemsError, match=r"Save a single slice as a volume with one slice"):
        found_in(tmp_path)
