"""Which files are channels of one case, by name."""

from semi_med.inference.channels import group_channels, split_channel


def test_numbers_of_four_digits_and_names_of_modalities_tell_channels():
    assert split_channel("p1_0000") == ("p1", "0000")
    assert split_channel("BraTS19_x_t1ce") == ("BraTS19_x", "t1ce")
    assert split_channel("FLAIR") == ("", "flair")
    assert split_channel("p1_001") is None


def test_files_that_differ_in_the_ending_are_one_case():
    groups = group_channels(["b_0001", "a_0001", "a_0000", "b_0000"])
    assert groups == {"a": {"0000": "a_0000", "0001": "a_0001"}, "b": {"0000": "b_0000", "0001": "b_0001"}}
    assert list(groups["b"]) == ["0000", "0001"]


def test_an_ending_that_tells_nothing_apart_belongs_to_the_name():
    assert group_channels(["scan_0001", "other_0002"]) == {
        "scan_0001": {"": "scan_0001"},
        "other_0002": {"": "other_0002"},
    }


def test_a_single_channel_is_one_where_the_case_is_known_without_it():
    assert group_channels(["p1_0000"], cases=["p1"]) == {"p1": {"0000": "p1_0000"}}


def test_a_number_and_a_modality_are_no_channels_of_each_other():
    assert group_channels(["x_0001", "x_flair"]) == {"x_0001": {"": "x_0001"}, "x_flair": {"": "x_flair"}}
