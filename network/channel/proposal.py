"""A change of a configuration made ready to be signed: computed, applied, and checked as the channel's nodes will.

What would be refused there is refused here, before anybody signs. Pure: the time is handed in.
"""

from collections.abc import Callable
from typing import NamedTuple

from network.errors import ChannelChangeError
from network.protocol.block_signature import ChannelTrust
from network.protocol.config_group import ConfigGroup
from network.protocol.config_transition import (
    BFT,
    check_bft,
    check_maintenance,
    check_orderable,
    check_successor,
)
from network.protocol.config_update import (
    ConfigUpdate,
    ProposedConfiguration,
    SignedUpdate,
    apply_update,
    compute_update,
    encode_update,
)
from network.protocol.configuration import view_configuration
from network.protocol.errors import ConfigUpdateError

Edit = Callable[[ConfigGroup], ConfigGroup]


class Proposal(NamedTuple):
    """An update that nobody has signed yet, and what it makes of the configuration in force."""

    signed: SignedUpdate
    proposed: ProposedConfiguration


def propose(channel_id: str, trust: ChannelTrust, edit: Edit, now: float) -> Proposal:
    """Make the update that an edit of the configuration in force asks for; `now` in seconds since 1970.

    Raises ChannelChangeError when the edit makes no sense or no difference, ConfigUpdateError, ConfigurationError or
    DecodeError when nodes would refuse what it makes.
    """
    before = trust.configuration.root
    try:
        update = compute_update(channel_id, before, edit(before))
    except ConfigUpdateError as error:
        raise ChannelChangeError("the configuration in force says that already: nothing would change") from error
    proposed = apply_update(update, channel_id, before)
    check_proposed(channel_id, trust, update, proposed, now)
    return Proposal(SignedUpdate(encode_update(update), ()), proposed)


def check_proposed(
    channel_id: str, trust: ChannelTrust, update: ConfigUpdate, proposed: ProposedConfiguration, now: float
) -> None:
    """Check what an update makes, as the channel's nodes will; who signed it is another question.

    Raises ConfigUpdateError, ConfigurationError or DecodeError.
    """
    before = trust.configuration
    after = view_configuration(before.sequence + 1, channel_id, proposed.root)
    ChannelTrust(after)
    check_successor(before, after)
    check_orderable(before, after, running=None, now=now)
    check_maintenance(before, after, update.write_set)
    if after.consensus_type == BFT:
        check_bft(after)
