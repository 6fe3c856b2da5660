"""What each thread asks of SQLite: a count that no machine's load changes."""

import re
import threading
from collections import defaultdict
from pathlib import Path

import pytest

import gateway.store.opening
import gateway.store.sqlite.engine
from gateway.store.sqlite.connection import SqliteConnection, connect

WRITER = "store-writer"
READER = "any of the readers"
READERS = "store-"
"""Each purpose has threads with a separate name."""
LOOP = "MainThread"


class Statements:
    """Every statement that the connections of a store begin from now on, by the name of the thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._begun: dict[str, list[str]] = defaultdict(list)
        for module in (gateway.store.sqlite.engine, gateway.store.opening):
            monkeypatch.setattr(module, "connect", self._connect)

    def _connect(self, path: Path, *, read_only: bool = False) -> SqliteConnection:
        connection = connect(path, read_only=read_only)
        connection.set_trace_callback(self._note)
        return connection

    def _note(self, sql: str) -> None:
        if sql.startswith(
            ("--", "PRAGMA")
        ):  # what a search index does inside a statement; what is answered from memory
            return
        name = threading.current_thread().name
        is_reader = name.startswith(READERS) and name != WRITER
        self._begun[READER if is_reader else name].append(" ".join(sql.split()))

    def of(self, thread: str) -> list[str]:
        """Verb and table of each that this thread has begun since it was last forgotten what came before."""
        return [_table(statement) for statement in self._begun[thread]]

    def texts(self, thread: str) -> list[str]:
        """The same, whole and with their values."""
        return list(self._begun[thread])

    def forget(self) -> None:
        """Count from here."""
        self._begun.clear()


def _table(statement: str) -> str:
    """Verb and table of a statement, as short as it says what is done."""
    outer = statement
    while outer != (shorter := re.sub(r"\([^()]*\)", "", outer)):  # a column that is a query names another table
        outer = shorter
    words = outer.replace("OR REPLACE ", "").replace("*", "").split()
    places = {"SELECT": "FROM", "INSERT": "INTO", "DELETE": "FROM"}
    after = places.get(words[0])
    if not after:
        return " ".join(words[:2])
    table = words[words.index(after) + 1] if after in words else "AS"
    if table == "AS" or table.startswith("("):  # it reads from queries alone
        found = re.search(r"(?:FROM|JOIN) (?!json_each)(\w+)", re.sub(r"EXISTS \([^()]*\)", "", statement))
        table = found[1] if found else ""
    return f"{words[0]} {table}"
