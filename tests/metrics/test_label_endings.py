"""Predictions find their labels also where these have endings of their own, or lie in folders."""

from pathlib import Path

from semi_med.metrics.pairing import pair_files


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def test_a_label_with_an_ending_of_its_own_is_that_of_its_case(tmp_path):
    masks = touch(tmp_path / "masks", "a_seg.nii.gz", "b_seg.nii.gz")
    labels = touch(tmp_path / "labels", "a_mask.nii.gz", "b_gt.nii.gz")
    pairing = pair_files(masks, labels)
    assert [(p.name, label.name) for p, label in pairing.pairs.values()] == [
        ("a_seg.nii.gz", "a_mask.nii.gz"),
        ("b_seg.nii.gz", "b_gt.nii.gz"),
    ]


def test_the_only_channel_of_a_case_has_a_number_that_its_label_lacks(tmp_path):
    masks = touch(tmp_path / "masks", "la_001_0000_seg.nii.gz", "la_002_0000_seg.nii.gz", "a_0000_seg.nii.gz")
    labels = touch(tmp_path / "labels", "la_001.nii.gz", "la_002_gt.nii.gz", "a_0000.nii.gz", "a.nii.gz")
    pairing = pair_files(masks, labels)
    assert [(p.name, label.name) for p, label in pairing.pairs.values()] == [
        ("a_0000_seg.nii.gz", "a_0000.nii.gz"),
        ("la_001_0000_seg.nii.gz", "la_001.nii.gz"),
        ("la_002_0000_seg.nii.gz", "la_002_gt.nii.gz"),
    ]
    assert pairing.missing == ("a",)


def test_two_labels_of_one_case_are_not_chosen_between(tmp_path):
    masks = touch(tmp_path / "masks", "a_seg.nii.gz", "b_seg.nii.gz")
    labels = touch(tmp_path / "labels", "a_mask.nii.gz", "a_gt.nii.gz", "b.nii.gz")
    pairing = pair_files(masks, labels)
    assert list(pairing.pairs) == ["b"] and pairing.missing == ("a_gt", "a_mask")


def test_labels_that_a_list_names_are_found_below_the_folder_and_others_do_not_matter(tmp_path):
    masks = touch(tmp_path / "masks", "a_seg.png")
    labels = touch(tmp_path / "data", "p1/a.tif", "p1/a_mask.tif", "p2/c.tif", "p2/c_mask.tif")
    pairing = pair_files(masks, labels, cases={"a_mask"})
    assert [label.name for _, label in pairing.pairs.values()] == ["a_mask.tif"]
    assert pairing.missing == ()


def test_labels_that_a_list_names_by_case_may_lie_anywhere_and_masks_be_called_as_they_are(tmp_path):
    masks = touch(tmp_path / "masks", "p1_seg.nii.gz", "second_seg.nii.gz")
    data = touch(tmp_path / "data", "p1/seg.nii.gz", "p2/second.nii.gz")
    labels = {"p1": data / "p1/seg.nii.gz", "p2": data / "p2/second.nii.gz"}
    assert pair_files(masks, data, cases=labels).pairs == {
        "p1": (masks / "p1_seg.nii.gz", labels["p1"]),
        "p2": (masks / "second_seg.nii.gz", labels["p2"]),
    }
