"""SQL of people who sign in: the name of each, and which actor they are in events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.store.transaction import Tx, View

PERSON: Final = "user:"
"""How the actor begins that a person is: ``user:{sub}`` (contract, section 9)."""


def actor_of(sub: str) -> str:
    """Return the actor of a person; ``sub`` is the provider's id of that person."""
    return f"{PERSON}{sub}"


def name_of(view: View, actor: str) -> str | None:
    """Return the display name of a person, or None for another actor and for an unknown person."""
    return names_of(view, (actor,)).get(actor)


def names_of(view: View, actors: Iterable[str]) -> dict[str, str]:
    """Return the display names of those actors who are known people, by actor."""
    subs = sorted({actor.removeprefix(PERSON) for actor in actors if actor.startswith(PERSON)})
    if not subs:
        return {}
    marks = ", ".join("?" * len(subs))
    rows = view.all(f"SELECT sub, name FROM people WHERE sub IN ({marks})", *subs)  # noqa: S608 - question marks
    return {actor_of(row["sub"]): row["name"] for row in rows}


def save(tx: Tx, sub: str, name: str) -> None:
    """Store a person who signs in, with the name that the provider says now."""
    tx.run(
        """INSERT INTO people (sub, name, created_at, last_seen_at) VALUES (?1, ?2, ?3, ?3)
            ON CONFLICT (sub) DO UPDATE SET name = excluded.name, last_seen_at = excluded.last_seen_at""",
        *(sub, name, tx.now),
    )


def prune(tx: Tx, before: int) -> int:
    """Delete people without a session who signed in last before that time (milliseconds); return how many."""
    return tx.run(
        """DELETE FROM people WHERE last_seen_at < ?
            AND NOT EXISTS (SELECT 1 FROM sessions s WHERE s.sub = people.sub)""",
        before,
    ).rowcount
