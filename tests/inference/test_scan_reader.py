import numpy as np
import pytest
import torch
from inference_samples import write_nifti
from monai.data import list_data_collate
from monai.transforms import Compose, Invertd, LoadImaged, Orientationd

from semi_med.errors import SemiMedError, root_cause
from semi_med.inference.reader import ScanReader

OBLIQUE = np.array([[0.0, -0.6, 0.8, 5], [-1.0, 0, 0, 6], [0, 0.8, 0.6, 7], [0, 0, 0, 1]])


def loader(**settings) -> LoadImaged:
    return LoadImaged(
        keys="image", reader="semi_med.inference.reader.ScanReader", ensure_channel_first=True, **settings
    )


def test_a_file_becomes_one_channel_with_its_affine(tmp_path, volume):
    image = loader()({"image": str(write_nifti(tmp_path / "a.nii.gz", volume, OBLIQUE))})["image"]
    assert image.shape == (1, 4, 5, 6)
    assert image.dtype == torch.float32
    np.testing.assert_allclose(image.affine, OBLIQUE, atol=1e-6)
    assert image.meta["space"] == "RAS"
    assert image.meta["filename_or_obj"].endswith("a.nii.gz")


def test_a_list_of_files_becomes_channels_in_their_order(tmp_path, volume):
    files = [write_nifti(tmp_path / "a.nii", volume), write_nifti(tmp_path / "b.nii", volume + 1000)]
    image = loader()({"image": [str(file) for file in files]})["image"]
    np.testing.assert_array_equal(image, np.stack([volume, volume + 1000]))


@pytest.mark.parametrize("change", ["shape", "place"])
def test_channels_on_different_grids_are_refused(tmp_path, volume, change):
    moved = np.diag([1.0, 2, 3, 1])
    moved[0, 3] = 0.5
    files = [write_nifti(tmp_path / "a.nii", volume)]
    files += [write_nifti(tmp_path / "b.nii", volume[1:] if change == "shape" else volume, moved)]
    with pytest.raises(Exception, match="channels of a case") as caught:
        loader()({"image": [str(file) for file in files]})
    assert root_cause(caught.value).code == "GEOMETRY"


def test_orientation_and_its_inverse_return_voxels_and_affine(tmp_path, volume):
    chain = Compose([loader(), Orientationd(keys="image", axcodes="RAS", labels=None)])
    data = chain({"image": str(write_nifti(tmp_path / "a.nii", volume, OBLIQUE))})
    assert data["image"].shape != (1, 4, 5, 6)
    data["pred"] = data["image"].clone()
    back = Invertd(keys="pred", transform=chain, orig_keys="image")(data)["pred"]
    np.testing.assert_array_equal(back[0], volume)
    np.testing.assert_allclose(back.affine, OBLIQUE, atol=1e-6)


@pytest.mark.parametrize("damage", ["cut", "nan"])
def test_a_refused_file_is_not_taken_by_another_reader(tmp_path, damage):
    path = write_nifti(tmp_path / "a.nii.gz", np.full((20, 20, 20), np.nan if damage == "nan" else 1, np.float32))
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(Exception, match=r".") as caught:
        loader()({"image": str(path)})
    assert isinstance(root_cause(caught.value), SemiMedError)


def test_the_reader_replaces_nan_only_when_told(tmp_path):
    array = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    array[2, 3, 4] = np.nan
    path = str(write_nifti(tmp_path / "a.nii", array))
    image = LoadImaged(keys="image", reader=ScanReader(nonfinite="replace"))({"image": path})["image"]
    assert image[2, 3, 4] == 0
    assert image.meta["warnings"].startswith("NONFINITE: 1 NaN")


def test_cases_with_and_without_warnings_make_a_batch(tmp_path):
    ramp = np.arange(8, dtype=np.int16).reshape(2, 2, 2)
    files = [write_nifti(tmp_path / "a.nii", ramp), write_nifti(tmp_path / "b.nii", np.ones_like(ramp))]
    batch = list_data_collate([loader()({"image": str(file)}) for file in files])
    assert batch["image"].shape == (2, 1, 2, 2, 2)
