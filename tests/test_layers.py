"""Imports point one way, and nothing that runs foreign code is in the package."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "semi_med"
FILES = sorted(PACKAGE.rglob("*.py"))
FLOOR = {"errors", "files", "ignored", "runtime"}  # what every room may stand on
ALLOWED = {
    "ops": {"ops"},
    "losses": {"losses", "ops"},
    "methods": {"methods", "losses", "ops", "networks"},
    "networks": {"networks"},
}
BESIDE = ("networks", "data", "datasets", "metrics", "inference", "report")
ABOVE = {file.relative_to(PACKAGE).parts[0].removesuffix(".py") for file in FILES} - {
    *FLOOR,
    *BESIDE,
    "ops",
    "losses",
    "__init__",
}
MAY_PRINT = {"cli.py", "cli_text.py", "bundle.py", "engines/curves.py"}


def files_of(room: str) -> list[Path]:
    return [file for file in FILES if file.relative_to(PACKAGE).parts[0] in (room, f"{room}.py")]


def imports_of(source: str) -> set[str]:
    """Full names of what a source imports, wherever in it: `a.b` for `import a.b` and for `from a import b`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {"." * node.level + f"{node.module or ''}.{alias.name}" for alias in node.names}
    return names


def rooms_of(source: str) -> set[str]:
    """Rooms and files of the package that a source imports from; `""` for the package itself."""
    own = [name.split(".") for name in imports_of(source) if name.split(".")[0] == "semi_med"]
    known = {file.relative_to(PACKAGE).parts[0].removesuffix(".py") for file in FILES}
    return {parts[1] if len(parts) > 1 and parts[1] in known else "" for parts in own}


def calls_of(source: str) -> list[tuple[str, ast.Call]]:
    """Every call with its dotted name, as `torch.load`; calls on expressions have none."""
    calls = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if re.fullmatch(r"[\w.]+", name):
                calls.append((name, node))
    return calls


def dangers_of(source: str) -> list[str]:
    """Calls that run foreign code, or that unpickle."""
    found = []
    for name, call in calls_of(source):
        keywords = {k.arg: ast.unparse(k.value) for k in call.keywords}
        if name in ("eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load", "joblib.load"):
            found.append(name)
        if name.split(".")[-1] in ("load", "loads", "Unpickler") and name.split(".")[0] in ("pickle", "dill", "shelve"):
            found.append(name)
        if name == "torch.load" and keywords.get("weights_only") != "True":
            found.append("torch.load without weights_only=True")
        if keywords.get("weights_only") == "False":
            found.append("weights_only=False")
        if keywords.get("shell", "False") != "False":
            found.append("shell=True")
        if keywords.get("allow_pickle", "False") != "False":
            found.append("allow_pickle=True")
    return found


def by_name(file: Path) -> str:
    return str(file.relative_to(PACKAGE))


def test_the_rooms_are_there():
    for room in (*ALLOWED, *BESIDE, "engines"):
        assert files_of(room), room
    assert {"methods", "engines", "recipes", "bundle"} <= ABOVE


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_what_lies_below_it(room):
    wrong = {by_name(file): rooms_of(file.read_text()) - ALLOWED[room] - FLOOR for file in files_of(room)}
    assert {name: rooms for name, rooms in wrong.items() if rooms} == {}


@pytest.mark.parametrize("room", BESIDE)
def test_a_room_beside_imports_nothing_from_above(room):
    wrong = {by_name(file): rooms_of(file.read_text()) & ABOVE for file in files_of(room)}
    assert {name: rooms for name, rooms in wrong.items() if rooms} == {}


def test_engines_import_nothing_from_above_and_of_methods_only_the_base():
    for file in files_of("engines"):
        assert not rooms_of(file.read_text()) & (ABOVE - {"methods", "engines"}), by_name(file)
        methods = {name for name in imports_of(file.read_text()) if name.startswith("semi_med.methods")}
        assert all(name.startswith("semi_med.methods.base.") for name in methods), by_name(file)


def test_no_method_is_named_in_the_engines():
    import semi_med.methods

    names = {name for name in semi_med.methods.__all__ if name not in ("AdversarialMethod", "Batch", "Method")}
    assert "CoTraining" in names
    for file in files_of("engines"):
        words = set(re.findall(r"\w+", file.read_text()))
        assert not names & words, by_name(file)


@pytest.mark.parametrize("top", ["compare", "demo"])
def test_what_uses_everything_is_used_by_the_command_line_only(top):
    users = {by_name(file) for file in FILES if top in rooms_of(file.read_text()) and file not in files_of(top)}
    assert users == {"cli.py"}


@pytest.mark.parametrize("name", sorted(FLOOR))
def test_what_everything_stands_on_imports_no_room(name):
    wrong = {by_name(file): rooms_of(file.read_text()) - FLOOR - {""} for file in files_of(name)}
    assert wrong
    assert not any(wrong.values())


@pytest.mark.parametrize("room", ["ops", "losses"])
def test_ops_and_losses_import_libraries_of_arrays_and_the_standard_library_only(room):
    for file in files_of(room):
        foreign = {name.split(".")[0] for name in imports_of(file.read_text())} - set(sys.stdlib_module_names)
        assert foreign <= {"torch", "numpy", "scipy", "semi_med"}, by_name(file)


def test_a_method_knows_no_file_device_logger_or_engine():
    for file in files_of("methods"):
        roots = {name.split(".")[0] for name in imports_of(file.read_text())}
        assert not roots & {"monai", "ignite", "pathlib", "os", "logging", "io"}, by_name(file)
        assert "torch.device" not in file.read_text(), by_name(file)
        assert ".backward(" not in file.read_text(), by_name(file)


@pytest.mark.parametrize("file", FILES, ids=by_name)
def test_imports_are_absolute_and_utils_is_no_name(file):
    assert not any(name.startswith(".") for name in imports_of(file.read_text()))
    assert file.stem not in ("utils", "helpers", "misc")


@pytest.mark.parametrize("file", FILES, ids=by_name)
def test_only_the_command_line_and_the_progress_print(file):
    if by_name(file) not in MAY_PRINT:
        assert "print" not in [name for name, _ in calls_of(file.read_text())]


@pytest.mark.parametrize("file", FILES, ids=by_name)
def test_nothing_runs_foreign_code_or_unpickles(file):
    assert dangers_of(file.read_text()) == []


def test_no_bundle_recipe_unpickles():
    configs = [*PACKAGE.glob("recipes/**/*.json"), *PACKAGE.parent.glob("bundles/*/configs/*.json")]
    assert configs
    for config in configs:
        text = config.read_text()
        assert not re.search(r"pickle|os\.system|subprocess|shell=", text), config
        assert "torch.load" not in text or "weights_only=True" in text, config


# The rules themselves can fail:


@pytest.mark.parametrize(
    "source",
    [
        "eval('1')",
        "exec(text)",
        "import pickle\npickle.load(f)",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "subprocess.run(line, shell=True)",
        "numpy.load(f, allow_pickle=True)",
        "yaml.load(text)",
    ],
)
def test_dangers_are_seen(source):
    assert dangers_of(source)


@pytest.mark.parametrize(
    "source", ["network.eval()", "torch.load(f, weights_only=True)", "json.load(f)", "np.load(f, mmap_mode='r')"]
)
def test_harmless_calls_are_no_dangers(source):
    assert dangers_of(source) == []


def test_imports_are_seen_wherever_they_are():
    source = (
        "def f():\n  from semi_med.methods import Method\nimport semi_med.engines.trainer\nfrom semi_med import ops"
    )
    assert rooms_of(source) == {"methods", "engines", "ops"}
    assert "..x.y" in imports_of("from ..x import y")
