"""The committed data lists: what they promise, and that they are what the package writes."""

import itertools
from pathlib import Path

import pytest

from semi_med.data.data_list import SECTIONS, DataList, load_data_list
from semi_med.datasets import acdc_ids, brats2019_ids, pancreas_ct_ids
from semi_med.datasets.la import build_lists
from semi_med.datasets.la_ids import TEST, TRAIN
from semi_med.datasets.split_source import published, write_published
from semi_med.errors import InputError

FOLDER = Path(__file__).parent.parent / "data_lists"
PATHS = sorted(FOLDER.glob("*/*.json"))


def subjects(data_list: DataList, section: str) -> list[str]:
    return [str(case.subject) for case in getattr(data_list, section)]


def committed(name: str) -> set[str]:
    """Folders and files of a data set that are committed."""
    return {f"{path.parent.name}/{path.name}" for path in PATHS if (path.parent.name + "_").startswith(f"{name}_")}


@pytest.mark.parametrize("name", sorted(published()))
def test_committed_lists_are_what_the_package_writes(name: str, tmp_path: Path):
    written = {f"{path.parent.name}/{path.name}": path for path in write_published(name, tmp_path)}
    assert set(written) == committed(name)
    for place, path in written.items():
        same = (FOLDER / place).read_bytes() == path.read_bytes()
        assert same, f"{place}: run `semi-med split --published {name} -o data_lists` again"


def test_every_committed_list_is_of_a_data_set():
    assert {f"{path.parent.name}/{path.name}" for path in PATHS} == set().union(*map(committed, published()))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_case_is_in_two_sections_and_all_paths_are_relative(path):
    sections = [[file for case in getattr(load_data_list(path), s) for file in case.files] for s in SECTIONS]
    for one, other in itertools.combinations(sections, 2):
        assert not set(one) & set(other)
    files = [file for section in sections for file in section]
    assert len(set(files)) == len(files) > 0
    assert not any(file.startswith(("/", "..")) or "\\" in file for file in files)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_subject_is_in_two_sections(path):
    listed = load_data_list(path)
    for one, other in itertools.combinations(SECTIONS, 2):
        assert not set(subjects(listed, one)) & set(subjects(listed, other))


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        # 4 scans are taken for validation where the published split has no such section: la, pancreas_ct
        ("la/labeled_04", (4, 72, 4, 20)),
        ("la/labeled_08", (8, 68, 4, 20)),
        ("la/labeled_16", (16, 60, 4, 20)),
        ("la/labeled_08_seed2", (8, 68, 4, 20)),
        ("la/all_labeled", (76, 0, 4, 20)),
        ("pancreas_ct_a/labeled_06", (6, 52, 4, 20)),
        ("pancreas_ct_a/labeled_12", (12, 46, 4, 20)),
        ("pancreas_ct_a/labeled_06_without_withdrawn", (6, 51, 4, 19)),
        ("pancreas_ct_a/labeled_12_without_withdrawn", (11, 46, 4, 19)),
        ("pancreas_ct_b/labeled_12", (12, 46, 4, 18)),
        ("brats2019/labeled_25", (25, 225, 25, 60)),
        ("brats2019/labeled_50", (50, 200, 25, 60)),
        ("brats2019/all_labeled", (250, 0, 25, 60)),
        ("brats2019_regions/labeled_50", (50, 200, 25, 60)),
        # two frames a patient: 70, 10 and 20 patients
        ("acdc/labeled_01", (2, 138, 20, 40)),
        ("acdc/labeled_03", (6, 134, 20, 40)),
        ("acdc/labeled_07", (14, 126, 20, 40)),
        ("acdc/labeled_14", (28, 112, 20, 40)),
        ("acdc/labeled_07_seed3", (14, 126, 20, 40)),
        # four pictures a patient: 250, 100 and 100 patients
        ("camus/labeled_004_seed1", (4, 996, 400, 400)),
        ("camus/labeled_100_seed1", (100, 900, 400, 400)),
        ("camus/all_labeled", (1000, 0, 400, 400)),
        ("scr_jsrt/labeled_100_seed1", (100, 100, 23, 24)),
        ("scr_jsrt/fold1_all_labeled", (112, 0, 12, 123)),
        ("scr_jsrt/fold2_all_labeled", (111, 0, 12, 124)),
        ("chase_db1/usual_labeled_02_seed1", (2, 16, 2, 8)),
        ("chase_db1/supmix_labeled_05_seed3", (5, 14, 2, 5)),
        ("covid19_ct/labeled_09_seed1", (9, 61, 10, 20)),
        ("covid19_ct/ordered_labeled_18_seed3", (18, 52, 10, 20)),
    ],
)
def test_counts_are_as_published(name, counts):
    assert tuple(load_data_list(FOLDER / f"{name}.json").counts().values()) == counts


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("pancreas_ct_a/labeled_06", ["PANCREAS_0057", "PANCREAS_0018", "PANCREAS_0062", "PANCREAS_0031"]),
        ("pancreas_ct_b/labeled_12", ["PANCREAS_0001", "PANCREAS_0002", "PANCREAS_0003", "PANCREAS_0004"]),
        ("brats2019/labeled_25", ["BraTS19_TCIA02_370_1", "BraTS19_CBICA_ASA_1", "BraTS19_TCIA12_470_1"]),
        ("brats2019_regions/labeled_25", ["BraTS19_TCIA02_370_1", "BraTS19_CBICA_ASA_1", "BraTS19_TCIA12_470_1"]),
        ("acdc/labeled_03", ["patient099", "patient099", "patient038", "patient038", "patient050", "patient050"]),
    ],
)
def test_published_labels_are_the_first_in_the_published_order(name, first):
    assert subjects(load_data_list(FOLDER / f"{name}.json"), "labeled")[: len(first)] == first


def test_the_folds_of_scr_are_the_odd_and_the_even_numbers():
    for fold, rest in (("fold1", 1), ("fold2", 0)):
        listed = load_data_list(FOLDER / f"scr_jsrt/{fold}_all_labeled.json")
        train, test = [*subjects(listed, "labeled"), *subjects(listed, "validation")], subjects(listed, "test")
        assert ({int(name[-3:]) % 2 for name in train}, {int(name[-3:]) % 2 for name in test}) == ({rest}, {1 - rest})


def test_the_lists_of_a_data_set_stay_small():
    for folder in {path.parent for path in PATHS}:
        assert sum(path.stat().st_size for path in folder.glob("*.json")) < 2e6, folder


def test_the_withdrawn_pancreas_is_in_protocol_a_as_published_and_in_no_other_list():
    for path in PATHS:
        if path.parent.name.startswith("pancreas_ct"):
            text = path.read_text()
            as_published = path.parent.name.endswith("_a") and "without" not in path.name
            assert ("PANCREAS_0025" in text and "PANCREAS_0070" in text) is as_published, path
            assert ("show the scan of PANCREAS_0002" in text) is as_published, path


def test_published_ids_are_each_there_once():
    ids = [*pancreas_ct_ids.A_TRAIN, *pancreas_ct_ids.A_TEST]
    assert (len(pancreas_ct_ids.A_TRAIN), sorted(ids)) == (62, list(range(1, 83)))
    ids = [*pancreas_ct_ids.B_LABELED, *pancreas_ct_ids.B_UNLABELED, *pancreas_ct_ids.B_TEST]
    assert sorted(ids) == [n for n in range(1, 83) if n not in pancreas_ct_ids.WITHDRAWN]
    assert sorted([*acdc_ids.TRAIN, *acdc_ids.VALIDATION, *acdc_ids.TEST]) == list(range(1, 101))
    names = [*brats2019_ids.TRAIN, *brats2019_ids.VALIDATION, *brats2019_ids.TEST]
    assert len(names) == len(set(names)) == 335


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
