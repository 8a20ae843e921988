"""Who may do what, as data. Organisations count by MSP id, persons by the attribute `role` of their certificate."""

from types import MappingProxyType
from typing import Final

from chaincode.contract.context import Context
from chaincode.errors import AccessDeniedError, InvalidArgumentError

CUSTOMER: Final = "CustomerMSP"
AUDITOR: Final = "AuditorMSP"
DEPARTMENTS: Final = MappingProxyType({"service": "ServiceMSP", "billing": "BillingMSP", "field": "FieldMSP"})
MEMBERS: Final = frozenset({*DEPARTMENTS.values(), CUSTOMER, AUDITOR})
COLLECTIONS: Final = MappingProxyType(
    {
        "service": frozenset({"ServiceMSP"}),
        "billing": frozenset({"BillingMSP"}),
        "field": frozenset({"FieldMSP"}),
        "service-billing": frozenset({"ServiceMSP", "BillingMSP"}),
        "service-field": frozenset({"ServiceMSP", "FieldMSP"}),
        "billing-field": frozenset({"BillingMSP", "FieldMSP"}),
        "service-customer": frozenset({"ServiceMSP", CUSTOMER}),
    }
)
"""Members of each collection, as the channel's definition has them."""

_STAFF = frozenset({"agent", "supervisor"})
_FRONT = frozenset({CUSTOMER, "ServiceMSP"})
_HANDLING = frozenset(DEPARTMENTS.values())

_RULES: Final = MappingProxyType(
    {
        "register_customer": (_FRONT, _STAFF),
        "open_request": (_FRONT, _STAFF),
        "assign_request": (_HANDLING, _STAFF),
        "assign_next": (_HANDLING, _STAFF),
        "resolve_request": (_HANDLING, _STAFF),
        "close_request": (_FRONT, _STAFF),
        "store_profile": (_HANDLING | {CUSTOMER}, _STAFF | {"dpo"}),
        "read_profile": (_HANDLING | {CUSTOMER}, _STAFF | {"dpo"}),
    }
)
"""Organisations and roles by function. The others are queries of public state: any member reads it."""


def require_access(context: Context) -> None:
    """Raise AccessDeniedError unless the client's organisation and role may call the named function."""
    rule = _RULES.get(context.function)
    if rule is None:
        context.client.require_msp(*MEMBERS)
        return
    organizations, roles = rule
    context.client.require_msp(*organizations)
    context.client.require_role(*roles)


def require_department(context: Context, department: str) -> None:
    """Let agents act for their own department, supervisors for each; raises also for a name that is none."""
    if department not in DEPARTMENTS:
        raise InvalidArgumentError(f"'department' is one of: {', '.join(sorted(DEPARTMENTS))}")
    if DEPARTMENTS[department] != context.client.msp_id and context.client.role != "supervisor":
        raise AccessDeniedError("agents act for their own department only")


def require_member(context: Context, collection: str) -> None:
    """Let members of a collection pass, when this peer is a member's too: a stranger's holds no values."""
    members = COLLECTIONS.get(collection)
    if members is None:
        raise InvalidArgumentError(f"'collection' is one of: {', '.join(sorted(COLLECTIONS))}")
    if context.client.msp_id not in members:
        raise AccessDeniedError("the client may not use this private data collection")
    if context.stub.peer_msp_id not in members:
        raise AccessDeniedError("this peer's organisation is no member of the collection: ask a member's peer")
