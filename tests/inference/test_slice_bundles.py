"""Bundles of 2D networks: pictures, and volumes and sequences slice by slice."""

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from inference_samples import write_bundle, write_nifti
from monai.bundle import ConfigParser
from PIL import Image
from slice_samples import save_picture, write_slice_bundle
from typer.testing import CliRunner

from semi_med.bundle import scans_of
from semi_med.cli import app
from semi_med.errors import InputError, ProblemsError
from semi_med.inference import Predictor, predict, read_label
from semi_med.inference.writer import SaveLabeld

ENDINGS = (".png", ".jpg", ".tif", ".bmp", ".gif")


@pytest.fixture
def picture() -> np.ndarray:
    """(23, 17) uint8: a bright block in a dark picture, not in the middle."""
    array = np.full((23, 17), 20, np.uint8)
    array[3:9, 5:15] = 220
    return array


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_slice_bundle(tmp_path / "bundle")


def brighter(array: np.ndarray) -> np.ndarray:
    return (array > array.mean()).astype(np.uint8)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_picture_gives_a_png_of_class_indices_at_its_size(tmp_path, bundle, picture, ending):
    path = save_picture(tmp_path / f"a{ending}", picture)
    (row,) = predict(bundle, [path], tmp_path / "out", device="cpu")
    assert (row["status"], row["output"]) == ("done", "a_seg.png")
    with Image.open(tmp_path / "out" / "a_seg.png") as found:
        assert (found.mode, found.size) == ("P", (23, 17))
        np.testing.assert_array_equal(np.asarray(found).T, brighter(picture))
        colours = np.asarray(found.convert("RGB")).swapaxes(0, 1)
    assert colours[0, 0].tolist() == [0, 0, 0]
    assert colours[5, 7].max() > 100  # visible


def test_colours_are_the_channels_of_the_network(tmp_path):
    bundle = write_slice_bundle(tmp_path / "bundle", channels=3)
    colours = np.full((20, 16, 3), 10, np.uint8)
    colours[4:8, 4:8] = [200, 250, 240]
    found = Predictor.load(bundle, device="cpu")(save_picture(tmp_path / "a.png", colours))
    np.testing.assert_array_equal(found.label[:, :, 0], brighter(colours.mean(axis=2)))


@pytest.mark.parametrize("told", ["by the reader", "by the names of its channels"])
def test_three_numbered_pictures_are_three_cases_for_a_network_of_colours(tmp_path, told):
    bundle = write_slice_bundle(tmp_path / "bundle", channels=3)
    path = bundle / "configs" / ("inference.json" if told == "by the reader" else "metadata.json")
    content = json.loads(path.read_text())
    if told == "by the reader":
        reader = {"_target_": "semi_med.inference.reader.ScanReader", "channels": 3}
        content["preprocessing"]["transforms"][0]["reader"] = reader
    else:
        image = content["network_data_format"]["inputs"]["image"]
        image["channel_def"] = {"0": "red", "1": "green", "2": "blue"}
    path.write_text(json.dumps(content))
    random = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for number in range(3):
        save_picture(tmp_path / f"in/img_000{number}.png", random.integers(0, 255, (20, 16, 3)).astype(np.uint8))
    rows = predict(bundle, [tmp_path / "in"], tmp_path / "out", device="cpu")
    assert [(row["case"], row["status"]) for row in rows] == [(f"img_000{n}", "done") for n in range(3)]


def test_a_photograph_in_three_equal_colours_suits_one_channel_and_three(tmp_path, picture):
    path = save_picture(tmp_path / "a.png", np.repeat(picture[..., None], 3, axis=2))
    for channels in (1, 3):
        bundle = write_slice_bundle(tmp_path / f"bundle{channels}", channels=channels)
        np.testing.assert_array_equal(Predictor.load(bundle, device="cpu")(path).label[..., 0], brighter(picture))


def test_a_grey_picture_for_a_network_of_colours_says_what_to_do(tmp_path, picture):
    bundle = write_slice_bundle(tmp_path / "bundle", channels=3)
    with pytest.raises(InputError, match=r"3 image channels, the case has 1.*grey or RGB"):
        Predictor.load(bundle, device="cpu")(save_picture(tmp_path / "a.png", picture))


@pytest.mark.parametrize("shape", [(101, 67), (33, 32), (31, 64), (32, 32), (7, 90)])
def test_a_picture_is_resized_for_the_network_and_its_label_has_the_old_size(tmp_path, shape):
    bundle = write_slice_bundle(tmp_path / "bundle", size=[32, 32], window=(32, 32))
    array = np.full(shape, 20, np.uint8)
    array[: shape[0] // 2] = 220
    found = Predictor.load(bundle, device="cpu")(save_picture(tmp_path / "a.png", array))
    assert found.label.shape == (*shape, 1)
    columns = found.label.sum(axis=(1, 2)) == shape[1]
    assert abs(int(columns.sum()) - shape[0] / 2) <= 1 + shape[0] / 32  # within a pixel of the network's


def test_probabilities_are_brought_back_and_not_classes_so_that_outlines_are_smooth(tmp_path):
    bundle = write_slice_bundle(tmp_path / "bundle", size=[16, 16], window=(16, 16))
    i, j = np.ogrid[:128, :128]
    slope = np.round(i + 0.5 * j).astype(np.uint8)  # the outline is a line that is parallel to no axis
    label = Predictor.load(bundle, device="cpu")(save_picture(tmp_path / "a.png", slope)).label[..., 0]
    # the network's own pixels as squares of 8 x 8, which argmax and nearest neighbour give
    squares = np.kron(label[4::8, 4::8], np.ones((8, 8), np.uint8))
    # where the label begins in each row, on a line whose slope is known
    rows = np.arange(8, 120)
    bends = [float(np.ptp(found[:, rows].argmax(axis=0) + rows / 2)) for found in (label, squares)]
    assert bends[0] <= 1.5 < 6 < bends[1]  # pixels


def slices_of(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(3).permutation(int(np.prod(shape))).reshape(shape).astype(np.float32) ** 2


@pytest.mark.parametrize("size", [None, [24, 24]])
def test_a_volume_keeps_its_shape_and_place_slice_by_slice(tmp_path, size):
    affine = np.array([[0, 0.4, 0.1, 3], [-0.3, 0, 0, 9], [0, 0.1, -1.2, 2], [0, 0, 0, 1]])
    affine[:3, :3] = np.linalg.qr(affine[:3, :3])[0] * [0.3, 0.4, 1.2]
    array = slices_of((19, 21, 6))
    path = write_nifti(tmp_path / "a.nii.gz", array, affine)
    bundle = write_slice_bundle(tmp_path / "bundle", size=size, window=(24, 24))
    (row,) = predict(bundle, [path], tmp_path / "out", device="cpu")
    found = nib.load(tmp_path / "out" / "a_seg.nii.gz")
    assert found.shape == array.shape
    np.testing.assert_allclose(found.affine, affine, atol=1e-6)
    np.testing.assert_allclose(found.header.get_zooms(), (0.3, 0.4, 1.2), atol=1e-6)
    assert row["volumes_ml"]["vessel"] == pytest.approx(row["voxels"]["vessel"] * 0.3 * 0.4 * 1.2 / 1000)
    if size is None:
        np.testing.assert_array_equal(np.asarray(found.dataobj), brighter(array))


def test_a_sequence_of_flat_frames_is_segmented_whole_and_written_as_it_was(tmp_path, bundle):
    array = slices_of((19, 21, 1, 7))
    path = write_nifti(tmp_path / "a.nii.gz", array, np.diag([0.3, 0.4, 1.0, 1.0]))
    (row,) = predict(bundle, [path], tmp_path / "out", device="cpu")
    found = nib.load(tmp_path / "out" / "a_seg.nii.gz")
    np.testing.assert_array_equal(np.asarray(found.dataobj), brighter(array))
    np.testing.assert_array_equal(found.affine, nib.load(path).affine)
    assert (row["volumes_ml"], row["warnings"][0].split(":")[0]) == ({}, "FRAMES")


def test_a_nifti_of_two_axes_is_one_slice_and_written_as_it_was(tmp_path, bundle):
    affine = np.diag([-0.3, 0.4, 1.0, 1.0])
    path = write_nifti(tmp_path / "a.nii.gz", slices_of((19, 21)), affine)
    (row,) = predict(bundle, [path], tmp_path / "out", device="cpu")
    found = nib.load(tmp_path / "out" / "a_seg.nii.gz")
    np.testing.assert_array_equal(np.asarray(found.dataobj), brighter(slices_of((19, 21))))
    np.testing.assert_allclose(found.affine, affine, atol=1e-6)
    assert (row["volumes_ml"], row["warnings"]) == ({}, [])


def test_a_sequence_of_volumes_stays_refused(tmp_path, bundle, code_of):
    path = write_nifti(tmp_path / "a.nii.gz", slices_of((5, 6, 2, 3)))
    assert code_of(lambda: Predictor.load(bundle, device="cpu")(path)) == "NDIM"


def test_a_sequence_and_a_picture_stay_refused_by_a_3d_network(tmp_path, picture, code_of):
    segment = Predictor.load(write_bundle(tmp_path / "volumes"), device="cpu")
    assert code_of(lambda: segment(write_nifti(tmp_path / "a.nii.gz", slices_of((5, 6, 1, 3))))) == "NDIM"
    assert code_of(lambda: segment(write_nifti(tmp_path / "b.nii.gz", slices_of((5, 6))))) == "NDIM"
    with pytest.raises(InputError, match="3D and wants a volume, this is a picture"):
        segment(save_picture(tmp_path / "a.png", picture))


def test_a_picture_is_measured_in_pixels_and_no_millilitre_is_invented(tmp_path, bundle, picture):
    predict(bundle, [save_picture(tmp_path / "a.png", picture)], tmp_path / "out", device="cpu")
    with (tmp_path / "out" / "volumes.csv").open() as stream:
        (line,) = csv.DictReader(stream)
    assert [line[name] for name in ("case", "class", "millilitres", "voxels")] == ["a", "vessel", "nan", "60"]
    assert (line["components"], line["touches_border"], line["mean_intensity"]) == ("1", "no", "220.0000")
    (case,) = json.loads((tmp_path / "out" / "run.json").read_text())["cases"]
    assert (case["volumes_ml"], case["voxels"]) == ({}, {"vessel": 60})


@pytest.mark.parametrize(("options", "name"), [([], "a_seg.png"), (["--format", "nifti"], "a_seg.nii.gz")])
def test_the_command_counts_pixels_and_takes_a_format(tmp_path, bundle, picture, options, name):
    path = save_picture(tmp_path / "a.png", picture)
    given = ["predict", str(bundle), str(path), "-o", str(tmp_path / "out"), "--device", "cpu", *options]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 0
    assert done.stdout.splitlines()[0] == str(tmp_path / "out" / name)
    assert "[1/1] a: vessel 60 pixels (" in done.stderr


def test_nifti_can_be_asked_for_and_lies_where_the_picture_is_read(tmp_path, bundle, picture):
    path = save_picture(tmp_path / "a.png", picture)
    predict(bundle, [path], tmp_path / "out", device="cpu", format="nifti")
    found = read_label(tmp_path / "out" / "a_seg.nii.gz")
    np.testing.assert_array_equal(found.array[:, :, 0], brighter(picture))
    np.testing.assert_array_equal(found.affine, read_label(path).affine)


def test_png_can_be_asked_for_of_one_slice_and_of_no_more(tmp_path, bundle):
    for name, slices in (("one", 1), ("two", 2)):
        write_nifti(tmp_path / f"{name}.nii.gz", slices_of((9, 8, slices)))
    files = [tmp_path / f"{name}.nii.gz" for name in ("one", "two")]
    rows = predict(bundle, files, tmp_path / "out", device="cpu", format="png")
    assert [(row["output"], row["code"]) for row in rows] == [("one_seg.png", None), (None, "NDIM")]
    np.testing.assert_array_equal(read_label(tmp_path / "out" / "one_seg.png").array, brighter(slices_of((9, 8, 1))))


def test_another_format_is_refused_before_anything_is_read(tmp_path, bundle, code_of):
    assert code_of(lambda: predict(bundle, [tmp_path], tmp_path / "out", format="jpg")) == "SETTING"  # type: ignore


def test_a_folder_of_pictures_is_segmented_and_one_that_is_mixed_is_refused(tmp_path, bundle, picture):
    folder = tmp_path / "scans"
    folder.mkdir()
    for name in ("b.png", "a.tif", "._b.png"):
        save_picture(folder / name, picture)
    rows = predict(bundle, [folder], tmp_path / "out", device="cpu")
    assert [row["output"] for row in rows] == ["a_seg.png", "b_seg.png"]
    write_nifti(folder / "c.nii.gz", slices_of((4, 4, 4)))
    with pytest.raises(ProblemsError, match=r"volumes and pictures \(for example c.nii.gz and a.tif\)"):
        predict(bundle, [folder], tmp_path / "out", device="cpu")


def test_two_pictures_of_one_name_are_refused(tmp_path, bundle, picture):
    files = [save_picture(tmp_path / name, picture) for name in ("a.png", "a.tif")]
    with pytest.raises(ProblemsError, match=r"a_seg\.png would also be that of"):
        predict(bundle, files, tmp_path / "out", device="cpu")


def test_a_stack_of_pictures_in_one_file_keeps_its_clear_error(tmp_path, bundle, picture):
    pages = [Image.fromarray(picture) for _ in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(InputError, match=r"one picture is wanted, the file holds 3.*semi-med convert"):
        Predictor.load(bundle, device="cpu")(tmp_path / "a.tif")


@pytest.mark.parametrize(("configured", "asked"), [(False, True), (True, None)])
@pytest.mark.parametrize("size", [None, [40, 40]])
def test_the_largest_component_is_found_in_class_indices(tmp_path, configured, asked, size):
    array = np.full((40, 40), 20, np.uint8)
    array[5:20, 5:20] = 220
    array[30:34, 30:34] = 220
    bundle = write_slice_bundle(tmp_path / "bundle", size=size, window=(40, 40), largest=configured)
    path = save_picture(tmp_path / "a.png", array)
    found = Predictor.load(bundle, device="cpu", largest_component=asked)(path)
    assert found.voxels == {"vessel": 225}
    everything = Predictor.load(bundle, device="cpu", largest_component=False)(path)
    assert everything.voxels == {"vessel": 225 + 16}


# ---- run with monai.bundle -----------------------------------------------------------------------------------------


def run_bundle(folder: Path, scans: Path, output: Path) -> None:
    config = json.loads((folder / "configs" / "inference.json").read_text())
    parser = ConfigParser(
        {**config, "dataset_dir": str(scans), "output_dir": str(output), "device": "$torch.device('cpu')"}
    )
    parser.get_parsed_content("evaluator").run()


@pytest.mark.parametrize("kind", ["pictures", "volumes"])
def test_the_bundle_alone_writes_what_the_predictor_writes(tmp_path, picture, kind):
    bundle = write_slice_bundle(tmp_path / "bundle", size=[24, 24], window=(24, 24))
    scans = tmp_path / "scans"
    scans.mkdir()
    if kind == "pictures":
        save_picture(scans / "a.png", picture)
        save_picture(scans / "b.jpg", picture.T)
        names = ["a_seg.png", "b_seg.png"]
    else:
        affine = np.array([[0, 0.4, 0, 3], [-0.3, 0, 0, 9], [0, 0, 1, 2], [0, 0, 0, 1]])
        write_nifti(scans / "a.nii.gz", slices_of((19, 21, 5)), affine)
        write_nifti(scans / "b.nii.gz", slices_of((19, 21, 1, 5)), affine)
        names = ["a_seg.nii.gz", "b_seg.nii.gz"]
    run_bundle(bundle, scans, tmp_path / "alone")
    predict(bundle, [scans], tmp_path / "predicted", device="cpu")
    assert sorted(path.name for path in (tmp_path / "alone").iterdir()) == names
    for name in names:
        assert (tmp_path / "alone" / name).read_bytes() == (tmp_path / "predicted" / name).read_bytes()


def test_the_scans_of_a_folder_are_pictures_only_where_they_are_meant(tmp_path, picture):
    save_picture(tmp_path / "a.png", picture)
    assert scans_of(tmp_path, pictures=True) == [{"image": str(tmp_path / "a.png")}]
    with pytest.raises(InputError, match="no scan"):
        scans_of(tmp_path)
    write_nifti(tmp_path / "b.nii.gz", slices_of((4, 4, 4)))
    assert scans_of(tmp_path) == [{"image": str(tmp_path / "b.nii.gz")}]


def test_a_label_that_cannot_be_written_is_refused(tmp_path):
    save = SaveLabeld("pred", tmp_path)
    with pytest.raises(InputError, match=r"class indices \(1, i, j, k\) with metadata are wanted, not \(2, 3, 3, 1\)"):
        save({"pred": torch.zeros(2, 3, 3, 1)})
    with pytest.raises(InputError, match="one of auto, nifti, png is wanted"):
        SaveLabeld("pred", tmp_path, format="tif")  # type: ignore[arg-type]
