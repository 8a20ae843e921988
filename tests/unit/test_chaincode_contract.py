"""Registration, arguments, results and identities of contracts, without a peer."""

from dataclasses import dataclass

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from chaincode.contract import Context, Contract
from chaincode.contract.codec import MAX_ARGUMENT_BYTES, decode_argument, encode_json
from chaincode.contract.identity import decode_identity
from chaincode.contract.registration import RegistrationError
from chaincode.errors import AccessDeniedError, ContractError, InvalidArgumentError, LimitExceededError
from tests.support.chaincode_peer import attributes_extension
from tests.support.credential import root_authority


@dataclass(frozen=True)
class Document:
    name: str
    count: int = 0
    tags: tuple[str, ...] = ()
    note: str | None = None


@pytest.mark.parametrize(
    ("content", "kind", "value"),
    [
        (b"\xe5\xbc\xa0", str, "张"),
        (b"-9223372036854775808", int, -(2**63)),
        (b"true", bool, True),
        (b"\xff", bytes, b"\xff"),
        (b'{"name":"n","tags":["a"],"note":null}', Document, Document("n", 0, ("a",), None)),
    ],
)
def test_decodes_by_declared_type(content: bytes, kind: type, value: object) -> None:
    assert decode_argument(content, kind, "a") == value


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\xff", str),
        (b"9223372036854775808", int),
        (b"01", int),
        (b"-0", int),
        (b"\xd9\xa1", int),  # a digit, but not of ASCII
        (b" 1", int),
        (b"True", bool),
        (b"[]", Document),
        (b"{}", Document),
        (b'{"name":1}', Document),
        (b'{"name":"n","count":true}', Document),
        (b'{"name":"n","count":1.0}', Document),
        (b'{"name":"n","count":NaN}', Document),
        (b'{"name":"n","name":"m"}', Document),
        (b'{"name":"n","more":1}', Document),
        (b'{"name":"n","tags":[1]}', Document),
        (b"[" * 60_000, Document),
        (b'{"name":"n","count":' + b"9" * 5000 + b"}", Document),
    ],
)
def test_refuses_bad_arguments_by_name(content: bytes, kind: type) -> None:
    with pytest.raises(InvalidArgumentError, match="'given"):
        decode_argument(content, kind, "given")


def test_bounds_the_size_of_an_argument() -> None:
    assert len(decode_argument(bytes(MAX_ARGUMENT_BYTES), bytes, "a")) == MAX_ARGUMENT_BYTES
    with pytest.raises(LimitExceededError):
        decode_argument(bytes(MAX_ARGUMENT_BYTES + 1), bytes, "a")


def test_results_have_one_form() -> None:
    assert encode_json({"b": 1, "a": ["张", None, True]}) == '{"a":["张",null,true],"b":1}'.encode()
    with pytest.raises(TypeError):
        encode_json({"a": [1.5]})


def test_registration_refuses_what_cannot_be_called_safely() -> None:
    contract = Contract("c", "1")

    async def no_context(key: str) -> None: ...
    async def untyped(_: Context, key) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001
    async def floating(_: Context, amount: float) -> None: ...
    async def variable(_: Context, *keys: str) -> None: ...
    async def fine(_: Context) -> None: ...

    for function in (no_context, untyped, floating, variable):
        with pytest.raises(RegistrationError, match=function.__name__):
            contract.transaction(function)
    contract.query(fine)
    with pytest.raises(RegistrationError, match="twice"):
        contract.query(fine)


def test_names_are_written_as_go_writes_them() -> None:
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "CN"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "client"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "org1"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, 'a, "b" + c '),
            x509.NameAttribute(NameOID.COMMON_NAME, "#1"),
            x509.NameAttribute(NameOID.EMAIL_ADDRESS, "not.known@go"),
        ]
    )
    issuer = root_authority("ServiceMSP", "ca")

    identity = decode_identity(issuer.issue(subject=subject).serialized)

    name, _, by = identity.id.removeprefix("x509::").partition("::")
    assert name == 'CN=\\#1,OU=client+OU=org1,O=a\\, \\"b\\" \\+ c\\ ,C=CN'
    assert by.startswith("CN=ca")
    assert identity.msp_id == "ServiceMSP"


def test_no_contract_changes_who_a_client_is_for_the_next_transaction() -> None:
    issued = root_authority("ServiceMSP").issue(extensions=[attributes_extension({"role": "agent"})])
    identity = decode_identity(issued.serialized)

    with pytest.raises(TypeError):
        identity.attributes["role"] = "supervisor"  # type: ignore[index]  # what a careless contract might do

    assert decode_identity(issued.serialized).attributes == {"role": "agent"}


def test_roles_come_from_the_certificate() -> None:
    issued = root_authority("ServiceMSP").issue(extensions=[attributes_extension({"role": "agent"})])

    identity = decode_identity(issued.serialized)

    identity.require_role("agent", "supervisor")
    identity.require_msp("ServiceMSP")
    with pytest.raises(AccessDeniedError):
        identity.require_role("supervisor")
    with pytest.raises(AccessDeniedError):
        identity.require_msp("BillingMSP")


@pytest.mark.parametrize("content", [b"", b"\xff", b'{"attrs":{"role":1}}', b'{"attrs":[]}', b"[]", b"[" * 100_000])
def test_attributes_in_another_form_are_refused(content: bytes) -> None:
    extension = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5.6.7.8.1"), content)
    issued = root_authority("ServiceMSP").issue(extensions=[(extension, False)])

    with pytest.raises(InvalidArgumentError):
        decode_identity(issued.serialized)


@pytest.mark.parametrize("creator", [b"", b"\xff", b"\n\x03MSP"])
def test_other_identities_are_refused(creator: bytes) -> None:
    with pytest.raises(ContractError):
        decode_identity(creator)
