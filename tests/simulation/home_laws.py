"""Laws of home brokers (invariant 12): one broker alone serves a device, and callers are told which."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from gateway.store import View, token_sql

if TYPE_CHECKING:
    from gateway.store import Row
    from tests.simulation.broker_sites import BrokerSite
    from tests.simulation.integrator import Finding
    from tests.simulation.world import World

MENDED_SECONDS: Final = 5.0
"""So long after a move, and after the last fault, nothing of a device is at another broker than its home."""

ALONE: Final = "the home broker alone serves a device"
KNOWS: Final = "the home broker knows the credential"
TOLD: Final = "an answer names the home broker"
DRAINED: Final = "a broker that is drained gets no device"
EVENT: Final = "a new home has its event"
COUNTED: Final = "the number of devices of a broker is counted right"

HOME_LEDGER: Final = """
    CREATE TEMP TRIGGER l19 AFTER INSERT ON homes BEGIN
        INSERT INTO ledger (what, id, new) VALUES ('home', new.device_pk, new.broker_pk); END;
    CREATE TEMP TRIGGER l20 AFTER UPDATE OF broker_pk ON homes BEGIN
        INSERT INTO ledger (what, id, new) VALUES ('home', new.device_pk, new.broker_pk); END;
"""


class HomeLaws:
    """Judges where devices are known, with a record of each home that a device has had."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._homes: dict[int, list[tuple[float, str]]] = defaultdict(list)
        self._wrong_since: dict[tuple[str, str, str], float] = {}
        world.disk.executescript(HOME_LEDGER)

    def check_commit(self, rows: Sequence[Row]) -> None:
        """Record the homes that a commit has given, and judge the choice."""
        for row in rows:
            if row["what"] != "home":
                continue
            broker = self._world.row("SELECT id, draining FROM brokers WHERE pk = ?", row["new"])
            assert broker is not None
            device_pk, home = row["id"], broker["id"]
            self._homes[device_pk].append((self._world.loop.time(), home))
            self._world.log("registry", f"device {device_pk} has the home {home}")
            if broker["draining"]:
                self._world.model.violate(12, DRAINED, f"device {device_pk} goes to {home}")
            if not any(_tells(each, device_pk, home) for each in rows):
                self._world.model.violate(12, EVENT, f"device {device_pk} goes to {home}, and no event says so")

    def check_told(self, device_pk: int, host: str, began: float) -> None:
        """A caller who has asked since ``began`` was answered this broker: it has been the home since then."""
        homes = self._homes[device_pk]
        newest_before = [id_ for at, id_ in homes if at <= began][-1:]
        if host not in (*newest_before, *(id_ for at, id_ in homes if at > began)):
            self._world.model.violate(12, TOLD, f"device {device_pk} is sent to {host}, its homes were {homes[-3:]}")
            self._world.check()

    def watch(self, undisturbed: dict[str, float]) -> None:
        """Judge what each broker holds; ``undisturbed`` says for how many seconds nothing was wrong there."""
        now = self._world.loop.time()
        self._wrong_since = {each: self._wrong_since.get(each, now) for each in self._find_wrong()}
        for (site_id, law, detail), since in self._wrong_since.items():
            if min(undisturbed[site_id], now - since) > MENDED_SECONDS:
                self._world.model.violate(12, law, detail)

    def _find_wrong(self) -> Iterator[tuple[str, str, str]]:
        for site in self._world.sites:
            for device in self._world.devices if site.is_served else ():
                home = home_of(self._world, device.id)
                if home is not None and home != site.id:
                    yield from _held_elsewhere(site, device.id, home)
                elif home is not None and not site.table.knows(device.id) and self._is_good(device.id):
                    yield site.id, KNOWS, f"{device.id} is unknown at {site.id}"

    def _is_good(self, device_id: str) -> bool:
        row = self._world.row("SELECT pk FROM devices WHERE id = ? AND deleted_at IS NULL", device_id)
        return row is not None and bool(token_sql.live(View(self._world.disk), row["pk"]))

    def check_at_rest(self) -> Iterator[Finding]:
        """Compare the number of each broker with its homes."""
        for row in self._world.rows(
            """SELECT id, devices, (SELECT count(*) FROM homes h WHERE h.broker_pk = b.pk) AS homes FROM brokers b"""
        ):
            if row["devices"] != row["homes"]:
                yield 12, COUNTED, f"{row['id']} has {row['homes']} devices, and counts {row['devices']}"


def _tells(row: Row, device_pk: int, home: str) -> bool:
    if row["what"] != "event" or row["device_pk"] != device_pk:
        return False
    facts = json.loads(row["new"])
    return home in (facts.get("broker"), facts.get("to_broker"))


def home_of(world: World, device_id: str) -> str | None:
    """Return the id of the device's home broker, or None."""
    row = world.row(
        """SELECT b.id FROM homes h JOIN brokers b ON b.pk = h.broker_pk JOIN devices d ON d.pk = h.device_pk
            WHERE d.id = ?""",
        device_id,
    )
    return None if row is None else str(row["id"])


def _held_elsewhere(site: BrokerSite, device_id: str, home: str) -> Iterator[tuple[str, str, str]]:
    """Yield what a broker holds of a device whose home is another one."""
    status = site.broker.retained.get(f"devices/{device_id}/status", b"")
    held = {
        "its credential": site.table.knows(device_id),
        "its session": device_id in site.broker.live(),
        "that it is online": site.remembers and b"online" in status,
    }
    for what, is_held in held.items():
        if is_held:
            yield site.id, ALONE, f"{site.id} holds {what} of {device_id}, whose home is {home}"
