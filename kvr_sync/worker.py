"""A worker process: takes ranges of blocks on standard input, gives them back prepared on standard output.

    python -m kvr_sync.worker

Frames are a length (8 bytes, big-endian) and that many bytes, both ways. It ends with its input, so it cannot outlive
the engine that started it, however that ends. Frames come from that engine and go to it, over pipes that nobody else
holds.
"""

import gc
import marshal
import pickle
import signal
import sys
from array import array
from typing import IO, Any, NamedTuple

from kvr_sync.garbage_collection import collect_when_told
from kvr_sync.preparation import PreparedBlock, PreparedRange, RangeContext, RangePreparation
from kvr_sync.store.rows import ChildRows, Holes, LedgerRows, MappedRows, PackedRows, Row, Rows, RunRows

LENGTH_BYTES = 8


class Request(NamedTuple):
    """A range to prepare; `context` is given with the first range and whenever it changed.

    On its way it is a frame with the context, pickled, and their number, and then a frame for each block: what is large
    is nowhere twice.
    """

    context: RangeContext | None
    contents: list[bytes]


def main() -> None:
    """Answer requests until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the engine decides what to end
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # whatever prints must not come between frames
    preparation: RangePreparation | None = None
    collect_when_told()
    while True:
        request = read_request(requests)
        if request is None:
            return
        if request.context is not None:
            preparation = RangePreparation(request.context)
        if preparation is None:
            raise ValueError("the first request has no context")
        write_frame(answers, encode_range(preparation.prepare(request.contents)))
        del request
        gc.collect()


def encode_range(prepared: PreparedRange) -> bytes:
    """Encode a prepared range: plain tuples, which `marshal` takes many times faster than objects."""
    rows = prepared.rows
    return marshal.dumps(
        (
            prepared.config_block,
            prepared.definitions,
            [tuple(block) for block in prepared.blocks],
            (
                rows.keys,
                rows.identities,
                rows.chaincodes,
                rows.endorser_sets,
                [_plain(part) for part in rows.ledger],
                [_plain_table(table) for table in rows.mapped],
            ),
            prepared.quarantined,
        )
    )


def decode_range(content: bytes) -> PreparedRange:
    """Decode what `encode_range` gave."""
    config_block, definitions, blocks, rows, quarantined = marshal.loads(content)  # noqa: S302  of our own worker
    keys, identities, chaincodes, endorser_sets, ledger, mapped = rows
    return PreparedRange(
        config_block,
        definitions,
        tuple(PreparedBlock(*block) for block in blocks),
        RunRows(
            keys,
            identities,
            chaincodes,
            endorser_sets,
            LedgerRows(*map(_rows, ledger)),
            [_table(plain) for plain in mapped],
        ),
        quarantined,
    )


def _plain_table(table: MappedRows[Rows]) -> object:
    children = [(_plain(child.rows), child.starts) for child in table.children]
    return _plain(table.history), table.current, table.steps, children


def _table(plain: Any) -> MappedRows[Rows]:  # noqa: ANN401  what marshal gave
    history, current, steps, children = plain
    return MappedRows(
        _rows(history),
        current,
        array("q", steps),
        [ChildRows(_rows(rows), array("q", starts)) for rows, starts in children],
    )


def _plain(rows: Rows) -> object:
    return (rows.content, [tuple(hole) for hole in rows.holes]) if isinstance(rows, PackedRows) else rows


def _rows(plain: Any) -> Rows:  # noqa: ANN401  what marshal gave
    if isinstance(plain, tuple):
        content, holes = plain
        return PackedRows(content, tuple(Holes(*hole) for hole in holes))
    rows: list[Row] = plain
    return rows


def write_request(stream: IO[bytes], request: Request) -> None:
    """Write one request."""
    head = pickle.dumps((request.context, len(request.contents)), protocol=pickle.HIGHEST_PROTOCOL)
    for content in (head, *request.contents):
        _put_frame(stream, content)
    stream.flush()


def read_request(stream: IO[bytes]) -> Request | None:
    """Read one request; None at the end of the stream, also where it was cut short."""
    head = read_frame(stream)
    if head is None:
        return None
    context, count = pickle.loads(head)  # noqa: S301  made by the engine that started us
    contents = []
    for _ in range(count):
        content = read_frame(stream)
        if content is None:
            return None
        contents.append(content)
    return Request(context, contents)


def write_frame(stream: IO[bytes], content: bytes) -> None:
    """Write one frame."""
    _put_frame(stream, content)
    stream.flush()


def _put_frame(stream: IO[bytes], content: bytes) -> None:
    stream.write(len(content).to_bytes(LENGTH_BYTES, "big"))
    stream.write(content)


def read_frame(stream: IO[bytes]) -> bytes | None:
    """Read one frame; None at the end of the stream, also where a frame was cut short."""
    prefix = stream.read(LENGTH_BYTES)
    if len(prefix) < LENGTH_BYTES:
        return None
    length = int.from_bytes(prefix, "big")
    content = stream.read(length)
    return content if len(content) == length else None


if __name__ == "__main__":
    main()
