"""A label number that says that nothing is known there: from `--ignored` to what a network is taught."""

import json

import nibabel as nib
import numpy as np
import pytest
from planning_samples import write_folder

from semi_med.data.data_list import load_data_list
from semi_med.data.pairs import find_pairs
from semi_med.errors import InputError
from semi_med.ignored import IGNORED
from semi_med.planning.fingerprint import take_fingerprint
from semi_med.planning.init import Request, plan_folder, write_bundle
from semi_med.planning.plan import Wishes
from semi_med.planning.words import fingerprint_rows


def folder_with(root, ignored, *, values=(0, 1, 2)):
    """Six scans, five of them with labels that have a dark slab of the ignored number."""
    write_folder(root, cases=6, labeled=5, values=values)
    for file in (root / "labels").iterdir():
        label, image = nib.load(file), root / "images" / file.name.replace("_seg", "")
        array, scan = np.asarray(label.dataobj).copy(), nib.load(image)
        array[20:] = ignored
        dark = np.asarray(scan.dataobj).copy()
        dark[20:] = -1000
        nib.save(nib.Nifti1Image(array, label.affine), file)
        nib.save(nib.Nifti1Image(dark, scan.affine), image)
    return root


def found_in(root, **options):
    return take_fingerprint(find_pairs(root / "images", root / "labels"), **options)[0]


@pytest.mark.parametrize(("ignored", "values"), [(255, (0, 1, 2)), (9, (0, 1, 2)), (0, (1, 2, 5))])
def test_it_is_no_class_and_nothing_is_measured_there(tmp_path, ignored, values):
    found = found_in(folder_with(tmp_path, ignored, values=values), ignored=ignored)
    assert found.label_values == list(values)
    assert found.unknown == pytest.approx(4 / 24)
    assert found.foreground.median == pytest.approx(180, abs=3) and found.foreground.p00_5 > 100
    assert all(values == set(found.label_values) for values in found.shown.values())
    # the box of the first class and the voxels that are known, of cases that are 8 and 7 long
    assert found.classes[0].share == pytest.approx(8 * 8 * 5 / (20 * 22 * 20))
    assert ("not known", f"value {ignored}, 16.67% of the voxels of the labels") in fingerprint_rows(found)


def test_without_the_option_a_255_is_a_class_and_a_note_asks(tmp_path):
    found = found_in(folder_with(tmp_path, 255))
    assert found.label_values == [0, 1, 2, 255]
    assert any("say --ignored 255" in note for note in found.notes)
    assert not found_in(write_folder(tmp_path / "plain", values=(0, 255))).notes


def test_a_number_that_no_label_holds_is_refused(tmp_path):
    write_folder(tmp_path, values=(0, 3))
    with pytest.raises(InputError, match="no label holds 254; the values are 0, 3") as caught:
        found_in(tmp_path, ignored=254)
    assert caught.value.where == "--ignored"


@pytest.mark.parametrize(("ignored", "values"), [(255, (0, 1, 2)), (9, (0, 1, 2)), (0, (1, 2, 5))])
def test_the_bundle_reads_it_as_unknown_and_trains(tmp_path, ignored, values):
    from monai.bundle import ConfigParser, run

    folder = folder_with(tmp_path / "data", ignored, values=values)
    wishes = Wishes(crop=(16, 16, 16), filters=2, iterations=2, validation=1, test=0)
    asked = Request(
        "mine",
        folder / "images",
        labels=folder / "labels",
        output=tmp_path / "mine",
        ignored=ignored,
        device="cpu",
        memory_gb=8.0,
        trial=False,
        wishes=wishes,
    )
    bundle = write_bundle(plan_folder(asked))
    listed = load_data_list(bundle / "data_lists/labeled.json")
    assert listed.ignored == ignored and listed.label_values == values
    parser = ConfigParser(json.loads((bundle / "configs/train.json").read_text()))
    case = listed.labeled[0]
    read = parser.get_parsed_content("train#preprocessing")(
        {"image": str(folder / case.image), "label": str(folder / case.label)}
    )["label"]
    assert read.unique().tolist() == [0, 1, 2, IGNORED]
    assert (read[0, 20:] == IGNORED).all()
    if ignored != 9:
        return
    run("training", config_file=str(bundle / "configs/train.json"), logging_file=False, device="cpu")
    assert (bundle / "models/model.pt").is_file()
