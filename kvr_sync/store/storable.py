"""Text of strangers, made fit for a text column. Pure.

Transaction ids, function names, chaincode names and versions, namespaces and event names of invalid transactions were
checked by nobody: they can hold NUL, which PostgreSQL's text refuses, or be longer than an entry of a b-tree may be.
"""

from hashlib import sha256

MAX_NAME_BYTES = 256
"""UTF-8 bytes of a name or id that is kept as it is; every name that Fabric itself accepts is shorter."""

MAX_SENTENCE_BYTES = 4096
"""UTF-8 bytes of a sentence of our own (defects, details of a quarantine) that is kept as it is; never indexed."""


def storable_text(text: str, max_bytes: int = MAX_NAME_BYTES) -> str:
    """Give text as it is stored: unchanged where it fits, else "sha256:" and the hex digest of its UTF-8 bytes.

    It fits when it has at most `max_bytes` bytes of UTF-8 and neither NUL nor a lone surrogate. The same text always
    gives the same result, so joins and comparisons still work on the replaced form.
    """
    if len(text) <= max_bytes and text.isascii() and "\0" not in text:  # nearly every text there is
        return text
    content = text.encode("utf-8", "surrogatepass")
    if len(content) <= max_bytes and b"\0" not in content and not _has_surrogate(text):
        return text
    return f"sha256:{sha256(content).hexdigest()}"


def storable_function(function: bytes | None) -> str | None:
    """Give the first argument of a call as text by the rule of `storable_text`; None: absent, or not UTF-8."""
    if function is None:
        return None
    try:
        return storable_text(function.decode())
    except UnicodeDecodeError:
        return None


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
