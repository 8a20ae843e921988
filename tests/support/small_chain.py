"""A chain of seven blocks and a mapping for it, with every kind of version of a row."""

from tests.support.chain_factory import ChainFactory, TransactionSpec, WriteSpec, delete, put, set_metadata

MAPPING = """\
kvr_mapping: 1
tables:
  request:
    namespace: ext
    key: {prefix: r}
    columns:
      id: {from: key.rest, type: text, required: true}
      status: {json: status, type: enum, values: [open, closed], index: true}
      amount: {json: amount, type: decimal}
      seen_at: {from: ledger.claimed_at, type: timestamp}
    children:
      request_tag:
        each: tags
        columns:
          tag: {from: element, type: text, required: true}
  note:
    namespace: ext
    key: {prefix: n}
    columns:
      content: {from: value, type: bytes, required: true}
"""
WRITES: tuple[tuple[WriteSpec, ...], ...] = (
    (put("r1", b'{"status":"open","amount":1.50,"tags":["a","b"]}'), put("n1", b"\xff")),
    (put("r2", b'{"status":"open","tags":["c"]}'), put("r3", b'{"status":"never"}')),
    (put("r1", b'{"status":"closed","amount":2,"tags":["b"]}'),),
    (set_metadata("r1", {"VALIDATION_PARAMETER": b"policy"}), put("r4", b'{"status":"odd"}')),
    (delete("r2"), put("r3", b'{"status":"open"}'), put("n2", b"two")),
    (put("r5", b'{"status":"open","tags":["x","y","z"]}'), delete("n2")),
)
"""By block, from block 1 on: each write in a transaction of its own. Values that do not fit, and good ones after."""


def small_chain(*last: tuple[WriteSpec, ...], shared: int = len(WRITES)) -> tuple[bytes, ...]:
    """Make the chain: block 0, `shared` of the blocks of WRITES, and then blocks of these writes.

    Chains that share blocks have them byte for byte.
    """
    factory = ChainFactory()
    for writes in (*WRITES[:shared], *last):
        factory.block([TransactionSpec([write]) for write in writes])
    return tuple(factory.blocks)
