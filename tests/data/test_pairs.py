"""A person's own folders: images, labels for some, several files a case. Only names matter, so that files are empty."""

from pathlib import Path

import pytest

from semi_med.data.pairs import find_pairs, without_ending
from semi_med.errors import InputError, ProblemsError


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def short(pairs) -> dict[str, tuple[list[str], str | None]]:
    return {c.case: ([path.name for path in c.images], c.label and c.label.name) for c in pairs.cases}


@pytest.mark.parametrize("ending", ["", "_seg", "_label", "_mask", "_gt", "-segmentation", ".manual", "_1stHO"])
def test_a_label_in_a_second_folder_has_the_name_of_its_image_with_or_without_an_ending(tmp_path, ending):
    touch(tmp_path, "scans/a.nii.gz", "scans/b.nii.gz", f"marks/b{ending}.nii.gz")
    pairs = find_pairs(tmp_path / "scans", tmp_path / "marks")
    assert short(pairs) == {"a": (["a.nii.gz"], None), "b": (["b.nii.gz"], f"b{ending}.nii.gz")}
    assert pairs.root == tmp_path


def test_labels_among_the_images_are_told_by_their_ending(tmp_path):
    touch(tmp_path, "a.png", "a_mask.png", "b.png")
    pairs = find_pairs(tmp_path)
    assert short(pairs) == {"a": (["a.png"], "a_mask.png"), "b": (["b.png"], None)}
    assert pairs.root == tmp_path


def test_a_name_that_ends_like_a_label_but_belongs_to_nothing_is_an_image(tmp_path):
    assert short(find_pairs(touch(tmp_path, "first_seg.nii", "second_seg.nii"))) == {
        "first_seg": (["first_seg.nii"], None),
        "second_seg": (["second_seg.nii"], None),
    }


def test_labels_of_another_format_than_the_images_are_found(tmp_path):
    touch(tmp_path, "i/a.jpg", "l/a.png")
    assert short(find_pairs(tmp_path / "i", tmp_path / "l"))["a"] == (["a.jpg"], "a.png")


def test_folders_called_images_and_labels_are_a_pair(tmp_path):
    touch(tmp_path, "imagesTr/a.nii.gz", "labelsTr/a.nii.gz", "imagesTs/z.nii.gz")
    assert short(find_pairs(tmp_path)) == {"a": (["a.nii.gz"], "a.nii.gz"), "z": (["z.nii.gz"], None)}


def test_channels_of_nnunet_are_one_case(tmp_path):
    touch(tmp_path, *(f"i/p{n}_000{c}.nii.gz" for n in (1, 2) for c in (0, 1)), "l/p1.nii.gz")
    pairs = find_pairs(tmp_path / "i", tmp_path / "l")
    assert short(pairs)["p1"] == (["p1_0000.nii.gz", "p1_0001.nii.gz"], "p1.nii.gz")
    assert pairs.channels == ("0000", "0001")


@pytest.mark.parametrize("stem", ["case_", ""])
def test_numbers_of_four_digits_that_labels_have_too_count_cases(tmp_path, stem):
    touch(tmp_path, *(f"i/{stem}{n:04}.png" for n in range(1, 6)), f"l/{stem}0001.png", f"l/{stem}0002.png")
    pairs = find_pairs(tmp_path / "i", tmp_path / "l")
    assert [case.case for case in pairs.cases] == [f"{stem}{n:04}" for n in range(1, 6)] and pairs.channels == ("",)
    assert sum(case.label is not None for case in pairs.cases) == 2


def test_the_folder_of_the_only_case_may_be_given(tmp_path):
    touch(tmp_path, "p1/flair.nii.gz", "p1/t1.nii.gz", "p1/seg.nii.gz")
    assert short(find_pairs(tmp_path / "p1")) == {"p1": (["flair.nii.gz", "t1.nii.gz"], "seg.nii.gz")}


@pytest.mark.parametrize(("image", "label"), [("imaging", "segmentation"), ("flair", "seg")])
def test_a_folder_a_case_with_one_image_pairs_it_with_the_label_beside_it(tmp_path, image, label):
    touch(tmp_path, f"p1/{image}.nii.gz", f"p1/{label}.nii.gz", f"p2/{image}.nii.gz")
    pairs = find_pairs(tmp_path)
    assert [(case.case, case.label and case.label.name) for case in pairs.cases] == [
        ("p1", f"{label}.nii.gz"),
        ("p2", None),
    ]
    assert pairs.notes == ()


def test_a_folder_a_case_with_modalities_and_label_is_one_case(tmp_path):
    for case in ("x", "y"):
        touch(tmp_path / case, *(f"{case}_{m}.nii.gz" for m in ("t2", "flair", "t1ce", "t1")))
    touch(tmp_path, "x/x_seg.nii.gz")
    pairs = find_pairs(tmp_path)
    assert pairs.channels == ("flair", "t1", "t1ce", "t2")
    assert {case: label for case, (_, label) in short(pairs).items()} == {"x": "x_seg.nii.gz", "y": None}


def test_files_that_have_no_name_but_their_channel_are_called_after_their_folder(tmp_path):
    touch(tmp_path, "p7/flair.nii.gz", "p7/t1.nii.gz", "p7/seg.nii.gz", "p8/flair.nii.gz", "p8/t1.nii.gz")
    assert short(find_pairs(tmp_path)) == {
        "p7": (["flair.nii.gz", "t1.nii.gz"], "seg.nii.gz"),
        "p8": (["flair.nii.gz", "t1.nii.gz"], None),
    }


def test_cases_of_one_name_are_called_by_their_folder_too_and_keep_their_labels(tmp_path):
    touch(tmp_path, "p1/slice.png", "p1/slice_mask.png", "p1/other.png", "p2/slice.png")
    assert short(find_pairs(tmp_path)) == {
        "other": (["other.png"], None),
        "p1__slice": (["slice.png"], "slice_mask.png"),
        "p2__slice": (["slice.png"], None),
    }


def test_one_name_in_two_folders_of_images_is_refused_with_both_files(tmp_path):
    touch(tmp_path, "images/a.png", "scans/a.png", "labels/a.png")
    with pytest.raises(InputError, match=r"scans/a.png: .*images/a.png and this file have one name"):
        find_pairs(tmp_path)


def test_labels_among_the_images_are_left_out_where_a_folder_of_labels_is_named(tmp_path):
    touch(tmp_path, "i/a.nii", "i/a_seg.nii", "l/a.nii")
    pairs = find_pairs(tmp_path / "i", tmp_path / "l")
    assert short(pairs) == {"a": (["a.nii"], "a.nii")}
    assert "1 files among the images are named as labels" in pairs.notes[0]


@pytest.mark.parametrize(("first", "second"), [("_1stHO", "_2ndHO"), ("_mask", "_mask_1"), ("-seg", "-seg2")])
def test_further_labels_of_a_case_are_no_images_and_a_note_names_them(tmp_path, first, second):
    touch(tmp_path, "a.png", f"a{first}.png", f"a{second}.png", "b.png", "c_mask_1.png")
    pairs = find_pairs(tmp_path)
    assert short(pairs) == {
        "a": (["a.png"], f"a{first}.png"),
        "b": (["b.png"], None),
        "c_mask_1": (["c_mask_1.png"], None),
    }
    assert f"1 files are named as further labels of a scan and were left out: a{second}.png" in pairs.notes[0]


def test_a_folder_of_labels_inside_that_of_the_images_holds_no_images(tmp_path):
    touch(tmp_path, "a.nii", "b.nii", "done/a.nii")
    assert short(find_pairs(tmp_path, tmp_path / "done")) == {"a": (["a.nii"], "a.nii"), "b": (["b.nii"], None)}


def test_a_label_without_an_image_is_a_note(tmp_path):
    touch(tmp_path, "i/a.nii", "l/a.nii", "l/z.nii")
    assert find_pairs(tmp_path / "i", tmp_path / "l").notes == ("1 labels have no image of their name: z.nii",)


def test_labels_of_which_none_matches_are_refused_with_an_example(tmp_path):
    touch(tmp_path, "i/a.nii", "l/z.nii")
    with pytest.raises(InputError, match=r"none of its 1 labels .* z.nii and a.nii"):
        find_pairs(tmp_path / "i", tmp_path / "l")


def test_two_labels_of_one_image_are_refused(tmp_path):
    touch(tmp_path, "i/a.nii", "l/a_seg.nii", "l/a_mask.nii")
    with pytest.raises(ProblemsError, match=r"2 labels belong to it: a_mask.nii, a_seg.nii"):
        find_pairs(tmp_path / "i", tmp_path / "l")


def test_a_case_that_lacks_a_channel_is_named(tmp_path):
    touch(tmp_path, *(f"p{n}_000{c}.nii.gz" for n in (1, 2, 3) for c in (0, 1, 2) if (n, c) != (3, 2)))
    with pytest.raises(ProblemsError, match=r"p3: it has 2 files .* most cases have 3"):
        find_pairs(tmp_path)


def test_other_channels_of_the_same_number_are_named_with_both_sets(tmp_path):
    touch(tmp_path, "p1_flair.nii", "p1_t1.nii", "p2_t1.nii", "p2_t2.nii", "p3_flair.nii", "p3_t1.nii")
    with pytest.raises(ProblemsError, match=r"p2: it has 2 files .*: t1, t2; most cases have 2: flair, t1"):
        find_pairs(tmp_path)


def test_an_empty_folder_and_a_missing_one_are_refused(tmp_path):
    with pytest.raises(InputError, match="holds no file that ends in"):
        find_pairs(tmp_path)
    with pytest.raises(InputError, match="a folder was wanted"):
        find_pairs(tmp_path / "nowhere")


def test_a_dicom_series_is_one_case_called_after_its_folder(tmp_path):
    (tmp_path / "p1").mkdir()
    (tmp_path / "p1" / "0001").write_bytes(b"\0" * 128 + b"DICM")
    touch(tmp_path, "labels/p1.nii.gz")
    pairs = find_pairs(tmp_path, tmp_path / "labels")
    assert short(pairs) == {"p1": (["p1"], "p1.nii.gz")}


def test_a_bare_ending_names_no_case():
    assert (without_ending("a_seg"), without_ending("a"), without_ending("seg")) == ("a", "a", "")
