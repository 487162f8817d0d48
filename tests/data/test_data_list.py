"""Data lists: what is accepted, what is refused, and how the refusal reads."""

import json

import pytest

from semi_med.data.data_list import Case, DataList, load_data_list, save_data_list
from semi_med.errors import InputError, ProblemsError

LABELS = {"0": "background", "1": "atrium"}


def write(tmp_path, **changes):
    tree = {
        "name": "toy",
        "labels": LABELS,
        "labeled": [{"image": "images/A.nii.gz", "label": "labels/A.nii.gz", "subject": "S1"}],
        "unlabeled": [{"image": "images/B.nii.gz", "monitor_label": "labels/B.nii.gz"}],
        **changes,
    }
    path = tmp_path / "list.json"
    path.write_text(json.dumps(tree), encoding="utf-8")
    return path


def problems(path):
    with pytest.raises(ProblemsError) as caught:
        load_data_list(path)
    return caught.value.problems


def text_of(tmp_path, text):
    path = tmp_path / "list.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_sections_have_absolute_paths_and_unlabeled_items_no_label(tmp_path):
    sections = load_data_list(write(tmp_path)).sections("/data")
    assert sections == {
        "labeled": [{"image": "/data/images/A.nii.gz", "label": "/data/labels/A.nii.gz", "case": "A", "subject": "S1"}],
        "unlabeled": [{"image": "/data/images/B.nii.gz", "case": "B", "subject": "B"}],
        "validation": [],
        "test": [],
    }


def test_monitor_label_is_given_only_on_request(tmp_path):
    sections = load_data_list(write(tmp_path)).sections("/data", monitor=True)
    assert sections["unlabeled"][0]["monitor_label"] == "/data/labels/B.nii.gz"
    assert "label" not in sections["unlabeled"][0]


def test_several_files_are_the_channels_and_name_the_case_by_the_first(tmp_path):
    labeled = [{"image": ["t1/A.nii.gz", "t2/X.nii.gz"], "label": "labels/A.nii.gz"}]
    unlabeled = [{"image": ["t1/B.nii.gz", "t2/B.nii.gz"]}]
    path = write(tmp_path, labeled=labeled, unlabeled=unlabeled, modality={"0": "T1", "1": "T2"})
    item = load_data_list(path).sections("/data")["labeled"][0]
    assert (item["image"], item["case"]) == (["/data/t1/A.nii.gz", "/data/t2/X.nii.gz"], "A")


def test_saved_and_loaded_list_is_the_same(tmp_path):
    case = Case(image="images/Müller 1.nii.gz", label="labels/Müller 1.nii.gz")
    data_list = DataList(name="é", labels=LABELS, labeled=[case], modality={"0": "MR"})
    save_data_list(data_list, tmp_path / "sub" / "a list.json")
    assert load_data_list(tmp_path / "sub" / "a list.json") == data_list


def test_saving_leaves_no_other_file(tmp_path):
    save_data_list(DataList(name="toy", labels=LABELS), tmp_path / "a.json")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("images\\A.nii.gz", "images/A.nii.gz"),
        ("./images//x/../A.nii.gz", "images/A.nii.gz"),
        ("ä b'\".nii", "ä b'\".nii"),
    ],
)
def test_paths_are_normalised(written, read):
    assert Case(image=written).image == read


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../../etc/passwd", "images/../../x.nii", "..", "C:\\x.nii.gz", "\\\\host\\x.nii", "..\\x.nii"],
)
def test_a_path_that_leaves_the_folder_is_refused(tmp_path, path):
    labeled = [{"image": path, "label": "labels/A.nii.gz"}]
    (problem,) = problems(write(tmp_path, labeled=labeled))
    assert (problem.code, problem.where) == ("PATH_ESCAPE", "labeled[0].image")


def test_a_label_path_that_leaves_the_folder_is_refused(tmp_path):
    (problem,) = problems(write(tmp_path, labeled=[{"image": "a.nii", "label": "../a.nii"}]))
    assert (problem.code, problem.where) == ("PATH_ESCAPE", "labeled[0].label")


def test_a_link_out_of_the_folder_is_refused_when_asked_for(tmp_path):
    (tmp_path / "data" / "images").mkdir(parents=True)
    (tmp_path / "outside.nii.gz").touch()
    (tmp_path / "data" / "images" / "A.nii.gz").symlink_to(tmp_path / "outside.nii.gz")
    data_list = DataList(name="toy", labels=LABELS, unlabeled=[Case(image="images/A.nii.gz")])
    assert data_list.sections(tmp_path / "data")["unlabeled"]
    with pytest.raises(ProblemsError, match="link leads out"):
        data_list.sections(tmp_path / "data", allow_outside=False)


@pytest.mark.parametrize(
    ("key", "meant"), [("labelled", "labeled"), ("license", "licence"), ("Validation", "validation")]
)
def test_an_unknown_section_is_answered_with_the_nearest_known(tmp_path, key, meant):
    (problem,) = problems(write(tmp_path, **{key: []}))
    assert (problem.where, problem.fix) == (key, f"Did you mean {meant}?")


def test_an_unknown_key_of_a_case_is_answered_with_the_nearest_known(tmp_path):
    (problem,) = problems(write(tmp_path, unlabeled=[{"imge": "c.nii", "image": "d"}]))
    assert str(problem) == "unlabeled[0].imge: this key is unknown. Did you mean image?"


def test_all_problems_are_named_at_once(tmp_path):
    path = write(
        tmp_path,
        name=3,
        labeled=[{"label": "a.nii"}, {"image": 7, "label": "a.nii"}, {"image": "a.nii", "label": ["a.nii"]}],
        test={"image": "a.nii"},
    )
    found = {(problem.where, problem.code) for problem in problems(path)}
    assert found == {
        ("name", "TYPE"),
        ("labeled[0].image", "MISSING_KEY"),
        ("labeled[1].image", "TYPE"),
        ("labeled[2].label", "TYPE"),
        ("test", "TYPE"),
    }


@pytest.mark.parametrize("image", [[], "", "  ", "a\nb.nii.gz", "a\0.nii", ["a.nii", 3], None])
def test_an_image_that_is_no_path_is_refused(tmp_path, image):
    (problem,) = problems(write(tmp_path, unlabeled=[{"image": image}]))
    assert problem.where == "unlabeled[0].image"


@pytest.mark.parametrize("case", ["a/b", "..", ".hidden", "a\\b"])
def test_a_case_that_cannot_name_a_file_is_refused(tmp_path, case):
    (problem,) = problems(write(tmp_path, unlabeled=[{"image": "a.nii", "case": case}]))
    assert (problem.where, problem.code) == ("unlabeled[0].case", "NAME")


def test_an_unlabeled_case_with_a_label_is_refused(tmp_path):
    (problem,) = problems(write(tmp_path, unlabeled=[{"image": "b.nii", "label": "b.nii"}]))
    assert (problem.where, problem.code) == ("unlabeled[0].label", "LABEL_KEY")
    assert "monitor_label" in str(problem)


@pytest.mark.parametrize("section", ["labeled", "validation", "test"])
def test_other_sections_need_labels(tmp_path, section):
    (problem,) = problems(write(tmp_path, **{section: [{"image": "b.nii"}]}))
    assert (problem.where, problem.code) == (f"{section}[0]", "LABEL_KEY")


@pytest.mark.parametrize(
    "labels", [{"0": "background", "2": "x"}, {"1": "x", "0": "background"}, {"0": "background"}, {}]
)
def test_label_numbers_must_count_from_zero_and_hold_a_class(tmp_path, labels):
    assert {(problem.where, problem.code) for problem in problems(write(tmp_path, labels=labels))} == {
        ("labels", "NUMBERS")
    }


def test_the_number_of_channels_must_agree(tmp_path):
    unlabeled = [{"image": ["a.nii", "b.nii"]}, {"image": ["a.nii"]}]
    found = problems(write(tmp_path, modality={"0": "T1", "1": "T2"}, unlabeled=unlabeled))
    assert [(problem.where, problem.code) for problem in found] == [("unlabeled[1].image", "CHANNELS")]


def test_malformed_json_names_line_and_column(tmp_path):
    with pytest.raises(InputError, match=r"line 3, column 1") as caught:
        load_data_list(text_of(tmp_path, '{\n"name": "toy",\n}'))
    assert caught.value.code == "JSON"


def test_a_key_given_twice_is_named_with_its_place(tmp_path):
    text = '{"name": "toy", "labels": {}, "name": "x", "labeled": [{"image": "a"}, {"image": "b", "image": "c"}]}'
    assert [(p.where, p.code) for p in problems(text_of(tmp_path, text))] == [
        ("name", "REPEATED"),
        ("labeled[1].image", "REPEATED"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe{}", "not UTF-8"),
        ("[" * 100_000, "nested too deeply"),
        ('{"name": ' + "1" * 5000 + "}", "a number in it is too long"),
        ("[]", "an object with the keys name"),
        ("", "the file is empty"),
    ],
)
def test_a_file_that_is_no_list_is_refused(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        load_data_list(text_of(tmp_path, content))


def test_a_byte_order_mark_is_accepted(tmp_path):
    path = write(tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_data_list(path).name == "toy"


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_data_list(tmp_path / "none.json")
    with pytest.raises(InputError, match="this is a folder"):
        load_data_list(tmp_path)


def test_a_list_built_in_python_obeys_the_same_rules():
    with pytest.raises(ProblemsError, match=r"labeled\[0\]"):
        DataList(name="toy", labels=LABELS, labeled=[Case(image="a.nii.gz")])


def test_configuration_characters_in_names_stay_text(tmp_path):
    unlabeled = [{"image": "@data/$HOME.nii.gz", "subject": "$__import__('os')"}]
    item = load_data_list(write(tmp_path, unlabeled=unlabeled)).sections("/data")["unlabeled"][0]
    assert (item["image"], item["subject"]) == ("/data/@data/$HOME.nii.gz", "$__import__('os')")


def test_a_list_says_what_its_labels_ignore_and_others_say_nothing(tmp_path):
    path = write(tmp_path, ignored=255)
    listed = load_data_list(path)
    assert listed.ignored == 255
    save_data_list(listed, path)
    assert '"ignored": 255' in path.read_text()
    plain = load_data_list(write(tmp_path))
    save_data_list(plain, path)
    assert plain.ignored is None
    assert "ignored" not in path.read_text()


def test_class_0_is_measured_only_where_a_list_says_so(tmp_path):
    path = write(tmp_path)
    names = load_data_list(path).names_by_value
    assert load_data_list(path).structures_by_value == {value: name for value, name in names.items() if value}
    listed = load_data_list(write(tmp_path, count_class_0=True))
    assert listed.structures_by_value == names
    save_data_list(listed, path)
    assert '"count_class_0": true' in path.read_text()


@pytest.mark.parametrize("value", [254, 0, -1])
def test_another_value_that_is_ignored_is_refused_with_how_to_renumber(tmp_path, value):
    (problem,) = problems(write(tmp_path, ignored=value))
    assert (problem.code, problem.where) == ("NUMBERS", "ignored")
    assert f"--map-labels {value}=255" in problem.fix


def test_more_classes_than_there_are_numbers_are_refused(tmp_path):
    (problem,) = problems(write(tmp_path, labels={str(n): f"class {n}" for n in range(256)}))
    assert "at most 255 classes were wanted, got 256" in str(problem)


# ---- other numbers than class indices ------------------------------------------------------------------------------


def test_label_files_may_have_numbers_of_their_own_which_the_list_keeps(tmp_path):
    listed = load_data_list(write(tmp_path, file_values=[0, 255]))
    assert listed.label_values == (0, 255)
    assert list(listed.names_by_value) == [0, 255]
    assert list(listed.structures_by_value) == [255]
    save_data_list(listed, tmp_path / "again.json")
    assert load_data_list(tmp_path / "again.json") == listed


@pytest.mark.parametrize("values", [[0], [0, 0], [0, 1, 2]])
def test_there_is_one_different_number_for_each_class(tmp_path, values):
    (problem,) = problems(write(tmp_path, file_values=values))
    assert (problem.where, problem.code) == ("file_values", "NUMBERS")


def test_a_list_without_numbers_of_its_own_has_the_class_indices_and_does_not_mention_them(tmp_path):
    listed = load_data_list(write(tmp_path))
    assert listed.label_values == tuple(range(len(listed.labels)))
    save_data_list(listed, tmp_path / "again.json")
    assert "file_values" not in (tmp_path / "again.json").read_text()


def test_a_number_cannot_be_a_class_and_be_ignored(tmp_path):
    (problem,) = problems(write(tmp_path, file_values=[0, 255], ignored=255))
    assert "255 is both the number of a class and ignored" in str(problem)
