"""Bundles from parts: complete, consistent, and exactly what is committed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser

from semi_med.recipes.compose import HERE, compose, compose_config, merge, methods, tasks, to_json

REPOSITORY = Path(__file__).parents[2]
PAIRS = [(method, task) for method in methods() for task in tasks()]
FLAT = [task for task in tasks() if "image_size" in compose_config("inference", method="supervised", task=task)]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """Every method for every task, composed."""
    root = tmp_path_factory.mktemp("composed")
    return {(method, task): compose(method, task, root / f"{method}_{task}") for method, task in PAIRS}


def files_of(folder: Path) -> dict[str, bytes]:
    written = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {
        name: data
        for name, data in written.items()
        if name.split("/")[0] in ("configs", "docs", "data_lists", "LICENSE")
    }


@pytest.mark.parametrize("name", sorted(path.name for path in (REPOSITORY / "bundles").iterdir() if path.is_dir()))
def test_what_is_committed_is_what_the_command_writes(name: str, tmp_path: Path) -> None:
    (method, task) = next(pair for pair in PAIRS if "_".join(pair) == name)
    fresh = files_of(compose(method, task, tmp_path / name))
    committed = files_of(REPOSITORY / "bundles" / name)
    assert fresh.keys() == committed.keys()
    for file, data in fresh.items():
        assert committed[file] == data, f"{file}: run compose({method!r}, {task!r}, 'bundles/{name}') again"


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("kind", ["train", "infer"])
def test_monai_finds_every_property_it_asks_of_a_bundle(
    bundles: dict[tuple[str, str], Path], pair: tuple[str, str], kind: str, tiny_data: Any, tmp_path: Path
) -> None:
    from monai.bundle import ConfigWorkflow

    size = [16] * (2 if pair[1] in FLAT else 3)
    network = {"_target_": "semi_med.networks.VNet", "in_channels": 1, "spatial_dims": len(size)}
    network |= {"base_filters": 2, "levels": 2}
    tiny: dict[str, Any] = {"classes": 2, "crop_size": size, "stride": size, "network_def": network}
    if pair[1] in FLAT:
        tiny["image_size"] = size
    tiny |= {"bundle_root": str(bundles[pair]), "device": "cpu", "output_dir": str(tmp_path)}
    if kind == "train":
        tiny |= {"dataset_dir": str(tiny_data.folder), "data_list_file": str(tiny_data.data_list)}
        tiny |= {"validation_stride": size, "pretrained": None}
    else:
        tiny |= {"dataset_dir": str(tiny_data.folder / "images"), "weights": str(tiny_data.data_list)}
    file = bundles[pair] / "configs" / ("train.json" if kind == "train" else "inference.json")
    workflow = ConfigWorkflow(workflow_type=kind, config_file=str(file), logging_file=False, **tiny)
    workflow.initialize()
    assert workflow.check_properties() == []


IDS_THAT_MONAI_LABEL_OVERRIDES = [
    "bundle_root",
    "device",
    "network",
    "network_def",
    "train#trainer#max_epochs",
    "train#dataset#data",
    "train#handlers",
    "train#unlabeled_dataset#data",
    "validate#dataset#data",
    "run",
]


@pytest.mark.parametrize("task", tasks())
def test_every_id_that_monai_label_overrides_is_there(task: str) -> None:
    from monai.bundle import ConfigParser

    parser = ConfigParser(compose_config("train", method="cotrain", task=task))
    assert [id_ for id_ in IDS_THAT_MONAI_LABEL_OVERRIDES if id_ not in parser] == []


@pytest.mark.parametrize("task", tasks())
def test_every_id_that_monai_label_infers_with_is_there(task: str) -> None:
    config = compose_config("inference", method="cotrain", task=task)
    assert {"network_def", "preprocessing", "inferer", "postprocessing", "device", "bundle_root"} <= config.keys()


@pytest.mark.parametrize("pair", PAIRS)
def test_train_handlers_are_a_literal_list_of_components(pair: tuple[str, str]) -> None:
    handlers = compose_config("train", method=pair[0], task=pair[1])["train"]["handlers"]
    assert isinstance(handlers, list)
    assert all(isinstance(handler["_target_"], str) for handler in handlers)


@pytest.mark.parametrize("pair", PAIRS)
def test_the_checkpoint_handler_stands_behind_those_that_write_rows(pair: tuple[str, str]) -> None:
    handlers = compose_config("train", method=pair[0], task=pair[1])["train"]["handlers"]
    order = [handler["_target_"].rsplit(".", 1)[1] for handler in handlers]
    assert order.index("Checkpoints") > max(order.index("Validate"), order.index("Curves"))


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("name", ["train", "inference", "evaluate", "multi_gpu_train"])
def test_no_configuration_has_a_lambda(bundles: dict[tuple[str, str], Path], pair: tuple[str, str], name: str) -> None:
    assert "lambda" not in (bundles[pair] / "configs" / f"{name}.json").read_text()


@pytest.mark.parametrize("pair", PAIRS)
def test_no_placeholder_is_left(bundles: dict[tuple[str, str], Path], pair: tuple[str, str]) -> None:
    for name, data in files_of(bundles[pair]).items():
        assert b"{bundle}" not in data and b"{task}" not in data, name


@pytest.mark.parametrize("pair", PAIRS)
def test_training_and_inference_agree_on_network_and_preprocessing(pair: tuple[str, str]) -> None:
    train, inference = (compose_config(name, method=pair[0], task=pair[1]) for name in ("train", "inference"))
    for key in ("network_def", "peer_def", "image_size", "crop_size", "stride", "classes"):
        assert train.get(key) == inference.get(key)

    def without_loading(config: dict[str, Any]) -> list[dict[str, Any]]:
        """Of settings by key, that of the image, which is the first."""
        found = []
        for transform in config["preprocessing"]["transforms"]:
            several = isinstance(transform["keys"], list)
            if "image" not in transform["keys"]:
                continue
            left = {k: v for k, v in transform.items() if k not in ("keys", "allow_missing_keys", "mode")}
            mode = transform.get("mode", "bilinear")
            found.append({**left, "mode": mode[0] if several and isinstance(mode, list) else mode})
        return found

    assert without_loading(train["train"]) == without_loading(inference)


@pytest.mark.parametrize("pair", PAIRS)
def test_a_method_predicts_through_windows_of_the_kind_that_its_floor_does(pair: tuple[str, str]) -> None:
    """What was trained on crops and tested on whole pictures looks worse than its floor for that alone."""
    method, task = pair
    here, floor = (compose_config("inference", method=name, task=task)["inferer"] for name in (method, "supervised"))
    assert here == floor
    here, floor = (config_of(name, task)["validate"]["inferer"] for name in (method, "supervised"))
    assert here == floor


MANDATORY = {
    *("version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version"),
    *("task", "description", "authors", "copyright", "network_data_format"),
}
OF_A_TENSOR = {
    "type",
    "format",
    "num_channels",
    "spatial_shape",
    "dtype",
    "value_range",
    "is_patch_data",
    "channel_def",
}


@pytest.mark.parametrize("pair", PAIRS)
def test_metadata_has_what_the_specification_demands(
    bundles: dict[tuple[str, str], Path], pair: tuple[str, str]
) -> None:
    metadata = json.loads((bundles[pair] / "configs" / "metadata.json").read_text())
    config = compose_config("inference", method=pair[0], task=pair[1])
    assert metadata.keys() >= MANDATORY
    assert metadata["version"] in metadata["changelog"]
    data_format = metadata["network_data_format"]
    image, pred = data_format["inputs"]["image"], data_format["outputs"]["pred"]
    assert image.keys() >= OF_A_TENSOR and pred.keys() >= OF_A_TENSOR
    assert "modality" in image
    assert image["num_channels"] == len(image["channel_def"]) == config["network_def"]["in_channels"]
    assert pred["num_channels"] == len(pred["channel_def"]) == config["classes"]
    assert list(pred["channel_def"]) == [str(i) for i in range(config["classes"])]
    assert image["spatial_shape"] == config["crop_size"]
    for tensor in (image, pred):
        assert all(isinstance(size, int) for size in tensor["spatial_shape"])
        low, high = tensor["value_range"]
        assert low < high


@pytest.mark.parametrize("pair", PAIRS)
def test_the_network_takes_the_shape_that_metadata_tells(pair: tuple[str, str]) -> None:
    config = compose_config("inference", method=pair[0], task=pair[1])
    divisor = 2 ** (config["network_def"].get("levels", 5) - 1)
    assert all(size % divisor == 0 for size in config["crop_size"])


@pytest.mark.parametrize("pair", PAIRS)
def test_the_readme_names_every_setting_with_its_default(
    bundles: dict[tuple[str, str], Path], pair: tuple[str, str]
) -> None:
    readme = (bundles[pair] / "docs" / "README.md").read_text()
    config = compose_config("train", method=pair[0], task=pair[1])
    for name in ("crop_size", "max_iterations", "learning_rate", "resume", "gradient_clip", "seed"):
        assert f"| `{name}` | `{json.dumps(config[name])}` |" in readme
    assert f"# {json.loads((bundles[pair] / 'configs' / 'metadata.json').read_text())['name']}\n" in readme


# ---- what a recipe says of its method ------------------------------------------------------------------------------


def about(method: str) -> dict[str, Any]:
    return json.loads((HERE / "methods" / method / "about.json").read_text())


@pytest.mark.parametrize("method", methods())
def test_a_method_says_its_name_reference_networks_and_whether_it_learns_from_unlabelled_scans(method: str) -> None:
    content = about(method)
    assert content["name"] and content["reference"]
    assert content["networks"] == len([key for key in config_of(method) if key in ("network_def", "peer_def")])
    assert content["unlabeled"] is config_of(method)["needs_unlabeled"]


def config_of(method: str, task: str = "la") -> dict[str, Any]:
    return compose_config("train", method=method, task=task)


@pytest.mark.parametrize("pair", PAIRS)
def test_only_a_method_that_learns_from_unlabelled_scans_reads_them(pair: tuple[str, str]) -> None:
    config = config_of(*pair)
    reads = about(pair[0])["unlabeled"]
    assert ("unlabeled_dataset" in config["train"]) is reads
    assert ("unlabeled" in config["train"]["dataloader"]) is reads
    assert ("unlabeled_batch_size" in config) is reads
    known = "@train#unlabeled_dataset#data", "$@sections['unlabeled']", "$@sections['unlabeled'][:@unlabeled_limit]"
    assert config["unlabeled_data"] in (known if reads else [[]])


@pytest.mark.parametrize("method", methods())
def test_every_setting_of_a_recipe_is_a_field_of_its_method_with_its_default(method: str) -> None:
    """A field that the recipe leaves out keeps the default of the class; one that it names is the same there."""
    from dataclasses import fields
    from pydoc import locate

    wanted = config_of(method)["method"]
    cls: Any = locate(wanted["_target_"])
    known = {field.name: field.default for field in fields(cls) if field.init}
    assert wanted.keys() - {"_target_"} <= known.keys()
    for name, value in wanted.items():
        if name in known and not (isinstance(value, str) and value.startswith("@")) and name != "ramp_iterations":
            default = known[name]
            if value == "$2 / 3":
                value = 2 / 3
            assert value == (list(default) if isinstance(default, tuple) else default), name


WITH_ONE_BEFORE = [method for method in methods() if "before" in about(method)]


@pytest.mark.parametrize("method", WITH_ONE_BEFORE)
def test_the_method_before_another_exists_and_hands_over_a_network_of_the_same_shape(method: str) -> None:
    before = about(method)["before"]
    assert before.keys() == {"method", "setting", "share"}
    assert before["method"] in methods()
    assert 0 < before["share"] < 1
    assert config_of(method)[before["setting"]] == "$@bundle_root + '/models/pretrained.pt'"
    for task in tasks():
        first, then = config_of(before["method"], task), config_of(method, task)
        assert first["network_def"] == then["network_def"]
        assert first["pretrained"] is None


@pytest.mark.parametrize("method", ["fixmatch", "supmix", "unimatch"])
@pytest.mark.parametrize("start", [{}, {"encoder_weights": "imagenet"}, {"pretrained": "model.pt"}])
def test_only_a_network_that_has_learnt_nothing_begins_without_unlabelled_images(method: str, start: Any) -> None:
    parser = ConfigParser({**compose_config("train", method=method, task="chase"), **start})
    assert parser.get_parsed_content("ramp_share") == (0.0 if start else 0.4)
    if method == "supmix":
        assert parser.get_parsed_content("adversarial_weight") == (1.0 if start else 0.01)


def test_bcp_is_the_method_that_has_one_before_it() -> None:
    assert WITH_ONE_BEFORE == ["bcp"]


@pytest.mark.parametrize("pair", PAIRS)
def test_the_readme_says_what_to_run_first_and_only_where_there_is_something(
    bundles: dict[tuple[str, str], Path], pair: tuple[str, str]
) -> None:
    readme = (bundles[pair] / "docs" / "README.md").read_text()
    assert ("First the run that this one starts from" in readme) is (pair[0] in WITH_ONE_BEFORE)
    if pair[0] in WITH_ONE_BEFORE:
        before = about(pair[0])["before"]
        assert f"semi-med compose {before['method']} {pair[1]} " in readme
        assert f"--{before['setting']} <folder of the pre-training>/models/model.pt" in readme


@pytest.mark.parametrize(
    ("method", "keys"),
    [
        ("supervised", "key `model`)"),
        ("cotrain", "key `model` and, for the second network, `peer`)"),
        ("mean_teacher", "key `model` and, for the moving average, `teacher`)"),
    ],
)
def test_the_readme_names_the_keys_of_the_model_file(
    bundles: dict[tuple[str, str], Path], method: str, keys: str
) -> None:
    assert keys in (bundles[method, "la"] / "docs" / "README.md").read_text()


# ---- composing -----------------------------------------------------------------------------------------------------


def test_composing_again_leaves_weights_and_logs_alone(tmp_path: Path) -> None:
    compose("cotrain", "la", tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "model.pt").write_bytes(b"weights")
    (tmp_path / "configs" / "train.json").write_text("damaged")
    compose("cotrain", "la", tmp_path)
    assert (tmp_path / "models" / "model.pt").read_bytes() == b"weights"
    assert json.loads((tmp_path / "configs" / "train.json").read_text())["run"] == "@training"


@pytest.mark.parametrize(("method", "task"), [("contrain", "la"), ("cotrain", "LA"), ("../cotrain", "la")])
def test_an_unknown_part_is_refused_with_those_there_are(
    tmp_path: Path, method: str, task: str, error_of: Callable[..., Any]
) -> None:
    error = error_of(lambda: compose(method, task, tmp_path / "bundle"))
    assert error.code == "SETTING"
    assert "cotrain" in str(error) or "la" in str(error)
    assert not (tmp_path / "bundle").exists()


def test_merge_goes_into_sections_and_replaces_everything_else() -> None:
    base = {"a": {"x": 1, "y": [1, 2]}, "b": 1}
    assert merge(base, {"a": {"y": [3]}, "c": 2}) == {"a": {"x": 1, "y": [3]}, "b": 1, "c": 2}
    assert base == {"a": {"x": 1, "y": [1, 2]}, "b": 1}


@pytest.mark.parametrize("content", [{"a": [1, 2], "b": ["x, y", "[z]"], "c": {"d": [[1, 2], [3]]}, "e": [], "f": {}}])
def test_json_text_reads_back_as_it_was(content: dict[str, Any]) -> None:
    assert json.loads(to_json(content)) == content
    assert '"a": [1, 2]' in to_json(content)


def test_the_peer_is_the_network_with_another_upsampling() -> None:
    config = compose_config("train", method="cotrain", task="la")
    network, peer = config["network_def"], config["peer_def"]
    assert {key for key in network if network[key] != peer[key]} == {"upsampling"}


def test_the_peer_of_cross_pseudo_supervision_is_the_same_network_anew() -> None:
    config = compose_config("train", method="cps", task="la")
    assert config["network_def"] == config["peer_def"]
    assert config["network"] != config["peer"]


def test_a_dictionary_can_take_the_place_of_another_as_a_whole() -> None:
    base = {"optimizer": {"_target_": "SGD", "momentum": 0.9}, "other": 1}
    over = {"optimizer": {"_replace_": True, "_target_": "Adam"}, "fresh": {"_replace_": True, "a": 1}}
    assert merge(base, over) == {"optimizer": {"_target_": "Adam"}, "other": 1, "fresh": {"a": 1}}
