"""What is found in small folders whose numbers are known."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from planning_samples import write_folder, write_scan

from semi_med.data.pairs import Pair, Pairs, find_pairs
from semi_med.errors import InputError, ProblemsError
from semi_med.planning.fingerprint import crowded_folders, subjects_of, take_fingerprint


def fingerprint_of(images, labels=None, **options):
    return take_fingerprint(find_pairs(images, labels), **options)[0]


def test_numbers_of_cases_sizes_spacings_and_classes(tmp_path):
    write_folder(tmp_path, cases=4, labeled=2, values=(0, 5, 7), shape=(24, 22, 20))
    found = fingerprint_of(tmp_path / "images", tmp_path / "labels")
    assert (found.cases, found.labeled, found.subjects, found.labeled_subjects) == (4, 2, 4, 2)
    assert found.median_size == (24, 22, 20) and found.median_spacing == (1, 1, 1)
    assert found.label_values == [0, 5, 7]
    first = found.classes[0]
    assert (first.name, first.cases, first.components, first.largest) == ("class 5", 2, 1, 1)
    assert first.whole == 2
    assert first.share == pytest.approx((8 * 8 * 5 + 7 * 8 * 5) / 2 / (24 * 22 * 20))
    assert found.foreground.median == pytest.approx(180, abs=3)
    assert found.oriented and not found.pictures and not found.ct


def test_the_thickness_of_a_slab_is_its_own_and_a_second_part_is_counted(tmp_path):
    random = np.random.default_rng(0)
    label = np.zeros((30, 20, 30), np.uint8)
    label[:, :, 4:8] = 1
    label[:, :, 20:24] = 2
    label[3, 3, 28] = 2
    write_scan(tmp_path / "images/a.nii.gz", random.normal(size=label.shape).astype(np.float32), spacing=(2, 2, 2))
    write_scan(tmp_path / "labels/a.nii.gz", label, spacing=(2, 2, 2))
    first, second = fingerprint_of(tmp_path / "images", tmp_path / "labels").classes
    # depths of 0.5, 1.5, 1.5 and 0.5 voxels in the middle of the slab, less at its rim
    assert first.thickness == pytest.approx(8, rel=0.1) and first.whole == 1
    assert (second.whole, second.components) == (1, 2)  # a speck of one voxel


def test_a_sheet_of_one_voxel_in_a_volume_is_thin(tmp_path):
    label = np.zeros((24, 20, 30), np.uint8)
    label[:, :, 4] = 1
    write_scan(tmp_path / "images/a.nii.gz", np.random.default_rng(0).normal(size=label.shape).astype(np.float32))
    write_scan(tmp_path / "labels/a.nii.gz", label)
    assert fingerprint_of(tmp_path / "images", tmp_path / "labels").classes[0].thickness == pytest.approx(2, abs=0.1)


def test_choices_see_the_labels_that_train_and_no_others(tmp_path):
    random, label = np.random.default_rng(0), np.zeros((12, 10, 8), np.uint8)
    for name, size in (("a", 2), ("b", 8)):
        label[:size] = 1
        write_scan(tmp_path / f"images/{name}.nii.gz", random.normal(size=label.shape).astype(np.float32))
        write_scan(tmp_path / f"labels/{name}.nii.gz", label)
    found = fingerprint_of(tmp_path / "images", tmp_path / "labels")
    taught = found.taught_by({"a"})
    assert (found.labeled, found.classes[0].cases, found.classes[0].share) == (2, 2, pytest.approx(5 / 12))
    assert (taught.labeled, taught.classes[0].cases, taught.classes[0].share) == (1, 1, pytest.approx(2 / 12))
    assert "verdicts" not in found.as_json()


def test_sizes_run_along_right_anterior_superior_however_a_file_is_stored(tmp_path):
    import nibabel as nib

    array = np.random.default_rng(0).normal(size=(10, 20, 30)).astype(np.float32)
    affine = np.array([[0, 0, 3, 0], [1, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 1.0]])  # i to anterior, j up, k to the right
    for name, values in (("a", array), ("a_seg", (array > 0).astype(np.uint8))):
        nib.save(nib.Nifti1Image(values, affine), tmp_path / f"{name}.nii.gz")
    found = fingerprint_of(tmp_path)
    assert found.median_size == (30, 10, 20) and found.median_spacing == (3, 1, 2)


@pytest.mark.parametrize(
    ("values", "background", "others"),
    [((0, 255), 0, [255]), ((1, 5, 7), 1, [5, 7]), ((0, 1), 0, [1])],
)
def test_label_values_may_be_any_and_the_background_is_0_or_the_smallest(tmp_path, values, background, others):
    write_folder(tmp_path, values=values)
    found = fingerprint_of(tmp_path / "images", tmp_path / "labels")
    assert found.background == background and [one.value for one in found.classes] == others
    assert found.foreground.median == pytest.approx(180, abs=3)


def test_whole_numbers_stored_as_floats_are_classes(tmp_path):
    write_folder(tmp_path, labeled=0)
    write_scan(tmp_path / "labels/p0.nii.gz", np.eye(24)[:, :22, None].repeat(20, 2).astype(np.float32) * 3)
    assert fingerprint_of(tmp_path / "images", tmp_path / "labels").label_values == [0, 3]


def test_names_of_classes_go_by_the_order_of_their_values(tmp_path):
    write_folder(tmp_path, values=(0, 5, 7))
    pairs = find_pairs(tmp_path / "images", tmp_path / "labels")
    found, _ = take_fingerprint(pairs, class_names=("liver", "spleen"))
    assert [(one.value, one.name) for one in found.classes] == [(5, "liver"), (7, "spleen")]
    with pytest.raises(InputError, match=r"1 names came for 2 classes; the values are 5, 7"):
        take_fingerprint(pairs, class_names=("liver",))


def test_ct_is_known_by_air_and_whole_numbers_and_a_person_may_know_better(tmp_path):
    random = np.random.default_rng(0)
    image = np.where(random.random((30, 30, 30)) < 0.5, -1000, random.integers(-100, 500, (30, 30, 30)))
    write_scan(tmp_path / "a.nii.gz", image.astype(np.int16))
    write_scan(tmp_path / "a_seg.nii.gz", (image > 0).astype(np.uint8))
    assert fingerprint_of(tmp_path).ct
    assert not fingerprint_of(tmp_path, modality="MR").ct


def test_colour_pictures_have_three_channels_and_grey_ones_stored_in_colour_have_one(tmp_path):
    random = np.random.default_rng(0)
    for folder, colours in (("colour", random.integers(0, 255, (20, 30, 3))), ("grey", np.full((20, 30, 3), 7))):
        (tmp_path / folder).mkdir()
        colours[:5, :5] += 40
        Image.fromarray(colours.clip(0, 255).astype(np.uint8)).save(tmp_path / folder / "a.png")
        mask = np.zeros((20, 30), np.uint8)
        mask[5:10, 5:10] = 255
        Image.fromarray(mask).save(tmp_path / folder / "a_mask.png")
    colour, grey = fingerprint_of(tmp_path / "colour"), fingerprint_of(tmp_path / "grey")
    assert colour.channels == ("red", "green", "blue") and colour.colour and colour.pictures
    assert grey.channels == ("image",) and not grey.colour
    assert colour.median_size == (30, 20, 1)
    assert colour.label_values == [0, 255]


@pytest.mark.parametrize(
    ("odd", "said"), [("L", "it has 1 channel, 3 are wanted"), ("RGB", "this picture is in colour, most others are")]
)
def test_a_picture_of_other_colours_than_the_others_is_named(tmp_path, odd, said):
    random = np.random.default_rng(0)
    modes = dict.fromkeys(("a", *(f"b{n:02}" for n in range(9))), "L" if odd == "RGB" else "RGB") | {"b00": odd}
    for name, mode in modes.items():
        shape = (20, 30) if mode == "L" else (20, 30, 3)
        Image.fromarray(random.integers(0, 255, shape).astype(np.uint8)).save(tmp_path / f"{name}.png")
    Image.fromarray(np.eye(20, 30, dtype=np.uint8)).save(tmp_path / "a_mask.png")
    with pytest.raises(ProblemsError, match=f"b00.png: {said}"):
        fingerprint_of(tmp_path)


def test_channels_in_files_of_their_own_are_named_by_their_endings(tmp_path):
    random = np.random.default_rng(0)
    for case in ("x", "y"):
        for kind in ("flair", "t1"):
            write_scan(tmp_path / case / f"{case}_{kind}.nii.gz", random.normal(size=(8, 9, 10)).astype(np.float32))
    write_scan(tmp_path / "x/x_seg.nii.gz", np.tri(8, 9)[..., None].repeat(10, 2).astype(np.uint8))
    found = fingerprint_of(tmp_path)
    assert found.channels == ("FLAIR", "T1") and found.files == 2


# ---- subjects ------------------------------------------------------------------------------------------------------


def subjects(folder, **options):
    return take_fingerprint(find_pairs(folder), **options)


def test_folders_that_hold_several_cases_are_subjects(tmp_path):
    for number, name in enumerate(("p1/a", "p1/b", "p2/c")):
        write_scan(tmp_path / f"{name}.nii.gz", np.random.default_rng(number).normal(size=(6, 6, 6)).astype(np.float32))
    write_scan(tmp_path / "p1/a_seg.nii.gz", np.eye(6)[..., None].repeat(6, 2).astype(np.uint8))
    found, of = subjects(tmp_path)
    assert of == {"a": "p1", "b": "p1", "c": "p2"}
    assert (found.subjects, found.labeled_subjects) == (2, 1)


def who(*places: str, labeled: int = 1):
    """Subjects of cases `a`, `b`, ... in these folders; only names matter."""
    root = Path("/data")
    cases = (Pair(chr(97 + n), (root / f"{n}.nii",), root if n < labeled else None, p) for n, p in enumerate(places))
    of, rule = subjects_of(Pairs(root, tuple(cases), ("",)), pattern=None)
    return list(of.values()), rule


def test_folders_of_sections_and_of_kinds_are_no_subjects():
    assert who("tr", "tr", "ts")[0] == ["a", "b", "c"]
    assert who("train/p1", "train/p1", "test/p2")[0] == ["p1", "p1", "p2"]
    of, rule = who("benign", "benign", "malignant", labeled=3)
    assert (
        of == ["a", "b", "c"]
        and "not the folders benign, malignant: if these are people, say --subject-pattern" in rule
    )
    ann, bob, eve, jim, kay = "ann", "bob", "eve", "jim", "kay"
    assert who(ann, ann, bob, eve, jim, kay, labeled=6)[0] == [ann, ann, bob, eve, jim, kay]


def test_folders_of_places_are_no_subjects():
    of, rule = who("site1", "site1", "site2")
    assert of == ["a", "b", "c"] and "not the folders site1, site2: if these are people" in rule
    assert who("centre_A/p1", "centre_A/p1", "centre_B/p2")[0] == ["p1", "p1", "p2"]
    assert who("Hospital 3", "Hospital 4")[0] == ["a", "b"]
    people = ["site1_patient03", "site1_patient03", "site2_patient04"]
    assert who(*people)[0] == people


@pytest.mark.parametrize(
    ("names", "crowded"),
    [
        (["x1/ann.nii", "x1/bob.nii", "x1/eve.nii", "x1/jim.nii", "x1/kay.nii", "x1/leo.nii", "x2/max.nii"], True),
        (["x1/a_v1.nii", "x1/a_v2.nii", "x1/a_v3.nii", "x2/b_v1.nii"], False),  # a few visits
        ([f"x{n % 2}/p{n}_s{k:02}.png" for n in range(6) for k in range(4)], True),
        ([f"x{n}/p{n}_s{k:02}.png" for n in range(2) for k in range(40)], False),  # slices of one person
        ([f"x{n}/TCGA_{n}_1996_{k}.tif" for n in range(2) for k in range(40)], False),
        ([f"x{n}/{n}{k:03}.png" for n in range(2) for k in range(40)], False),
    ],
)
def test_a_folder_that_seems_to_show_many_people_is_told(names, crowded):
    root = Path("/data")
    cases = tuple(Pair(Path(name).stem, (root / name,), root, str(Path(name).parent)) for name in names)
    pairs = Pairs(root, cases, ("",))
    of, rule = subjects_of(pairs, pattern=None)
    assert rule == "the folder that a case lies in"
    notes = list(crowded_folders(pairs, of))
    assert bool(notes) == crowded
    if crowded:
        assert "LOOK AT THIS" in notes[0] and "say --subject-pattern REGEX" in notes[0]


def test_visits_of_one_patient_are_one_subject():
    assert who("patient1/visit1", "patient1/visit2", "patient2/visit1")[0] == ["patient1", "patient1", "patient2"]
    assert who("all/p1", "all/p1", "all/p2")[0] == ["p1", "p1", "p2"]
    assert who("p1", "p1", "")[0] == ["p1", "p1", "c"]


def test_a_pattern_finds_the_subject_and_one_that_finds_nothing_is_refused(tmp_path):
    write_folder(tmp_path, cases=2, labeled=1)
    pairs = find_pairs(tmp_path / "images", tmp_path / "labels")
    assert take_fingerprint(pairs, subject_pattern=re.compile(r"p(\d)"))[1] == {"p0": "0", "p1": "1"}
    with pytest.raises(InputError, match=r"'patient' is found in none of the paths"):
        take_fingerprint(pairs, subject_pattern=re.compile("patient"))


# ---- what is refused -----------------------------------------------------------------------------------------------


def test_no_label_at_all_is_refused_with_what_to_do(tmp_path):
    write_folder(tmp_path, labeled=0)
    with pytest.raises(InputError, match=r"none of the 4 scans has a label.*Label a handful"):
        fingerprint_of(tmp_path / "images")


def test_a_label_of_another_shape_is_named(tmp_path):
    write_folder(tmp_path)
    write_scan(tmp_path / "labels/p1_seg.nii.gz", np.ones((5, 5, 5), np.uint8))
    with pytest.raises(
        ProblemsError, match=r"p1_seg.nii.gz: its shape is 5 x 5 x 5, that of p1.nii.gz is 24 x 22 x 20"
    ):
        fingerprint_of(tmp_path / "images", tmp_path / "labels")


def test_all_faults_are_named_at_once(tmp_path):
    write_folder(tmp_path, cases=4)
    for name in ("p2", "p3"):
        path = tmp_path / f"images/{name}.nii.gz"
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ProblemsError) as caught:
        fingerprint_of(tmp_path / "images", tmp_path / "labels")
    assert len(caught.value.problems) == 2


def test_an_image_given_as_a_label_is_refused(tmp_path):
    write_folder(tmp_path, labeled=0)
    random = np.random.default_rng(0)
    write_scan(tmp_path / "labels/p0.nii.gz", random.integers(0, 100, (24, 22, 20)).astype(np.uint8))
    with pytest.raises(InputError, match=r"100 different values, 0 to 99; up to 64"):
        fingerprint_of(tmp_path / "images", tmp_path / "labels")


@pytest.mark.parametrize("names", [("liver", "liver"), ("background", "liver")])
def test_names_must_tell_classes_apart(tmp_path, names):
    write_folder(tmp_path, values=(0, 5, 7))
    with pytest.raises(InputError, match="different names, and not 'background', were wanted"):
        fingerprint_of(tmp_path / "images", tmp_path / "labels", class_names=names)


def test_a_number_that_no_mask_can_hold_is_refused(tmp_path):
    write_folder(tmp_path, labeled=0)
    write_scan(tmp_path / "labels/p0.nii.gz", (np.eye(24)[:, :22, None].repeat(20, 2) * 70000).astype(np.uint32))
    with pytest.raises(InputError, match="up to 65535, the labels go up to 70000"):
        fingerprint_of(tmp_path / "images", tmp_path / "labels")


def test_a_number_that_no_mask_of_a_picture_can_hold_is_refused(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    Image.fromarray(np.arange(400, dtype=np.uint8).reshape(20, 20)).save(tmp_path / "images" / "a.png")
    Image.fromarray(np.array([[0, 300]] * 200, dtype=np.uint16).reshape(20, 20)).save(tmp_path / "labels" / "a.png")
    with pytest.raises(InputError, match="up to 255, the labels go up to 300"):
        fingerprint_of(tmp_path / "images", tmp_path / "labels")


def test_labels_of_background_only_are_refused(tmp_path):
    write_folder(tmp_path, labeled=0)
    write_scan(tmp_path / "labels/p0.nii.gz", np.zeros((24, 22, 20), np.uint8))
    with pytest.raises(InputError, match="the labels hold nothing but 0"):
        fingerprint_of(tmp_path / "images", tmp_path / "labels")
