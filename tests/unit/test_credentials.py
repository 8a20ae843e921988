from datetime import UTC, datetime
from secrets import token_bytes

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from network.credentials.issuing import ATTRIBUTES, Issuing
from network.protocol.errors import IdentityError
from network.protocol.msp import Msp, MspVersion
from tests.support.credential import Credential as CredentialInMsp
from tests.support.credential import msp_config

ISSUING = Issuing(datetime(2024, 1, 1, tzinfo=UTC), token_bytes)
CA, FOREIGN_CA = ISSUING.authority("ca.a"), ISSUING.authority("ca.b")
MSP = Msp(msp_config("A", [CredentialInMsp("A", CA.certificate, CA.key)]).SerializeToString(), MspVersion.V3_0)


@pytest.mark.parametrize("unit", ["peer", "orderer", "client", "admin"])
def test_an_msp_accepts_what_its_ca_issued(unit: str) -> None:
    MSP.verify_identity(MSP.identity(ISSUING.identity(CA, "someone", unit).certificate_pem))


def test_an_msp_refuses_what_another_ca_issued() -> None:
    foreign = ISSUING.identity(FOREIGN_CA, "someone", "client").certificate_pem

    with pytest.raises(IdentityError):
        MSP.verify_identity(MSP.identity(foreign))


def test_attributes_are_json_under_the_extension_of_fabric_ca() -> None:
    made = ISSUING.identity(CA, "someone", "client", {"role": "agent"}).certificate

    extension = made.extensions.get_extension_for_oid(ATTRIBUTES).value

    assert isinstance(extension, x509.UnrecognizedExtension)
    assert extension.value == b'{"attrs":{"role":"agent"}}'


def test_certificates_are_signed_in_low_s_form() -> None:
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    made = [ISSUING.identity(CA, "someone", "client").certificate for _ in range(20)]

    assert all(decode_dss_signature(certificate.signature)[1] <= order // 2 for certificate in made)


def test_tls_certificates_name_the_loopback_addresses() -> None:
    made = ISSUING.tls(CA, "node").certificate

    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value

    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
