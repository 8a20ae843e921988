import contextlib
from collections.abc import Callable, Sequence
from datetime import timedelta
from ipaddress import ip_network

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from fabric_protos.msp import msp_config_pb2, msp_principal_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from network.protocol.errors import ConfigurationError, IdentityError
from network.protocol.msp import (
    CLASSIFICATION_ANONYMITY,
    CLASSIFICATION_COMBINED,
    CLASSIFICATION_IDENTITY,
    CLASSIFICATION_ORGANIZATION_UNIT,
    CLASSIFICATION_ROLE,
    TYPE_FABRIC,
    TYPE_IDEMIX,
    ChannelMsps,
    Msp,
    MspDefinition,
    MspVersion,
    Principal,
    Role,
)
from tests.support.credential import (
    CLIENT_AUTH,
    SERVER_AUTH,
    START,
    YEAR,
    Authority,
    Credential,
    msp_config,
    root_authority,
)

CA = root_authority("OrgMSP")


def msp_of(
    config: msp_config_pb2.FabricMSPConfig | None = None, version: MspVersion = MspVersion.V3_0, **changes: object
) -> Msp:
    if config is None:
        config = msp_config("OrgMSP", [CA], **changes)  # type: ignore[arg-type]  # changes go through as they are
    return Msp(config.SerializeToString(), version)


def verify(msp: Msp, credential: Credential) -> None:
    msp.verify_identity(msp.identity(credential.pem))


def role(number: int, msp_id: str = "OrgMSP") -> Principal:
    content = msp_principal_pb2.MSPRole(msp_identifier=msp_id, role=number).SerializeToString()
    return Principal(CLASSIFICATION_ROLE, content)


def roles_of(msp: Msp, credential: Credential) -> set[Role]:
    return {number for number in Role if msp.satisfies_principal(msp.identity(credential.pem), role(number))}


# --- chains


def test_accepts_identity_of_its_root() -> None:
    verify(msp_of(), CA.issue())


def test_rejects_identity_of_another_ca_with_the_same_name() -> None:
    stranger = root_authority("OrgMSP", "ca.OrgMSP").issue()

    with pytest.raises(IdentityError, match="0 chains"):
        verify(msp_of(), stranger)


def test_rejects_ca_as_identity() -> None:
    with pytest.raises(IdentityError, match="a CA"):
        verify(msp_of(), CA.intermediate())


def test_rejects_self_signed_root_as_identity() -> None:
    with pytest.raises(IdentityError):
        verify(msp_of(), CA)


@pytest.mark.parametrize("high", [True, False])
def test_accepts_root_whose_own_signature_is_high_s(high: bool) -> None:
    root = CA.in_form(high=high)

    verify(msp_of(msp_config("OrgMSP", [root], node_unit_certificate=root.pem)), CA.issue())


@pytest.mark.parametrize("high", [True, False])
def test_accepts_intermediate_whose_own_signature_is_high_s(high: bool) -> None:
    intermediate = CA.intermediate()
    listed = intermediate.in_form(high=high)
    config = msp_config("OrgMSP", [CA.in_form(high=not high)], intermediates=[listed], node_unit_certificate=listed.pem)

    verify(msp_of(config), intermediate.issue())


def test_both_forms_and_every_wrapping_of_a_certificate_are_one_identity() -> None:
    msp = msp_of()
    leaf = CA.issue()
    low, high = leaf.in_form(high=False), leaf.in_form(high=True)

    ids = {msp.identity(pem).identity_id for pem in (low.pem, high.pem, b"text\n" + high.pem, low.pem + b"\n")}

    assert low.der != high.der
    assert len(ids) == 1


def test_certifiers_of_a_node_ou_are_compared_in_low_s_form() -> None:
    root = CA.in_form(high=True)
    config = msp_config("OrgMSP", [root], node_unit_certificate=CA.in_form(high=False).pem)

    verify(msp_of(config), CA.issue())


def test_accepts_certificate_that_expired_long_ago() -> None:
    verify(msp_of(), CA.issue(start=START, end=START + timedelta(days=1)))


def test_accepts_certificate_that_is_not_yet_valid() -> None:
    verify(msp_of(), CA.issue(start=START + 5 * YEAR, end=START + 6 * YEAR))


def test_judges_the_ca_at_the_birth_of_the_certificate() -> None:
    before_ca = CA.issue(start=START - 2 * YEAR, end=START)
    after_ca = CA.issue(start=START + 11 * YEAR, end=START + 12 * YEAR)

    for credential in (before_ca, after_ca):
        with pytest.raises(IdentityError, match="0 chains"):
            verify(msp_of(), credential)


def test_rejects_certificate_shorter_than_a_second() -> None:
    with pytest.raises(IdentityError, match="0 chains"):
        verify(msp_of(), CA.issue(start=START, end=START))


def test_rejects_root_as_issuer_once_it_issued_an_intermediate() -> None:
    intermediate = CA.intermediate()
    msp = msp_of(intermediates=[intermediate])

    verify(msp, intermediate.issue())
    with pytest.raises(IdentityError, match="issues CAs"):
        verify(msp, CA.issue())


def test_rejects_two_chains() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    first, second = CA.intermediate("same", key=key), CA.intermediate("same", key=key)

    with pytest.raises(IdentityError, match="2 chains"):
        verify(msp_of(intermediates=[first, second]), first.issue())


def test_accepts_the_same_ca_listed_twice() -> None:
    verify(msp_of(msp_config("OrgMSP", [CA, CA])), CA.issue())


def test_rejects_chain_beyond_path_length() -> None:
    short = CA.issue("short", (), is_ca=True, path_length=0, end=START + 5 * YEAR)
    below = short.intermediate("below")

    verify(msp_of(intermediates=[short]), short.issue())
    with pytest.raises(IdentityError, match="0 chains"):
        verify(msp_of(intermediates=[short, below]), below.issue())


def test_rejects_issuer_without_ca_flag() -> None:
    with pytest.raises(ConfigurationError):
        msp_of(intermediates=[CA.issue("no ca")])


def test_rejects_issuer_whose_key_usage_does_not_allow_it() -> None:
    mute = CA.issue("mute", (), is_ca=True, signs=False, end=START + 5 * YEAR)

    with pytest.raises(IdentityError, match="0 chains"):
        verify(msp_of(intermediates=[mute]), mute.issue())


def test_rejects_unknown_critical_extension() -> None:
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5"), b"\x05\x00")

    verify(msp_of(), CA.issue(extensions=[(unknown, False)]))
    with pytest.raises(IdentityError, match="0 chains"):
        verify(msp_of(), CA.issue(extensions=[(unknown, True)]))


def test_extended_usage_must_allow_servers_as_go_defaults_to() -> None:
    verify(msp_of(), CA.issue(usages=[CLIENT_AUTH, SERVER_AUTH]))
    with pytest.raises(IdentityError, match="0 chains"):
        verify(msp_of(), CA.issue(usages=[CLIENT_AUTH]))


def test_rejects_key_kinds_that_the_channel_does_not_take() -> None:
    edwards, rivest = (
        CA.issue(key=ed25519.Ed25519PrivateKey.generate()),
        CA.issue(key=rsa.generate_private_key(public_exponent=65537, key_size=2048)),
    )

    verify(msp_of(), edwards)
    for msp, credential in ((msp_of(version=MspVersion.V1_4_3), edwards), (msp_of(), rivest)):
        with pytest.raises(IdentityError, match="key of a kind"):
            verify(msp, credential)


@pytest.mark.parametrize(
    "make_key",
    [
        ed25519.Ed25519PrivateKey.generate,
        lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
        lambda: ec.generate_private_key(ec.SECP384R1()),
    ],
    ids=["Ed25519", "RSA", "P-384"],
)
def test_accepts_identities_of_cas_of_every_kind(make_key: Callable[[], ec.EllipticCurvePrivateKey]) -> None:
    root = root_authority("OrgMSP", key=make_key())
    intermediate = root.intermediate(key=make_key())

    verify(msp_of(msp_config("OrgMSP", [root])), root.issue())
    verify(msp_of(msp_config("OrgMSP", [root], intermediates=[intermediate])), intermediate.issue())


def constrained_ca(constraints: x509.NameConstraints) -> tuple[Msp, Authority]:
    intermediate = CA.issue("named", (), is_ca=True, end=START + 5 * YEAR, extensions=[(constraints, True)])
    return msp_of(intermediates=[intermediate]), intermediate


def alternative(*names: x509.GeneralName) -> list[tuple[x509.ExtensionType, bool]]:
    return [(x509.SubjectAlternativeName(names), False)]


@pytest.mark.parametrize(
    ("host", "allowed"),
    [("peer.example.com", True), ("example.com", True), ("notexample.com", False), ("bad.example.com", False)],
)
def test_name_constraints_of_a_ca_bind_the_names_of_identities(host: str, allowed: bool) -> None:
    msp, intermediate = constrained_ca(
        x509.NameConstraints([x509.DNSName("example.com")], [x509.DNSName("bad.example.com")])
    )
    credential = intermediate.issue(extensions=alternative(x509.DNSName(host)))

    if allowed:
        verify(msp, credential)
    else:
        with pytest.raises(IdentityError, match="0 chains"):
            verify(msp, credential)


def test_name_constraints_cover_addresses_and_mail() -> None:
    msp, intermediate = constrained_ca(
        x509.NameConstraints([x509.IPAddress(ip_network("10.0.0.0/8")), x509.RFC822Name("example.com")], None)
    )
    inside = [x509.IPAddress(ip_network("10.1.2.3/32").network_address), x509.RFC822Name("a@example.com")]
    outside = [x509.IPAddress(ip_network("11.1.2.3/32").network_address), x509.RFC822Name("a@example.org")]

    verify(msp, intermediate.issue(extensions=alternative(*inside)))
    for general_name in outside:
        with pytest.raises(IdentityError, match="0 chains"):
            verify(msp, intermediate.issue(extensions=alternative(general_name)))


def test_host_like_common_name_without_names_fails_under_name_constraints() -> None:
    msp, intermediate = constrained_ca(x509.NameConstraints([x509.DNSName("example.com")], None))

    verify(msp, intermediate.issue("no host name"))
    with pytest.raises(IdentityError, match="host name"):
        verify(msp, intermediate.issue("peer0.example.com"))


# --- revocation


def test_rejects_revoked_identity_and_no_other() -> None:
    revoked, other = CA.issue(), CA.issue()
    msp = msp_of(revocation_lists=[CA.revoke(revoked)])

    verify(msp, other)
    with pytest.raises(IdentityError, match="revoked"):
        verify(msp, revoked)


def test_ignores_list_that_the_issuer_did_not_sign() -> None:
    credential = CA.issue()

    verify(msp_of(revocation_lists=[CA.revoke(credential, signer=root_authority("OrgMSP"))]), credential)


def test_ignores_list_of_another_issuer_with_the_same_serial_number() -> None:
    other = root_authority("OrgMSP", "other ca")
    credential = CA.issue(serial_number=77)
    foreign = other.issue(serial_number=77)

    verify(msp_of(msp_config("OrgMSP", [CA, other], revocation_lists=[other.revoke(foreign)])), credential)


def test_list_without_issuer_key_makes_every_identity_invalid() -> None:
    with pytest.raises(IdentityError, match="names no issuer"):
        verify(msp_of(revocation_lists=[CA.revoke(key_id=False)]), CA.issue())


def test_refuses_msp_whose_intermediate_is_revoked() -> None:
    intermediate = CA.intermediate()

    with pytest.raises(ConfigurationError, match="revoked"):
        msp_of(intermediates=[intermediate], revocation_lists=[CA.revoke(intermediate)])


# --- OUs and roles


@pytest.mark.parametrize(
    ("units", "message"),
    [((), "no OU"), (("department1",), "no OU"), (("client", "peer"), "several"), (("admin", "orderer"), "several")],
)
def test_node_ous_demand_exactly_one(units: Sequence[str], message: str) -> None:
    with pytest.raises(IdentityError, match=message):
        verify(msp_of(), CA.issue(units=units))


def test_identity_without_role_is_valid_where_node_ous_are_off() -> None:
    admin = CA.issue("admin", ())
    msp = msp_of(node_units=False, admins=[admin])

    assert roles_of(msp, CA.issue(units=("client", "peer"))) == {Role.MEMBER}
    assert roles_of(msp, admin) == {Role.MEMBER, Role.ADMIN}


@pytest.mark.parametrize(
    ("unit", "expected"),
    [("client", Role.CLIENT), ("peer", Role.PEER), ("admin", Role.ADMIN), ("orderer", Role.ORDERER)],
)
def test_roles_follow_the_ou(unit: str, expected: Role) -> None:
    assert roles_of(msp_of(), CA.issue(units=(unit,))) == {Role.MEMBER, expected}


def test_listed_administrator_is_one_whatever_its_ou() -> None:
    listed = CA.issue(units=("client",))

    assert roles_of(msp_of(admins=[listed]), listed) == {Role.MEMBER, Role.CLIENT, Role.ADMIN}


def test_revoked_listed_administrator_keeps_that_role_alone_as_in_fabric() -> None:
    listed = CA.issue(units=("admin",))

    assert roles_of(msp_of(admins=[listed], revocation_lists=[CA.revoke(listed)]), listed) == {Role.ADMIN}


def test_revoked_identity_has_no_role() -> None:
    revoked = CA.issue(units=("orderer",))

    assert roles_of(msp_of(revocation_lists=[CA.revoke(revoked)]), revoked) == set()


def test_node_ou_of_another_ca_is_refused() -> None:
    first, second = CA.intermediate("first"), CA.intermediate("second")
    msp = msp_of(intermediates=[first, second], node_unit_certificate=first.pem)

    verify(msp, first.issue())
    with pytest.raises(IdentityError, match="another CA"):
        verify(msp, second.issue())


def test_ou_identifiers_demand_one_of_them_from_the_named_ca() -> None:
    first, second = CA.intermediate("first"), CA.intermediate("second")
    msp = msp_of(intermediates=[first, second], unit_identifiers=[("sales", first.pem)])

    verify(msp, first.issue(units=("client", "sales")))
    for stranger in (first.issue(), second.issue(units=("client", "sales"))):
        with pytest.raises(IdentityError, match="none of the OUs"):
            verify(msp, stranger)


def test_same_subject_with_another_key_is_another_identity() -> None:
    admin = CA.issue("admin", ("client",))
    impostor = CA.issue("admin", ("client",))

    assert Role.ADMIN not in roles_of(msp_of(admins=[admin]), impostor)


def test_old_capability_levels_know_fewer_roles() -> None:
    client = CA.issue(units=("client",))

    assert roles_of(msp_of(admins=[client], version=MspVersion.V1_0), client) == {Role.MEMBER, Role.ADMIN}
    for version in (MspVersion.V1_1, MspVersion.V1_3):
        msp = msp_of(admins=[client], version=version)
        assert roles_of(msp, client) == {Role.MEMBER, Role.ADMIN, Role.CLIENT}
        with pytest.raises(IdentityError, match="no OU"):
            verify(msp, CA.issue(units=("orderer",)))


# --- other principals


def test_principal_of_an_ou_names_its_ca() -> None:
    msp = msp_of()
    identity = msp.identity(CA.issue(units=("client", "sales")).pem)

    def unit(text: str, certifiers_id: bytes, msp_id: str = "OrgMSP") -> Principal:
        message = msp_principal_pb2.OrganizationUnit(
            msp_identifier=msp_id, organizational_unit_identifier=text, certifiers_identifier=certifiers_id
        )
        return Principal(CLASSIFICATION_ORGANIZATION_UNIT, message.SerializeToString())

    chain_id = msp.certifiers_id(CA.pem)

    assert msp.satisfies_principal(identity, unit("sales", chain_id))
    assert not msp.satisfies_principal(identity, unit("sales", b""))
    assert not msp.satisfies_principal(identity, unit("service", chain_id))
    assert not msp.satisfies_principal(identity, unit("sales", chain_id, "OtherMSP"))


def test_principal_of_an_identity_compares_certificates_in_low_s_form() -> None:
    msp = msp_of()
    leaf, other = CA.issue(), CA.issue()
    identity = msp.identity(leaf.in_form(high=True).pem)

    def is_same(serialized: bytes) -> bool:
        return msp.satisfies_principal(identity, Principal(CLASSIFICATION_IDENTITY, serialized))

    assert is_same(leaf.in_form(high=False).serialized)
    assert not is_same(other.serialized)
    assert not is_same(Credential("OtherMSP", leaf.certificate, leaf.key).serialized)
    assert not is_same(b"\xff")


def test_principal_of_a_revoked_identity_is_not_satisfied() -> None:
    revoked = CA.issue()
    msp = msp_of(revocation_lists=[CA.revoke(revoked)])

    assert not msp.satisfies_principal(
        msp.identity(revoked.pem), Principal(CLASSIFICATION_IDENTITY, revoked.serialized)
    )


def test_nominal_is_satisfied_and_anonymous_is_not() -> None:
    msp = msp_of()
    identity = msp.identity(CA.issue().pem)

    answers = [
        msp.satisfies_principal(
            identity,
            Principal(
                CLASSIFICATION_ANONYMITY,
                msp_principal_pb2.MSPIdentityAnonymity(anonymity_type=number).SerializeToString(),
            ),
        )
        for number in (0, 1)
    ]

    assert answers == [True, False]


def combined(*parts: Principal) -> Principal:
    message = msp_principal_pb2.CombinedPrincipal()
    for part in parts:
        message.principals.add(principal_classification=part.classification, principal=part.content)
    return Principal(CLASSIFICATION_COMBINED, message.SerializeToString())


def test_combined_principal_demands_all_and_not_nothing() -> None:
    msp = msp_of()
    identity = msp.identity(CA.issue().pem)

    assert msp.satisfies_principal(identity, combined(role(Role.MEMBER), combined(role(Role.CLIENT))))
    assert not msp.satisfies_principal(identity, combined(role(Role.MEMBER), role(Role.PEER)))
    assert not msp.satisfies_principal(identity, combined())


def test_combined_principal_nested_without_end_is_not_followed() -> None:
    msp = msp_of()
    principal = role(Role.MEMBER)
    for _ in range(40):
        principal = combined(principal)

    assert not msp.satisfies_principal(msp.identity(CA.issue().pem), principal)


@settings(max_examples=200, deadline=None)
@given(st.integers(-1, 6), st.binary(max_size=60))
def test_random_principals_are_answered(classification: int, content: bytes) -> None:
    assert MSP.satisfies_principal(IDENTITY, Principal(classification, content)) in (True, False)


@pytest.mark.parametrize("number", [-1, 5, 99])
def test_unknown_role_is_nobodys(number: int) -> None:
    assert not MSP.satisfies_principal(IDENTITY, role(number))


# --- setting up


def broken(change: Callable[[msp_config_pb2.FabricMSPConfig], object]) -> msp_config_pb2.FabricMSPConfig:
    config = msp_config("OrgMSP", [CA])
    change(config)
    return config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config.ClearField("root_certs"), "no root"),
        (lambda config: config.root_certs.append(b"no PEM"), "no PEM block"),
        (lambda config: config.root_certs.append(CA.intermediate().pem), "not self-signed"),
        (lambda config: config.root_certs.append(CA.issue().pem), "not self-signed"),
        (lambda config: config.revocation_list.append(b"\x30\x00"), "revocation list"),
        (lambda config: config.fabric_node_ous.ClearField("admin_ou_identifier"), "administrators"),
        (lambda config: config.admins.append(root_authority("X").issue().pem), "0 chains"),
        (lambda config: config.admins.append(CA.issue(units=("peer",)).pem), "administrator"),
        (lambda config: setattr(config.crypto_config, "identity_identifier_hash_function", "MD5"), "hash function"),
    ],
    ids=[
        "no root",
        "root that is no PEM",
        "intermediate listed as root",
        "leaf listed as root",
        "malformed revocation list",
        "no administrator and no OU for them",
        "administrator of another CA",
        "administrator in the OU of peers",
        "unknown hash",
    ],
)
def test_refuses_msp_that_fabric_could_not_set_up(
    change: Callable[[msp_config_pb2.FabricMSPConfig], object], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        msp_of(broken(change))


def test_refuses_two_definitions_of_one_msp() -> None:
    first = MspDefinition(TYPE_FABRIC, msp_config("OrgMSP", [CA]).SerializeToString())
    second = MspDefinition(TYPE_FABRIC, msp_config("OrgMSP", [root_authority("OrgMSP")]).SerializeToString())

    assert list(ChannelMsps([first, first], MspVersion.V3_0).by_id) == ["OrgMSP"]
    with pytest.raises(ConfigurationError, match="two ways"):
        ChannelMsps([first, second], MspVersion.V3_0)


def test_idemix_msp_vouches_for_nobody_and_does_not_exist_at_v3() -> None:
    definition = MspDefinition(TYPE_IDEMIX, msp_config_pb2.IdemixMSPConfig(name="IdemixMSP").SerializeToString())

    assert not ChannelMsps([definition], MspVersion.V1_4_3).by_id
    with pytest.raises(ConfigurationError, match="Idemix"):
        ChannelMsps([definition], MspVersion.V3_0)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=100), st.integers(0, 2))
def test_random_definitions_raise_our_error(content: bytes, msp_type: int) -> None:
    with contextlib.suppress(ConfigurationError):
        ChannelMsps([MspDefinition(msp_type, content)], MspVersion.V1_4_3)


MSP = msp_of()
IDENTITY = MSP.identity(CA.issue().pem)
