"""`kvr network up`, `status`, `down`, `destroy`: again and again, interrupted, in the way of others; nothing is left.

Each test has a network of its own, as small as one can be, embedded and of real nodes.
"""

import random
import signal
import socket
import subprocess

import pytest

from tests.support.command import COMMAND, environment, kvr
from tests.support.evidence import wait_until
from tests.support.live_network import START_SECONDS
from tests.support.small_network import TOPOLOGY, SmallNetwork


def test_up_twice_is_once_and_down_and_up_keep_everything(small: SmallNetwork) -> None:
    first = small.up()
    assert first.returncode == 0, first.stderr
    assert small.processes().keys() == small.process_names
    before = {name: process.pid for name, process in small.processes().items()}
    height = small.height()

    again = small.up()
    assert again.returncode == 0, again.stderr
    assert {name: process.pid for name, process in small.processes().items()} == before
    higher = small.height()
    assert higher > height  # its readiness is a transaction

    assert small.kvr("down").returncode == 0
    assert small.processes() == {}
    assert small.kvr("status").returncode == 3
    assert small.kvr("down").returncode == 0

    small.topology.unlink()  # a peer knows its chaincodes from its own state
    third = kvr(*[*small.up_arguments[:4], *small.up_arguments[6:]], seconds=START_SECONDS, **small.variables)
    assert third.returncode == 0, third.stderr
    assert small.height() > higher
    assert small.status()["up"] is True


def test_destroy_leaves_nothing_and_asks_first(small: SmallNetwork) -> None:
    assert small.up().returncode == 0

    asked = subprocess.run(
        [*COMMAND, "network", "destroy", "--root", str(small.root.path)],
        input="n\n",
        env=environment(),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert asked.returncode == 1
    assert small.processes().keys() == small.process_names

    assert small.kvr("destroy", "--yes").returncode == 0
    assert small.processes() == {}
    assert [path.name for path in small.root.path.iterdir() if path.name != ".lock"] == []


def test_a_taken_port_is_named_and_nothing_is_started(small: SmallNetwork) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = TOPOLOGY.replace("{name: peer0.one}", f"{{name: peer0.one, port: {port}}}")
        small.topology.write_text(text, encoding="utf-8")

        done = small.up()

    assert done.returncode == 1
    assert f"port {port} of peer0.one/service" in done.stderr
    assert small.processes() == {}


def test_a_port_taken_while_it_was_down_is_named(small: SmallNetwork) -> None:
    assert small.up().returncode == 0
    state = small.root.state()
    assert state is not None
    port = state.ports["peer0.one/service"]
    assert small.kvr("down").returncode == 0

    with socket.create_server(("127.0.0.1", port)):
        done = small.up()
        assert done.returncode == 1
        assert f"port {port} of peer0.one/service" in done.stderr
        assert small.processes() == {}

    assert small.up().returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminated"])
def test_interrupted_at_any_moment_nothing_is_left_and_the_next_up_works(
    small: SmallNetwork, number: signal.Signals
) -> None:
    chance = random.Random(number)  # noqa: S311  # moments, no secret
    for _ in range(4):
        process = subprocess.Popen(
            [*COMMAND, *small.up_arguments],
            env=environment(**small.variables),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        interrupted_at = chance.uniform(0.3, 3.0)
        try:
            process.wait(timeout=interrupted_at)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
        process.communicate(timeout=50)
        if process.returncode == 0:
            assert small.kvr("down").returncode == 0
        assert small.processes() == {}, f"interrupted after {interrupted_at:.2f} s"

    done = small.up()
    assert done.returncode == 0, done.stderr


def test_an_up_that_was_killed_leaves_what_the_next_command_finds(small: SmallNetwork) -> None:
    process = subprocess.Popen(
        [*COMMAND, *small.up_arguments],
        env=environment(**small.variables),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(small.processes, "the first process of the network", seconds=40)
    process.kill()
    process.wait()
    assert small.processes() != {}

    done = small.up()

    assert done.returncode == 0, done.stderr
    assert small.processes().keys() == small.process_names


def test_a_start_that_fails_says_why_and_leaves_nothing(small: SmallNetwork) -> None:
    small.topology.write_text(TOPOLOGY.replace("chaincode.service:contract", "no_such_module:contract"))

    done = small.up()

    assert done.returncode == 1
    assert "service.ServiceMSP" in done.stderr
    assert "no_such_module" in done.stderr
    assert small.processes() == {}


def test_a_second_command_at_the_same_time_is_refused(small: SmallNetwork) -> None:
    assert small.up().returncode == 0

    with small.root.claim():
        for verb in ("down", "destroy"):
            refused = small.kvr(verb, *(["--yes"] if verb == "destroy" else []))
            assert refused.returncode == 1
            assert "another command works on" in refused.stderr
        refused = small.up()
        assert "another command works on" in refused.stderr

    assert small.processes().keys() == small.process_names


def test_a_process_that_died_is_named_by_status_and_started_again(small: SmallNetwork) -> None:
    assert small.up().returncode == 0
    small.processes()["service.ServiceMSP"].kill()
    wait_until(lambda: "service.ServiceMSP" not in small.processes(), "the end of the chaincode process", seconds=20)

    status = small.kvr("status")
    assert status.returncode == 3
    assert "not up: service.ServiceMSP not running" in status.stdout

    assert small.up().returncode == 0
    assert small.kvr("status").returncode == 0


def test_status_says_what_kind_of_network_it_is(small: SmallNetwork) -> None:
    assert small.up().returncode == 0
    said = small.kvr("status").stdout

    assert ("one process holds every key" in said) is not small.is_native
    assert f"small, {'native' if small.is_native else 'embedded'}: up" in said


def test_the_other_kind_is_refused_in_the_same_root(small: SmallNetwork) -> None:
    assert small.up().returncode == 0
    flags = [] if small.is_native else ["--native"]
    arguments = ["network", "up", "--root", str(small.root.path), *flags]

    done = kvr(*arguments, **(small.variables or {"KVR_FABRIC_BIN": str(small.folder)}))

    assert done.returncode == 1
    assert small.processes().keys() == small.process_names


def test_logs_shows_what_processes_wrote(small: SmallNetwork) -> None:
    assert small.up().returncode == 0

    done = small.kvr("logs", "service.ServiceMSP", "-n", "5")
    assert done.returncode == 0
    assert "service.ServiceMSP" in done.stdout

    unknown = small.kvr("logs", "nobody")
    assert unknown.returncode == 2
    assert "no process 'nobody'" in unknown.stderr
