"""A comparison of commands as a whole inside one transaction, with a broker that holds what a test says."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from gateway.core.topics import Topics
from gateway.mqtt.lineage import Lineage
from gateway.mqtt.reconciler import Reconciler
from gateway.mqtt.retained_scan import ScanMarker, ScanResult, matches
from gateway.mqtt.session import Session
from gateway.store import Store, Tx


class _StoreOfTransaction:
    """A store whose reads and writes are all in this transaction, of the gateway of this broker."""

    def __init__(self, tx: Tx, broker: int) -> None:
        self._tx = tx
        self.context = replace(tx.context, link=replace(tx.context.link, broker=broker), clock=lambda: tx.now)

    async def read(self, read: Callable[[Tx], Any]) -> Any:
        return read(self._tx)

    async def write(self, write: Callable[[Tx], Any]) -> Any:
        return write(self._tx)


class _JudgedLineage:
    """A lineage that was judged before."""

    is_judged = True

    async def judge(self) -> None:
        pass


class _SessionThatClears:
    """A session that clears what is held."""

    def __init__(self, held: dict[str, bytes]) -> None:
        self._held = held

    async def publish_retained(self, messages: Sequence[tuple[str, bytes]]) -> None:
        for topic, _ in messages:
            del self._held[topic]


class _ScanOf:
    """A scan of what is held. One that is not ``told`` by the broker does not show anything."""

    def __init__(self, held: Mapping[str, bytes], keep: Callable[[str, bytes], None], *, told: bool) -> None:
        self._held = held
        self._keep = keep
        self._told = told

    async def run(self, session: Session) -> ScanResult:
        await self.ask(session, ["+/+/+/+"])
        return ScanResult(self._told, ended=self._told)

    async def ask(self, session: Session, names: Sequence[str]) -> bool:
        del session
        for topic, payload in self._held.items():
            if self._told and any(matches(each, topic) for each in names):
                self._keep(topic, payload)
        return self._told


def compare(tx: Tx, names: Topics, held: dict[str, bytes], *, trustworthy: bool, broker: int) -> None:
    """Compare, and mark what differs; without ``trustworthy`` the broker shows nothing of what it holds."""
    store = cast("Store", _StoreOfTransaction(tx, broker))
    mark = ScanMarker.own_status(names, "gw_test", _no_status)
    reconciler = Reconciler(store, names, mark, cast("Lineage", _JudgedLineage()))
    reconciler._census = _ScanOf(held, reconciler._note, told=trustworthy)  # type: ignore[assignment] # noqa: SLF001
    asyncio.run(reconciler.run(cast("Session", _SessionThatClears(held))))


async def _no_status() -> bytes:
    return b""
