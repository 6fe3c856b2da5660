"""Transactions: what a read or a write may do on a connection of either engine.

A read gets a :class:`View`. A write gets a :class:`Tx`: the connection, the instant, the ids and the rules of the
write. Nothing inside a write reads the machine's clock or its randomness, so a simulation can own both.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from gateway.core.clock import MINUTE_MS, Clock, system_clock
from gateway.core.ids import Ids
from gateway.core.randomness import Entropy, system_entropy
from gateway.runtime.sealing import Vault
from gateway.runtime.tracing import Traced
from gateway.store.engine import Ahead
from gateway.store.errors import DATABASE_ERRORS, MINTED, concerns_all, id_was_taken, store_error
from gateway.store.measurements import Measure
from gateway.store.records import FIRST_BROKER, R, make_records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from gateway.store.engine import Cursor, DatabaseConnection, Row
    from gateway.store.row_statement import RowStatement

T = TypeVar("T")

ID_TRIES: Final = 4
"""How often a write is tried whose new id is taken. With 64 random bits in each, the second try succeeds."""


@dataclass(frozen=True)
class Rules:
    """Rules that the settings give for devices; durations in milliseconds, history in days."""

    gateway_id: str = "gateway"
    models: tuple[str, ...] = ("bota_pin", "bota_note", "bota_pin_pro")
    silence_ms: int = 180_000
    offline_grace_ms: int = 10_000
    heartbeat_raw_days: int = 30
    heartbeat_history_days: int = 30
    event_history_days: int = 365
    refusals_kept: int = 1_000
    delivery_history_days: int = 30
    webhook_allow_private: bool = False
    webhook_allow_loopback: bool = False
    bulk_reset_per_second: int = 50
    device_messages_per_second: int = 1
    device_events_per_hour: int = 12
    mirrored: tuple[str, ...] = ()
    """Retained topics that are mirrored for integrators (``outbox.STATE``, ``outbox.DISCOVERY``)."""
    state_refresh_ms: int = 300_000
    assigns_homes: bool = False
    """Whether a bind gives the device a home: one broker that alone serves it (setting ``cells``)."""
    token_refresh_ms: int = MINUTE_MS
    """Minimum time from one token refresh of a device to the next (contract, section 2)."""


@dataclass
class LinkState:
    """The broker of this process, by its number, and whether this process publishes there at the moment.

    The registration sets ``broker``. The publisher sets ``is_up``, and writes that queue commands read it.
    """

    is_up: bool = False
    broker: int = FIRST_BROKER


@dataclass(frozen=True)
class Context:
    """What every write shares: clock, randomness, ids, rules, key, and the state of the broker connection."""

    rules: Rules = field(default_factory=Rules)
    clock: Clock = system_clock
    entropy: Entropy = system_entropy
    ids: Ids = field(default_factory=lambda: Ids(system_entropy))
    link: LinkState = field(default_factory=LinkState)
    serves: bool = False
    """Whether this is a gateway: its process does not have the user who once was at the command line."""
    vault: Vault = field(default_factory=Vault)
    """Opens and seals signing keys and webhook secrets."""
    signing_keys: dict[str, Ed25519PrivateKey] = field(default_factory=dict)
    """The private keys that were opened so far, by their ids."""

    @property
    def broker(self) -> int:
        """Return the number of the broker that this process is configured for."""
        return self.link.broker


class View:
    """Reads on one connection."""

    def __init__(self, connection: DatabaseConnection) -> None:
        self.connection = connection
        self.dialect = connection.dialect

    def read_ahead(self, *reads: Callable[[View], object]) -> None:
        """Ask for what these will read, all at once. On PostgreSQL that is one round trip instead of one for each.

        It changes no result. The first statement of each is sent. The next read with the same statement and values gets
        its answer, unless its table was written meanwhile: then it asks again. What triggers change must not be read
        ahead.
        """
        self.connection.read_ahead(Ahead(reads))

    def one(self, sql: str, *values: Any) -> Row | None:
        """Return the first row, or None."""
        row: Row | None = self.connection.execute(sql, values).fetchone()
        return row

    def all(self, sql: str, *values: Any) -> list[Row]:
        """Return every row."""
        return self.connection.execute(sql, values).fetchall()

    def each(self, sql: str, *values: Any) -> Iterator[Row]:
        """Yield the rows one by one, so that many take little memory. Read them to the end before the next query."""
        yield from self.connection.execute(sql, values)

    def record(self, kind: type[R], sql: str, *values: Any) -> R | None:
        """Return the first row as a record of this kind, or None."""
        row: Row | None = self.connection.execute(sql, values).fetchone()
        return None if row is None else make_records(kind, row.keys(), (row,))[0]

    def records(self, kind: type[R], sql: str, *values: Any) -> list[R]:
        """Return every row as a record of this kind."""
        rows = self.connection.execute(sql, values).fetchall()
        return make_records(kind, rows[0].keys(), rows) if rows else []

    def value(self, sql: str, *values: Any) -> Any:
        """Return the first column of the first row, or None."""
        row = self.connection.execute(sql, values).fetchone()
        return None if row is None else row[0]


class _Mark(NamedTuple):
    measures: int
    traced: int
    new_salts: int


class Tx(View):
    """One write inside a transaction."""

    def __init__(self, connection: DatabaseConnection, context: Context) -> None:
        super().__init__(connection)
        self.context = context
        self.rules = context.rules
        self.entropy = context.entropy
        self.now = context.clock()
        self.outbox_kinds: set[str] = set()
        """Kinds of rows that were written into the outbox."""
        self.wrote_events = False
        """Whether events were written, or their receivers changed."""
        self.measures: list[Measure] = []
        self.traceparent: str | None = None
        """The caller's place in a trace (W3C Trace Context)."""
        self.client_address: str | None = None
        """The address of the request behind this write, for its events. The caller sets it."""
        self.request_id: str | None = None
        """The id of the request behind this write, as its answer has it. The caller sets it."""
        self.actor_names: dict[str, str | None] = {}
        """Names of actors by id: those looked up so far, and of who asked for this write earlier under another name."""
        self.traced: list[Traced] = []
        self.new_salts: dict[tuple[str, str], bytes] = {}
        """Salts that writes of this transaction made, by project and person. A read ahead may not have seen them."""
        self.follows = False
        """Whether new ids sort after the existing ones."""

    def mark(self) -> _Mark:
        """Return what to give to :meth:`forget_since` when what follows is undone."""
        return _Mark(len(self.measures), len(self.traced), len(self.new_salts))

    def forget_since(self, before: _Mark) -> None:
        """Forget what was noted since then: a savepoint has undone it."""
        del self.measures[before.measures :], self.traced[before.traced :]
        for person in list(self.new_salts)[before.new_salts :]:
            del self.new_salts[person]

    def run(self, sql: str, *values: Any) -> Cursor:
        """Execute one statement, at the latest when its result is read."""
        return self.connection.post(sql, values)

    def run_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> int:
        """Execute one statement with each of these rows; return how many rows it changed."""
        return self.connection.executemany(sql, rows).rowcount

    def run_rows(self, statement: RowStatement, rows: Sequence[Sequence[Any]]) -> int:
        """Execute a statement about rows of one table; return how many it changed."""
        return self.connection.run_rows(statement, rows)

    def measure(self, name: str, label: str, value: float = 1.0) -> None:
        """Record something for the metrics. It counts once this is committed."""
        self.measures.append(Measure(name, label, value))

    def new_id(self, prefix: str) -> str:
        """Return a new id of this instant, which sorts after all that were committed before."""
        if not self.follows:
            follow(self, self.context.ids)
            self.follows = True
        return self.context.ids.new(prefix, self.now)


def follow(tx: Tx, minted: Ids) -> None:
    """Mint only ids that sort after those in the registry, also when the clock was set back meanwhile.

    Lists are read in the order of ids. Another process may have minted some since the last transaction; the
    connection's counter shows that.
    """
    state = (tx.connection, tx.connection.commits_of_others())
    if minted.followed == state:
        return
    for table in MINTED:
        newest = tx.value(f"SELECT max(id) FROM {table}")  # noqa: S608 - our own tables
        minted.after((newest or "").partition("_")[2])
    minted.followed = state


@contextlib.contextmanager
def transaction(connection: DatabaseConnection, context: Context) -> Iterator[Tx]:
    """Run one write on this thread: committed when the block ends, rolled back when it raises.

    Raises:
        StoreError: the database could not commit.
    """
    try:
        connection.begin()
        yield Tx(connection, context)
        connection.execute("COMMIT")
    except BaseException as error:
        rollback(connection)
        if concerns_all(error):
            raise store_error(error, again=False) from error
        raise


def rollback(connection: DatabaseConnection) -> None:
    """Roll back an open transaction. After some errors the database has done so itself."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def transact(connection: DatabaseConnection, context: Context, write: Callable[[Tx], T]) -> T:
    """Run one write function in a transaction; run it again where an id that it minted was taken."""
    for _ in range(ID_TRIES - 1):
        try:
            with transaction(connection, context) as tx:
                return write(tx)
        except DATABASE_ERRORS as error:
            if not id_was_taken(error):
                raise
    with transaction(connection, context) as tx:
        return write(tx)
