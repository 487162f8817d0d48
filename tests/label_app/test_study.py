"""What a round trains on, and which labelled scans it never sees."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from label_samples import AFFINE, Store, draw, write_study
from PIL import Image

from semi_med.data.data_list import load_data_list
from semi_med.errors import InputError
from semi_med.label_app.models import Bundle
from semi_med.label_app.qupath import Shape, annotations_xml
from semi_med.label_app.study import (
    HeldOut,
    Sections,
    check_enough,
    final_label,
    numbers_of,
    sections_of,
    write_round,
)

SENT = [{"name": "posterior hippocampus", "idx": 1}, {"name": "Anterior Hippocampus", "idx": 2}]


@pytest.fixture
def held_out(tmp_path) -> HeldOut:
    return HeldOut(tmp_path / "held_out.json")


def scans(count: int) -> list[str]:
    return [f"case-{number}" for number in range(count)]


@pytest.mark.parametrize("count", [1, 2])
def test_the_first_two_labels_are_for_training_whatever_they_are_called(held_out, count):
    for first in range(0, 40, count):
        chosen = scans(60)[first : first + count]
        assert HeldOut(held_out.file.with_name(f"{first}.json")).split(chosen) == (chosen, [])


def test_about_a_fifth_is_held_out(held_out):
    training, validation = held_out.split(scans(200))
    assert 25 <= len(validation) <= 55
    assert sorted(training + validation) == sorted(scans(200))


def test_nothing_is_held_out_where_that_is_not_wanted(tmp_path):
    assert HeldOut(tmp_path / "sides.json", share=0.0).split(scans(50)) == (scans(50), [])


def test_a_scan_stays_on_its_side_while_labels_arrive(held_out):
    sides: dict[str, str] = {}
    for count in range(1, 41):
        for side, names in zip(("training", "validation"), held_out.split(scans(count)), strict=True):
            for name in names:
                assert sides.setdefault(name, side) == side
    assert "validation" in sides.values()


def test_the_order_of_labels_does_not_matter_for_what_is_held_out_at_once(tmp_path):
    there, back = (HeldOut(tmp_path / name).split(names) for name, names in (("a", scans(30)), ("b", scans(30)[::-1])))
    assert [sorted(side) for side in there] == [sorted(side) for side in back]


def test_scans_of_a_subject_are_on_one_side(tmp_path):
    names = [f"p{subject}_visit{visit}" for subject in range(30) for visit in (1, 2)]
    _, validation = HeldOut(tmp_path / "sides.json", r"p\d+").split(names)
    assert validation
    assert all(f"{name[:-1]}{visit}" in validation for name in validation for visit in (1, 2))


def test_further_scans_of_a_person_who_is_held_out_are_not_trained_with(model, tmp_path):
    names = [f"sub-{person:02d}_ses-{visit}" for person in range(30) for visit in (1, 2)]
    store = Store(write_study(tmp_path / "study", names), {name: {} for name in names if name.endswith("1")})
    found = sections_of(store, HeldOut(tmp_path / "sides.json"))
    assert found.validation
    assert not {name.replace("ses-1", "ses-2") for name in found.validation} & set(found.unlabeled)
    assert len(found.unlabeled) == 30 - len(found.validation)


def test_visits_of_a_person_with_a_label_and_without_are_trained_with(model, held_out, tmp_path):
    from semi_med.bundle import check_data

    store = Store(write_study(tmp_path / "study", ["sub-1_ses-1", "sub-1_ses-2"]), {"sub-1_ses-1": {}})
    file = write_round(tmp_path / "data", store, sections_of(store, held_out), bundle=model.bundle)
    sections = load_data_list(file).sections(tmp_path / "data")
    check_data(sections["labeled"], sections["unlabeled"], [], classes=3)


def test_there_is_something_to_train_with_when_only_held_out_labels_are_left(held_out):
    _, validation = held_out.split(scans(40))
    assert held_out.split(validation) == (validation, [])


def test_a_round_has_the_labeled_scans_and_all_others(model, study, held_out, tmp_path):
    store = Store(study, {"scan_0": {}, "scan_1": {}})
    listed = load_data_list(write_round(tmp_path / "data", store, sections_of(store, held_out), bundle=model.bundle))
    assert [case.name for case in listed.labeled] == ["scan_0", "scan_1"]
    assert [case.name for case in listed.unlabeled] == [f"scan_{number}" for number in range(2, 8)]
    assert all(case.label is None for case in listed.unlabeled)
    assert listed.labels == {"0": "background", "1": "anterior hippocampus", "2": "posterior hippocampus"}
    assert (tmp_path / "data" / "images" / "scan_5.nii.gz").resolve() == study / "scan_5.nii.gz"


def test_a_supervised_round_names_no_other_scans(supervised_folder, study, held_out, tmp_path):
    store = Store(study, {"scan_0": {}})
    bundle = Bundle.read(supervised_folder)
    listed = load_data_list(write_round(tmp_path / "data", store, sections_of(store, held_out), bundle=bundle))
    assert listed.counts() == {"labeled": 1, "unlabeled": 0, "validation": 0, "test": 0}


def test_a_label_that_is_corrected_later_does_not_change_the_round(model, study, held_out, tmp_path):
    store = Store(study, {"scan_0": {}})
    write_round(tmp_path / "data", store, sections_of(store, held_out), bundle=model.bundle)
    nib.save(nib.Nifti1Image(np.zeros((18, 22, 20), np.uint8), AFFINE), store.get_label_uri("scan_0", "final"))
    kept = nib.load(tmp_path / "data" / "labels" / "scan_0.nii.gz")
    assert np.array_equal(np.asarray(kept.dataobj), draw(0)[1])


def test_structures_are_known_by_their_names_and_not_by_their_order(model, study, held_out, tmp_path):
    store = Store(study, {"scan_0": {"label_info": SENT}})
    write_round(tmp_path / "data", store, sections_of(store, held_out), bundle=model.bundle)
    found = np.asarray(nib.load(tmp_path / "data" / "labels" / "scan_0.nii.gz").dataobj)
    assert np.array_equal(found, np.array([0, 2, 1], np.uint8)[draw(0)[1]])


@pytest.mark.parametrize("sent", [None, [], "names", [1, {"name": "tumour"}, {"idx": "1"}]])
def test_a_label_without_names_is_taken_as_it_is(model, study, held_out, tmp_path, sent):
    store = Store(study, {"scan_0": {"label_info": sent}})
    write_round(tmp_path / "data", store, sections_of(store, held_out), bundle=model.bundle)
    kept = (tmp_path / "data" / "labels" / "scan_0.nii.gz").read_bytes()
    assert kept == Path(store.get_label_uri("scan_0", "final")).read_bytes()


def test_a_structure_that_the_model_does_not_know_is_named(model, study, held_out, tmp_path):
    store = Store(study, {"scan_0": {"label_info": [*SENT[:1], {"name": "tumour", "idx": 2}]}})
    with pytest.raises(InputError, match=r"label of scan_0.*'tumour', the model knows anterior hippocampus, posterior"):
        write_round(tmp_path / "data", store, sections_of(store, held_out), bundle=model.bundle)


def test_a_name_of_which_the_label_has_no_voxel_does_not_matter(model, study, held_out, tmp_path):
    store = Store(study, {"scan_0": {"label_info": [*SENT, {"name": "scratch", "idx": 3}]}})
    write_round(tmp_path / "data", store, sections_of(store, held_out), bundle=model.bundle)


def test_names_give_the_numbers_that_the_label_files_of_the_bundle_have(model):
    bundle = dataclasses.replace(model.bundle, values=(0, 100, 200))
    names = {1: "Posterior Hippocampus", 2: "anterior hippocampus", 3: "background"}
    assert numbers_of(names, bundle, where="x") == {1: 200, 2: 100, 3: 0}


@pytest.fixture
def drawn(study, tmp_path):
    """A study whose first scan has polygons of QuPath for a label: of which class they are."""

    def write(name: str) -> Store:
        store = Store(study, {"scan_0": {}})
        shapes = [Shape(name, np.array([[1, 1], [4, 1], [4, 3], [1, 3]]))]
        (tmp_path / "scan_0.xml").write_text(annotations_xml(shapes, [name]))
        store.get_label_uri = lambda name, tag: str(tmp_path / "scan_0.xml")  # type: ignore[method-assign]
        return store

    return write


def test_polygons_lie_on_the_pixels_of_their_picture(model, drawn, tmp_path):
    store = drawn("Posterior hippocampus")
    Image.new("L", (9, 7)).save(tmp_path / "scan_0.png")
    store.get_image_uri = lambda name: str(tmp_path / "scan_0.png")  # type: ignore[method-assign]
    label = final_label("scan_0", store, model.bundle).array
    expected = np.zeros((9, 7, 1), int)
    expected[1:4, 1:3] = 2
    assert np.array_equal(label, expected)


@pytest.mark.parametrize(
    ("name", "problem"),
    [("tumour", "the label has a structure 'tumour', the model knows"), ("background", "annotations lie on a picture")],
)
def test_polygons_that_fit_neither_the_model_nor_the_scan_are_named(model, drawn, name, problem):
    with pytest.raises(InputError, match=f"label of scan_0: {problem}"):
        final_label("scan_0", drawn(name), model.bundle)


def test_without_a_label_the_person_is_told_what_to_do(model):
    with pytest.raises(InputError, match="Label one scan, submit it, then press Train") as caught:
        check_enough(Sections([], [], ["a"]), model.bundle)
    assert caught.value.code == "NO_LABELS"


def test_without_unlabeled_scans_a_supervised_bundle_still_trains(model, supervised_folder):
    everything = Sections(["a"], ["b"], [])
    with pytest.raises(InputError, match="every scan has a label"):
        check_enough(everything, model.bundle)
    check_enough(everything, Bundle.read(supervised_folder))


def test_a_scan_that_has_gone_is_named(model, study, held_out, tmp_path):
    store = Store(study, {"scan_0": {}})
    store.get_image_uri = lambda name: str(study / "gone.nii.gz")  # type: ignore[method-assign]
    with pytest.raises(InputError, match=r"gone\.nii\.gz"):
        write_round(tmp_path / "data", store, sections_of(store, held_out), bundle=model.bundle)


def test_sides_are_kept_in_a_file(held_out):
    held_out.split(["a", "b", "c"])
    assert set(json.loads(held_out.file.read_text())) == {"a", "b", "c"}
