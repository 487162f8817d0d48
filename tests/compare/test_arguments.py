"""Options that take several values after one flag."""

from __future__ import annotations

import pytest

from semi_med.compare.arguments import spread

WANTED = ["--methods", "a", "--methods", "b", "--methods", "c"]


@pytest.mark.parametrize(
    "given",
    [
        "--methods a b c",
        "--methods a --methods b --methods c",
        "--methods a,b,c",
        "--methods a, b c",
        "--methods=a,b --methods c",
        "--methods=a b c",
    ],
)
def test_every_way_to_give_several_values_means_the_same(given):
    assert spread(given.split()) == WANTED


def test_values_end_at_the_next_option():
    words = ["--labeled", "4", "8", "--seeds", "3", "-o", "out"]
    assert spread(words) == ["--labeled", "4", "--labeled", "8", "--seeds", "3", "-o", "out"]


def test_the_values_of_a_setting_keep_their_commas():
    assert spread(["--set", "a=[1,2]", "b=3", "-o", "x"]) == ["--set", "a=[1,2]", "--set", "b=3", "-o", "x"]


def test_other_options_keep_their_words():
    words = ["-o", "a,b", "--seeds", "3", "left", "over"]
    assert spread(words) == words


def test_a_flag_without_a_value_is_left_for_the_parser_to_refuse():
    assert spread(["--methods", "--seeds", "3"]) == ["--methods", "--seeds", "3"]
    assert spread(["--methods"]) == ["--methods"]
