"""What is measured: the rows of the table, their bounds, and their values by size and round."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from bench.figures import Figure, Pair, Target, at_least, at_most

CALL_MOST, SEARCH_MOST = 3.0, 10.0
"""Bounds on the p99 of a call at the largest registry, divided by that at the smallest."""
BURST: Final = "10 binds a second"


@dataclass(frozen=True)
class Row:
    """A row: its name and unit, the plot that shows it, and what is to be reached.

    A target of the gateway's figure is one for the largest registry. A target of the ratio is one for the largest
    divided by the smallest.
    """

    name: str
    unit: str
    panel: str
    target: Target | None = None

    def __str__(self) -> str:
        """Return the name with the unit."""
        return f"{self.name}, {self.unit}"

    @property
    def label(self) -> str:
        """Return the name in its plot, whose title says the first part."""
        return self.name.rpartition(": ")[2] if self.panel in _TITLED else self.name


_START, _MEMORY, _REST = "start, s", "memory, MB", "at rest, % of a core"
_BINDS, _BURST, _RESETS = "binds and revocations, one at a time, s", f"while {BURST} are asked, s", "resets, ms"
_TITLED: Final = (_BURST,)
FIRST_READY = Row("first start: until ready", "s", _START)
FIRST_SETTLED = Row("first start: until the broker has all states", "s", _START)
READY = Row("start: until ready", "s", _START, at_most(5, of="gateway"))
HEARTBEAT = Row("start: until the first heartbeat is stored", "s", _START, at_most(2, of="gateway"))
SETTLED = Row("start: until all states are compared", "s", _START)
READY_MB = Row("memory of the gateway when ready", "MB", _MEMORY)
PEAK_MB = Row("memory of the gateway at its peak", "MB", _MEMORY, at_most(200, of="gateway"))
BROKER_MB = Row("memory of Mosquitto with all states", "MB", _MEMORY)
REST_GATEWAY = Row("gateway at rest", "% of a core", _REST)
REST_BROKER = Row("Mosquitto at rest", "% of a core", _REST)
RESET_50 = Row("reset until its device has it, p50", "ms", _RESETS, at_most(CALL_MOST))
RESET_99 = Row("reset until its device has it, p99", "ms", _RESETS, at_most(CALL_MOST))
BIND = Row("bind until answered", "s", _BINDS)
BIND_STEP = Row("bind until its device may connect", "s", _BINDS)
BIND_CPU = Row("processor of a bind, gateway and Mosquitto", "s", _BINDS)
CUT = Row("unbind until its session is cut", "s", _BINDS, at_most(1, of="gateway"))
CUT_EMBEDDED = Row("the same with the embedded broker", "s", _BINDS, at_most(1, of="gateway"))
BURST_ANSWER = Row(f"{BURST}: until answered, p50", "s", _BURST)
BURST_SYNCED = Row(f"{BURST}: in step when answered", "%", "")
BURST_STEP = Row(f"{BURST}: until all are in step, after the last answer", "s", _BURST)
BURST_STALL = Row(f"{BURST}: longest round trip of another client", "s", _BURST)
BURST_RESET = Row(f"{BURST}: reset until its device has it, p99", "s", _BURST)
RATE = Row("full ingest: heartbeats stored", "1/s", "full ingest, heartbeats stored a second", at_least(0.9))
CPU = Row("full ingest: processor of 100,000", "s", "full ingest, processor of 100,000 heartbeats, s")
DEVICE = Row("on disk: a device", "bytes", "on disk, bytes", at_most(1_200, of="gateway"))
HISTORY = Row("on disk: a heartbeat of the history", "bytes", "on disk, bytes", at_most(90, of="gateway"))
COSTS: Final = (
    *(FIRST_READY, FIRST_SETTLED, READY, HEARTBEAT, SETTLED, READY_MB, PEAK_MB, BROKER_MB, REST_GATEWAY, REST_BROKER),
    *(RESET_50, RESET_99, BIND, BIND_STEP, BIND_CPU, CUT, CUT_EMBEDDED),
    *(BURST_ANSWER, BURST_SYNCED, BURST_STEP, BURST_STALL, BURST_RESET, RATE, CPU, DEVICE, HISTORY),
)


@dataclass(frozen=True)
class CallRow:
    """A call of the API: p50 and p99 in milliseconds."""

    name: str
    panel: str
    most: float

    @property
    def p50(self) -> Row:
        """Return the row of the p50, which has no bound."""
        return Row(f"{self.name}, p50", "ms", "")

    @property
    def p99(self) -> Row:
        """Return the row of the p99."""
        return Row(f"{self.name}, p99", "ms", f"{self.panel}, p99, ms", at_most(self.most))


@dataclass
class Growth:
    """What was measured on an engine: values by row and size, one for each round, in the order of the rounds."""

    engine: str
    sizes: tuple[int, ...]
    calls: tuple[CallRow, ...]
    values: dict[Row, dict[int, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))

    server_seconds: float = 0.0
    """Processor seconds of the database server."""
    ended_by: str | None = None
    """Why the run ended early, if it did."""

    def add(self, row: Row, size: int, *values: float) -> None:
        """Add values of a row."""
        self.values[row][size].extend(values)

    def rows(self) -> Iterator[Row]:
        """Yield the rows that were measured at each size."""
        for row in (*(each for call in self.calls for each in (call.p50, call.p99)), *COSTS):
            if all(self.values[row][size] for size in self.sizes):
                yield row

    def medians(self, row: Row) -> Mapping[int, float]:
        """Return the median of a row by size."""
        return {size: median(self.values[row][size]) for size in self.sizes}

    def figure(self, row: Row) -> Figure:
        """Return a row as a figure. Its floor is the smallest registry, in the same round."""
        largest, smallest = (self.values[row][size] for size in (self.sizes[-1], self.sizes[0]))
        rounds = tuple(Pair(*pair) for pair in zip(largest, smallest, strict=False))
        return Figure(row.name, row.unit, f"{self.sizes[0]:,} devices", rounds, row.target)

    def figures(self) -> Sequence[Figure]:
        """Return all rows as figures."""
        return [self.figure(row) for row in self.rows()]
