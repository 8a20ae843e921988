"""Changes of the channel's configuration, by name; what is wrong with some of them is said there as well.

Nothing here asks nodes for what they do not know: a capability that a node has not makes it end.
"""

from collections.abc import Callable, Mapping
from typing import Final

from network.channel.change import BatchChange, publish_revocations, set_acls, set_batch, set_policy
from network.protocol.config_group import ConfigGroup
from network.protocol.config_update import ConfigUpdate, compute_update, encode_update
from tests.support.judged_network import CHANNEL, SERVICE

Update = Callable[[ConfigGroup, int, bytes], bytes]
"""Makes ConfigUpdate bytes of the configuration in force; a number and a revocation list are there to be used."""
PROPOSE: Final = "peer/Propose"
READERS, WRITERS = "/Channel/Application/Readers", "/Channel/Application/Writers"
_BOTH: Final = "OutOf(2, 'ServiceMSP.peer', 'BillingMSP.peer', 'CustomerMSP.peer')"


def _edited(edit: Callable[[ConfigGroup, int, bytes], ConfigGroup], channel: str = CHANNEL) -> Update:
    def update(root: ConfigGroup, number: int, revocations: bytes) -> bytes:
        return encode_update(compute_update(channel, root, edit(root, number, revocations)))

    return update


def _messages(root: ConfigGroup, number: int, _: bytes) -> ConfigGroup:
    return set_batch(root, BatchChange(max_messages=number))


def _bytes(root: ConfigGroup, number: int, _: bytes) -> ConfigGroup:
    return set_batch(root, BatchChange(absolute_max_bytes=number))


def _acl(policy: str) -> Callable[[ConfigGroup, int, bytes], ConfigGroup]:
    return lambda root, *_: set_acls(root, {PROPOSE: policy})


def _policy(text: str, name: str = "/Channel/Application/Endorsement") -> Callable[..., ConfigGroup]:
    return lambda root, *_: set_policy(root, name, text)


def _revocations(root: ConfigGroup, _: int, revocations: bytes) -> ConfigGroup:
    return publish_revocations(root, SERVICE, [revocations])


def _another_consensus(root: ConfigGroup, *_: object) -> ConfigGroup:
    orderer = root.groups["Orderer"]
    kind = orderer.values["ConsensusType"]
    value = kind._replace(value=kind.value.replace(b"etcdraft", b"straight"))
    changed = orderer._replace(values={**orderer.values, "ConsensusType": value})
    return root._replace(groups={**root.groups, "Orderer": changed})


def _no_change(root: ConfigGroup, *_: object) -> bytes:
    same = ConfigGroup(root.version, {}, {}, {}, "")
    return encode_update(ConfigUpdate(CHANNEL, same, same))


def _of_another_version(root: ConfigGroup, number: int, _: bytes) -> bytes:
    update = compute_update(CHANNEL, root, _messages(root, number, b""))
    return encode_update(update._replace(read_set=update.read_set._replace(version=root.version + 1)))


UPDATES: Final[Mapping[str, Update]] = {
    "messages": _edited(_messages),
    "bytes": _edited(_bytes),
    "writers propose": _edited(_acl(WRITERS)),
    "readers propose": _edited(_acl(READERS)),
    "an acl to nowhere": _edited(_acl("/Channel/Nowhere")),
    "one endorses": _edited(_policy("OutOf(1, 'ServiceMSP.peer', 'BillingMSP.peer', 'CustomerMSP.peer')")),
    "two endorse": _edited(_policy(_BOTH)),
    "another policy": _edited(_policy(_BOTH, "/Channel/Application/Another")),
    "no other policy": _edited(_policy("", "/Channel/Application/Another")),
    "revocations": _edited(_revocations),
    "another consensus": _edited(_another_consensus),
    "another channel": _edited(_messages, "elsewhere"),
    "no change": _no_change,
    "another version": _of_another_version,
    "garbage": lambda *_: b"\xff",
}
