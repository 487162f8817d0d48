"""A study of colour pictures over a real server: labels as PNG and as QuPath's polygons, a round, and its masks."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("monailabel")

from live_server import Server, running
from monailabel.client.client import MONAILabelClientException

from semi_med.inference.io import read_label, write_label
from semi_med.label_app.qupath import annotations_xml, draw, outlines, read_annotations

SIZE = (44, 36)  # columns, rows
MODEL = "fixmatchseg_refuge"
NAMES = {"optic disc without cup": 1, "optic cup": 2}
SUFFIXES = (".png", ".jpg", ".png", ".tif", ".bmp", ".png")
SETTINGS = {
    "network_def": json.dumps(
        {
            "_target_": "semi_med.networks.UNet",
            "in_channels": 3,
            "out_channels": "@classes",
            "spatial_dims": 2,
            "base_filters": 2,
        }
    ),
    "image_size": "[32,32]",
    "crop_size": "[32,32]",
    "batch_size": "1",
    "unlabeled_batch_size": "1",
}


def draw_eye(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows, columns and colours, and a label: a disc with a cup in it."""
    random = np.random.default_rng(seed)
    y, x = np.indices(SIZE[::-1])
    far = np.hypot(y - 18 - random.uniform(-3, 3), x - 20 - random.uniform(-3, 3))
    label = (far < 11).astype(np.uint8) + (far < 5)
    image = np.array([[120, 60, 30], [180, 100, 60], [220, 180, 120]])[label] + random.normal(0, 8, (*label.shape, 3))
    return image.clip(0, 255).astype(np.uint8), label


def write_eyes(folder: Path) -> Path:
    for seed, suffix in enumerate(SUFFIXES):
        image, label = draw_eye(seed)
        folder.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"eye.{seed}{suffix}")
        place, whole = Path(f"{folder}_labels"), label.T[:, :, None]
        write_label(place / f"eye.{seed}.png", whole, affine=np.eye(4))
        (place / f"eye.{seed}.xml").write_text(annotations_xml(outlines(whole, NAMES), NAMES))
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    study = write_eyes(tmp_path_factory.mktemp("pictures") / "study")
    bundle = Path(__file__).parents[2] / "bundles" / MODEL
    with running(study, [bundle], SETTINGS) as served:
        yield served


def asap(server: Server, image: str, **region: list[int]) -> bytes:
    """QuPath's Run."""
    address = f"http://127.0.0.1:{server.port}/infer/wsi/{MODEL}?image={image}&output=asap"
    body = {"level": 0, "location": [0, 0], "size": [0, 0], "tile_size": [1024, 1024], "min_poly_area": 30} | region
    sent = {**body, "params": {"foreground": [], "background": [], "max_workers": 1}}
    kind = {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(address, json.dumps(sent).encode(), kind)) as answer:
        return answer.read()


# The tests go through one session, in this order.


def test_before_the_first_training_qupath_is_told_what_to_do(server):
    with pytest.raises(urllib.error.HTTPError) as caught:
        asap(server, "eye.0")
    assert caught.value.code == 409
    assert "press Train" in caught.value.read().decode()


def test_a_label_as_a_picture_and_one_as_polygons_train_a_model_with_all_other_pictures(server):
    server.submit("eye.0", ".png")
    server.submit("eye.1", ".xml")
    status = server.train(MODEL)
    assert status["status"] == "DONE", status
    folder = server.study / "semi_med" / MODEL / "current"
    run = json.loads((folder / "run.json").read_text())["settings"]
    assert (run["labeled"], run["unlabeled"], run["validation"]) == (2, 4, 0)
    for seed in (0, 1):
        label = read_label(folder / "data" / "labels" / f"eye.{seed}.png").array
        assert np.array_equal(label[:, :, 0].T, draw_eye(seed)[1])


@pytest.mark.parametrize("seed", range(2, 6))
def test_a_picture_of_every_kind_gets_a_mask_of_its_size(server, seed, tmp_path):
    file, params = server.client.infer(MODEL, f"eye.{seed}", {})
    assert read_label(file).array.shape == (*SIZE, 1)
    assert params["label_names"] == NAMES


def test_qupath_gets_the_mask_as_polygons_in_the_region_that_is_marked(server, tmp_path):
    mask = read_label(server.client.infer(MODEL, "eye.2", {})[0]).array
    assert mask.any()
    (tmp_path / "a.xml").write_bytes(asap(server, "eye.2"))
    assert np.array_equal(draw(read_annotations(tmp_path / "a.xml"), NAMES, size=SIZE), mask)

    column, row = np.argwhere(mask[:, :, 0])[0].tolist()
    (tmp_path / "b.xml").write_bytes(asap(server, "eye.2", location=[column, row], size=[9, 7]))
    part = np.zeros_like(mask)
    part[column : column + 9, row : row + 7] = mask[column : column + 9, row : row + 7]
    assert np.array_equal(draw(read_annotations(tmp_path / "b.xml"), NAMES, size=SIZE), part)


def test_the_next_picture_is_the_one_that_the_network_is_least_sure_of(server):
    scores = json.loads((server.study / "semi_med" / MODEL / "scores.json").read_text())
    assert sorted(scores) == [f"eye.{seed}" for seed in range(2, 6)]
    chosen = server.client.next_sample("disagreement", {})
    assert chosen["disagreement"] == max(one["disagreement"] for one in scores.values())


def test_all_other_pictures_get_a_first_mask_and_scoring_answers(server):
    found = server.post(f"/batch/infer/{MODEL}?images=unlabeled&run_sync=true")
    assert sorted(found) == [f"eye.{seed}" for seed in range(2, 6)]
    assert not [one for one in found.values() if "error" in one]
    for seed in range(2, 6):
        mask = read_label(server.study / "labels" / "original" / f"eye.{seed}.png")
        assert mask.array.shape == (*SIZE, 1)
    assert server.post("/scoring/dice?run_sync=true") == {"scans": {}, "mean_dice": None}  # none is held out


def test_a_label_of_another_size_is_refused(server):
    write_label(server.labels / "small.png", np.ones((9, 7, 1), np.uint8), affine=np.eye(4))
    with pytest.raises(MONAILabelClientException, match=r"422.*9 x 7 x 1 voxels, its image has 44 x 36 x 1"):
        server.client.save_label("eye.3", str(server.labels / "small.png"), params={})
