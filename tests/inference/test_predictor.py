import csv
import itertools
import json
import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from inference_samples import convolution, write_bundle, write_nifti

from semi_med.errors import InputError, ProblemsError, SemiMedError
from semi_med.inference import Predictor, predict, read_label

ORIENTATIONS = list(itertools.product(itertools.permutations(range(3)), itertools.product([1, -1], repeat=3)))


def brighter(array: np.ndarray) -> np.ndarray:
    """What the bundle's network marks: voxels above the mean of the image."""
    return (array > array.mean()).astype(np.uint8)


@pytest.fixture
def image() -> np.ndarray:
    """(5, 6, 7) int16 without any symmetry and with no voxel near its mean."""
    values = np.random.default_rng(3).permutation(210).astype(np.int16).reshape(5, 6, 7)
    return (values + 100 * (values > 104)).astype(np.int16)


def test_all_48_orientations_give_the_same_voxels_and_the_affine_of_the_scan(tmp_path, image):
    folder = write_bundle(tmp_path / "b", window=(6, 6, 6), stride=(5, 5, 5))
    predictor = Predictor.load(folder, device="cpu")
    base = np.diag([0.5, 1.0, 2.0, 1.0])
    base[:3, 3] = [7, -8, 9]
    assert len(ORIENTATIONS) == 48
    for axes, flips in ORIENTATIONS:
        affine = base.copy()
        affine[:3, :3] = (base[:3, :3] * flips)[:, axes]
        path = write_nifti(tmp_path / "a.nii", image, affine)
        found = predictor(path)
        np.testing.assert_array_equal(found.label, brighter(image), err_msg=f"{axes} {flips}")
        np.testing.assert_array_equal(found.affine, nib.load(path).affine)


@pytest.mark.parametrize("degrees", [1, 20, 44, 46, 80])
def test_an_oblique_anisotropic_scan_is_segmented_on_its_own_grid(tmp_path, bundle, image, degrees):
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-0.5, 0.5, 6])
    path = write_nifti(tmp_path / "a.nii.gz", image, affine)
    found = Predictor.load(bundle, device="cpu")(path)
    np.testing.assert_array_equal(found.label, brighter(image))
    np.testing.assert_array_equal(found.affine, nib.load(path).affine)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 9), (2, 3, 1), (4, 4, 4), (3, 12, 2)])
def test_any_size_is_segmented_at_its_own_size(tmp_path, bundle, shape):
    array = np.random.default_rng(1).permutation(math.prod(shape)).reshape(shape).astype(np.float32) ** 2
    found = Predictor.load(bundle, device="cpu")(write_nifti(tmp_path / "a.nii", array))
    np.testing.assert_array_equal(found.label, brighter(array))


@pytest.mark.parametrize("value", [0, 1])
def test_a_constant_image_gives_an_empty_label_and_says_so(tmp_path, value, bundle):
    found = Predictor.load(bundle, device="cpu")(write_nifti(tmp_path / "a.nii", np.full((5, 5, 5), value, np.int16)))
    assert not found.label.any()
    assert [warning.split(":")[0] for warning in found.warnings] == ["CONSTANT", "EMPTY"]


def test_volumes_are_voxels_times_their_size(tmp_path, bundle):
    array = np.zeros((4, 4, 4), np.int16)
    array[:2, 0, 0] = 50
    found = Predictor.load(bundle, device="cpu")(write_nifti(tmp_path / "a.nii", array, np.diag([10.0, 5, 20, 1])))
    assert found.voxels == {"left atrium": 2}
    assert found.volumes_ml == pytest.approx({"left atrium": 2.0})  # 1000 mm3 each


def test_nan_voxels_are_replaced_with_a_warning(tmp_path, bundle, image):
    array = image.astype(np.float32)
    array[0, 0, 0] = np.nan
    found = Predictor.load(bundle, device="cpu")(write_nifti(tmp_path / "a.nii", array))
    assert found.label[0, 0, 0] == 0
    assert found.warnings[0].startswith("NONFINITE: 1 NaN")


def two_networks(folder: Path) -> Path:
    # on the image of -1 and 1 below: network 1 gives 0.9 and 0.1, network 2 gives 0.4 and 0.6
    states = {"model": convolution(math.log(1 / 9)), "peer": convolution(math.log(1.5))}
    return write_bundle(folder, states=states, peer=True)


@pytest.mark.parametrize(("network", "dark"), [("1", 1), ("2", 0), ("mean", 1)])
def test_either_network_or_the_mean_of_their_probabilities_decides(tmp_path, network, dark):
    array = np.zeros((4, 4, 4), np.int16)
    array[2:] = 10  # normalised to -1 and 1; dark voxels: 0.9 and 0.4, mean 0.65
    found = Predictor.load(two_networks(tmp_path / "b"), network=network, device="cpu")(
        write_nifti(tmp_path / "a.nii", array)
    )
    assert (found.label[:2] == dark).all()
    assert (found.label[2:] == 1 - dark).all()


@pytest.mark.parametrize("network", ["2", "mean"])
def test_a_bundle_of_one_network_has_no_second(bundle, network):
    with pytest.raises(InputError, match=r"trained with two networks, but inference\.json has no entry 'peer_def'"):
        Predictor.load(bundle, network=network, device="cpu")


def test_weights_of_one_network_have_no_second(tmp_path):
    folder = write_bundle(tmp_path / "b", peer=True)
    with pytest.raises(InputError, match=r"model\.pt has no entry 'peer'"):
        Predictor.load(folder, network="2", device="cpu")


LARGEST = {"_target_": "KeepLargestConnectedComponentd", "keys": "pred"}


@pytest.mark.parametrize(
    ("configured", "asked", "islands"), [(False, None, 2), (False, True, 1), (True, None, 1), (True, False, 2)]
)
def test_the_largest_component_is_kept_as_configured_or_asked(tmp_path, configured, asked, islands):
    array = np.zeros((6, 6, 6), np.int16)
    array[0, 0, :2] = 9
    array[4, 4, 4] = 9
    folder = write_bundle(tmp_path / "b", post=[LARGEST] if configured else None)
    found = Predictor.load(folder, largest_component=asked, device="cpu")(write_nifti(tmp_path / "a.nii", array))
    assert found.voxels["left atrium"] == (3 if islands == 2 else 2)
    assert found.label[0, 0, 0] == 1


def test_a_component_reaches_across_corners(tmp_path, bundle):
    array = np.zeros((6, 6, 6), np.int16)
    array[0, 0, 0] = array[1, 1, 1] = 9  # touch at a corner
    array[4, 4, 4] = 9
    found = Predictor.load(bundle, largest_component=True, device="cpu")(write_nifti(tmp_path / "a.nii", array))
    assert np.argwhere(found.label).tolist() == [[0, 0, 0], [1, 1, 1]]


def test_missing_weights_say_how_to_get_some(bundle):
    (bundle / "models" / "model.pt").unlink()
    with pytest.raises(InputError, match=r"semi-med train.*--weights") as caught:
        Predictor.load(bundle, device="cpu")
    assert caught.value.code == "NO_WEIGHTS"


def test_weights_that_do_not_fit_are_listed(tmp_path):
    state = {"weight": torch.zeros(3, 1, 1, 1, 1), "extra": torch.zeros(1)}
    folder = write_bundle(tmp_path / "b", states={"model": state})
    with pytest.raises(InputError, match="bias is missing; extra is not in the network; weight has the shape"):
        Predictor.load(folder, device="cpu")


def test_at_most_five_misfits_are_listed(tmp_path):
    state = convolution(1.0) | {f"x{index}": torch.zeros(1) for index in range(9)}
    with pytest.raises(InputError, match=r"x4 is not in the network and 4 more"):
        Predictor.load(write_bundle(tmp_path / "b", states={"model": state}), device="cpu")


def test_weights_that_are_not_finite_are_refused(tmp_path):
    with pytest.raises(InputError, match="NaN or infinite numbers, for example in weight"):
        Predictor.load(write_bundle(tmp_path / "b", states={"model": convolution(math.nan)}), device="cpu")


class Payload:
    def __reduce__(self):
        return (Path.touch, (Path(self.canary),))


def test_code_in_a_weights_file_does_not_run(tmp_path, bundle):
    payload = Payload()
    payload.canary = str(tmp_path / "canary")
    torch.save({"model": payload}, tmp_path / "evil.pt")
    with pytest.raises(InputError, match="more than weights"):
        Predictor.load(bundle, weights=tmp_path / "evil.pt", device="cpu")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("content", [b"", b"rubbish", None])
def test_a_damaged_weights_file_is_refused(tmp_path, bundle, code_of, content):
    whole = (bundle / "models" / "model.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2] if content is None else content)
    assert code_of(lambda: Predictor.load(bundle, weights=tmp_path / "cut.pt", device="cpu")) == "WEIGHTS"


def test_other_weights_can_be_named(tmp_path, bundle, image):
    torch.save({"model": convolution(-1.0)}, tmp_path / "w.pt")
    found = Predictor.load(bundle, weights=tmp_path / "w.pt", device="cpu")(write_nifti(tmp_path / "a.nii", image))
    np.testing.assert_array_equal(found.label, 1 - brighter(image))


def edit(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda config: config.pop("inferer"), "entries are missing: inferer"),
        (lambda config: config["inferer"].update(stride=[9, 9, 9]), "a stride from 1 to the window size"),
        (lambda config: config["network_def"].update(_target_="torch.nn.Nothing"), "'network_def' cannot be built"),
        (lambda config: config.update(inferer={"_target_": "SimpleInferer"}), "must be a ProbabilityWindowInferer"),
        (lambda config: config["preprocessing"]["transforms"].pop(0), "no LoadImaged"),
    ],
)
def test_a_faulty_configuration_is_named_by_its_entry(bundle, change, words):
    edit(bundle / "configs" / "inference.json", change)
    with pytest.raises(InputError, match=words) as caught:
        Predictor.load(bundle, device="cpu")
    assert caught.value.code == "BUNDLE"


def test_a_configuration_that_does_not_invert_is_refused(tmp_path, bundle, image):
    edit(bundle / "configs" / "inference.json", lambda config: config["postprocessing"]["transforms"].pop(1))
    path = write_nifti(tmp_path / "a.nii", image, np.diag([-1.0, 1, 1, 1]))
    with pytest.raises(InputError, match="must return class indices on the grid of the scan"):
        Predictor.load(bundle, device="cpu")(path)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path, code_of):
    assert code_of(lambda: Predictor.load(tmp_path, device="cpu")) == "BUNDLE"


def test_unnamed_classes_are_refused(tmp_path, bundle, image):
    def add(metadata):
        metadata["network_data_format"]["outputs"]["pred"]["channel_def"]["2"] = "scar"

    edit(bundle / "configs" / "metadata.json", add)
    with pytest.raises(InputError, match="gives 2 classes, the metadata name 3"):
        Predictor.load(bundle, device="cpu")(write_nifti(tmp_path / "a.nii", image))


def test_the_wrong_number_of_channels_is_refused(tmp_path, bundle, image, code_of):
    path = write_nifti(tmp_path / "a.nii", image)
    assert code_of(lambda: Predictor.load(bundle, device="cpu")([path, path])) == "NDIM"


@pytest.mark.parametrize("device", ["gpu", "cuda:77"])
def test_a_device_that_is_not_there_is_refused(bundle, code_of, device):
    assert code_of(lambda: Predictor.load(bundle, device=device)) == "DEVICE"


def test_an_unsound_scan_raises_its_own_error(tmp_path, bundle, image):
    path = write_nifti(tmp_path / "a.nii", image)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SemiMedError) as caught:
        Predictor.load(bundle, device="cpu")(path)
    assert caught.value.code == "TRUNCATED"


@pytest.fixture
def scans(tmp_path, image) -> Path:
    """A folder with two sound scans, a truncated one, and files that are no scans."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for name in ("b.nii.gz", "a.nii", "cut.nii"):
        write_nifti(folder / name, image)
    data = (folder / "cut.nii").read_bytes()
    (folder / "cut.nii").write_bytes(data[:-100])
    (folder / "notes.txt").touch()
    (folder / "._a.nii").touch()
    return folder


def test_a_batch_goes_on_after_a_bad_case(tmp_path, bundle, scans, image):
    seen = []
    out = tmp_path / "out"
    rows = predict(bundle, [scans], out, device="cpu", report=lambda row, done, total: seen.append((done, total)))
    assert [(row["case"], row["status"], row["code"]) for row in rows] == [
        ("a", "done", None),
        ("b", "done", None),
        ("cut", "failed", "TRUNCATED"),
    ]
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert sorted(path.name for path in out.iterdir()) == ["a_seg.nii.gz", "b_seg.nii.gz", "run.json", "volumes.csv"]
    np.testing.assert_array_equal(read_label(out / "b_seg.nii.gz").array, brighter(image))


def test_the_table_has_a_line_per_case_and_class(tmp_path, bundle, scans, image):
    predict(bundle, [scans / "a.nii"], tmp_path / "out", device="cpu")
    with (tmp_path / "out" / "volumes.csv").open() as stream:
        (line,) = csv.DictReader(stream)
    voxels = int(brighter(image).sum())
    assert line == {
        "case": "a",
        "class": "left atrium",
        "millilitres": f"{voxels * 0.006:.4f}",
        "voxels": str(voxels),
    }


def test_the_record_says_how_the_labels_came_about_and_names_no_folder(tmp_path, bundle, scans):
    predict(bundle, [scans], tmp_path / "out", device="cpu")
    text = (tmp_path / "out" / "run.json").read_text()
    record = json.loads(text)
    assert str(tmp_path) not in text
    assert record["settings"]["window"] == [4, 4, 4]
    assert len(record["settings"]["weights_sha256"]) == 64
    assert [case["image"] for case in record["cases"]] == ["a.nii", "b.nii.gz", "cut.nii"]
    assert {"torch", "monai", "nibabel"} <= set(record["versions"])


def test_two_inputs_with_one_output_are_refused_before_anything_runs(tmp_path, bundle, scans, image):
    other = tmp_path / "other"
    other.mkdir()
    write_nifti(other / "a.nii.gz", image)
    with pytest.raises(ProblemsError, match=r"a_seg\.nii\.gz would also be that of"):
        predict(bundle, [scans, other], tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


def test_no_input_is_ever_overwritten(tmp_path, bundle, image):
    files = [write_nifti(tmp_path / name, image) for name in ("a.nii.gz", "a_seg.nii.gz")]
    with pytest.raises(ProblemsError, match="would overwrite an input"):
        predict(bundle, files, tmp_path, device="cpu")


def test_a_scan_named_twice_is_segmented_once(tmp_path, bundle, scans):
    rows = predict(bundle, [scans / "a.nii", scans / "." / "a.nii"], tmp_path / "out", device="cpu")
    assert len(rows) == 1


def test_all_unusable_inputs_are_listed_at_once(tmp_path, bundle, scans):
    (tmp_path / "empty").mkdir()
    inputs = [tmp_path / "none.nii", tmp_path / "empty", scans / "notes.txt", scans]
    with pytest.raises(ProblemsError) as caught:
        predict(bundle, inputs, scans, device="cpu")
    assert [problem.code for problem in caught.value.problems] == ["NOT_FOUND", "NO_SCANS", "FORMAT", "OUTPUT_CLASH"]


def test_no_input_at_all_is_refused(tmp_path, bundle, code_of):
    assert code_of(lambda: predict(bundle, [], tmp_path / "out")) == "NO_SCANS"


def test_a_folder_of_folders_says_where_the_scans_are(bundle, tmp_path):
    for patient in ("p1", "p2", "empty"):
        (tmp_path / "new" / patient).mkdir(parents=True)
    for patient in ("p1", "p2"):
        (tmp_path / "new" / patient / "scan.png").touch()
    with pytest.raises(ProblemsError, match=r"2 of its folders do, the first is p1: name them, as .*new/\*"):
        predict(bundle, [tmp_path / "new"], tmp_path / "out")


def test_an_output_that_is_a_file_is_refused(tmp_path, bundle, scans, code_of):
    (tmp_path / "out").touch()
    assert code_of(lambda: predict(bundle, [scans], tmp_path / "out", device="cpu")) == "NOT_WRITABLE"


def test_an_interrupted_batch_keeps_its_record(tmp_path, bundle, scans):
    def stop(row, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict(bundle, [scans], tmp_path / "out", device="cpu", report=stop)
    assert len(json.loads((tmp_path / "out" / "run.json").read_text())["cases"]) == 1
