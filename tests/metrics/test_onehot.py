from __future__ import annotations

import pytest
import torch
from monai.metrics import DiceMetric
from monai.networks.utils import one_hot

from semi_med.metrics.onehot import KnownOnehotd
from semi_med.ops import IGNORED


def sample(shape, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pred, label = (torch.randint(0, 3, (1, *shape), generator=generator) for _ in range(2))
    return one_hot(pred, 3, dim=0), label.to(torch.uint8)


def dice(pred, label):
    metric = DiceMetric(include_background=False)
    metric(pred[None], label[None])
    return metric.get_buffer()[0].tolist()


@pytest.mark.parametrize("shape", [(5, 7), (3, 4, 5)])
def test_without_ignored_voxels_it_is_the_usual_onehot(shape):
    pred, label = sample(shape)
    made = KnownOnehotd(3)({"pred": pred, "label": label, "case": "a"})
    assert torch.equal(made["label"], one_hot(label, 3, dim=0).float())
    assert torch.equal(made["pred"], pred)
    assert made["case"] == "a"


def test_the_dice_of_a_label_with_ignored_voxels_is_that_of_the_part_that_is_known():
    pred, label = sample((6, 8))
    label[..., 5:] = IGNORED
    made = KnownOnehotd(3)({"pred": pred, "label": label})
    expected = dice(pred[..., :5], one_hot(label[..., :5], 3, dim=0).float())
    assert dice(made["pred"], made["label"]) == pytest.approx(expected)
    assert 0 < min(expected) < 1


def test_a_value_that_is_no_class_is_an_error():
    pred, label = sample((5, 7))
    label[0, 0, 0] = 4
    with pytest.raises((RuntimeError, IndexError)):
        KnownOnehotd(3)({"pred": pred, "label": label})
