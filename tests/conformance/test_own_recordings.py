"""What our own recordings hold: every code that real peers can be brought to give, every change of a channel."""

import asyncio
import base64
import json
import re
from collections import Counter
from functools import cache
from hashlib import sha256
from pathlib import Path

import pytest
import zstandard
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from fabric_protos.common import common_pb2
from fabric_protos.msp import msp_config_pb2

from network.embedded.ledger.block_file import BlockFiles
from network.embedded.ledger.peer_channel import PeerChannel
from network.protocol.block import header_hash
from network.protocol.configuration import ChannelConfiguration, decode_config_envelope
from network.protocol.decode import decode_block
from network.protocol.validation_code import REASONS
from tests.conformance.test_judged_chains import judged
from tests.conformance.test_recorded_reconciliation import NOT_AVAILABLE, answers, replayed
from tests.support.recorded_chain import ALL_CHAINS, OWN_CHAINS, VECTORS, load_chain
from tests.support.recorded_commit import ordered, pull_from
from tests.support.recorded_private_data import ORGANIZATIONS

LIMIT_BYTES = 4 * 1024 * 1024
"""What our recordings may weigh together."""
LARGEST = 500
SEC1 = PrivateFormat.TraditionalOpenSSL
STORE = "stopped-peer.blockfile_000000.zst"
KEY_FORMS = (
    b"PRIVATE KEY",
    bytes.fromhex("301306072a8648ce3d020106082a8648ce3d030107046d306b0201010420"),
    bytes.fromhex("30770201010420"),
    base64.b64encode(bytes.fromhex("308187020100301306072a8648ce3d020106082a8648ce3d0301"))[:28],
)
"""PEM; PKCS #8 and SEC 1 of the curve that credentials are made of, and how the former begins in base64."""


def contents(chain: str) -> dict[str, bytes]:
    return {
        path.name: zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read()
        if path.suffix == ".zst"
        else path.read_bytes()
        for path in (VECTORS / chain).iterdir()
    }


@cache
def configurations(chain: str) -> tuple[ChannelConfiguration, ...]:
    return tuple(
        decode_config_envelope(transaction.config)
        for block in map(decode_block, load_chain(chain).blocks)
        for transaction in block.transactions
        if transaction.config is not None
    )


def table() -> dict[str, tuple[list[str], str]]:
    """Read the table of codes in the README of the vectors: in which chains, or why nowhere."""
    rows = re.findall(r"^\| `([A-Z_]+)` \|([^|]*)\|([^|]*)\|$", (VECTORS / "README.md").read_text(), re.MULTILINE)
    return {code: (re.findall(r"[a-z]+", chains), why.strip()) for code, chains, why in rows}


def test_the_table_of_codes_says_what_is_recorded_and_why_the_rest_is_not() -> None:
    found = table()
    names = dict(zip(("raft", "bft", "lts"), OWN_CHAINS, strict=True))

    assert set(found) == set(REASONS)
    for code, (chains, why) in found.items():
        assert chains == [short for short, name in names.items() if code in load_chain(name).expected["codes"]], code
        assert bool(why) is not bool(chains), code


def test_a_private_key_would_be_seen_in_every_form() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    der = [key.private_bytes(Encoding.DER, form, NoEncryption()) for form in (PrivateFormat.PKCS8, SEC1)]
    pem = [key.private_bytes(Encoding.PEM, form, NoEncryption()) for form in (PrivateFormat.PKCS8, SEC1)]

    for content in (*der, *pem, base64.b64encode(der[0])):
        assert [form for form in KEY_FORMS if form in b"before" + content + b"behind"]


@pytest.mark.parametrize("chain", ALL_CHAINS)
def test_no_private_key_is_in_a_recording(chain: str) -> None:
    for name, content in contents(chain).items():
        assert not [form for form in KEY_FORMS if form in content], name


def test_all_recordings_together_are_small() -> None:
    assert sum(path.stat().st_size for chain in OWN_CHAINS for path in (VECTORS / chain).iterdir()) < LIMIT_BYTES


@pytest.mark.parametrize("chain", OWN_CHAINS)
def test_one_block_is_as_large_as_orderers_make_them_and_of_mixed_outcome(chain: str) -> None:
    blocks = [decode_block(content) for content in load_chain(chain).blocks]
    (largest,) = [block for block in blocks if len(block.envelopes) == LARGEST]

    assert configurations(chain)[0].consensus_type in {"etcdraft", "BFT"}
    assert len(Counter(largest.flags)) == 3  # valid, read conflict, phantom
    assert min(Counter(largest.flags).values()) >= 10


@pytest.mark.parametrize("chain", OWN_CHAINS)
def test_a_malformed_transaction_is_alone_in_its_block(chain: str) -> None:
    together = {"VALID", "MVCC_READ_CONFLICT", "PHANTOM_READ_CONFLICT", "ENDORSEMENT_POLICY_FAILURE", "DUPLICATE_TXID"}
    transactions = load_chain(chain).expected["transactions"]
    sizes = Counter(entry["block"] for entry in transactions)

    malformed = [entry for entry in transactions if entry["code"] not in together]

    assert len(malformed) > 20
    assert {sizes[entry["block"]] for entry in malformed} == {1}


@pytest.mark.parametrize("chain", OWN_CHAINS)
def test_the_channel_was_changed_in_every_way(chain: str) -> None:
    first, *_, last = configurations(chain)
    customer = last.application_organizations["CustomerMSP"].msp.content
    anchors = [
        it.root.groups["Application"].groups["EnterpriseMSP"].values["AnchorPeers"].value for it in (first, last)
    ]

    assert last.sequence >= 8
    assert set(last.application_organizations) - set(first.application_organizations) == {"GuestMSP"}
    assert len(msp_config_pb2.FabricMSPConfig.FromString(customer).revocation_list) == 1
    assert first.consensus_metadata != last.consensus_metadata or first.consenters != last.consenters
    assert anchors[0] != anchors[1]
    assert "ACLs" not in first.root.groups["Application"].values
    assert "ACLs" in last.root.groups["Application"].values
    assert "Noted" in last.root.groups["Application"].policies


@pytest.mark.parametrize("chain", OWN_CHAINS)
def test_answers_of_the_peers_are_those_of_the_blocks(chain: str) -> None:
    answers = json.loads(contents(chain)["answers.json"])
    blocks = load_chain(chain).blocks
    tip = header_hash(decode_block(blocks[-1]).header).hex()

    assert (answers["height"], answers["header_hash"]) == (len(blocks), tip)
    assert [(peer["height"], peer["header_hash"]) for peer in answers["peers"]] == [(len(blocks), tip)] * 3
    assert answers["configuration"] == configurations(chain)[-1].sequence
    assert chain.startswith(f"kvr-{answers['fabric']}-")
    definitions = {it["name"]: (it["version"], it["sequence"]) for it in answers["chaincodes"]}
    assert definitions == {"script": ("2.0", 2), "called": ("1.0", 1)}


@pytest.mark.parametrize("chain", OWN_CHAINS)
def test_state_of_a_chaincode_that_was_called_by_another_is_what_the_peer_answered(chain: str) -> None:
    answers = load_chain(chain).expected["state_of_called_base64"]
    state = judged(chain).state

    assert answers
    for key, answer in answers.items():
        found = state.value(("called", "", base64.b64decode(key)))
        assert (None if found is None else base64.b64encode(found.value).decode()) == answer


# --- what a peer had stored when it was stopped


def store(chain: str, folder: Path) -> Path:
    """Put the block file where a peer of the embedded network has its own."""
    files = folder / "chains" / "consortium"
    files.mkdir(parents=True)
    (files / "blockfile_000000").write_bytes(contents(chain)[STORE])
    return files


@pytest.mark.parametrize("chain", OWN_CHAINS)
def test_the_store_of_a_stopped_peer_is_the_chain_so_far(chain: str, tmp_path: Path) -> None:
    files = BlockFiles(store(chain, tmp_path))

    blocks = [files.content(number) for number in range(files.height)]

    files.close()
    assert 20 < len(blocks) < len(load_chain(chain).blocks)
    assert [common_pb2.Block.FromString(it).data for it in blocks] == [
        common_pb2.Block.FromString(it).data for it in load_chain(chain).blocks[: len(blocks)]
    ]
    for ours, theirs in zip(blocks, load_chain(chain).blocks, strict=False):
        assert decode_block(ours).header == decode_block(theirs).header
        assert (decode_block(ours).flags, decode_block(ours).commit_hash) == (
            decode_block(theirs).flags,
            decode_block(theirs).commit_hash,
        )


@pytest.mark.parametrize("chain", OWN_CHAINS)
def test_a_peer_goes_on_from_the_store_of_a_stopped_one(chain: str, tmp_path: Path) -> None:
    store(chain, tmp_path)
    channel = PeerChannel("consortium", "PartnerMSP", tmp_path)
    blocks = load_chain(chain).blocks

    async def commit() -> None:
        for content in blocks[channel.height :]:
            await channel.commit(ordered(content), pull_from(chain, ORGANIZATIONS[2]))

    channel.catch_up(pull_from(chain, ORGANIZATIONS[2]))
    stopped = channel.height
    asyncio.run(commit())

    last = decode_block(channel.files.content(len(blocks) - 1))
    channel.close()
    assert 20 < stopped < len(blocks)
    assert last.commit_hash == decode_block(blocks[-1]).commit_hash
    assert sha256(last.flags).digest() == sha256(decode_block(blocks[-1]).flags).digest()


# --- private data


@pytest.mark.parametrize("organization", ORGANIZATIONS)
@pytest.mark.parametrize("chain", OWN_CHAINS)
def test_a_peer_holds_the_private_values_that_the_real_one_answered(chain: str, organization: str) -> None:
    """Partner became a member of `pair` late, and a peer hands its member nothing from before: it has that of others.

    Whether it had looked for it yet when it was asked is a matter of time.
    """
    peer = replayed(chain, organization, "Customer" if organization == "Partner" else organization)
    values = 0

    for place, answer in answers(chain, organization).items():
        if answer is None:
            assert peer.keys_after[place][::2] == (None, None), place
        elif NOT_AVAILABLE in answer:
            assert peer.keys[place].version != peer.keys[place].hash_version, place
        elif not answer.startswith("ERROR"):
            value, version, hash_version = peer.keys_after[place]
            assert (value, version) == (base64.b64decode(answer), hash_version), place
            values += 1

    assert values > 1
