"""What a signal does to a command that ends what it started, at a moment that broke the end of its event loop off."""

import signal
import subprocess
import sys
import textwrap

import pytest

PROGRAM = """
import asyncio, os, signal, time
from network.running.interruption import interruptible

signal.signal(signal.SIGINT, {given})  # whatever this program inherits

done = []

def work():
    time.sleep(0.5)
    done.append(True)

async def interrupted():
    await asyncio.sleep(0.05)
    os.kill(os.getpid(), {number})  # Python runs the handler before the next line of this task
    await asyncio.sleep(20)

async def grouped():
    async with asyncio.TaskGroup() as group:
        group.create_task(interrupted())
        group.create_task(asyncio.sleep(20))

async def main():
    thread = asyncio.create_task(asyncio.to_thread(work))
    await asyncio.wait([asyncio.create_task(grouped()), thread], return_when=asyncio.ALL_COMPLETED)

try:
    with interruptible():
        asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted", done)
"""


@pytest.mark.parametrize(
    ("number", "given"),
    [
        (signal.SIGINT, "signal.default_int_handler"),
        (signal.SIGTERM, "signal.default_int_handler"),
        (signal.SIGTERM, "signal.SIG_IGN"),
    ],
)
def test_an_event_loop_ends_in_order_and_waits_for_its_threads(number: signal.Signals, given: str) -> None:
    code = textwrap.dedent(PROGRAM).format(number=int(number), given=given)

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)

    assert (done.stdout, done.stderr) == ("interrupted [True]\n", "")


def test_one_that_a_shell_started_with_ctrl_c_ignored_is_ended_by_sigterm() -> None:
    code = (
        "import os, signal\n"
        "from network.running.interruption import interruptible\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "with interruptible():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print('goes on', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('not reached', flush=True)\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)

    assert done.stdout == "goes on\n"
    assert "KeyboardInterrupt" in done.stderr
