"""Sessions of people in the registry: begin, use once, end, expire, and what is left of a person."""

import json
from pathlib import Path

import pytest

from gateway.core.clock import DAY_MS, HOUR_MS
from gateway.domain import epoch, sessions
from gateway.domain.sessions import Grant, Person, Started
from gateway.errors import NotFoundError, UnauthorizedError
from gateway.store import people_sql, session_sql
from tests.domain.support import World

TOKENS = '{"refresh_token": "hush"}'


def begin(world: World, sub: str = "ann", *, sid: str | None = None, state: str = "") -> Started:
    """A session of twelve hours."""
    person, grant = Person(sub, f"{sub.title()} Example", sid), Grant(world.project_id, "operator")
    state = state or f"state {world.now} {sub} {sid}"
    return world.run(lambda tx: sessions.start(tx, person, grant, 12 * HOUR_MS, tokens=TOKENS, state=state))


def events(world: World) -> list[tuple[str, str | None]]:
    """Types of the events of sessions, with why they ended."""
    rows = world.view.all("SELECT type, data FROM events WHERE type LIKE 'session.%' ORDER BY seq")
    return [(row["type"], json.loads(row["data"]).get("because")) for row in rows]


def test_a_session_is_found_by_its_secret_alone(tmp_path: Path) -> None:
    """Only a hash is stored, and the provider's tokens can be read with the secret alone."""
    with World(tmp_path) as world:
        made = begin(world)
        found = session_sql.by_secret(world.view, made.secret)
        assert found is not None
        assert (found.id, found.sub, found.name, found.role) == (made.session.id, "ann", "Ann Example", "operator")
        assert found.is_good(world.now)
        assert session_sql.by_secret(world.view, made.secret[:-1] + "-") is None
        stored = "\n".join(world.dump())
        assert made.secret not in stored
        assert "hush" not in stored
        assert sessions.tokens_of(found, made.secret) == TOKENS
        assert sessions.tokens_of(found, "gws_" + "0" * 34) is None


def test_a_state_begins_one_session(tmp_path: Path) -> None:
    """The second use is refused, and changes nothing."""
    with World(tmp_path) as world:
        begin(world, state="once")
        before = world.dump()
        with pytest.raises(UnauthorizedError, match="completed before"):
            begin(world, state="once")
        assert world.dump() == before


def test_a_session_ends_once(tmp_path: Path) -> None:
    """With one event and without the provider's tokens; a day later the row is gone."""
    with World(tmp_path) as world:
        made = begin(world)
        assert world.run(lambda tx: sessions.end(tx, [made.session], "signed_out")) == 1
        assert world.run(lambda tx: sessions.end(tx, [made.session], "revoked")) == 0
        found = session_sql.by_secret(world.view, made.secret)
        assert found is not None
        assert (found.ended_because, found.sealed, found.is_good(world.now)) == ("signed_out", None, False)
        assert events(world) == [("session.started", None), ("session.ended", "signed_out")]
        world.now += DAY_MS + 1
        world.run(sessions.prune)
        assert session_sql.by_secret(world.view, made.secret) is None


def test_a_session_expires(tmp_path: Path) -> None:
    """Good up to its time and not after it, nor long before it began; the sweep marks it, once."""
    with World(tmp_path) as world:
        made = begin(world)
        began = world.now
        assert made.session.is_good(began + 12 * HOUR_MS - 1)
        assert not made.session.is_good(began + 12 * HOUR_MS)
        assert not made.session.is_good(began - 12 * HOUR_MS - 1)
        world.now += 12 * HOUR_MS
        assert world.run(sessions.prune) == 1
        assert world.run(sessions.prune) == 0
        assert events(world)[-1] == ("session.ended", "expired")


def test_the_back_channel_ends_what_it_names(tmp_path: Path) -> None:
    """A session of the provider, or all of a person; the same message counts once."""
    with World(tmp_path) as world:
        one, two = begin(world, sid="s1"), begin(world, sid="s2")
        begin(world, "bob", sid="s3")

        def end(sub: str | None, sid: str | None, token: str) -> int | None:
            return world.run(
                lambda tx: sessions.end_at_provider(
                    tx, sub=sub, sid=sid, token_id=token, token_until=world.now + HOUR_MS
                )
            )

        assert end(None, "s1", "t1") == 1
        assert end(None, "s2", "t1") is None, "replayed"
        assert end("bob", "s2", "t2") == 0, "the session is another person's"
        assert end("ann", None, "t3") == 1
        left = [each.sub for each in session_sql.everyone(world.view) if each.ended_at is None]
        assert left == ["bob"]
        ended = {each.id for each in session_sql.everyone(world.view) if each.ended_at is not None}
        assert ended == {one.session.id, two.session.id}


def test_sessions_are_revoked_by_id_and_by_person(tmp_path: Path) -> None:
    """What is not open is 'no such session'."""
    with World(tmp_path) as world:
        one, two, three = begin(world, state="1"), begin(world, state="2"), begin(world, state="3")

        def revoke(wanted: str) -> list[str]:
            return [each.id for each in world.run(lambda tx: sessions.revoke(tx, wanted, "cli"))]

        assert revoke(one.session.id) == [one.session.id]
        assert revoke("user:ann") == [two.session.id, three.session.id]
        for wanted in (one.session.id, "user:ann", "user:bob", "ses_nowhere"):
            with pytest.raises(NotFoundError, match="no open session"):
                revoke(wanted)


def test_one_request_of_several_checks_the_role(tmp_path: Path) -> None:
    """The check is taken over once, and the confirmation sets role and tokens."""
    with World(tmp_path) as world:
        made = begin(world)
        world.now += HOUR_MS
        claimed = [
            world.run(lambda tx: session_sql.claim_check(tx, made.session.id, made.session.checked_at))
            for _ in range(2)
        ]
        assert claimed == [True, False]
        kept = world.run(lambda tx: sessions.sealed_tokens(tx, made.secret, "{}"))
        world.run(lambda tx: session_sql.confirm(tx, made.session.id, "viewer", kept))
        found = session_sql.by_secret(world.view, made.secret)
        assert found is not None
        assert (found.role, found.confirmed_at) == ("viewer", world.now)
        assert sessions.tokens_of(found, made.secret) == "{}"


def test_names_of_actors(tmp_path: Path) -> None:
    """Of people who signed in alone; the newest name counts."""
    with World(tmp_path) as world:
        begin(world)
        assert people_sql.name_of(world.view, "user:ann") == "Ann Example"
        assert people_sql.names_of(world.view, ["key_1", "ann", "user:ann", "user:bob", "cli"]) == {
            "user:ann": "Ann Example"
        }
        world.run(lambda tx: people_sql.save(tx, "ann", "Ann Other"))
        assert people_sql.name_of(world.view, "user:ann") == "Ann Other"
        assert people_sql.name_of(world.view, "key_1") is None


def test_a_person_is_forgotten_after_the_events(tmp_path: Path) -> None:
    """As long as events may name the person, the name is kept; a person in session is never forgotten."""
    with World(tmp_path) as world:
        made = begin(world)
        world.now += 400 * DAY_MS
        world.run(lambda tx: people_sql.prune(tx, world.now - 365 * DAY_MS))
        assert people_sql.name_of(world.view, "user:ann") == "Ann Example"
        world.run(lambda tx: sessions.end(tx, [made.session], "signed_out"))
        world.now += 2 * DAY_MS
        world.run(sessions.prune)
        assert people_sql.name_of(world.view, "user:ann") is None


def test_a_restore_ends_all_sessions(tmp_path: Path) -> None:
    """One that had ended after the backup would be good again."""
    with World(tmp_path) as world:
        made = begin(world)
        world.run(lambda tx: epoch.begin(tx, epoch.RESTORED))
        found = session_sql.by_secret(world.view, made.secret)
        assert found is not None
        assert found.ended_because == "restored"
