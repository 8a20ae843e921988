"""Why a value does not fit its mapping: stable reason codes, and the error that carries one to the edge of `map`."""

from typing import ClassVar

from kvr_sync.errors import KvrSyncError

NOT_UTF8 = "not_utf8"
NOT_JSON = "not_json"
TOO_LARGE = "too_large"
TOO_DEEP = "too_deep"
DUPLICATE_NAME = "duplicate_name"
LONE_SURROGATE = "lone_surrogate"
NOT_AN_OBJECT = "not_an_object"
MISSING = "missing"
WRONG_TYPE = "wrong_type"
OUT_OF_RANGE = "out_of_range"
NOT_STORABLE = "not_storable"
NOT_A_TIMESTAMP = "not_a_timestamp"
NOT_A_DATE = "not_a_date"
NOT_A_UUID = "not_a_uuid"
NOT_IN_ENUMERATION = "not_in_enumeration"
UNKNOWN_MEMBER = "unknown_member"
KEY_ATTRIBUTES = "key_attributes"
KEY_CONTRADICTION = "key_contradiction"

REASONS = {
    NOT_UTF8: "the bytes are not UTF-8 text",
    NOT_JSON: "the value is not JSON",
    TOO_LARGE: "the JSON is larger than what is read",
    TOO_DEEP: "the JSON is nested deeper than what is read",
    DUPLICATE_NAME: "an object of the JSON has one name twice",
    LONE_SURROGATE: "a text of the JSON holds half a character",
    NOT_AN_OBJECT: "the JSON is not an object",
    MISSING: "a required column has no value",
    WRONG_TYPE: "a value is of another type than its column",
    OUT_OF_RANGE: "a value is beyond what its column holds exactly",
    NOT_STORABLE: "a text holds U+0000, which PostgreSQL cannot store",
    NOT_A_TIMESTAMP: "a text is not a complete, possible timestamp with zone",
    NOT_A_DATE: "a text is not a possible date",
    NOT_A_UUID: "a text is not a UUID",
    NOT_IN_ENUMERATION: "a text is none of those that the column allows",
    UNKNOWN_MEMBER: "the document has a member that the mapping does not know",
    KEY_ATTRIBUTES: "the composite key has another number of attributes",
    KEY_CONTRADICTION: "the document contradicts the ledger key",
}
"""One plain sentence for each reason, for people who read tables and reports."""


class UnfitValueError(KvrSyncError):
    """A value does not fit. `map_block` turns it into a quarantine entry; nobody else meets it.

    `reason` is one of `REASONS`; `detail` names expectation and finding, never the value.
    """

    code: ClassVar[str] = "unfit_value"

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.column: int | None = None
        """Position of the column in its table, added where it is known; None: the value as a whole."""
        self.element = 0
        """Of the array that a child table is made of."""
