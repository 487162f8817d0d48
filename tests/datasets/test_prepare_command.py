"""`semi-med prepare`: the command of each data set."""

import sys
from unittest import mock

import pytest

from semi_med.cli import main
from tests.datasets.test_brats2019 import case
from tests.datasets.test_msd import task


def run(*arguments):
    """The command's exit code."""
    with mock.patch.object(sys, "argv", ["semi-med", "prepare", *map(str, arguments)]):
        try:
            main()
        except SystemExit as error:
            return error.code or 0
    return 0


@pytest.mark.parametrize("name", ["la", "pancreas_ct", "brats2019", "acdc", "msd", "phantom"])
def test_every_data_set_has_a_command_that_explains_itself(name, capsys):
    assert run(name, "--help") == 0
    assert "target" in capsys.readouterr().out


def test_a_task_of_the_decathlon_is_prepared(tmp_path, capsys):
    assert run("msd", task(tmp_path), tmp_path / "target", "--workers", 1) == 0
    shown = capsys.readouterr()
    assert "3 cases (3 written, 0 were there)" in shown.out
    assert "preparing 3/3" in shown.err


def test_a_variant_is_chosen_on_the_command_line(tmp_path):
    case(tmp_path / "source")
    assert run("brats2019", tmp_path / "source", tmp_path / "target", "--variant", "regions") == 0
    assert len(list((tmp_path / "target/images").iterdir())) == 4


def test_the_protocol_of_the_pancreas_is_never_guessed(tmp_path, capsys):
    assert run("pancreas_ct", tmp_path, tmp_path / "target") == 2
    assert "--protocol" in capsys.readouterr().err


def test_a_wrong_folder_is_one_line_and_exit_code_2(tmp_path, capsys):
    assert run("acdc", tmp_path, tmp_path / "target") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert not (tmp_path / "target").exists()
