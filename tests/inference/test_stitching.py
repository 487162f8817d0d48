"""Windows cover a volume as MONAI's do, and no more of their results is held than must be."""

import itertools
import json
import subprocess
import sys

import pytest
import torch
from inference_samples import write_bundle, write_nifti
from monai.inferers import sliding_window_inference
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from semi_med.errors import ResourceError
from semi_med.inference import Predictor, stitching
from semi_med.inference.ladder import Rung, rungs
from semi_med.inference.members import Members
from semi_med.inference.sliding_window import ProbabilityWindowInferer
from semi_med.inference.stitching import WindowGrid

CPU = torch.device("cpu")


def mixing(classes: int = 3, channels: int = 1) -> nn.Module:
    """A network that looks at neighbours, so that a window in the wrong place shows."""
    torch.manual_seed(0)
    return nn.Conv3d(channels, classes, 3, padding=1).requires_grad_(False)


@pytest.mark.parametrize(
    ("size", "window", "stride"),
    [((9, 13, 7), (4, 5, 6), (3, 2, 4)), ((5, 3, 20), (8, 2, 4), (8, 1, 3)), ((2, 2, 2), (5, 4, 3), (1, 1, 1))],
)
def test_the_mean_over_windows_is_that_of_monai(size, window, stride):
    image = torch.randn(1, 2, *size, generator=torch.Generator().manual_seed(1))
    network = mixing(channels=2)
    overlap = [1 - (step + 0.5) / reach if step < reach else 0.0 for reach, step in zip(window, stride, strict=True)]
    wanted = sliding_window_inference(image, window, 2, lambda seen: network(seen).softmax(1), overlap=overlap)
    torch.testing.assert_close(ProbabilityWindowInferer(window, stride, sw_batch_size=2)(image, network), wanted)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slabs_follow_each_other_and_make_up_the_volume(axis):
    grid = WindowGrid.over((7, 9, 6), (3, 4, 5), (2, 3, 3), axis=axis)
    assert len(list(grid.places())) == len(grid) == 3 * 3 * 2
    firsts = [place[axis] for place in grid.places()]
    assert firsts == sorted(firsts)


def test_slabs_lie_across_the_axis_on_which_the_least_is_held():
    assert WindowGrid.over((50, 90, 60), (10, 10, 10), (5, 5, 5)).axis == 1
    assert WindowGrid.over((4, 9, 9), (10, 3, 2), (5, 3, 2)).axis == 2


class Largest(TorchDispatchMode):
    """Remembers the largest tensor of floats that any operation made, in numbers; views make none."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        known = {one.untyped_storage().data_ptr() for one in args if isinstance(one, Tensor)}
        result = function(*args, **(kwargs or {}))
        for one in result if isinstance(result, tuple | list) else (result,):
            if isinstance(one, Tensor) and one.is_floating_point() and one.untyped_storage().data_ptr() not in known:
                self.numbers = max(self.numbers, one.numel())
        return result


def test_no_more_is_held_than_a_window_of_planes_for_all_classes():
    classes, image = 5, torch.zeros(1, 8, 9, 200)
    inferer = ProbabilityWindowInferer((8, 8, 8), (8, 4, 4))
    with Largest() as seen:
        planes = sum(slab.values.shape[3] for slab in inferer.slabs(image, Members([mixing(classes)])))
    assert planes == 200
    assert seen.numbers == classes * 8 * 9 * 8 < classes * image.numel() / 20


@pytest.mark.parametrize(
    ("size", "window", "stride"),
    [((9, 13, 7), (4, 5, 6), (3, 2, 4)), ((5, 3, 20), (8, 2, 4), (8, 1, 3)), ((2, 2, 2), (5, 4, 3), (1, 1, 1))],
)
def test_what_is_finished_comes_in_slabs_of_few_planes_and_is_the_same(monkeypatch, size, window, stride):
    image = torch.randn(1, *size, generator=torch.Generator().manual_seed(1))
    inferer, members = ProbabilityWindowInferer(window, stride), Members([mixing(3)])
    (axis,) = {slab.axis for slab in inferer.slabs(image, members)}
    wanted = torch.cat([slab.values for slab in inferer.slabs(image, members)], 1 + axis)
    plane = wanted.select(1 + axis, 0).numel()
    monkeypatch.setattr(stitching, "_AT_ONCE", 2 * plane)
    slabs = list(inferer.slabs(image, members))
    assert max(slab.values.shape[1 + axis] for slab in slabs) <= 2
    assert [slab.start for slab in slabs] == [
        0,
        *itertools.accumulate(one.values.shape[1 + axis] for one in slabs[:-1]),
    ]
    assert torch.equal(torch.cat([slab.values for slab in slabs], 1 + axis), wanted)


def test_a_prediction_never_holds_the_probabilities_of_the_volume(tmp_path):
    shape = (8, 9, 200)
    path = write_nifti(tmp_path / "a.nii", torch.rand(shape).numpy())
    predictor = Predictor.load(write_bundle(tmp_path / "b", window=(8, 8, 8), stride=(8, 8, 8)), device="cpu")
    loaded = predictor.read(path)
    with Largest() as seen:
        predictor.finish(predictor.segment(loaded))
    assert seen.numbers <= 8 * 9 * 200  # one class, not two


def test_probabilities_are_held_when_they_are_asked_for(tmp_path):
    path = write_nifti(tmp_path / "a.nii", torch.rand(8, 9, 200).numpy())
    folder = write_bundle(tmp_path / "b", window=(8, 8, 8), stride=(8, 8, 8))
    with Largest() as seen:
        Predictor.load(folder, device="cpu", maps=["probabilities"])(path)
    assert seen.numbers >= 2 * 8 * 9 * 200


@pytest.mark.slow
@pytest.mark.parametrize("window", [None, (-125, 275)], ids=["as it is", "CT window"])
def test_a_large_ct_with_five_classes_takes_less_than_3_5_gb_beside_itself(tmp_path, window):
    folder = write_bundle(tmp_path / "b", window=(96, 96, 96), stride=(96, 96, 96))
    config, metadata = folder / "configs" / "inference.json", folder / "configs" / "metadata.json"
    content = json.loads(config.read_text())
    content["network_def"]["out_channels"] = 5
    if window:
        limits = {"a_min": window[0], "a_max": window[1], "b_min": 0.0, "b_max": 1.0, "clip": True}
        scale = {"_target_": "ScaleIntensityRanged", "keys": "image", **limits}
        content["preprocessing"]["transforms"].insert(2, scale)
    config.write_text(json.dumps(content))
    named = json.loads(metadata.read_text())
    named["network_data_format"]["outputs"]["pred"]["channel_def"] = {str(i): f"organ {i}" for i in range(5)}
    metadata.write_text(json.dumps(named))
    state = {"weight": torch.linspace(-1, 1, 5).reshape(5, 1, 1, 1, 1), "bias": torch.tensor([0, 0.2, 0.3, 0.2, 0])}
    torch.save({"model": state}, folder / "models" / "model.pt")
    script = f"""
import nibabel, numpy
image = numpy.empty((512, 512, 1000), numpy.int16)
plane = (1000 * numpy.cos(numpy.linspace(-4, 4, 512))[:, None] * numpy.cos(numpy.linspace(-3, 3, 512))).astype("i2")
for k in range(1000):
    image[:, :, k] = numpy.roll(plane, k, 0)
nibabel.save(nibabel.Nifti1Image(image, numpy.diag([-0.7, -0.7, 1, 1])), {str(tmp_path / "a.nii")!r})
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    script = f"""
import resource
from semi_med.inference import predict
(row,) = predict({str(folder)!r}, [{str(tmp_path / "a.nii")!r}], {str(tmp_path / "out")!r}, device="cpu")
assert row["status"] == "done", row
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, capture_output=True, text=True)
    peak = int(done.stdout) * 1024
    assert peak - 4 * 512 * 512 * 1000 < 3.5e9


# ---- when memory runs out ------------------------------------------------------------------------------------------


class Greedy(nn.Module):
    """Runs out of memory on the first calls, and on more than so many windows."""

    def __init__(self, *, fails: int = 0, at_most: int = 99) -> None:
        super().__init__()
        self.network = mixing()
        self.fails, self.at_most = fails, at_most
        self.seen: list[int] = []

    def forward(self, image: Tensor) -> Tensor:
        self.seen.append(len(image))
        if self.fails > 0 or len(image) > self.at_most:
            self.fails -= 1
            raise torch.OutOfMemoryError("not today")
        return self.network(image)


def test_the_ways_down_end_on_the_cpu():
    cuda = torch.device("cuda:0")
    assert rungs(cuda, 4) == [Rung(4, cuda, cuda), Rung(1, cuda, cuda), Rung(1, CPU, cuda), Rung(1, CPU, CPU)]
    assert rungs(CPU, 4) == [Rung(4, CPU, CPU), Rung(1, CPU, CPU)]
    assert rungs(CPU, 1) == [Rung(1, CPU, CPU)]


@pytest.mark.parametrize("fails", [1, 2, 3])
def test_every_way_down_gives_the_same_and_is_told(fails):
    image = torch.randn(1, 9, 8, 7, generator=torch.Generator().manual_seed(2))
    inferer = ProbabilityWindowInferer((4, 4, 4), (3, 2, 4))
    ways = [Rung(4, CPU, CPU), *(Rung(1, CPU, CPU) for _ in range(3))]
    wanted = list(inferer.slabs(image, Members([mixing()]), rungs=ways))
    said: list[str] = []
    found = list(inferer.slabs(image, Members([Greedy(fails=fails)]), rungs=ways, say=said.append))
    for slab, same in zip(found, wanted, strict=True):
        assert (slab.axis, slab.start) == (same.axis, same.start)
        torch.testing.assert_close(slab.values, same.values)
    assert len(said) == fails
    assert all(line.startswith("FALLBACK: memory ran out; one window at a time") for line in said)


def test_windows_that_were_done_are_not_done_again():
    image = torch.randn(1, 10, 1, 1)
    network = Greedy(at_most=1)
    inferer = ProbabilityWindowInferer((1, 1, 1), (1, 1, 1), sw_batch_size=4)
    slabs = list(inferer.slabs(image, Members([network]), rungs=rungs(CPU, 4)))
    assert sum(slab.values.shape[1] for slab in slabs) == 10
    assert network.seen == [4, *itertools.repeat(1, 10)]


def test_networks_come_back_from_where_they_had_to_go():
    moves = []

    class Moved(Greedy):
        def to(self, device):
            moves.append(str(device))
            return self

    ways = [Rung(2, CPU, torch.device("cpu", 0)), Rung(1, CPU, CPU)]
    list(
        ProbabilityWindowInferer((2, 2, 2), (1, 1, 1)).slabs(
            torch.rand(1, 4, 4, 4), Members([Moved(fails=1)]), rungs=ways
        )
    )
    assert moves == ["cpu", "cpu:0"]


def test_memory_that_does_not_suffice_on_the_last_way_is_an_error_that_says_so(tmp_path, monkeypatch):
    predictor = Predictor.load(write_bundle(tmp_path / "b"), device="cpu")
    monkeypatch.setattr(Members, "__call__", Greedy(at_most=0).forward)
    with pytest.raises(ResourceError, match="not enough memory for this scan") as caught:
        predictor(write_nifti(tmp_path / "a.nii", torch.rand(5, 5, 5).numpy()))
    assert caught.value.code == "MEMORY"


def test_a_fallback_is_told_with_the_prediction(tmp_path):
    folder = write_bundle(tmp_path / "b")
    predictor = Predictor.load(folder, device="cpu")
    predictor.bundle.inferer.at_once = 4
    path = write_nifti(tmp_path / "a.nii", torch.rand(9, 9, 9).numpy())
    wanted = predictor(path)
    predictor = Predictor.load(folder, device="cpu")
    predictor.bundle.inferer.at_once = 4
    network = predictor.bundle.networks[0]
    predictor.precisions._networks, predictor.precisions.chosen = [Shy(network)], "float32"
    found = predictor(path)
    assert (found.label == wanted.label).all()
    assert [one.split(":")[0] for one in found.warnings] == ["FALLBACK"]


class Shy(nn.Module):
    """Takes one window at a time."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        if len(image) > 1:
            raise torch.OutOfMemoryError("one at a time")
        return self.network(image)
