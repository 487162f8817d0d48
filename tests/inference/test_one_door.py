"""Every scan enters through `semi_med.inference.io`, wherever it is read, and is refused in the same words."""

from __future__ import annotations

import ast
import json
import pickle
import re
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from inference_samples import write_nifti

from semi_med.errors import InputError, ProblemsError, SemiMedError

PACKAGE = Path(__file__).parents[2] / "semi_med"
READERS = {"nibabel", "SimpleITK", "pydicom", "PIL", "itk", "imageio", "tifffile", "nrrd", "highdicom", "skimage.io"}
# besides the door itself: what writes pictures and files, and never opens any
WRITERS = {
    *("data/thumbnails.py", "datasets/stored.py"),
    *("report/contact_sheet.py", "report/panels.py", "report/viewer.py"),
}
OPENING = re.compile(r"(^|\.)(load|open|ReadImage|ImageFileReader|ImageSeriesReader|dcmread|imread|read_file)$")
MONAI_READERS = {"NibabelReader", "ITKReader", "PydicomReader", "PILReader", "NrrdReader", "NumpyReader"}


def reader_names(source: str) -> dict[str, str]:
    """Names in a source that stand for a reading package or a part of it, and what they stand for."""
    names = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in READERS or alias.name in READERS:
                    names[(alias.asname or alias.name).split(".")[0]] = alias.name
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if module.split(".")[0] in READERS or module in READERS:
                names |= {alias.asname or alias.name: f"{module}.{alias.name}" for alias in node.names}
    return names


def opened_with(source: str) -> list[str]:
    """Calls that open a file with one of the reading packages; what is already in memory does not count."""
    names, found = reader_names(source), []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        call = ast.unparse(node.func)
        in_memory = bool(node.args) and ast.unparse(node.args[0]).startswith("io.BytesIO(")
        if call.split(".")[0] in names and OPENING.search(call) and not in_memory:
            found.append(call)
    return found


FILES = [file for file in sorted(PACKAGE.rglob("*.py")) if file.relative_to(PACKAGE).parts[0] != "inference"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_no_other_room_opens_a_scan(file):
    source, name = file.read_text(), str(file.relative_to(PACKAGE))
    if name not in WRITERS:
        assert reader_names(source) == {}
    assert opened_with(source) == []
    assert not MONAI_READERS & set(re.findall(r"\w+", source))


def test_every_configuration_reads_with_our_reader():
    configs = [*PACKAGE.glob("recipes/**/*.json"), *PACKAGE.parent.glob("bundles/*/configs/*.json")]
    found = [node for config in configs for node in targets(json.loads(config.read_text()), "LoadImage")]
    assert found
    readers = [node["reader"] for node in found]
    names = {reader if isinstance(reader, str) else reader["_target_"] for reader in readers}
    assert names == {"semi_med.inference.reader.ScanReader", "semi_med.inference.reader.LabelReader"}


def targets(tree, name):
    """Parts of a configuration whose `_target_` begins with a name."""
    if isinstance(tree, dict):
        if str(tree.get("_target_", "")).split(".")[-1].startswith(name):
            yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for part in tree:
            yield from targets(part, name)


def test_the_rule_sees_what_it_forbids():
    assert opened_with("import nibabel as nib\nx = nib.load(path)") == ["nib.load"]
    assert opened_with("def f():\n  from SimpleITK import ReadImage\n  ReadImage(p)") == ["ReadImage"]
    assert opened_with("from PIL import Image\nImage.open(path)") == ["Image.open"]
    assert opened_with("from PIL import Image\nImage.open(io.BytesIO(b))") == []
    assert opened_with("import json\njson.load(path)") == []
    assert reader_names("import skimage.io") == {"skimage": "skimage.io"}


# ---- the same words everywhere --------------------------------------------------------------------------------------


@pytest.fixture
def cut(tmp_path, volume) -> Path:
    path = write_nifti(tmp_path / "images" / "a.nii.gz", volume) if (tmp_path / "images").mkdir() is None else None
    path.write_bytes(path.read_bytes()[:-9])
    write_nifti(tmp_path / "b.nii.gz", volume)
    return path


def words_of(action) -> tuple[str, str, str | None]:
    """Code, problem and next step of the project's own error in whatever an action raises."""
    from semi_med.errors import root_cause

    with pytest.raises(Exception) as caught:
        action()
    error = root_cause(caught.value)
    if isinstance(error, ProblemsError):
        error = error.problems[0]
    assert isinstance(error, SemiMedError)
    return error.code, error.problem.partition(" (")[0], error.fix


def test_all_who_read_refuse_in_the_same_words(tmp_path, cut):
    from monai.transforms import LoadImaged

    from semi_med.data.cases import CachedCases
    from semi_med.data.read_cases import Job, read_cases
    from semi_med.data.validation import check_sections
    from semi_med.inference.convert import Conversion, convert_file
    from semi_med.inference.io import read_image
    from semi_med.inference.reader import ScanReader
    from semi_med.metrics.evaluate import evaluate
    from semi_med.report.overlay import load_drawing
    from semi_med.report.views import CaseView

    load = LoadImaged(keys="image", reader=ScanReader())
    expected = words_of(lambda: read_image(cut))
    assert expected[0] == "TRUNCATED"

    def raised_by(errors):
        raise errors[0]

    jobs = [Job((str(cut),)), Job((str(tmp_path / "b.nii.gz"),))]
    view = CaseView("a", image=cut, label=tmp_path / "b.nii.gz", predictions={})
    plain = {"labeled": [{"image": str(tmp_path / "b.nii.gz"), "label": str(cut)}]}
    places = {
        "a transform": lambda: load({"image": str(cut)}),
        "training": lambda: CachedCases([{"image": str(cut)}], load, keys=("image",)).load(),
        "validation": lambda: check_sections(plain, labels=(0, 1), sections_needed=("labeled",)),
        "a worker": lambda: raised_by(next(iter(read_cases(jobs, workers=1, processes=True))).image_errors[str(cut)]),
        "evaluation": lambda: evaluate(tmp_path / "b.nii.gz", cut),
        "a report": lambda: load_drawing(view, runs=()),
        "conversion": lambda: convert_file(cut, tmp_path / "c.nii.gz", Conversion()),
    }
    assert {place: words_of(action) for place, action in places.items()} == dict.fromkeys(places, expected)


def test_an_error_crosses_processes_unchanged(cut):
    from semi_med.inference.io import read_image

    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool, pytest.raises(InputError) as caught:
        pool.submit(read_image, cut).result()
    with pytest.raises(InputError) as here:
        read_image(cut)
    assert str(caught.value) == str(here.value)
    assert (caught.value.code, caught.value.where, caught.value.exit_code) == ("TRUNCATED", cut, 2)


def test_a_list_of_problems_crosses_processes_unchanged():
    error = ProblemsError([InputError("one", where="a", fix="Do.", code="A"), InputError("two")], title="data")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert str(copy) == str(error)
    assert [problem.code for problem in copy.problems] == ["A", "INPUT"]


def test_every_room_that_reads_labels_gets_the_same_numbers(tmp_path):
    from semi_med.inference.io import read_image, read_label
    from semi_med.inference.reader import ScanReader

    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    path = write_nifti(tmp_path / "a.nii.gz", array)
    reader = ScanReader()
    for found in (read_image(path).array, read_label(path).array, reader.get_data(reader.read(path))[0]):
        np.testing.assert_array_equal(found, array)
