"""Recording a running network: everything that its peers give, and nothing that a recording must not hold."""

import json
from pathlib import Path

import zstandard
from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.peer import events_pb2

from gateway.client.blocks import BlockStream
from kvr_sync.changes import extract_changes
from kvr_sync.decode import decode_block
from kvr_sync.private_data import match_private_data
from kvr_sync.source.block_file import open_block_file
from kvr_sync.verify import ChainVerifier
from network.native.binary import program_version
from tests.support.command import kvr
from tests.support.live_network import (
    BILLING,
    CHANNEL,
    CUSTOMER,
    FIELD,
    PROBE,
    SERVICE,
    LiveNetwork,
    NetworkName,
    on,
    programs,
)

SECRET = b"a private value"


def write_private(network: LiveNetwork) -> int:
    """Commit a private value of Service and Billing; gives the number of its block, which all peers have then."""

    async def story() -> int:
        async with network.contract(SERVICE, chaincode=PROBE) as probe:
            committed = await probe.submit_transaction(
                *("note_private", network.fresh("r")),
                transient={"secret": SECRET},
                endorsing_organizations=[SERVICE, BILLING],
            )
        await network.wait_for_block(committed.status.block_number)
        return int(committed.status.block_number)

    return network.run(story)


def record(folder: Path, *options: str) -> str:
    done = kvr("network", "record", str(folder), *options, seconds=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


def private_sets(path: Path) -> dict[int, dict[int, bytes]]:
    return {
        message.block.header.number: {tx: it.SerializeToString() for tx, it in message.private_data_map.items()}
        for raw in open_block_file(path).records()
        for message in [events_pb2.BlockAndPrivateData.FromString(raw.content)]
    }


@on(*NetworkName)
def test_a_network_of_ours_is_recorded_with_all_its_members(network: LiveNetwork, tmp_path: Path) -> None:
    number = write_private(network)

    printed = record(tmp_path / "out", "--root", str(network.root.path))

    folder = tmp_path / "out"
    answers = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
    verifier = ChainVerifier(channel=CHANNEL, pin=None)
    blocks = [raw.content for raw in open_block_file(folder / "blocks.zst").blocks(0)]
    changes = [extract_changes(verifier.verify(decode_block(content), content)) for content in blocks]
    assert len(blocks) == answers["height"] > number
    assert f"height {len(blocks)}, last header hash {answers['header_hash']}" in printed
    assert {peer["msp_id"] for peer in answers["peers"]} == {SERVICE, BILLING, FIELD, CUSTOMER}
    assert {"service", PROBE} <= {chaincode["name"] for chaincode in answers["chaincodes"]}
    assert answers["topology"] == network.root.topology_file.read_text(encoding="utf-8")
    binaries = programs(network.name)
    version = None if binaries is None else ".".join(map(str, program_version(binaries.peer)))
    assert (answers["network"], answers.get("fabric")) == (network.name.kind.value, version)
    for msp_id, is_member in ((SERVICE, True), (BILLING, True), (FIELD, False), (CUSTOMER, False)):
        sets = private_sets(folder / f"private-{msp_id}.zst")
        assert len(sets) == answers["blocks_with_private_data"][msp_id]
        found = match_private_data(changes[number], sets.get(number, {})).values
        assert [value.value for value in found] == ([SECRET] if is_member else [])

    async def delivered() -> bytes:
        async with network.channel(SERVICE) as channel:
            async for block in BlockStream(network.identity(SERVICE, "admin"), channel, CHANNEL).blocks(
                number, stop=number, idle_seconds=30.0
            ):
                return block.content
        raise AssertionError

    assert blocks[number] == network.run(delivered)


def test_an_organisation_records_what_its_own_peers_have(network: LiveNetwork, tmp_path: Path) -> None:
    number = write_private(network)
    identity = network.created.credentials.user_msp(BILLING, "admin")
    who = ("--profile", str(network.root.profile(BILLING)), "--msp-id", BILLING, "--identity", str(identity))

    record(tmp_path / "out", *who, "--channel", CHANNEL)

    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"answers.json", "blocks.zst", f"private-{BILLING}.zst"}
    (content,) = private_sets(tmp_path / "out" / f"private-{BILLING}.zst")[number].values()
    assert SECRET in rwset_pb2.TxPvtReadWriteSet.FromString(content).SerializeToString()
    assert "topology" not in json.loads((tmp_path / "out" / "answers.json").read_text())


def test_no_key_of_the_network_is_in_a_recording(network: LiveNetwork, tmp_path: Path) -> None:
    record(tmp_path / "out", "--root", str(network.root.path))

    contents = [
        zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read()
        if path.suffix == ".zst"
        else path.read_bytes()
        for path in (tmp_path / "out").iterdir()
    ]
    keys = [path.read_bytes() for path in network.root.credentials.rglob("*key*") if path.is_file()]
    assert len(keys) > 10
    for content in contents:
        assert b"PRIVATE KEY" not in content
        assert not [key for key in keys if key in content]
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "out").glob("*.zst")} == {0}


def test_what_cannot_be_recorded_is_said(network: LiveNetwork, tmp_path: Path) -> None:
    root = ("--root", str(network.root.path))
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "kept").touch()

    used = kvr("network", "record", str(tmp_path / "used"), *root)
    nowhere = kvr("network", "record", str(tmp_path / "out"), *root, "--channel", "elsewhere")
    halfway = kvr("network", "record", str(tmp_path / "out"), "--msp-id", SERVICE)

    assert (used.returncode, used.stderr.partition(":")[0]) == (1, "error[recording]")
    assert nowhere.stderr.startswith("error[recording]: ")
    assert "no channel elsewhere" in nowhere.stderr
    assert halfway.returncode == 2
    assert [path.name for path in tmp_path.iterdir()] == ["used"]
