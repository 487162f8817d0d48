from __future__ import annotations

import gc
import threading
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from semi_med.data.cases import CachedCases, case_of
from semi_med.errors import InputError, ResourceError


def arrays_of(name):
    """A (1, 3, 4, 5) image and label that differ from case to case."""
    random = np.random.default_rng(sum(name.encode()))
    return random.normal(size=(1, 3, 4, 5)).astype(np.float32), random.integers(0, 3, (1, 3, 4, 5)).astype(np.uint8)


class Reader:
    """A transform that makes arrays from file names and counts the files it opens."""

    def __init__(self):
        self.opened, self.lock = Counter(), threading.Lock()

    def __call__(self, item):
        with self.lock:
            self.opened.update(item.values())
        made = {}
        for key, file in item.items():
            if file == "broken":
                raise InputError("the file is cut off", where=file, fix="Copy it again", code="TRUNCATED")
            if file == "odd":
                raise KeyError("no such tag")
            made[key] = arrays_of(file.removesuffix(" label"))[key != "image"]
        return made


def items(*names):
    return [{"image": name, "label": f"{name} label", "case": name.upper()} for name in names]


def test_images_are_kept_as_float16_and_labels_as_uint8():
    arrays = CachedCases(items("a"), Reader()).arrays(0)
    assert {key: array.dtype.name for key, array in arrays.items()} == {"image": "float16", "label": "uint8"}


def test_a_case_is_given_whole_as_float32_image_and_uint8_label():
    cases = CachedCases(items("a", "b"), Reader())
    image, label = arrays_of("b")
    item = cases[1]
    assert item["case"] == "B"
    assert item["image"].dtype == torch.float32
    assert item["label"].dtype == torch.uint8
    np.testing.assert_allclose(item["image"].numpy(), image, atol=1e-3)
    assert np.array_equal(item["label"].numpy(), label)
    assert len(cases) == 2


def test_each_file_is_read_once():
    reader = Reader()
    cases = CachedCases(items("a", "b", "c"), reader)
    for _ in range(3):
        for index in range(3):
            cases.arrays(index)
            cases[index]
    assert set(reader.opened.values()) == {1}
    assert len(reader.opened) == 6


def test_nothing_is_read_before_it_is_asked_for():
    reader = Reader()
    cases = CachedCases(items("a"), reader)
    assert not reader.opened
    cases.load()
    assert reader.opened


def test_files_of_other_keys_are_never_opened():
    reader = Reader()
    data = [{"image": "a", "label": "broken", "monitor_label": "broken", "case": "A"}]
    arrays = CachedCases(data, reader, keys=("image",)).arrays(0)
    assert set(arrays) == {"image"}
    assert set(reader.opened) == {"a"}


def test_a_hidden_label_file_is_not_opened_by_the_readers_of_the_bundles(tiny_data):
    """The labels of unlabelled cases in the tiny data set are files that no reader accepts."""
    from monai.transforms import Compose, LoadImaged

    from semi_med.data.data_list import load_data_list

    unlabeled = load_data_list(tiny_data.data_list).sections(tiny_data.folder, monitor=True)["unlabeled"]
    assert all("monitor_label" in item for item in unlabeled)
    load = LoadImaged(
        ["image", "monitor_label"],
        reader="semi_med.inference.reader.ScanReader",
        ensure_channel_first=True,
        allow_missing_keys=True,
    )
    shapes = {CachedCases(unlabeled[:1], Compose([load]), keys=("image",))[0]["image"].shape}
    assert shapes == {torch.Size((1, 24, 22, 20))}
    with pytest.raises(InputError):
        CachedCases(unlabeled[:1], Compose([load]), keys=("image", "monitor_label")).load()


def test_memory_mapped_cases_equal_those_in_memory(tmp_path):
    mapped = CachedCases(items("a", "b"), Reader(), cache_dir=tmp_path / "cache")
    plain = CachedCases(items("a", "b"), Reader())
    for index in range(2):
        for key, array in mapped.arrays(index).items():
            assert isinstance(array, np.memmap)
            assert array.dtype == plain.arrays(index)[key].dtype
            assert np.array_equal(array, plain.arrays(index)[key])


def test_the_memory_mapped_files_go_with_the_object_and_nothing_else_does(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    first = CachedCases(items("a"), Reader(), cache_dir=tmp_path)
    second = CachedCases(items("a"), Reader(), cache_dir=tmp_path)
    first.load()
    second.load()
    assert len(list(tmp_path.iterdir())) == 3
    del first
    gc.collect()
    assert len(list(tmp_path.iterdir())) == 2
    assert second[0]["image"].shape == (1, 3, 4, 5)
    del second
    gc.collect()
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_the_readers_own_error_comes_through():
    data = [*items("a"), {"image": "broken", "case": "B"}]
    with pytest.raises(InputError, match=r"broken: the file is cut off\. Copy it again") as caught:
        CachedCases(data, Reader()).load()
    assert caught.value.code == "TRUNCATED"


def test_the_readers_own_error_comes_through_monais_wrapping():
    from monai.transforms import Compose

    with pytest.raises(InputError, match="the file is cut off") as caught:
        CachedCases([{"image": "broken", "case": "B"}], Compose([Reader()])).load()
    assert caught.value.code == "TRUNCATED"
    assert caught.value.__cause__ is None  # whoever follows causes comes to an end


def test_any_other_error_names_the_case():
    with pytest.raises(InputError, match=r"Heart 7: the case could not be read: 'no such tag'"):
        CachedCases([{"image": "odd", "case": "Heart 7"}], Reader()).load()


def test_an_error_without_a_place_names_the_case_and_keeps_its_kind():
    def transform(item):
        raise ResourceError("the disk is full", fix="Free some space", code="DISK")

    with pytest.raises(ResourceError, match=r"Heart 7: the disk is full. Free some space") as caught:
        CachedCases([{"image": "a", "case": "Heart 7"}], transform).load()
    assert caught.value.code == "DISK"


@pytest.mark.parametrize(
    "label", [np.array([[[0.0, 0.5]]]), np.array([[[0, 256]]]), np.array([[[-1, 0]]]), np.array([[[0, np.nan]]])]
)
def test_a_label_that_uint8_would_change_is_refused(label):
    cases = CachedCases(
        [{"image": "a", "label": "b", "case": "Heart 7"}], lambda item: {"image": label * 0, "label": label}
    )
    if np.isnan(label).any():
        cases.transform = lambda item: {"image": np.zeros((1, 1, 2)), "label": label}
    with pytest.raises(InputError, match="Heart 7: the label must hold whole numbers from 0 to 255"):
        cases.load()


@pytest.mark.parametrize("value", [1e6, -7e4, np.nan, np.inf])
def test_an_image_that_float16_cannot_hold_is_refused(value):
    cases = CachedCases([{"image": "a", "case": "Heart 7"}], lambda item: {"image": np.full((1, 2, 2), value)})
    with pytest.raises(InputError, match="Heart 7: the image has values that are not finite or beyond 65504"):
        cases.load()


@given(st.floats(-60000, 60000))
def test_the_rounding_of_images_is_as_small_as_said(value):
    kept = float(CachedCases([{"image": "a"}], lambda item: {"image": np.full((1, 1, 1), value)})[0]["image"])
    assert abs(kept - value) <= max(0.001 if abs(value) < 4 else 0, abs(value) / 2048)


def test_the_bound_of_a_thousandth_does_not_hold_beyond_four_standard_deviations():
    value = 4 + 1 / 512
    assert abs(float(np.float16(value)) - value) > 0.001


def test_a_case_without_a_name_is_called_after_its_image_file():
    assert case_of({"image": "/scans/heart_07.nii.gz"}) == "heart_07"
    assert case_of({"image": ["/scans/a_flair.nii.gz", "/scans/a_t1.nii.gz"]}) == "a_flair"
    assert case_of({"image": "x.nii.gz", "case": "A"}) == "A"


def test_cases_keep_their_order_whichever_is_read_first():
    started = threading.Event()

    def transform(item):
        if item["image"] == "slow":
            assert started.wait(20)
        else:
            started.set()
        return {"image": arrays_of(item["image"])[0]}

    cases = CachedCases([{"image": "slow"}, {"image": "fast"}], transform, workers=2)
    np.testing.assert_allclose(cases[0]["image"].numpy(), arrays_of("slow")[0], atol=1e-3)


def test_what_is_ignored_in_a_label_is_kept():
    label = np.array([[[0, 1, 255]]], np.uint8)
    cases = CachedCases([{"image": "a", "label": "b"}], lambda item: {"image": np.zeros((1, 1, 3)), "label": label})
    assert cases[0]["label"].tolist() == label.tolist()
