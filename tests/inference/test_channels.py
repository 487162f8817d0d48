"""Which files are channels of one case, by name."""

from pathlib import Path

import pytest

from semi_med.errors import ProblemsError
from semi_med.inference.batch_files import BatchCase, collect_cases, join_channels
from semi_med.inference.channels import group_channels, split_channel


def test_numbers_of_four_digits_and_names_of_modalities_tell_channels():
    assert split_channel("p1_0000") == ("p1", "0000")
    assert split_channel("BraTS19_x_t1ce") == ("BraTS19_x", "t1ce")
    assert split_channel("FLAIR") == ("", "flair")
    assert split_channel("p1_001") is None


def groups(*names, **options):
    """Of the names of one folder."""
    return group_channels({"": names}, **options)[""]


def alone(*names):
    return {name: {"": name} for name in names}


def test_files_that_differ_in_the_ending_are_one_case():
    found = groups("b_0001", "a_0001", "a_0000", "b_0000")
    assert found == {"a": {"0000": "a_0000", "0001": "a_0001"}, "b": {"0000": "b_0000", "0001": "b_0001"}}
    assert list(found["b"]) == ["0000", "0001"]


def test_an_ending_that_tells_nothing_apart_belongs_to_the_name():
    assert groups("scan_0001", "other_0002") == alone("scan_0001", "other_0002")


def test_one_case_that_has_all_numbers_of_its_folder_is_several_cases():
    names = [f"case_{n:04}" for n in range(1, 6)]
    assert groups(*names) == alone(*names)
    assert list(groups(*names, numbered=True)) == ["case"]


def test_numbers_that_a_label_has_too_count_cases():
    names = [f"{who}_{n:04}" for who in "ab" for n in range(3)]
    assert groups(*names, cases=["a_0001"]) == alone(*names)
    assert set(groups(*names)) == {"a", "b"}
    assert groups("0001", "0002", cases=["0002"]) == alone("0001", "0002")


def test_endings_of_labelled_cases_are_those_of_the_others_in_whatever_folder():
    found = group_channels(
        {"tr": ["la_0001_0000", "la_0001_0001"], "ts": ["la_0009_0000", "la_0009_0001", "x_2019"]}, cases=["la_0001"]
    )
    assert list(found["tr"]) == ["la_0001"] and list(found["ts"]) == ["la_0009", "x_2019"]


def test_a_name_that_is_a_file_of_its_own_is_no_case_of_channels():
    assert groups("a", "a_flair", "a_t1") == alone("a", "a_flair", "a_t1")


def test_a_single_channel_is_one_where_the_case_is_known_without_it():
    assert groups("p1_0000", cases=["p1"]) == {"p1": {"0000": "p1_0000"}}


def test_a_number_and_a_modality_are_no_channels_of_each_other():
    assert groups("x_0001", "x_flair") == alone("x_0001", "x_flair")


# ---- predicting ----------------------------------------------------------------------------------------------------


def cases_of(folder: Path, *names: str) -> list[BatchCase]:
    folder.mkdir(exist_ok=True)
    return [BatchCase(name, folder / f"{name}.nii.gz", folder / f"out/{name}_seg.nii.gz") for name in names]


def joined(cases, channels: int, **options) -> list[tuple[str, list[str]]]:
    found = join_channels(cases, Path("out"), channels=channels, **options)
    return [(case.name, [path.name for path in (case.image, *case.further)]) for case in found]


def test_the_channels_of_a_case_are_segmented_together_and_named_without_their_ending(tmp_path):
    cases = cases_of(tmp_path, "a_0000", "a_0001", "b_0001", "b_0000")
    assert joined(cases, 2) == [
        ("a", ["a_0000.nii.gz", "a_0001.nii.gz"]),
        ("b", ["b_0000.nii.gz", "b_0001.nii.gz"]),
    ]
    assert join_channels(cases, Path("out"), channels=2)[0].target == Path("out/a_seg.nii.gz")


def test_files_called_by_their_channel_alone_are_the_case_of_their_folder(tmp_path):
    assert joined(cases_of(tmp_path / "p7", "t1", "flair"), 2) == [("p7", ["flair.nii.gz", "t1.nii.gz"])]


def test_a_network_of_one_channel_takes_every_file_for_a_case(tmp_path):
    assert len(joined(cases_of(tmp_path, "a_0000", "a_0001"), 1)) == 2


def test_other_numbers_of_channels_than_are_wanted_are_left_apart(tmp_path):
    assert len(joined(cases_of(tmp_path, "a_0000", "a_0001"), 3)) == 2


def test_channels_go_to_the_network_in_its_own_order(tmp_path):
    cases = cases_of(tmp_path, "a_flair", "a_t1", "b_t2f", "b_t1n")
    assert joined(cases, 2, names=("T1", "FLAIR")) == [
        ("a", ["a_t1.nii.gz", "a_flair.nii.gz"]),
        ("b", ["b_t1n.nii.gz", "b_t2f.nii.gz"]),
    ]


def test_other_channels_than_the_network_wants_are_refused(tmp_path):
    with pytest.raises(ProblemsError, match=r"wants the channels FLAIR, T1; case a has t1, t2"):
        joined(cases_of(tmp_path, "a_t1", "a_t2"), 2, names=("FLAIR", "T1"))


def test_channels_of_which_one_side_has_no_names_come_as_they_are_sorted(tmp_path):
    order = [("a", ["a_0000.nii.gz", "a_0001.nii.gz"])]
    assert joined(cases_of(tmp_path, "a_0001", "a_0000"), 2, names=("T1", "FLAIR")) == order
    assert len(joined(cases_of(tmp_path, "a_t1", "a_flair"), 2, names=("channel 0", "channel 1"))) == 1


def test_numbered_files_of_a_network_of_colour_pictures_are_cases_and_modalities_are_joined(tmp_path):
    cases = cases_of(tmp_path, "a_0000", "a_0001", "b_flair", "b_t1")
    assert [name for name, _ in joined(cases, 2, in_one_file=True)] == ["a_0000", "a_0001", "b"]


def test_two_cases_that_would_write_one_file_are_refused(tmp_path):
    cases = [*cases_of(tmp_path / "x", "a_0000", "a_0001"), *cases_of(tmp_path / "y", "a_0000", "a_0001")]
    with pytest.raises(ProblemsError, match="would also be that of"):
        join_channels(cases, tmp_path, channels=2)


def test_labels_beside_the_channels_of_a_whole_case_are_left_out(tmp_path):
    cases = [*cases_of(tmp_path / "p1", "flair", "t1", "seg"), *cases_of(tmp_path / "q", "x_t1", "x_flair", "x_mask")]
    assert [name for name, _ in joined(cases, 2)] == ["p1", "x"]
    assert [name for name, _ in joined(cases_of(tmp_path / "p1", "flair", "seg"), 2)] == ["flair", "seg"]


def test_folders_of_cases_whose_files_are_called_alike_can_be_predicted_together(tmp_path):
    for name in ("p1/flair", "p1/t1", "p2/flair", "p2/t1"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.nii.gz").write_bytes(b"")
    given = [tmp_path / "p1", tmp_path / "p2"]
    cases = collect_cases(given, tmp_path / "out", several_channels=True)
    assert [name for name, _ in joined(cases, 2)] == ["p1", "p2"]
    with pytest.raises(ProblemsError, match="would also be that of"):
        joined(cases, 1)


def test_an_output_that_would_overwrite_a_scan_is_refused(tmp_path):
    cases = cases_of(tmp_path, "a_0000", "a_0001", "a_seg")
    with pytest.raises(ProblemsError, match="would overwrite an input"):
        join_channels(cases, tmp_path, channels=2)
