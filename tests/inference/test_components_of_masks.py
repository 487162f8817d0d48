"""The largest component of each class: MONAI's result, in less memory."""

from __future__ import annotations

import tracemalloc

import monai.transforms.post.array as monai_post
import numpy as np
import pytest
import torch
from inference_samples import write_bundle, write_nifti
from monai.data import MetaTensor
from monai.transforms import KeepLargestConnectedComponent, KeepLargestConnectedComponentd

from semi_med.inference import Predictor
from semi_med.inference.components import KeepLargestInBoxes, in_boxes

SHAPE = (9, 7, 12)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.float32])
@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.9])
def test_the_result_is_that_of_monai(dtype, share):
    chance = torch.Generator().manual_seed(0)
    label = torch.randint(1, 4, (1, *SHAPE), generator=chance) * (torch.rand(SHAPE, generator=chance) < share)
    mine, theirs = (MetaTensor(label.to(dtype), affine=torch.diag(torch.tensor([2.0, 3, 4, 1]))) for _ in "ab")
    mine, theirs = KeepLargestInBoxes()(mine), KeepLargestConnectedComponent()(theirs)
    assert torch.equal(mine.as_tensor(), theirs.as_tensor())
    assert mine.dtype == theirs.dtype
    assert torch.equal(mine.affine, theirs.affine)


def test_of_equal_parts_the_one_that_monai_keeps_stays():
    label = torch.zeros((1, 1, 1, 40), dtype=torch.uint8)
    label[..., ::2] = 1
    theirs = KeepLargestConnectedComponent()(label.clone())
    assert theirs.sum() == 1
    assert torch.equal(KeepLargestInBoxes()(label), theirs)


@pytest.mark.parametrize("axes", [(0, 3, 2, 1), (0, 2, 3, 1)])
def test_a_turned_label_is_cleaned_too(axes):
    label = torch.zeros((1, *SHAPE), dtype=torch.uint8)
    label[0, 0, 0, 0] = label[0, 4:6, 4, 4] = 2
    cleaned = KeepLargestInBoxes()(label.permute(axes))
    assert torch.argwhere(cleaned.permute(np.argsort(axes).tolist())).tolist() == [[0, 4, 4, 4], [0, 5, 4, 4]]


def test_probabilities_of_several_channels_are_left_to_monai():
    onehot = torch.zeros((2, 1, 1, 5), dtype=torch.uint8)
    onehot[1, 0, 0] = torch.tensor([1, 1, 0, 1, 0])
    assert KeepLargestInBoxes()(onehot)[1, 0, 0].tolist() == [1, 1, 0, 0, 0]


@pytest.mark.parametrize("asked", [{}, {"num_components": 2}, {"connectivity": 1}, {"applied_labels": [1]}])
def test_what_was_asked_for_otherwise_stays_with_monai(asked):
    transform = KeepLargestConnectedComponentd(keys="pred", **asked)
    in_boxes(transform)
    assert isinstance(transform.converter, KeepLargestInBoxes) is (not asked)


def test_a_structure_through_the_whole_volume_takes_less_than_8_bytes_a_voxel():
    label = torch.ones((1, 80, 90, 100), dtype=torch.uint8)
    label[0, 40] = 0
    tracemalloc.start()
    KeepLargestInBoxes()(label)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert label[0, :40].any() != label[0, 41:].any()
    assert peak < 8 * label.numel()


@pytest.mark.parametrize("configured", [True, False])
def test_a_bundle_works_so_whether_it_says_so_itself_or_is_asked(tmp_path, configured, monkeypatch):
    def never(*_, **__):
        raise AssertionError("MONAI counts in int64")

    monkeypatch.setattr(monai_post, "get_largest_connected_component_mask", never)
    array = np.zeros((6, 6, 6), np.int16)
    array[0, 0, :2] = array[4, 4, 4] = 9
    largest = {"_target_": "KeepLargestConnectedComponentd", "keys": "pred"}
    folder = write_bundle(tmp_path / "b", post=[largest] if configured else None)
    predictor = Predictor.load(folder, largest_component=None if configured else True, device="cpu")
    assert predictor(write_nifti(tmp_path / "a.nii", array)).voxels["left atrium"] == 2
