"""The committed data lists: what they promise, and that they are what the package writes."""

import itertools
from pathlib import Path

import pytest

from semi_med.data.data_list import SECTIONS, DataList, data_list_text, load_data_list
from semi_med.datasets.la import build_lists
from semi_med.datasets.la_ids import TEST, TRAIN
from semi_med.errors import InputError

FOLDER = Path(__file__).parent.parent / "data_lists"
PATHS = sorted(FOLDER.glob("*/*.json"))


def subjects(data_list: DataList, section: str) -> list[str]:
    return [str(case.subject) for case in getattr(data_list, section)]


def test_committed_la_lists_are_what_the_package_writes():
    written = {f"{name}.json": data_list_text(data_list) for name, data_list in build_lists().items()}
    assert {path.name: path.read_text(encoding="utf-8") for path in (FOLDER / "la").glob("*.json")} == written


@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_case_is_in_two_sections_and_all_paths_are_relative(path):
    sections = [[file for case in getattr(load_data_list(path), s) for file in case.files] for s in SECTIONS]
    for one, other in itertools.combinations(sections, 2):
        assert not set(one) & set(other)
    files = [file for section in sections for file in section]
    assert len(set(files)) == len(files) > 0
    assert not any(file.startswith(("/", "..")) or "\\" in file for file in files)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("labeled_04", (4, 72, 4, 20)),
        ("labeled_08", (8, 68, 4, 20)),
        ("labeled_16", (16, 60, 4, 20)),
        ("labeled_08_seed2", (8, 68, 4, 20)),
        ("all_labeled", (76, 0, 4, 20)),
    ],
)
def test_counts_are_as_published_with_four_scans_taken_for_validation(name, counts):
    assert tuple(load_data_list(FOLDER / "la" / f"{name}.json").counts().values()) == counts


def test_the_published_split_has_80_and_20_scans_in_its_own_order():
    assert (len(TRAIN), len(TEST), len({*TRAIN, *TEST})) == (80, 20, 100)
    assert (TRAIN[0], TRAIN[79]) == ("06SR5RBREL16DQ6M8LWS", "UZUZZT2W9IUSHL6ASOX3")
    assert (TEST[0], TEST[19]) == ("UPT6DX9IQY9JAZ7HJKA7", "ZQPMJ4XEC5A4BISD45P1")


def test_published_lists_label_the_first_training_scans():
    for count in (4, 8, 16):
        assert subjects(build_lists()[f"labeled_{count:02d}"], "labeled") == list(TRAIN[:count])


def test_every_list_has_the_same_validation_and_test():
    for data_list in build_lists().values():
        assert subjects(data_list, "validation") == list(TRAIN[-4:])
        assert subjects(data_list, "test") == list(TEST)


def test_every_list_uses_each_of_the_100_scans_once():
    for data_list in build_lists().values():
        names = [name for section in SECTIONS for name in subjects(data_list, section)]
        assert sorted(names) == sorted([*TRAIN, *TEST])


def test_seeded_lists_are_nested_and_differ_between_seeds():
    lists = build_lists()
    for seed in (1, 2, 3):
        four, eight, sixteen = (subjects(lists[f"labeled_{n:02d}_seed{seed}"], "labeled") for n in (4, 8, 16))
        assert (eight[:4], sixteen[:8]) == (four, eight)
    drawn = {tuple(sorted(subjects(lists[f"labeled_16_seed{seed}"], "labeled"))) for seed in (1, 2, 3)}
    assert len(drawn) == 3


def test_descriptions_name_the_rule_of_the_validation_section():
    assert all("the last 4 training scans" in data_list.description for data_list in build_lists().values())


def test_a_repeated_id_is_refused():
    with pytest.raises(InputError, match="1 repeated ids"):
        build_lists([*TRAIN[:79], TRAIN[0]], TEST)
