"""Where Fabric's programs are looked for: the variable, registered folders, PATH and the user's data folder."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from network.commands import network as commands
from network.errors import BinaryError
from network.native.binary import FOLDER_VARIABLE, PROGRAMS, find_binaries, program_folders, register_folder


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the data folder of a user who has nothing yet."""
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return tmp_path / "data" / "kvr" / "fabric"


def programs(folder: Path, peer: str = "3.1.5", orderer: str | None = None) -> Path:
    """Make a folder of programs that only tell their version."""
    folder.mkdir(parents=True)
    for name, version in zip(PROGRAMS, (peer, orderer or peer), strict=True):
        (folder / name).write_text(f"#!/bin/sh\necho '{name}:'\necho ' Version: v{version}'\n")
        (folder / name).chmod(0o755)
    return folder


def give(*arguments: str) -> Result:
    return CliRunner().invoke(commands, ["binaries", *arguments])


def test_a_registered_folder_is_used_from_then_on(tmp_path: Path) -> None:
    folder = programs(tmp_path / "mine")
    with pytest.raises(BinaryError, match="not on PATH"):
        find_binaries()

    assert register_folder(folder).version == (3, 1, 5)

    assert find_binaries().peer == folder / "peer"


def test_the_last_registered_folder_comes_first_and_before_those_that_are_found(tmp_path: Path, data: Path) -> None:
    found = programs(data / "3.1.9" / "bin")
    first, second = programs(tmp_path / "first", "2.5.16"), programs(tmp_path / "second")
    register_folder(first)
    register_folder(second)

    assert [it.path for it in program_folders()] == [second, first, found]
    assert find_binaries().peer.parent == second
    assert find_binaries((2, 5)).peer.parent == first
    register_folder(first)
    assert [it.path for it in program_folders()] == [first, second, found]


def test_the_variable_comes_before_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register_folder(programs(tmp_path / "registered"))
    monkeypatch.setenv(FOLDER_VARIABLE, str(programs(tmp_path / "named", "2.5.16")))

    assert find_binaries().version == (2, 5, 16)
    with pytest.raises(BinaryError, match=r"of 3\.1.*named holds version 2\.5\.16"):
        find_binaries((3, 1))


def test_a_relative_folder_is_remembered_by_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = programs(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)

    register_folder(Path("mine"))

    monkeypatch.chdir("/")
    assert find_binaries().peer == folder / "peer"


def test_a_folder_that_is_of_no_use_is_not_registered(tmp_path: Path, data: Path) -> None:
    silent = programs(tmp_path / "silent")
    (silent / "peer").write_text("#!/bin/sh\necho hello\n")
    for folder, words in {
        tmp_path / "nothing": "holds no program peer",
        programs(tmp_path / "old", "1.4.12"): r"of version 1\.4\.12; supported are 2\.5, 3\.1",
        programs(tmp_path / "mixed", "3.1.5", "2.5.16"): r"3\.1\.5 and .* of version 2\.5\.16",
        silent: "does not tell its version",
    }.items():
        with pytest.raises(BinaryError, match=words):
            register_folder(folder)
    assert not data.exists()


def test_a_folder_that_went_bad_is_passed_over_and_its_reason_shown(tmp_path: Path) -> None:
    good, gone = programs(tmp_path / "good"), programs(tmp_path / "gone")
    register_folder(good)
    register_folder(gone)
    (gone / "orderer").unlink()

    assert find_binaries().peer.parent == good
    output = give("list").output
    assert f"{gone}: {gone} holds no program orderer that can be run\n" in output
    assert f"{good}: Fabric 3.1.5 used\n" in output


@pytest.mark.parametrize("content", ["", "{", "{}", "[1]", '"text"'])
def test_a_damaged_register_is_refused_by_name(data: Path, content: str) -> None:
    data.mkdir(parents=True)
    (data / "folders.json").write_text(content)

    with pytest.raises(BinaryError, match=r"folders\.json .*register folders again"):
        find_binaries()


def test_the_commands_register_list_and_refuse(tmp_path: Path) -> None:
    assert "no folder is known" in give("list").output

    added = give("add", str(programs(tmp_path / "mine")))

    assert added.output == f"registered {tmp_path / 'mine'}: Fabric 3.1.5\n"
    assert json.loads(give("list", "--json").output) == [
        {"folder": str(tmp_path / "mine"), "version": "3.1.5", "problem": ""}
    ]
    refused = give("add", str(tmp_path))
    assert refused.exit_code == 1
    assert "error[binary]" in refused.output
