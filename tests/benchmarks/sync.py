"""How fast the line is: decoding alone, the pure part, the whole line into each database, and the same rows in bulk.

    python -m tests.benchmarks.sync [--transactions 200000 | --million] [--per-block 100] [--repeat 3]
                                    [--databases sqlite,postgresql] [--json] [--profile DATABASE]

Each measurement runs in a process of its own, so that peak memory is its own and no other leaves a warm heap behind;
the kinds take turns, and medians are shown. README.md beside this file says what each line means and leaves out.
"""

import argparse
import cProfile
import gc
import json
import os
import platform
import pstats
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

import psutil
import psycopg
from psycopg import sql
from psycopg.types.string import TextLoader
from sqlalchemy import URL, Table, make_url

from kvr_sync.changes import extract_changes
from kvr_sync.decode import decode_block, decode_blocks
from kvr_sync.engine import DEFAULT_LIMITS, Engine, RunLimits, channel_of, first_block
from kvr_sync.garbage_collection import collect_seldom, collect_when_told
from kvr_sync.jobs import usable_workers
from kvr_sync.mapping.definition import Mapping
from kvr_sync.mapping.map import map_block
from kvr_sync.mapping.mapping_file import read_mapping_file
from kvr_sync.replay_state import StateReplay, check_commit_hash
from kvr_sync.source.block_file import open_block_file
from kvr_sync.store.channel_name import schema_name
from kvr_sync.store.mapped_table import mapped_tables
from kvr_sync.store.opening import open_store
from kvr_sync.store.schema import ledger_tables
from kvr_sync.verify import ChainVerifier
from tests.benchmarks.block_factory import cache_folder, cached_chain
from tests.benchmarks.signed_week import Parameters
from tests.support.postgresql import fresh_database, running_server

ROOT = Path(__file__).parents[2]
MAPPING = ROOT / "network" / "demo_data" / "service-week.mapping.yaml"
CHANNEL = "consortium"
MEBIBYTE = 1024 * 1024

LOOK_SECONDS: Final = 0.1
"""Between two looks at the memory of what is measured."""

SQLITE_SESSION = ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", "PRAGMA foreign_keys = OFF")
"""As the store opens its files."""


class Measured(NamedTuple):
    """One measurement: wall time, rows written (0: none).

    `growth`: time of the last tenth by that of the first (0: not looked at). `disk_bytes`: what the database takes
    afterwards, tables, indexes and all. `peak_bytes`: memory of the process and its workers, seen from outside.
    """

    seconds: float
    rows: int = 0
    growth: float = 0.0
    disk_bytes: int = 0
    peak_bytes: int = 0


class Tenths:
    """Times of the first and the last tenth of something that counts up."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._started = time.perf_counter()
        self._marks: list[tuple[int, float]] = [(0, self._started)]

    def reached(self, count: int) -> None:
        """Note that so many are done now."""
        self._marks.append((count, time.perf_counter()))

    def growth(self) -> float:
        """Give the time of the last tenth by that of the first; both per item, at the marks nearest to them."""
        first = min(self._marks[1:], key=lambda mark: abs(mark[0] - self._total / 10))
        end = self._marks[-1]
        last = min(self._marks[:-1], key=lambda mark: abs(mark[0] - self._total * 9 / 10))
        return ((end[1] - last[1]) / (end[0] - last[0])) / ((first[1] - self._started) / first[0])


# --- what is measured; each of these is the whole work of one process


def _mapping() -> Mapping:
    return read_mapping_file(MAPPING)


def read_file(chain: str) -> Measured:
    """Read and decompress the records, and look at none."""
    started = time.perf_counter()
    for _ in open_block_file(Path(chain)).blocks(0):
        pass
    return Measured(time.perf_counter() - started)


def decode(chain: str) -> Measured:
    """Decode every block in full; reading the file is part of it."""
    collect_seldom()
    started = time.perf_counter()
    for raw in open_block_file(Path(chain)).blocks(0):
        decode_block(raw.content)
    return Measured(time.perf_counter() - started)


def decode_to_changes(chain: str) -> Measured:
    """Decode and verify every block and extract its changes, as workers do with ranges; reading is not timed."""
    collect_when_told()
    verifier, seconds = ChainVerifier(channel=CHANNEL), 0.0
    for part in _ranges(chain):
        started = time.perf_counter()
        for block, content in zip(decode_blocks(part), part, strict=True):
            extract_changes(verifier.verify(block, content))
        gc.collect()
        seconds += time.perf_counter() - started
    return Measured(seconds)


def _ranges(chain: str) -> Iterator[list[bytes]]:
    part: list[bytes] = []
    size = 0
    for raw in open_block_file(Path(chain)).blocks(0):
        part.append(raw.content)
        size += len(raw.content)
        if size >= DEFAULT_LIMITS.range_bytes:
            yield part
            part, size = [], 0
    yield part


def pure_line(chain: str) -> Measured:
    """Run every stage but the sink."""
    collect_seldom()
    mapping = _mapping()
    verifier, replay = ChainVerifier(channel=CHANNEL), StateReplay(lambda _: {}, None)
    started = time.perf_counter()
    for raw in open_block_file(Path(chain)).blocks(0):
        block = decode_block(raw.content)
        verified = verifier.verify(block, raw.content)
        replayed = check_commit_hash(replay.replay(extract_changes(verified)), block.commit_hash)
        map_block(replayed, mapping)
        replay.committed(1)
    return Measured(time.perf_counter() - started)


def whole_line(
    chain: str, database: str, workers_wanted: str, transactions: str, profile: str | None = None
) -> Measured:
    """Run the engine from the file into an empty store. Making the tables is not part of it, starting workers is."""
    collect_seldom()
    workers = int(workers_wanted)
    raw, block = first_block(open_block_file(Path(chain)))
    mapping = _mapping()
    with closing(open_store(database, channel_of(block), mapping=mapping)) as sink:
        engine = Engine(
            open_block_file(Path(chain)),
            sink,
            mapping,
            channel=channel_of(block),
            pin=sha256(raw.content).digest(),
            limits=RunLimits(workers=workers),
        )
        profiler = cProfile.Profile() if profile else None
        tenths = Tenths(int(transactions))
        started = time.perf_counter()
        if profiler:
            profiler.runcall(engine.run)
        else:
            engine.run(on_progress=lambda progress: tenths.reached(progress.transactions))
        seconds = time.perf_counter() - started
        if profiler and profile:
            profiler.dump_stats(profile)
    return Measured(seconds, growth=0.0 if profiler else tenths.growth(), disk_bytes=_disk_bytes(database))


def _disk_bytes(database: str) -> int:
    url = make_url(database)
    if url.get_backend_name() == "sqlite":
        with closing(sqlite3.connect(str(url.database))) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return Path(str(url.database)).stat().st_size
    with _connected(database) as connection:
        statement = (
            "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = %s AND c.relkind = 'r'"
        )
        return int(connection.execute(statement, (schema_name(CHANNEL),)).fetchall()[0][0])


def sqlite_bulk(filled: str, database: str) -> Measured:
    """Insert the rows of a filled store into an empty one, a tenth of every table after the other, one transaction.

    The rows of a tenth are in memory before it is timed.
    """
    _make_empty(f"sqlite:///{database}")
    names = [table.name for table in _tables(None)]
    with ExitStack() as stack:
        source = stack.enter_context(closing(sqlite3.connect(filled)))
        connection = stack.enter_context(closing(sqlite3.connect(database, isolation_level=None)))
        for statement in SQLITE_SESSION:
            connection.execute(statement)
        # What the migrations and the mapping wrote is there already.
        empty = [name for name in names if not _has_rows(connection, name)]
        cursors = {name: source.execute(f'SELECT * FROM "{name}"') for name in empty}  # noqa: S608  names are ours
        sizes = {
            name: source.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0]  # noqa: S608  names are ours
            for name in empty
        }
        connection.execute("BEGIN IMMEDIATE")
        times = []
        for _ in range(10):
            part = {name: cursors[name].fetchmany(-(-sizes[name] // 10)) for name in empty if sizes[name]}
            started = time.perf_counter()
            for name, content in part.items():
                if content:
                    marks = ", ".join("?" * len(content[0]))
                    connection.executemany(f'INSERT INTO "{name}" VALUES ({marks})', content)  # noqa: S608  names are ours
            times.append(time.perf_counter() - started)
        started = time.perf_counter()
        connection.execute("COMMIT")
        seconds = time.perf_counter() - started + sum(times)
    return Measured(seconds, rows=sum(sizes.values()), growth=times[-1] / times[0])


def _has_rows(connection: sqlite3.Connection, table: str) -> bool:
    return connection.execute(f'SELECT 1 FROM "{table}" LIMIT 1').fetchone() is not None  # noqa: S608  names are ours


def postgresql_copy(buffers: str, database: str) -> Measured:
    """Send prepared binary buffers to the tables of an empty store, one COPY for each, in one transaction."""
    _make_empty(database)
    content = {path.name: path.read_bytes() for path in sorted(Path(buffers).iterdir())}
    rows = 0
    with _connected(database) as connection:
        empty = [name for name in content if not connection.execute(_any_row(name)).fetchone()]
        _checkpoint(connection)
        started = time.perf_counter()
        with connection.cursor() as cursor:
            for name in empty:
                with cursor.copy(sql.SQL("COPY {} FROM STDIN (FORMAT BINARY)").format(_identifier(name))) as copy:
                    copy.write(content[name])
                rows += cursor.rowcount
        connection.commit()
        seconds = time.perf_counter() - started
    return Measured(seconds, rows=rows)


def postgresql_rows(filled: str, database: str) -> Measured:
    """Send the rows of a filled store to an empty one as a Python program plainly would: `write_row` for each.

    A tenth of every table after the other, one transaction; the rows of a tenth are in memory before it is timed.
    """
    _make_empty(database)
    with _connected(filled) as source, _connected(database) as connection:
        source.adapters.register_loader("jsonb", TextLoader)  # no document is parsed and written again
        empty = [name for name in _table_names() if not connection.execute(_any_row(name)).fetchone()]
        sizes = {name: source.execute(_count(name)).fetchall()[0][0] for name in empty}
        _checkpoint(connection)
        cursors = {name: source.cursor(f"rows_{number}") for number, name in enumerate(empty) if sizes[name]}
        for name, cursor in cursors.items():
            cursor.execute(_all_rows(name))
        times = []
        for _ in range(10):
            part = {name: cursor.fetchmany(-(-sizes[name] // 10)) for name, cursor in cursors.items()}
            started = time.perf_counter()
            with connection.cursor() as cursor:
                for name, rows in part.items():
                    with cursor.copy(sql.SQL("COPY {} FROM STDIN").format(_identifier(name))) as copy:
                        for row in rows:
                            copy.write_row(row)
            times.append(time.perf_counter() - started)
        started = time.perf_counter()
        connection.commit()
        seconds = time.perf_counter() - started + sum(times)
    return Measured(seconds, rows=sum(sizes.values()), growth=times[-1] / times[0])


def capture(database: str, buffers: Path) -> None:
    """Write the rows of every table of a filled store as binary COPY gives them, one file for each."""
    with _connected(database) as connection:
        for name in _table_names():
            statement = sql.SQL("COPY {} TO STDOUT (FORMAT BINARY)").format(_identifier(name))
            with connection.cursor().copy(statement) as copy, (buffers / name).open("wb") as file:
                for part in copy:
                    file.write(part)


def _make_empty(database: str) -> None:
    open_store(database, CHANNEL, mapping=_mapping()).close()


def _tables(schema: str | None) -> list[Table]:
    """Give every table of the store, those of the mapping included; runs of the engine are no rows of the line."""
    tables = ledger_tables(schema)
    mapped_tables(_mapping(), tables)
    return [table for table in tables.metadata.sorted_tables if table.name != tables.run.name]


def _table_names() -> list[str]:
    return [table.name for table in _tables(schema_name(CHANNEL))]


def _identifier(table: str) -> sql.Identifier:
    return sql.Identifier(schema_name(CHANNEL), table)


def _any_row(table: str) -> sql.Composed:
    return sql.SQL("SELECT 1 FROM {} LIMIT 1").format(_identifier(table))


def _all_rows(table: str) -> sql.Composed:
    return sql.SQL("SELECT * FROM {}").format(_identifier(table))


def _count(table: str) -> sql.Composed:
    return sql.SQL("SELECT count(*) FROM {}").format(_identifier(table))


def _checkpoint(connection: psycopg.Connection[tuple[Any, ...]]) -> None:
    """Let the server write out what came before, so that it is not paid for by what comes now."""
    connection.commit()
    connection.autocommit = True
    connection.execute("CHECKPOINT")
    connection.autocommit = False


def _connected(database: str) -> psycopg.Connection[tuple[Any, ...]]:
    url = make_url(database).set(drivername="postgresql")
    return psycopg.connect(url.render_as_string(hide_password=False))


# --- the run


def alone(run: Callable[..., Measured], *arguments: object) -> Measured:
    """Run a measurement in a fresh process, and look at its memory meanwhile."""
    command = [sys.executable, "-m", "tests.benchmarks.sync", "--measure", run.__name__, *map(str, arguments)]
    peak = 0
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        seen = psutil.Process(process.pid)
        while True:
            peak = max(peak, _memory_bytes(seen))
            with suppress(subprocess.TimeoutExpired):
                answer, _ = process.communicate(timeout=LOOK_SECONDS)
                break
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Measured(*json.loads(answer))._replace(peak_bytes=peak)


def _memory_bytes(process: psutil.Process) -> int:
    """Count what a process and its children hold now; pages they share count once where the system says so (Linux)."""
    total = 0
    with suppress(psutil.Error):  # it ended meanwhile
        for each in (process, *process.children(recursive=True)):
            with suppress(psutil.Error):
                memory = each.memory_full_info()
                total += getattr(memory, "pss", memory.rss)
    return total


def _measure(name: str, arguments: list[str]) -> None:
    """Be that process: run one measurement and print what it found."""
    runs: dict[str, Callable[..., Measured]] = {
        run.__name__: run
        for run in (
            read_file,
            decode,
            decode_to_changes,
            pure_line,
            whole_line,
            sqlite_bulk,
            postgresql_rows,
            postgresql_copy,
        )
    }
    print(json.dumps(runs[name](*arguments)))


class Bench:
    """Databases and files of one benchmark, and the measurements made in them."""

    def __init__(
        self, chain: Path, transactions: int, folder: Path, server: URL | None, workers: int, say: Callable[[str], None]
    ) -> None:
        self._chain = chain
        self._transactions = transactions
        self._workers = workers
        self._folder = folder
        self._server = server
        self._say = say
        self.results: dict[str, list[Measured]] = {}

    def round(self, number: int, databases: tuple[str, ...]) -> None:
        """Measure everything once."""
        self._note("read", alone(read_file, self._chain))
        self._note("decode", alone(decode, self._chain))
        self._note("changes", alone(decode_to_changes, self._chain))
        self._note("pure", alone(pure_line, self._chain))
        if "sqlite" in databases:
            self._sqlite(number)
        if "postgresql" in databases and self._server is not None:
            self._postgresql(self._server)

    def _note(self, name: str, measured: Measured) -> None:
        self.results.setdefault(name, []).append(measured)
        self._say(f"  {name:<16} {measured.seconds:7.2f} s")

    def _sqlite(self, number: int) -> None:
        filled, empty = (self._folder / f"{kind}-{number}.db" for kind in ("line", "bulk"))
        self._note("sqlite", alone(whole_line, self._chain, f"sqlite:///{filled}", self._workers, self._transactions))
        self._note("sqlite bulk", alone(sqlite_bulk, filled, empty))
        for path in self._folder.glob(f"*-{number}.db*"):
            path.unlink()

    def _postgresql(self, server: URL) -> None:
        buffers = self._folder / "copy"
        with fresh_database(server) as filled, fresh_database(server) as by_rows, fresh_database(server) as by_copy:
            line, rows, copy = (url.render_as_string(hide_password=False) for url in (filled, by_rows, by_copy))
            with _connected(line) as connection:
                _checkpoint(connection)
            self._note("postgresql", alone(whole_line, self._chain, line, self._workers, self._transactions))
            self._note("postgresql rows", alone(postgresql_rows, line, rows))
            if not buffers.exists():
                buffers.mkdir()
                capture(line, buffers)
            self._note("postgresql copy", alone(postgresql_copy, buffers, copy))


TITLES = {
    "read": "read the file",
    "decode": "+ decode",
    "changes": "decoding to changes, one process",
    "pure": "+ verify, changes, replay, map",
    "sqlite": "whole line into SQLite",
    "sqlite bulk": "same rows, one bulk insert",
    "postgresql": "whole line into PostgreSQL",
    "postgresql rows": "same rows, COPY from Python rows",
    "postgresql copy": "same rows, COPY of ready buffers",
}


def machine() -> dict[str, str]:
    """Describe where this runs."""
    return {
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "sqlite": f"{sqlite3.sqlite_version} (WAL, synchronous FULL)",
    }


def server_settings(server: URL) -> dict[str, str]:
    """Read the settings of a PostgreSQL server that decide how fast it writes."""
    names = ("server_version", "fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "max_wal_size")
    with _connected(server.render_as_string(hide_password=False)) as connection:
        return {name: str(connection.execute("SELECT current_setting(%s)", (name,)).fetchall()[0][0]) for name in names}


def summary(bench: Bench, parameters: Parameters, chain: Path, settings: dict[str, str]) -> dict[str, Any]:
    """Put the figures together."""
    lines = {}
    for name, measurements in bench.results.items():
        seconds = median(entry.seconds for entry in measurements)
        lines[name] = {
            "seconds": [round(entry.seconds, 3) for entry in measurements],
            "transactions_per_second": round(parameters.transactions / seconds, 1),
            "microseconds_per_transaction": round(seconds / parameters.transactions * 1e6, 1),
            "peak_mebibytes": round(max(entry.peak_bytes for entry in measurements) / MEBIBYTE, 1),
            "rows_per_transaction": round(measurements[0].rows / parameters.transactions, 2),
            "growth": round(median(entry.growth for entry in measurements), 3),
            "gibibytes_per_million": round(
                measurements[0].disk_bytes / parameters.transactions * 1_000_000 / (1024 * MEBIBYTE), 3
            ),
        }
    ratios = {}
    bounds = (("sqlite", "sqlite bulk"), ("postgresql", "postgresql rows"), ("postgresql", "postgresql copy"))
    for line, bound in bounds:
        if line in bench.results:
            times = [median(entry.seconds for entry in bench.results[name]) for name in (bound, line)]
            ratios[f"{line} / {bound}"] = round(times[0] / times[1], 3)
    return {
        "transactions": parameters.transactions,
        "transactions_per_block": parameters.per_block,
        "chain_bytes_compressed": chain.stat().st_size,
        "machine": machine(),
        "postgresql": settings,
        "measurements": lines,
        "ratios": ratios,
    }


def show(result: dict[str, Any]) -> Iterator[str]:
    """Tell the figures as lines of text."""
    size = result["chain_bytes_compressed"] / MEBIBYTE
    yield (
        f"{result['transactions']:,} transactions in blocks of {result['transactions_per_block']}, in the shapes of the"
        f" recorded service week ({size:.0f} MiB of zstandard)"
    )
    yield "every signature is real; the orderer's of each block is checked, those of submitters and endorsers are not"
    yield f"whole lines: the engine and {result['workers']} worker processes"
    yield "machine: " + ", ".join(f"{name} {value}" for name, value in result["machine"].items())
    if result["postgresql"]:
        yield "PostgreSQL: " + ", ".join(f"{name} {value}" for name, value in result["postgresql"].items())
    yield ""
    heading = f"{'tx/s':>9}{'us/tx':>9}{'rows/s':>10}{'rows/tx':>9}{'growth':>8}{'peak MiB':>10}"
    yield f"{'':<34}{heading}   seconds of each run"
    written = {
        name.split(" ")[0]: line["rows_per_transaction"]
        for name, line in result["measurements"].items()
        if line["rows_per_transaction"]
    }
    for name, line in result["measurements"].items():
        per_transaction = line["rows_per_transaction"] or written.get(name.split(" ")[0], 0)
        has_rows = name.split(" ")[0] in written
        rows = f"{per_transaction:.2f}" if has_rows else ""
        per_second = f"{per_transaction * line['transactions_per_second']:,.0f}" if has_rows else ""
        growth = f"{line['growth']:.2f}" if line["growth"] else ""
        runs = " ".join(f"{seconds:.2f}" for seconds in line["seconds"])
        yield (
            f"{TITLES[name]:<34}{line['transactions_per_second']:>9,.0f}{line['microseconds_per_transaction']:>9.1f}"
            f"{per_second:>10}{rows:>9}{growth:>8}{line['peak_mebibytes']:>10.0f}   {runs}"
        )
    yield ""
    yield "growth: time of the last tenth by that of the first"
    for name, line in result["measurements"].items():
        if line["gibibytes_per_million"]:
            yield f"{TITLES[name]}: {line['gibibytes_per_million']:.2f} GiB on disk for a million transactions"
    for name, ratio in result["ratios"].items():
        line, bound = (TITLES[part] for part in name.split(" / "))
        yield f"{line}: {ratio:.2f} of {bound}"


@contextmanager
def _server(databases: tuple[str, ...]) -> Iterator[URL | None]:
    if "postgresql" not in databases:
        yield None
        return
    with running_server(durable=True) as server:
        yield server


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Transactions per second of the line, and of the same rows in bulk.")
    parser.add_argument("--transactions", type=int, default=200_000)
    parser.add_argument("--million", action="store_const", const=1_000_000, dest="transactions")
    parser.add_argument("--per-block", type=int, default=100)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--databases", default="sqlite,postgresql", help="sqlite, postgresql, or both with a comma")
    parser.add_argument(
        "--workers", type=int, default=usable_workers(), help="processes beside the engine (default: as kvr)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    parser.add_argument("--profile", choices=["sqlite", "postgresql"], help="profile one run of the line instead")
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        _measure(options.measure[0], options.measure[1:])
        return
    databases = tuple(options.databases.split(","))
    if set(databases) - {"sqlite", "postgresql"}:
        parser.error("--databases takes sqlite, postgresql, or both with a comma")
    if min(options.transactions, options.per_block, options.repeat) < 1:
        parser.error("--transactions, --per-block and --repeat are at least 1")
    parameters = Parameters(options.transactions, options.per_block)

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    say(f"chain of {parameters.transactions:,} transactions: made once, then kept in {cache_folder()}")
    started = time.perf_counter()
    chain, is_new = cached_chain(parameters, cache_folder(), workers=usable_workers())
    say(f"  {'made' if is_new else 'found'} in {time.perf_counter() - started:.1f} s")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kvr-bench-")))
        server = stack.enter_context(_server((options.profile,) if options.profile else databases))
        if options.profile:
            _profile(chain, folder, server, parameters)
            return
        bench = Bench(chain, parameters.transactions, folder, server, options.workers, say)
        for number in range(options.repeat):
            say(f"round {number + 1} of {options.repeat}")
            bench.round(number, databases)
        result = summary(bench, parameters, chain, server_settings(server) if server else {})
        result["workers"] = options.workers
    print(json.dumps(result, indent=2) if options.json else "\n".join(show(result)))


def _profile(chain: Path, folder: Path, server: URL | None, parameters: Parameters) -> None:
    """Print where one run of the line spends its time."""
    figures = folder / "profile"
    if server is None:
        alone(whole_line, chain, f"sqlite:///{folder / 'profile.db'}", 0, parameters.transactions, figures)
    else:
        with fresh_database(server) as url:
            alone(whole_line, chain, url.render_as_string(hide_password=False), 0, parameters.transactions, figures)
    print(f"{parameters.transactions:,} transactions")
    statistics = pstats.Stats(str(figures))
    for order in ("tottime", "cumulative"):
        statistics.sort_stats(order).print_stats(45)


if __name__ == "__main__":
    main()
