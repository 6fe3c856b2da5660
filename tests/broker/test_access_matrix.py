"""The access matrix (docs/access.md): who may do what, on the wire of each broker, by the contract and by the page.

When the page is stale, `make access` writes it again from what the brokers did.
"""

import os
from pathlib import Path

import pytest

from tests.broker.access_matrix import ROLES, prepare
from tests.broker.access_rows import ROWS
from tests.mqtt.support import open_testbed

PAGE = Path(__file__).parents[2] / "docs" / "access.md"
LETTERS = {"embedded": "E", "mosquitto-3.1.1": "M", "rabbitmq": "R"}
ORDER = "EMR"
NO = "no"
HEAD = """\
# Who may do what, on each broker

Tried on the wire by `tests/broker/test_access_matrix.py`, which fails when this page differs from what it saw (`make
access` writes it). A letter says that it works: **E** on the embedded broker, **M** on Mosquitto 2.0, **R** on RabbitMQ
3.10 that asks the gateway ([other-brokers.md](other-brokers.md)). It is judged by what arrives, since brokers
acknowledge what they then drop. For accounts that are no device's, "its own" are those of some device. What a
`reset_only` device publishes arrives, and the gateway stores nothing of it but presence, the reset and its
acknowledgement. The integrator here reads all projects; `test_integrator_projects.py` tries one of a single project.

"""
Seen = dict[tuple[str, str], str]
"""Letters by action and role."""


def written() -> Seen:
    """What the page says."""
    seen: Seen = {}
    for line in PAGE.read_text("utf-8").splitlines() if PAGE.exists() else ():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == len(ROLES) + 1:
            action = cells[0].partition(" [")[0]
            seen |= {(action, role): letters for role, letters in zip(ROLES, cells[1:], strict=True)}
    return seen


def page(seen: Seen) -> str:
    """The page that says this."""
    notes = list(dict.fromkeys(row.note for row in ROWS if row.note))
    lines = [f"| | {' | '.join(ROLES)} |", "|---|" + "---|" * len(ROLES)]
    for row in ROWS:
        mark = f" [{notes.index(row.note) + 1}]" if row.note else ""
        cells = [seen.get((row.action, role), NO) for role in ROLES]
        lines.append(f"| {row.action}{mark} | {' | '.join(cells)} |")
    told = [f"{number}. {note}" for number, note in enumerate(notes, 1)]
    return HEAD + "\n".join([*lines, "", *told]) + "\n"


def updated(seen: Seen, letter: str, may: set[tuple[str, str]]) -> Seen:
    """The same, with what was seen on one broker."""
    result: Seen = {}
    for row in ROWS:
        for role in ROLES:
            there = set(seen.get((row.action, role), "")) - {letter} | (
                {letter} if (row.action, role) in may else set()
            )
            result[row.action, role] = "".join(each for each in ORDER if each in there) or NO
    return result


@pytest.mark.guarantee("G11", "G12")
@pytest.mark.parametrize("kind", LETTERS)
async def test_each_role_may_do_what_the_matrix_says(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Every role does what the contract grants it, or a note admits, and nothing else; and the page says just that."""
    node = request.getfixturevalue("rabbitmq") if kind == "rabbitmq" else None
    letter = LETTERS[kind]
    may: set[tuple[str, str]] = set()
    async with open_testbed(kind, tmp_path, node=node) as made, prepare(made) as (bench, accounts):
        for row in ROWS:
            may |= {(row.action, account.role) for account in accounts if await row.attempt(bench, account)}
    expected = {(row.action, role) for row in ROWS for role in row.expected(letter)}
    assert (sorted(may - expected), sorted(expected - may)) == ([], []), "granted beyond the contract, and less"
    now = page(updated(written(), letter, may))
    if os.environ.get("WRITE_ACCESS_PAGE"):
        PAGE.write_text(now, "utf-8")
    assert PAGE.read_text("utf-8") == now, "docs/access.md is stale: run 'make access'"
