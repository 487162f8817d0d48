"""The frame of all data sets: how cases are stored, recorded, gone on with and refused."""

import hashlib
import json

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from semi_med.data.data_list import DataList, load_data_list
from semi_med.datasets.prepared import MadeCase, SourceCase, finish, prepare_cases
from semi_med.datasets.record import About, about_of, planned, prepared_cases, read_record
from semi_med.datasets.stored import image_names
from semi_med.errors import InputError, ProblemsError
from semi_med.inference.io import read_image, read_label

ABOUT = About("hearts", {"0": "MR"}, {"0": "background", "1": "heart"}, "Someone 2020", "CC0", "example.org")
AFFINE = np.diag([2.0, 3.0, 4.0, 1.0])
VOLUME = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.bin", "b.bin", "sub/c.bin"):
        (folder / name).write_bytes(name.encode())
    return folder


def prepare(source, made, *, cases=None, recipe=None, **further):
    """Prepare cases that `made` makes; by default one case `A` of `a.bin`."""
    cases = cases or [SourceCase("A", source / "a.bin", source / "b.bin")]
    make = made if callable(made) else (lambda case: made)
    target = further.pop("target", source.parent / "target")
    return prepare_cases(cases, target, source=source, about=ABOUT, recipe=recipe or {}, make=make, **further)


# ---- how images are stored -----------------------------------------------------------------------------------------


def test_a_volume_keeps_its_place_in_space(source, tmp_path):
    prepare(source, MadeCase(VOLUME, VOLUME > 5, AFFINE))
    image, label = (
        read(tmp_path / f"target/{kind}s/A.nii.gz") for kind, read in (("image", read_image), ("label", read_label))
    )
    np.testing.assert_array_equal(image.array, VOLUME)
    np.testing.assert_array_equal(label.array, VOLUME > 5)
    np.testing.assert_array_equal(image.affine, AFFINE)
    np.testing.assert_array_equal(label.affine, AFFINE)


@pytest.mark.parametrize(("given", "stored"), [("uint8", "uint8"), ("int16", "int16"), ("float64", "float32")])
def test_small_integers_stay_and_all_else_becomes_float32(source, tmp_path, given, stored):
    prepare(source, MadeCase(VOLUME.astype(given), None, AFFINE))
    assert nib.load(tmp_path / "target/images/A.nii.gz").get_data_dtype() == stored


def test_channels_of_a_volume_are_files_in_their_order(source, tmp_path):
    done = prepare(source, MadeCase(np.stack([VOLUME, VOLUME * 10], axis=-1), None, AFFINE))
    assert done.entries["A"].image == ("images/A_0000.nii.gz", "images/A_0001.nii.gz")
    np.testing.assert_array_equal(read_image(tmp_path / "target/images/A_0001.nii.gz").array, VOLUME * 10)
    assert done.entries["A"].listed().name == "A"


def test_two_axes_with_a_place_are_one_slice(source, tmp_path):
    prepare(source, MadeCase(VOLUME[..., 0], VOLUME[..., 0] > 5, AFFINE))
    assert read_image(tmp_path / "target/images/A.nii.gz").array.shape == (2, 3, 1)
    assert read_label(tmp_path / "target/labels/A.nii.gz").array.shape == (2, 3, 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_photograph_is_a_png_with_its_columns_along_i(source, tmp_path, dtype):
    grey = np.array([[1, 2, 3], [4, 5, 60]], dtype=dtype)  # two columns, three rows
    prepare(source, MadeCase(grey, None, None))
    with Image.open(tmp_path / "target/images/A.png") as picture:
        assert picture.size == (2, 3)
        assert picture.getpixel((1, 0)) == 4
    np.testing.assert_array_equal(read_image(tmp_path / "target/images/A.png").array[..., 0], grey)


def test_three_colours_of_a_photograph_are_one_file(source, tmp_path):
    colours = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    done = prepare(source, MadeCase(colours, None, None))
    assert (
        done.entries["A"].image
        == ("images/A.png",)
        == tuple(f"images/{n}" for n in image_names("A", channels=3, suffix=".png"))
    )
    with Image.open(tmp_path / "target/images/A.png") as picture:
        assert picture.getpixel((1, 2)) == tuple(colours[1, 2])


def test_a_label_of_a_photograph_holds_indices_and_shows_colours(source, tmp_path):
    label = np.array([[0, 1, 2], [0, 0, 255]])
    prepare(source, MadeCase(np.zeros((2, 3), np.uint8), label, None))
    np.testing.assert_array_equal(read_label(tmp_path / "target/labels/A.png").array[..., 0], label)
    with Image.open(tmp_path / "target/labels/A.png") as picture:
        assert picture.convert("RGB").getpixel((0, 1)) == (0, 114, 178)


def test_other_observers_have_a_folder_of_their_own(source, tmp_path):
    done = prepare(source, MadeCase(VOLUME, VOLUME > 5, AFFINE, more_labels={"second": VOLUME > 7}))
    assert done.entries["A"].more_labels == {"second": "labels_second/A.nii.gz"}
    assert read_label(tmp_path / "target/labels_second/A.nii.gz").array.sum() == 16


def test_a_finished_file_is_copied_byte_by_byte(source, tmp_path):
    prepare(source, MadeCase(source / "a.bin", None, None))
    assert (tmp_path / "target/images/A.png").read_bytes() == b"a.bin"


def test_a_label_off_the_grid_of_its_image_is_a_fault(source):
    with pytest.raises(ValueError, match=r"a label of \(2, 3\)"):
        prepare(source, MadeCase(VOLUME, VOLUME[..., 0] > 5, AFFINE))


# ---- the record ----------------------------------------------------------------------------------------------------


def test_the_record_says_what_each_file_was_made_from(source, tmp_path):
    case = SourceCase(
        "A", source / "a.bin", source / "b.bin", extra={"text": source / "sub/c.bin"}, subject="P1", group="Oslo",
        split="train", details={"slice": 3},
    )  # fmt: skip
    prepare(source, MadeCase(VOLUME, VOLUME > 5, AFFINE, ("odd",)), cases=[case], recipe={"margin": (1, 2)})
    record = json.loads((tmp_path / "target/dataset.json").read_text())
    entry = record["cases"]["A"]
    assert entry["source"] == {n: hashlib.sha256(n.encode()).hexdigest() for n in ("a.bin", "b.bin", "sub/c.bin")}
    written = (tmp_path / "target/images/A.nii.gz").read_bytes()
    assert entry["written"]["images/A.nii.gz"] == hashlib.sha256(written).hexdigest()
    assert (entry["subject"], entry["group"], entry["split"], entry["details"]) == ("P1", "Oslo", "train", {"slice": 3})
    assert entry["notes"] == ["odd"]
    assert record["recipe"] == {"margin": [1, 2]}
    assert {"semi_med", "numpy", "nibabel", "SimpleITK"} <= set(record["versions"])


def test_the_record_gives_back_data_set_and_cases(source, tmp_path):
    done = prepare(source, MadeCase(VOLUME, VOLUME > 5, AFFINE))
    record = read_record(tmp_path / "target")
    assert about_of(record) == ABOUT
    assert prepared_cases(record) == dict(done.entries)


def test_a_planned_case_is_the_one_that_is_written(source):
    done = prepare(source, MadeCase(np.stack([VOLUME, VOLUME], axis=-1), VOLUME > 5, AFFINE))
    assert planned("A", channels=2).listed() == done.entries["A"].listed()


def test_a_series_is_one_source_with_the_checksum_of_its_files(source, tmp_path):
    digests = []
    for number in range(2):
        target = tmp_path / f"target{number}"
        prepare(source, MadeCase(VOLUME, None, AFFINE), cases=[SourceCase("A", source / "sub")], target=target)
        digests.append(read_record(target)["cases"]["A"]["source"]["sub"])
        (source / "sub/c.bin").write_bytes(b"changed")
    assert digests[0] != digests[1]


def test_a_file_that_two_cases_share_is_recorded_with_both(source, tmp_path):
    cases = [SourceCase(name, source / "a.bin", details={"slice": k}) for k, name in enumerate("XY")]
    prepare(source, lambda case: MadeCase(VOLUME[..., case.details["slice"]], None, AFFINE), cases=cases)
    entries = read_record(tmp_path / "target")["cases"]
    assert entries["X"]["source"] == entries["Y"]["source"]
    assert entries["X"]["written"] != entries["Y"]["written"]


def test_the_same_source_gives_the_same_folder(source, tmp_path):
    cases = [SourceCase(name, source / "a.bin") for name in "ABCDEF"]
    for target, workers in (("one", 1), ("two", 4)):
        prepare(source, MadeCase(VOLUME, VOLUME > 5, AFFINE), cases=cases, target=tmp_path / target, workers=workers)
    one, two = (
        {file.relative_to(tmp_path / folder): file.read_bytes() for file in (tmp_path / folder).rglob("*.*")}
        for folder in ("one", "two")
    )
    assert one == two
    assert len(one) == 13


# ---- going on, and refusing ----------------------------------------------------------------------------------------


def test_a_faulty_case_does_not_keep_the_others_from_being_written_and_recorded(source, tmp_path):
    def make(case):
        if case.name == "B":
            raise InputError("bad", where="b")
        return MadeCase(VOLUME, None, AFFINE)

    with pytest.raises(ProblemsError):
        prepare(source, make, cases=[SourceCase(name, source / "a.bin") for name in "ABC"])
    assert sorted(prepared_cases(read_record(tmp_path / "target"))) == ["A", "C"]


def test_a_target_of_other_settings_is_refused(source):
    prepare(source, MadeCase(VOLUME, None, AFFINE), recipe={"protocol": "A"})
    with pytest.raises(InputError, match=r"another recipe \({'protocol': 'A'}, wanted {'protocol': 'B'}"):
        prepare(source, MadeCase(VOLUME, None, AFFINE), recipe={"protocol": "B"})


def test_a_record_of_somebody_else_is_refused(source, tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "target/dataset.json").write_text('{"name": "BRATS", "training": []}')  # as the Decathlon writes it
    with pytest.raises(InputError, match="no record of a preparation"):
        prepare(source, MadeCase(VOLUME, None, AFFINE))


def test_channels_that_lie_in_the_target_are_known_as_its_own(source):
    made = MadeCase(np.stack([VOLUME, VOLUME], axis=-1), None, AFFINE)
    prepare(source, made)
    assert prepare(source, made).kept == ("A",)


@pytest.mark.parametrize(
    ("names", "problem"),
    [([], "there is no case"), (["A", "a"], "1 cases are there twice: a"), (["x/y"], "cannot be file names: x/y")],
)
def test_cases_without_a_name_of_their_own_are_refused(source, names, problem):
    with pytest.raises(InputError, match=problem):
        prepare_cases(
            [SourceCase(name, source / "a.bin") for name in names],
            source.parent / "target",
            source=source,
            about=ABOUT,
            recipe={},
            make=lambda case: MadeCase(VOLUME, None, AFFINE),
        )


def test_lists_and_notes_are_put_into_the_folder_and_an_edited_list_stays(source, tmp_path):
    done = prepare(source, MadeCase(VOLUME, VOLUME > 5, AFFINE))
    data_list = DataList(name="hearts", labels=dict(ABOUT.labels), labeled=[done.entries["A"].listed()])
    assert finish(done, {"all": data_list}, notes=["be careful"]).summary().endswith("data lists: all.json\nbe careful")
    assert load_data_list(tmp_path / "target/all.json") == data_list
    assert read_record(tmp_path / "target")["notes"] == ["be careful"]
    (tmp_path / "target/all.json").write_text("{}")
    assert "all.json was there" in finish(done, {"all": data_list}).notes[0]
    assert (tmp_path / "target/all.json").read_text() == "{}"


def test_versions_of_an_earlier_call_stay_in_the_record(source, tmp_path):
    prepare(source, MadeCase(VOLUME, None, AFFINE))
    path = tmp_path / "target/dataset.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "versions": {**record["versions"], "numpy": "0.1"}}))
    prepare(source, MadeCase(VOLUME, None, AFFINE))
    assert read_record(tmp_path / "target")["versions"]["numpy"] == f"0.1, {np.__version__}"
