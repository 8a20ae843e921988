"""Long chains, validly signed, in the shapes of the recorded service week.

    python -m tests.benchmarks.block_factory [--transactions 200000 | --million] [--per-block 100] [--workers N]

Every signature is real and checked: of submitters, of two endorsers each, of the orderer. Verdicts and commit hashes
are not written down but come of judging each block as a committing peer does, and each verdict has to be the one that
its transaction was made for. The same parameters give the same bytes, however many processes make them.

Chains are kept in the user's cache folder under a name of their parameters and of the generator's version.
"""

import argparse
import os
import pickle
import resource
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Final

import zstandard

from network.embedded.ledger.peer_store import PeerStore
from network.protocol.collection import CollectionConfig, encode_collections, implicit_collection_name
from network.protocol.commit_hash import commit_hash
from network.protocol.decode import decode_block
from network.protocol.lifecycle import (
    Approval,
    ChaincodeDefinition,
    Reader,
    approval_writes,
    definition_writes,
    with_defaults,
)
from network.protocol.policy_expression import encode_policy_expression
from network.protocol.private_data import LIFECYCLE_NAMESPACE
from network.protocol.validation import BlockJudgement, judge_block, judge_genesis
from network.protocol.validation_code import VALID
from tests.benchmarks.service_week import CHAINCODE
from tests.benchmarks.signed_week import (
    FIRST_BLOCK,
    SEED,
    VERSION,
    MadeBlock,
    Parameters,
    make_block,
    signed_envelope,
)
from tests.support.chain_factory import ChainFactory, Organisation, TransactionSpec, WriteSpec

GENERATOR_VERSION: Final = 2
"""To be raised with every change of what is made from the same parameters; it names the cached file."""

COLLECTION: Final = CollectionConfig(
    "entCust", encode_policy_expression("OR('EnterpriseMSP.member', 'CustomerMSP.member')"), maximum_peer_count=3
)
_WORTH_A_PROCESS: Final = 4
"""Blocks; to start a process costs as much as to sign a few."""
_REPORT_SECONDS: Final = 10.0


# --- the file


def cache_folder() -> Path:
    """Give the folder of generated chains: `$XDG_CACHE_HOME/kvr/bench`, by default below `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kvr" / "bench"


def cached_chain(
    parameters: Parameters, folder: Path, *, workers: int = 0, on_progress: Callable[[int], None] = lambda _: None
) -> tuple[Path, bool]:
    """Give the file of a chain, as records in zstandard; say whether it had to be made now.

    `on_progress` is given the number of transactions made so far.
    """
    path = folder / f"service-week-v{GENERATOR_VERSION}-{parameters.transactions}-by-{parameters.per_block}.zst"
    if path.exists():
        return path, False
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.unfinished")
    try:
        with unfinished.open("wb") as file, zstandard.ZstdCompressor(level=3).stream_writer(file) as out:
            for number, content in enumerate(blocks(parameters, workers=workers)):
                out.write(struct.pack(">I", len(content)))
                out.write(content)
                if number >= FIRST_BLOCK:
                    on_progress(min((number - FIRST_BLOCK + 1) * parameters.per_block, parameters.transactions))
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path, True


def blocks(parameters: Parameters, *, workers: int = 0) -> Iterator[bytes]:
    """Make the blocks one by one; `workers`: processes that sign beside this one, which judges."""
    with TemporaryDirectory(prefix="kvr-block-factory-") as folder, closing(_Chain(Path(folder))) as chain:
        yield chain.genesis
        yield from chain.definition()
        for made in _made_blocks(parameters, workers):
            yield chain.append(made)


# --- what is signed


def _made_blocks(parameters: Parameters, workers: int) -> Iterator[MadeBlock]:
    workers = min(workers, parameters.blocks // _WORTH_A_PROCESS)
    if not workers:
        yield from (make_block(parameters, number) for number in range(parameters.blocks))
        return
    with ExitStack() as stack:
        signers = [stack.enter_context(_signing(parameters, first, workers)) for first in range(workers)]
        for number in range(parameters.blocks):
            yield MadeBlock(*pickle.load(signers[number % workers]))  # noqa: S301  # what our own process wrote


@contextmanager
def _signing(parameters: Parameters, first: int, step: int) -> Iterator[IO[bytes]]:
    """Run a process that signs every nth block; it waits while its blocks are not read."""
    arguments = [str(number) for number in (*parameters, first, step)]
    command = [sys.executable, "-m", "tests.benchmarks.signed_week", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        if process.stdout is None:
            raise ValueError("the process has no output")
        try:
            yield process.stdout
        finally:
            process.kill()


# --- what is judged


class _Chain:
    """The chain so far: the orderer who signs its blocks, and the state of a peer that judges them."""

    def __init__(self, folder: Path) -> None:
        self._factory = ChainFactory(seed=SEED)
        self._store = PeerStore(folder / "state.sqlite")
        self.genesis = self._factory.genesis()
        judgement = judge_genesis(decode_block(self.genesis).envelopes)
        self._rules = judgement.rules
        self._commit(0, judgement, None)

    def close(self) -> None:
        self._store.close()

    def definition(self) -> Iterator[bytes]:
        """Define the chaincode as the recorded network did: every organisation approves, one commits."""
        definition = with_defaults(ChaincodeDefinition(1, VERSION, collections=encode_collections([COLLECTION])))
        organisations = self._factory.organisations
        approvals = [
            self._approval(-1 - number, organisation, definition) for number, organisation in enumerate(organisations)
        ]
        yield self.append(MadeBlock(approvals, bytes([VALID] * len(approvals))))
        readers = {organisation.msp_id: self._hash_reader(organisation.msp_id) for organisation in organisations}
        found = definition_writes(CHAINCODE, definition, self._read_public, readers)
        writes = [WriteSpec(key, value) for key, value in found.items()]
        spec = TransactionSpec(writes, chaincode=LIFECYCLE_NAMESPACE, function=b"CommitChaincodeDefinition")
        commit = signed_envelope(-1 - len(approvals), spec, organisations, organisations)
        yield self.append(MadeBlock([commit], bytes([VALID])))

    def _approval(self, number: int, organisation: Organisation, definition: ChaincodeDefinition) -> bytes:
        package_id = f"{CHAINCODE}_{VERSION}:{sha256(organisation.msp_id.encode()).hexdigest()}"
        found = approval_writes(CHAINCODE, Approval(definition, package_id), self._read_public, lambda _: None)
        collection = implicit_collection_name(organisation.msp_id)
        writes = [WriteSpec(key, value, collection) for key, value in found.items()]
        spec = TransactionSpec(writes, chaincode=LIFECYCLE_NAMESPACE, function=b"ApproveChaincodeDefinitionForMyOrg")
        return signed_envelope(number, spec, self._factory.organisations, [organisation])

    def append(self, made: MadeBlock) -> bytes:
        """Judge the next block, have it signed by the orderer, and commit it."""
        number = self._factory.height
        judgement = judge_block(number, made.envelopes, self._rules, self._store)
        for place, (wanted, code) in enumerate(zip(made.flags, judgement.flags, strict=True)):
            if wanted != code:
                why = f"made to get code {wanted}, judged as {code} {judgement.reasons[place]}"
                raise ValueError(f"block {number}, transaction {place}: {why}")
        content = self._factory.judged_block(made.envelopes, judgement)
        self._factory.blocks[-1] = b""  # nobody asks for it again, and a long chain is larger than some memories
        new_hash = commit_hash(judgement.flags, judgement.hashed_updates(), self._store.commit_hash)
        self._commit(number, judgement, new_hash)
        return content

    def _commit(self, number: int, judgement: BlockJudgement, new_hash: bytes | None) -> None:
        self._rules = judgement.rules
        with self._store.transaction():
            self._store.write_state(judgement.updates.items())
            self._store.add_block(number, number.to_bytes(32), judgement.tx_ids, judgement.flags)
            self._store.set_tip(number + 1, new_hash)

    def _read_public(self, key: str) -> bytes | None:
        found = self._store.value((LIFECYCLE_NAMESPACE, "", key.encode()))
        return None if found is None else found.value

    def _hash_reader(self, msp_id: str) -> Reader:
        collection = implicit_collection_name(msp_id)

        def read(key: str) -> bytes | None:
            found = self._store.value((LIFECYCLE_NAMESPACE, collection, sha256(key.encode()).digest()))
            return None if found is None else found.value

        return read


# --- the command


def main(arguments: Sequence[str] | None = None) -> None:
    """Make a chain, if it is not there yet, and say how fast it came."""
    parser = argparse.ArgumentParser(prog="block_factory", description="Make a long, validly signed chain.")
    parser.add_argument("--transactions", type=int, default=200_000)
    parser.add_argument("--million", action="store_const", const=1_000_000, dest="transactions")
    parser.add_argument("--per-block", type=int, default=100)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that sign")
    chosen = parser.parse_args(arguments)
    started = reported = time.monotonic()

    def report(transactions: int) -> None:
        nonlocal reported
        now = time.monotonic()
        if now - reported >= _REPORT_SECONDS:
            reported = now
            print(f"{transactions:,} transactions, {transactions / (now - started):,.0f}/s", file=sys.stderr)

    parameters = Parameters(chosen.transactions, chosen.per_block)
    path, is_new = cached_chain(parameters, cache_folder(), workers=chosen.workers, on_progress=report)
    print(f"{path}: {path.stat().st_size / 2**20:,.1f} MiB")
    if is_new:
        seconds = time.monotonic() - started
        own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        rate = parameters.transactions / seconds
        cpu = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
        print(
            f"{parameters.transactions:,} transactions in {seconds:,.1f} s, {rate:,.0f}/s; "
            f"{parameters.transactions / cpu:,.0f} per second of one core; "
            f"peak {own.ru_maxrss // 1024} MiB here, {children.ru_maxrss // 1024} MiB in each worker"
        )


if __name__ == "__main__":
    main()
