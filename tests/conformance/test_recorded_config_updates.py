"""The configuration updates of real chains, authorised and computed again."""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import pytest
from fabric_protos.common import common_pb2, configtx_pb2

from network.protocol.block_signature import ChannelTrust
from network.protocol.config_group import encode_group
from network.protocol.config_transition import BFT, check_bft, check_maintenance, check_orderable
from network.protocol.config_update import (
    authorize_update,
    compute_update,
    decode_update,
    next_configuration,
    read_update_envelope,
)
from network.protocol.configuration import decode_config_envelope
from network.protocol.errors import ConfigUpdateError
from tests.support.recorded_chain import OWN_CHAINS, load_chain

CHAINS_WITH_UPDATES = ("fabric-3.1.5-raft", "fabric-3.1.5-bft", *OWN_CHAINS)
CHANNEL = "consortium"


class RecordedUpdate(NamedTuple):
    before: ChannelTrust
    content: bytes

    @property
    def message(self) -> configtx_pb2.ConfigEnvelope:
        return configtx_pb2.ConfigEnvelope.FromString(self.content)


def configurations(chain: str) -> Iterator[bytes]:
    for content in load_chain(chain).blocks:
        block = common_pb2.Block.FromString(content)
        payload = common_pb2.Payload.FromString(common_pb2.Envelope.FromString(block.data.data[0]).payload)
        header = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
        if header.type == common_pb2.CONFIG:
            yield payload.data


def updates(chain: str) -> list[RecordedUpdate]:
    found = list(configurations(chain))
    return [
        RecordedUpdate(ChannelTrust(decode_config_envelope(before)), content) for before, content in pairwise(found)
    ]


def all_updates() -> list[RecordedUpdate]:
    return [update for chain in CHAINS_WITH_UPDATES for update in updates(chain)]


def test_the_chains_hold_updates_of_both_kinds_of_consensus() -> None:
    assert [len(updates(chain)) for chain in CHAINS_WITH_UPDATES] == [2, 1, 8, 8, 8]


@pytest.mark.parametrize("update", all_updates())
def test_every_update_makes_the_configuration_that_the_orderers_wrote(update: RecordedUpdate) -> None:
    proposed = authorize_update(read_update_envelope(update.message.last_update), CHANNEL, update.before)

    assert encode_group(proposed.root) == update.message.config.channel_group
    assert next_configuration(update.content, CHANNEL, update.before).root == proposed.root
    assert proposed.dropped == ()


@pytest.mark.parametrize("update", all_updates())
def test_every_update_is_computed_again_from_what_it_made(update: RecordedUpdate) -> None:
    before, after = update.before.configuration.root, decode_config_envelope(update.content).root
    recorded = decode_update(read_update_envelope(update.message.last_update).content)

    assert compute_update(CHANNEL, before, after) == recorded


@pytest.mark.parametrize("update", all_updates())
def test_orderers_would_take_every_one_of_them(update: RecordedUpdate) -> None:
    recorded = decode_update(read_update_envelope(update.message.last_update).content)
    after = decode_config_envelope(update.content)
    created = update.message.last_update  # when it was made, all certificates were valid
    payload = common_pb2.Payload.FromString(created.payload)
    now = common_pb2.ChannelHeader.FromString(payload.header.channel_header).timestamp.seconds

    check_orderable(update.before.configuration, after, running=None, now=now)
    check_maintenance(update.before.configuration, after, recorded.write_set)
    if after.consensus_type == BFT:
        check_bft(after)


@pytest.mark.parametrize("update", all_updates())
def test_without_its_signatures_none_of_them_is_allowed(update: RecordedUpdate) -> None:
    signed = read_update_envelope(update.message.last_update)

    with pytest.raises(ConfigUpdateError, match="not satisfied"):
        authorize_update(signed._replace(signatures=()), CHANNEL, update.before)
