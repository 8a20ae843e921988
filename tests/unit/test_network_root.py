"""The folder of a network: what it remembers, who may work on it, what it refuses."""

import json
import socket
import stat
from pathlib import Path

import pytest

from network.errors import PortTakenError, RootError, RootInUseError
from network.running.atomic_file import write_file
from network.running.ports import FREE_PORTS, LOOPBACK, check_free, choose_ports
from network.running.root import NetworkKind, NetworkRoot


def test_a_new_network_is_remembered(tmp_path: Path) -> None:
    root = NetworkRoot(tmp_path / "network")
    with root.claim():
        made = root.create_state(NetworkKind.EMBEDDED, {"peer0/service": 7051})

    assert NetworkRoot(tmp_path / "network").state() == made
    assert made.ports == {"peer0/service": 7051}
    assert len(made.network_id) == 16


def test_no_network_is_no_error(tmp_path: Path) -> None:
    assert NetworkRoot(tmp_path / "nothing").state() is None


def test_a_folder_with_other_things_in_it_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("mine")
    root = NetworkRoot(tmp_path)

    with root.claim(), pytest.raises(RootError, match=r"letters\.txt"):
        root.create_state(NetworkKind.EMBEDDED, {})

    assert not root.state_file.exists()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        '{"format": 1}',
        '{"format": 1, "network_id": "a", "kind": "other", "ports": {}}',
        '{"format": 1, "network_id": "a", "kind": "native", "ports": {"x": "y"}}',
        '{"format": 1, "network_id": "a", "kind": "native", "ports": []}',
        '{"format": 2, "network_id": "a", "kind": "native", "ports": {}}',
    ],
)
def test_a_damaged_state_is_refused(tmp_path: Path, content: str) -> None:
    root = NetworkRoot(tmp_path)
    root.state_file.write_text(content)

    with pytest.raises(RootError, match=r"network\.json"):
        root.state()


def test_one_command_at_a_time(tmp_path: Path) -> None:
    with (
        NetworkRoot(tmp_path).claim(),
        pytest.raises(RootInUseError, match="another command"),
        NetworkRoot(tmp_path).claim(),
    ):
        pass

    with NetworkRoot(tmp_path).claim():
        pass  # free again


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_file(path, b"old", mode=0o600)

    with pytest.raises(TypeError):
        write_file(path, "no bytes")  # type: ignore[arg-type]  # the fault: writing fails half-way

    assert path.read_bytes() == b"old"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_chosen_ports_are_free_different_and_below_those_of_outgoing_connections() -> None:
    ports = choose_ports({f"use{number}": 0 for number in range(40)})

    assert len(set(ports.values())) == 40
    assert all(port in FREE_PORTS for port in ports.values())
    check_free(ports)


def test_a_taken_port_is_named_with_its_use() -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(PortTakenError, match=f"port {port} of orderer1/service"):
            check_free({"orderer1/service": port})
        with pytest.raises(PortTakenError, match=f"port {port} of orderer1/service"):
            choose_ports({"peer/service": 0, "orderer1/service": port})


def test_the_state_holds_what_a_reader_expects(tmp_path: Path) -> None:
    root = NetworkRoot(tmp_path)
    with root.claim():
        root.create_state(NetworkKind.NATIVE, {"a/b": 1})

    assert {"format": 1, "kind": "native", "ports": {"a/b": 1}}.items() <= json.loads(
        root.state_file.read_text()
    ).items()
