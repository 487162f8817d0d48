"""Every data set says what it wanted when it is given another folder, and leaves the target alone."""

from importlib import import_module

import numpy as np
import pytest
from PIL import Image

from semi_med.errors import InputError

# what the error names, and settings that have no default
WANTED = {
    "la": ("lgemri.nrrd", {}),
    "pancreas_ct": ("PANCREAS_0001", {"protocol": "A"}),
    "brats2019": ("_flair.nii.gz", {}),
    "acdc": ("patient001/Info.cfg", {}),
    "msd": ("dataset.json", {}),
    "camus": ("patient0001_2CH_ED.mhd or patient0001_2CH_ED.nii.gz", {}),
    "refuge": ("g0001.jpg", {}),
    "isic2017": ("ISIC-2017_Training_Data/ISIC_0000000.jpg", {}),
    "scr_jsrt": ("All247images/JPCLN001.IMG", {}),
    "lgg": ("TCGA", {}),
    "chase_db1": ("Image_01L.jpg", {}),
    "covid19_ct": ("tr_im.nii.gz with tr_mask.nii.gz", {}),
    "cityscapes": ("leftImg8bit/train/aachen", {}),
    "pascal_voc": ("VOC2012/JPEGImages/2007_000032.jpg", {}),
}


@pytest.mark.parametrize("name", WANTED)
def test_a_folder_of_other_pictures_is_refused_with_the_layout_named(name, tmp_path):
    wanted, settings = WANTED[name]
    source = tmp_path / "source"
    source.mkdir()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(source / "holiday.jpg")
    with pytest.raises(InputError) as caught:
        import_module(f"semi_med.datasets.{name}").prepare(source, tmp_path / "target", **settings)
    assert wanted in str(caught.value)
    assert str(source) in str(caught.value)
    assert caught.value.fix
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("name", WANTED)
def test_a_folder_that_is_not_there_is_refused(name, tmp_path):
    module, settings = import_module(f"semi_med.datasets.{name}"), WANTED[name][1]
    with pytest.raises(InputError, match="this folder does not exist") as caught:
        module.prepare(tmp_path / "nowhere", tmp_path / "target", **settings)
    assert caught.value.code == "NOT_FOUND"
