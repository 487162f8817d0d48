"""Labels made slab by slab are those that the bundle's own postprocessing makes of whole probabilities."""

import numpy as np
import pytest
import torch
from inference_samples import write_bundle, write_nifti
from slice_samples import write_slice_bundle

from semi_med.inference import Predictor, segmentation


@pytest.mark.parametrize("flat", [False, True])
def test_both_ways_give_one_label(tmp_path, monkeypatch, flat):
    values = np.random.default_rng(0).normal(size=(11, 9, 8)).astype(np.float32)
    path = write_nifti(tmp_path / "a.nii", values, np.diag([-1.0, 1, -2, 1]))
    folder = write_slice_bundle(tmp_path / "b") if flat else write_bundle(tmp_path / "b")
    by_slabs = Predictor.load(folder, device="cpu")(path).label
    monkeypatch.setattr(
        segmentation, "_way_to_labels", lambda bundle, operations: (None, list(bundle.postprocessing.transforms))
    )
    np.testing.assert_array_equal(Predictor.load(folder, device="cpu")(path).label, by_slabs)
    assert 0 < by_slabs.mean() < 1


def test_of_equal_probabilities_the_first_class_is_taken():
    probs = torch.tensor([[0.4, 0.2, 0.3], [0.4, 0.4, 0.3], [0.2, 0.4, 0.4]])
    assert segmentation.most_probable(probs).tolist() == [0, 1, 2]
    random = torch.rand(5, 4, 6, 7)
    assert torch.equal(segmentation.most_probable(random).long(), random.argmax(0))
