"""A configuration as a document: nothing is lost, and what cannot be is refused with its place."""

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from fabric_protos.common import common_pb2, configtx_pb2
from fabric_protos.msp import msp_config_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from network.channel.document import group_fields, read_document, write_document
from network.errors import UpdateFileError
from network.protocol.config_group import ConfigGroup, ConfigPolicy, ConfigValue, config_group, decode_group
from tests.support.chain_factory import ChainFactory
from tests.support.recorded_chain import load_chain

CHAINS = ("fabric-3.1.5-raft", "fabric-3.1.5-bft", "fabric-3.1.5-service-week")


def recorded(chain: str) -> ConfigGroup:
    block = common_pb2.Block.FromString(load_chain(chain).blocks[0])
    payload = common_pb2.Payload.FromString(common_pb2.Envelope.FromString(block.data.data[0]).payload)
    return decode_group(configtx_pb2.ConfigEnvelope.FromString(payload.data).config.channel_group, "/Channel")


ROOT = decode_group(ChainFactory(consensus="bft").configuration.channel_group, "/Channel")


def reading(document: Any) -> ConfigGroup:
    return read_document(json.dumps(document).encode(), "file").root


def written(root: ConfigGroup = ROOT) -> Any:
    return json.loads(write_document(5, root))


@pytest.mark.parametrize("chain", CHAINS)
def test_the_configuration_of_a_real_channel_is_read_as_it_was_written(chain: str) -> None:
    root = recorded(chain)

    document = read_document(write_document(3, root).encode(), "file")

    assert document == (3, root)


@pytest.mark.parametrize("chain", CHAINS)
def test_nothing_of_a_real_channel_is_shown_as_bytes_alone(chain: str) -> None:
    assert '"raw"' not in write_document(3, recorded(chain))


def test_what_people_edit_is_there_by_name() -> None:
    group = written()["channel_group"]["groups"]["Orderer"]

    assert group["values"]["BatchSize"]["value"]["max_message_count"] == 500
    assert group["values"]["BatchTimeout"] == {"mod_policy": "Admins", "value": {"timeout": "200ms"}, "version": "0"}
    assert group["policies"]["Writers"]["policy"] == {"type": 3, "value": {"rule": "ANY", "sub_policy": "Writers"}}
    assert group["values"]["ConsensusType"]["value"]["metadata"]["request_pool_size"] == "100000"
    identities = group["policies"]["BlockValidation"]["policy"]["value"]["identities"]
    assert identities[0]["principal"]["mspid"] == "OrdererMSP"
    msp = group["groups"]["Orderer"]["values"]["MSP"]["value"]["config"]
    assert (msp["name"], len(msp["root_certs"])) == ("OrdererMSP", 1)


def test_an_edited_value_is_read() -> None:
    document = written()
    document["channel_group"]["groups"]["Orderer"]["values"]["BatchSize"]["value"]["max_message_count"] = 7

    root = reading(document)

    changed = root.groups["Orderer"].values["BatchSize"]
    assert b"\x08\x07" in changed.value
    assert {
        name
        for name in ROOT.groups["Orderer"].values
        if root.groups["Orderer"].values[name] != ROOT.groups["Orderer"].values[name]
    } == {"BatchSize"}


def test_bytes_that_no_message_says_stay_as_they_are() -> None:
    unknown_field = ROOT.groups["Orderer"].values["BatchTimeout"].value + b"\x9a\x3f\x01x"
    values = {
        "BatchTimeout": ConfigValue(1, unknown_field, "Admins"),
        "BatchSize": ConfigValue(1, b"\xff", "Admins"),
        "Custom": ConfigValue(2, b"anything", "Admins"),
        "MSP": ConfigValue(0, msp_config_pb2.MSPConfig(type=9, config=b"x").SerializeToString(), "Admins"),
    }
    policies = {"Odd": ConfigPolicy(1, 2, b"msp", "Admins"), "Broken": ConfigPolicy(1, 1, b"\xff", "Admins")}
    root = config_group(3, values=values, policies=policies, mod_policy="Admins")

    assert read_document(write_document(0, root).encode(), "file").root == root
    assert group_fields(root)["values"]["Custom"]["value"] == {"raw": "YW55dGhpbmc="}
    assert set(group_fields(root)["values"]["BatchTimeout"]["value"]) == {"raw"}


TREES = st.recursive(
    st.builds(
        lambda values, policies, mod_policy, version: config_group(
            version, values=values, policies=policies, mod_policy=mod_policy
        ),
        st.dictionaries(
            st.sampled_from(["MSP", "BatchSize", "ConsensusType", "ACLs", "Other"]),
            st.builds(ConfigValue, st.integers(0, 2**64 - 1), st.binary(max_size=20), st.just("Admins")),
            max_size=3,
        ),
        st.dictionaries(
            st.sampled_from(["Readers", "Admins"]),
            st.builds(ConfigPolicy, st.integers(0, 9), st.integers(0, 4), st.binary(max_size=20), st.just("Admins")),
            max_size=2,
        ),
        st.sampled_from(["Admins", ""]),
        st.integers(0, 2**64 - 1),
    ),
    lambda children: st.builds(
        lambda groups: config_group(groups=groups), st.dictionaries(st.sampled_from("ab"), children, max_size=2)
    ),
    max_leaves=4,
)


@settings(max_examples=100, deadline=None)
@given(TREES)
def test_any_tree_is_read_as_it_was_written(root: ConfigGroup) -> None:
    assert read_document(write_document(0, root).encode(), "file").root == root


def at(*path: str) -> Callable[[Any], Any]:
    def find(document: Any) -> Any:
        for step in path:
            document = document[step]
        return document

    return find


ORDERER = at("channel_group", "groups", "Orderer")


def edit(change: Callable[[Any], object]) -> Any:
    document = written()
    change(document)
    return document


BROKEN: dict[str, tuple[Callable[[Any], object], str]] = {
    "no group": (lambda it: it.pop("channel_group"), "file: no channel_group"),
    "a sequence that is text": (lambda it: it.update(sequence="many"), "file: sequence: no whole number"),
    "a negative version": (lambda it: ORDERER(it).update(version=-1), "/Channel/Orderer: version: no whole number"),
    "a version beyond 64 bits": (lambda it: ORDERER(it).update(version=str(2**64)), "version: no whole number"),
    "a version that is true": (lambda it: ORDERER(it).update(version=True), "version: no whole number"),
    "an unknown field": (lambda it: ORDERER(it).update(extra=1), "/Channel/Orderer: unknown field 'extra'"),
    "a name": (lambda it: ORDERER(it)["values"].update({"no name": {}}), "'no name' is no name"),
    "groups that are a list": (lambda it: ORDERER(it).update(groups=[]), "/Channel/Orderer: groups: no object"),
    "a value that is a list": (
        lambda it: ORDERER(it)["values"]["BatchSize"].update(value=[]),
        "/Channel/Orderer/BatchSize: no object",
    ),
    "an unknown field of a value": (
        lambda it: ORDERER(it)["values"]["BatchSize"]["value"].update(size=1),
        "/Channel/Orderer/BatchSize: no BatchSize",
    ),
    "a count that is text": (
        lambda it: ORDERER(it)["values"]["BatchSize"]["value"].update(max_message_count="x"),
        "/Channel/Orderer/BatchSize: no BatchSize",
    ),
    "a value of no known kind": (
        lambda it: ORDERER(it)["values"].update({"Custom": {"value": {"a": 1}}}),
        "/Channel/Orderer/Custom: of no known kind",
    ),
    "no base64": (
        lambda it: ORDERER(it)["values"].update({"Custom": {"value": {"raw": "*"}}}),
        "/Channel/Orderer/Custom: raw: not base64",
    ),
    "a policy without content": (
        lambda it: ORDERER(it)["policies"]["Writers"].pop("policy"),
        "/Channel/Orderer/Writers: policy: no object",
    ),
    "a rule that does not exist": (
        lambda it: ORDERER(it)["policies"]["Writers"]["policy"]["value"].update(rule="MOST"),
        "/Channel/Orderer/Writers: no ImplicitMetaPolicy",
    ),
    "identities of another form": (
        lambda it: ORDERER(it)["policies"]["BlockValidation"]["policy"]["value"].update(identities=[1]),
        "/Channel/Orderer/BlockValidation: identities: no object",
    ),
    "a mod_policy that is a number": (lambda it: ORDERER(it).update(mod_policy=1), "mod_policy: no text"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_mistake_is_named_with_its_place(case: str) -> None:
    change, reason = BROKEN[case]

    with pytest.raises(UpdateFileError) as caught:
        reading(edit(change))

    assert reason in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"{", b"1" * 5000, b"[" * 100_000])
def test_what_is_no_document_is_refused(content: bytes) -> None:
    with pytest.raises(UpdateFileError, match="file: "):
        read_document(content, "file")


def test_nesting_has_an_end() -> None:
    group: dict[str, Any] = {}
    for _ in range(12):
        group = {"groups": {"a": group}}

    with pytest.raises(UpdateFileError, match="nested too deep"):
        reading({"channel_group": group})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**65) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=8,
)
PLACES = (
    ("channel_group",),
    ("channel_group", "groups", "Orderer", "values", "MSP"),
    ("channel_group", "groups", "Orderer", "values", "BatchSize", "value"),
    ("channel_group", "groups", "Orderer", "values", "ConsensusType", "value"),
    ("channel_group", "groups", "Orderer", "values", "ConsensusType", "value", "metadata"),
    ("channel_group", "groups", "Orderer", "policies", "BlockValidation", "policy", "value"),
    ("channel_group", "groups", "Orderer", "policies", "BlockValidation", "policy", "value", "identities"),
    ("channel_group", "groups", "Orderer", "groups", "Orderer", "values", "MSP", "value", "config"),
)


DOCUMENT = write_document(5, config_group(groups={"Orderer": ROOT.groups["Orderer"]}))


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(PLACES), JSON)
def test_any_json_in_any_place_is_judged(place: tuple[str, ...], value: Any) -> None:
    document = json.loads(DOCUMENT)
    at(*place[:-1])(document)[place[-1]] = value

    with contextlib.suppress(UpdateFileError):
        reading(document)
