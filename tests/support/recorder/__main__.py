"""Records the chains of `tests/vectors` that are ours: `python -m tests.support.recorder FOLDER [NAME ...]`.

Each chain is recorded into a new folder of its name in FOLDER. It takes real nodes of Fabric 3.1 and 2.5.
"""

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

import zstandard

from network.creation import read_network
from network.native.binary import find_binaries
from network.operation import destroy
from network.recording import LEVEL
from network.running.root import NetworkRoot
from tests.support.command import kvr
from tests.support.recorder.channel_changes import Operator, change_channel, stop_a_peer
from tests.support.recorder.expected import write_expected
from tests.support.recorder.session import Session
from tests.support.recorder.topology import RecordedName, topology
from tests.support.recorder.workload import public_data, run_workload

CONTRACTS: Final = Path(__file__).parents[2] / "conformance" / "judges" / "python_shim"
UP_SECONDS: Final = 180.0


def record(name: RecordedName, out: Path) -> None:
    """Make a network, take every step on it, and record its channel; nothing of the network stays."""
    with tempfile.TemporaryDirectory(prefix="kvr-record-") as temporary:
        folder = Path(temporary)
        file = folder / "topology.yaml"
        file.write_text(topology(name), encoding="utf-8")
        root = NetworkRoot(folder / "network")
        settings = {"PYTHONPATH": str(CONTRACTS), "KVR_FABRIC_BIN": str(find_binaries(name.release).peer.parent)}
        up = ("network", "up", "--root", str(root.path), "--topology", str(file), "--native")
        try:
            kvr(*up, seconds=UP_SECONDS, **settings).check_returncode()
            asyncio.run(_story(root, folder, settings, out))
        except BaseException:
            shutil.copytree(root.processes, out.parent / f"{out.name}-logs", dirs_exist_ok=True)
            raise
        finally:
            if root.state_file.exists():
                destroy(root)


async def _story(root: NetworkRoot, folder: Path, settings: dict[str, str], out: Path) -> None:
    work = folder / "work"
    work.mkdir()
    store = folder / "blockfile_000000"
    async with Session(read_network(root)) as session:
        operator = Operator(session, work, settings)
        await public_data(session)
        await stop_a_peer(operator, store)
        await run_workload(session)
        await change_channel(operator)
        sys.stdout.write(await operator.command("record", str(out), "--root", str(root.path)))
        await write_expected(session, out)
    compressed = zstandard.ZstdCompressor(level=LEVEL).compress(store.read_bytes())
    (out / "stopped-peer.blockfile_000000.zst").write_bytes(compressed)


if __name__ == "__main__":
    for chosen in sys.argv[2:] or list(RecordedName):
        record(RecordedName(chosen), Path(sys.argv[1]) / chosen)
