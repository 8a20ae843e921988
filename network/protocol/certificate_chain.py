"""Chains from a certificate to roots, found as Go's `x509.Certificate.Verify` finds them.

Fabric counts the chains and refuses more than one, so finding *a* chain is not enough: the same candidates must be
tried by the same rules. Sources: `crypto/x509/verify.go`, `cert_pool.go`; `msp/mspimpl.go` getUniqueValidationChain.

Certificate policies are not evaluated: a chain below its root that carries policy constraints or mappings is refused,
where Go might accept it.
"""

from collections.abc import Iterable
from typing import Final

from network.protocol.certificate import Certificate, is_signature_from
from network.protocol.errors import IdentityError
from network.protocol.name_constraint import is_host_name_unchecked, satisfies_name_constraints

_MAX_SIGNATURE_CHECKS: Final = 100
"""`maxChainSignatureChecks` of Go."""

Chain = tuple[Certificate, ...]


class CertificatePool:
    """Certificates to build chains from; the same bytes count once."""

    def __init__(self, certificates: Iterable[Certificate]) -> None:
        self._certificates = tuple(dict.fromkeys(certificates))
        self._by_subject: dict[bytes, list[Certificate]] = {}
        for certificate in self._certificates:
            self._by_subject.setdefault(certificate.subject, []).append(certificate)

    def __contains__(self, certificate: Certificate) -> bool:
        """Tell whether these very bytes are in the pool."""
        return certificate in self._certificates

    def parents_of(self, child: Certificate) -> list[Certificate]:
        """Give every certificate whose subject is the child's issuer, the more plausible by key identifier first."""

        def implausibility(parent: Certificate) -> int:
            if parent.subject_key_id == child.authority_key_id:
                return 0
            return 1 if not parent.subject_key_id or not child.authority_key_id else 2

        return sorted(self._by_subject.get(child.issuer, ()), key=implausibility)


class _ChainSearch:
    def __init__(self, roots: CertificatePool, intermediates: CertificatePool, moment: int) -> None:
        self._roots = roots
        self._intermediates = intermediates
        self._moment = moment
        self._checks = 0

    def from_leaf(self, leaf: Certificate) -> list[Chain]:
        if not self._is_acceptable(leaf, (), is_intermediate=False):
            return []
        return [(leaf,)] if leaf in self._roots else self._extend((leaf,))

    def _extend(self, chain: Chain) -> list[Chain]:
        found: list[Chain] = []
        child = chain[-1]
        candidates = [(parent, True) for parent in self._roots.parents_of(child)]
        candidates += [(parent, False) for parent in self._intermediates.parents_of(child)]
        for parent, is_root in candidates:
            self._checks += 1
            if self._checks > _MAX_SIGNATURE_CHECKS:
                break
            if parent.public_key is None or _is_repeated(parent, chain) or not is_signature_from(child, parent):
                continue
            if not self._is_acceptable(parent, chain, is_intermediate=not is_root):
                continue
            found.extend([(*chain, parent)] if is_root else self._extend((*chain, parent)))
        return found

    def _is_acceptable(self, certificate: Certificate, below: Chain, *, is_intermediate: bool) -> bool:
        if certificate.has_unknown_critical_extension:
            return False
        if not certificate.not_before <= self._moment <= certificate.not_after:
            return False
        if is_intermediate and not (certificate.has_basic_constraints and certificate.is_ca):
            return False
        if not certificate.has_basic_constraints or certificate.max_path_length < 0:
            return True
        return len(below) - 1 <= certificate.max_path_length


def _is_repeated(candidate: Certificate, chain: Chain) -> bool:
    for certificate in chain:
        if (candidate.subject, candidate.public_key_info) != (certificate.subject, certificate.public_key_info):
            continue
        if candidate.alternative_name == certificate.alternative_name:
            return True
        if candidate.alternative_name is None or certificate.alternative_name is None:
            return False  # as Go answers, although a later one could still be the same
    return False


def _is_chain_acceptable(chain: Chain) -> bool:
    return not any(certificate.has_policy_rules for certificate in chain[:-1]) and satisfies_name_constraints(chain)


def only_chain(leaf: Certificate, roots: CertificatePool, intermediates: CertificatePool) -> Chain:
    """Give the one chain from `leaf` to a root, judged one second after the leaf's own start.

    So an expired certificate stays valid for what it signed, and its issuers are judged at its birth
    (`msp/mspimplvalidate.go` getValidityOptsForCert). Raises IdentityError when there is no chain, or more than one.
    """
    chains = [
        chain
        for chain in _ChainSearch(roots, intermediates, leaf.not_before + 1).from_leaf(leaf)
        if all(certificate.allows_server_auth for certificate in chain) and _is_chain_acceptable(chain)
    ]
    if len(chains) != 1:
        raise IdentityError(f"{len(chains)} chains to the roots of its MSP instead of one")
    if is_host_name_unchecked(chains[0]):
        raise IdentityError("a host name that the name constraints of its CAs do not reach")
    return chains[0]


def has_tls_chain(leaf: Certificate, roots: CertificatePool, intermediates: CertificatePool) -> bool:
    """Tell whether `leaf` chains to a root as a server's TLS certificate, or as a client's.

    Judged one second after its own start: whether it has expired is another question.
    """
    return any(
        _is_chain_acceptable(chain)
        and (
            all(certificate.allows_server_auth for certificate in chain)
            or all(certificate.allows_client_auth for certificate in chain)
        )
        for chain in _ChainSearch(roots, intermediates, leaf.not_before + 1).from_leaf(leaf)
    )
