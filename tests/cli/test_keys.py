"""``gateway keys`` and ``gateway projects``: what is made, what it opens and until when, and how it is told."""

import json
import sys
import time
from contextlib import closing

import pytest

from gateway.core.credentials import SCOPES
from gateway.domain import administration
from gateway.store import Context, View, key_sql, open_database, transact
from tests.cli.support import Cli

DAY_MS = 86_400_000


def now() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def is_accepted(cli: Cli, secret: str, at: int | None = None) -> bool:
    """Whether this secret is one that the gateway takes at that instant."""
    with closing(open_database(cli.data_dir)) as connection:
        return key_sql.by_secret(View(connection), secret, now() if at is None else at) is not None


def test_a_key_is_shown_once(empty: Cli) -> None:
    """On stdout alone, so that a script can take it; never again, and nothing of it but its beginning is listed."""
    made = empty("keys", "create", "--name", "backend")
    secret = made.out.strip()
    assert is_accepted(empty, secret)
    assert secret not in made.err
    listed = empty("keys", "list")
    assert secret not in listed.out
    assert secret[:12] in listed.out


def test_a_key_gets_an_expiry(cli: Cli) -> None:
    """Good until then and no longer; the list says so."""
    key = cli.json("keys", "create", "--name", "short", "--expires-in", "30d")
    assert is_accepted(cli, key["key"], now() + 30 * DAY_MS - 60_000)
    assert not is_accepted(cli, key["key"], now() + 30 * DAY_MS + 60_000)
    assert key["expires_at"] in cli("keys", "list").out


def test_expire_changes_the_expiry(cli: Cli) -> None:
    """Nearer, to at once, and to never."""
    key = cli.json("keys", "create", "--name", "k")
    cli("keys", "expire", "k", "--in", "1d")
    assert not is_accepted(cli, key["key"], now() + 2 * DAY_MS)
    cli("keys", "expire", key["id"], "--never")
    assert is_accepted(cli, key["key"], now() + 3650 * DAY_MS)
    assert cli.json("keys", "expire", "k", "--in", "0")["state"] in ("active", "expired")  # to the millisecond
    assert not is_accepted(cli, key["key"], now() + 1_000)
    assert cli("keys", "expire", "k", code=2).err.startswith("error: Say either --in TIME")


def test_rotation_overlaps(cli: Cli) -> None:
    """The new secret is good at once, the old one for the overlap, the one before that not at all; the id stays."""
    first = cli.json("keys", "create", "--name", "k", "--scope", "devices:read", "--test")
    second = cli.json("keys", "rotate", "k", "--overlap", "2h")
    assert (second["id"], second["scopes"], second["state"]) == (first["id"], ["devices:read"], "rotating")
    assert second["key"].startswith("rk_test_")
    assert is_accepted(cli, first["key"])
    assert is_accepted(cli, second["key"])
    assert not is_accepted(cli, first["key"], now() + DAY_MS)
    assert is_accepted(cli, second["key"], now() + DAY_MS)
    third = cli("keys", "rotate", first["id"])
    assert "The old secret is good until" in third.err
    assert [is_accepted(cli, each) for each in (first["key"], second["key"], third.out.strip())] == [False, True, True]


def test_rotation_without_overlap(cli: Cli) -> None:
    """For a secret that got out."""
    first = cli.json("keys", "create", "--name", "k")
    said = cli("keys", "rotate", "k", "--overlap", "0")
    assert "opens nothing any more" in said.err
    assert [is_accepted(cli, first["key"]), is_accepted(cli, said.out.strip())] == [False, True]


def test_a_revoked_key_is_refused(cli: Cli) -> None:
    """Both secrets of a key that is being rotated are dead at once, permanently; another revocation changes nothing."""
    first = cli.json("keys", "create", "--name", "k")
    second = cli.json("keys", "rotate", "k")
    assert cli.json("keys", "revoke", "k", "--yes")["state"] == "revoked"
    assert not is_accepted(cli, first["key"])
    assert not is_accepted(cli, second["key"])
    revoked_at = cli.json("keys", "revoke", first["id"], "--yes")["revoked_at"]
    assert revoked_at == cli.json("keys", "list")[0]["revoked_at"]
    again = cli("keys", "revoke", "k")  # by its name as well, and nobody is asked
    assert f"revoked already, since {revoked_at}" in again.err
    assert "revoked for good" in cli("keys", "rotate", first["id"], code=5).err
    assert "revoked for good" in cli("keys", "rotate", "k", code=5).err
    assert "revoked for good" in cli("keys", "expire", first["id"], "--never", code=5).err


def test_revoke_asks_for_confirmation(cli: Cli) -> None:
    """Without a terminal and without --yes nothing is done, and the line says what to add."""
    said = cli("keys", "revoke", "backend", code=2)
    assert "never used" in said.err
    assert "--yes" in said.err
    assert cli.json("keys", "list")[0]["state"] == "active"


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(("answer", "code", "state"), [("y", 0, "revoked"), ("n", 1, "active"), ("", 1, "active")])
def test_revoke_can_be_confirmed_or_declined(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, state: str
) -> None:
    """At a terminal a person says yes; the enter key alone is no."""
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: answer)
    cli("keys", "revoke", "backend", code=code)
    assert cli.json("keys", "list")[0]["state"] == state


def test_a_key_is_selected_by_id_or_name(cli: Cli) -> None:
    """By id or by name; a name that two keys have is refused, and so is an unknown name."""
    made = [cli.json("keys", "create", "--name", "twin")["id"] for _ in range(2)]
    said = cli("keys", "revoke", "twin", "--yes", code=5)
    assert all(each in said.err for each in made)
    cli("keys", "revoke", made[0], "--yes")
    cli("keys", "revoke", "twin", "--yes")  # the only one of that name that is left
    assert "gateway keys list" in cli("keys", "rotate", "nobody", code=4).err


def test_an_expired_key_is_not_rotated(cli: Cli) -> None:
    """The message says how to give it more time."""
    secret = cli("keys", "create", "--name", "old", "--expires-in", "0").out.strip()
    while is_accepted(cli, secret):
        pass  # the millisecond it expires in has to be over
    assert "--in 30d" in cli("keys", "rotate", "old", code=5).err


@pytest.mark.parametrize("time_given", ["30", "d", "1y", "-1d", "1.5h", "99999999w", ""])
def test_durations_need_a_unit(cli: Cli, time_given: str) -> None:
    """What is no time is said to be none, with what one looks like."""
    said = cli("keys", "create", "--name", "k", "--expires-in", time_given, code=2)
    assert "30d" in said.err or "100 years" in said.err


@pytest.mark.parametrize("name", ["", " ", "x" * 65, "two\nlines", "\x1b[2J"])
@pytest.mark.parametrize("command", [("keys", "create", "--name"), ("projects", "create")])
def test_invalid_key_names_are_refused(cli: Cli, command: tuple[str, ...], name: str) -> None:
    """Neither empty nor endless, and nothing that a terminal would obey."""
    assert "printable" in cli(*command, name, code=2).err


@pytest.mark.parametrize("command", [("keys", "create", "--name"), ("projects", "create")])
def test_bidi_controls_in_a_name_are_refused(cli: Cli, command: tuple[str, ...]) -> None:
    """A bidirectional control is named; text of every script is taken, with blanks around it trimmed."""
    assert "U+202E RIGHT-TO-LEFT OVERRIDE" in cli(*command, "back\u202eend", code=2).err
    assert cli.json(*command, "  لوحة\u3000سرير ")["name"] == "لوحة\u3000سرير"


def test_keys_belong_to_projects(cli: Cli) -> None:
    """Each name once; a key is made for one by its id or its name."""
    project = cli.json("projects", "create", "Clinic North")
    assert project["id"] in cli("projects", "create", "Clinic North", code=5).err
    assert [each["name"] for each in cli.json("projects", "list")] == ["default", "Clinic North"]
    for wanted in (project["id"], "Clinic North"):
        key = cli.json("keys", "create", "--name", "north", "--project", wanted)
        assert (key["project_id"], key["project"]) == (project["id"], "Clinic North")
    assert project["id"] in cli("keys", "create", "--name", "x", "--project", "South", code=4).err


@pytest.mark.parametrize("command", [("keys", "list"), ("projects", "list"), ("keys", "rotate", "x")])
def test_without_a_registry_commands_fail(empty: Cli, command: tuple[str, ...]) -> None:
    """A directory that has none is named, and none is made in it."""
    assert "--data-dir" in empty(*command, code=4).err
    assert not empty.data_dir.exists()


def use_terminal(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Make the program run at a terminal; it reads the returned answers in their order."""
    answers: list[str] = []
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: answers.pop(0))
    return answers


def test_at_a_terminal_scopes_and_expiry_are_asked_for(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Enter alone is everything and for ever; a wrong answer is asked again; what is given is not asked for."""
    person = use_terminal(monkeypatch)
    for options, answers, scopes, days in (
        ((), ["", ""], list(SCOPES), None),
        ((), ["devices:read, webhooks:read", "90d"], ["devices:read", "webhooks:read"], 90),
        ((), ["devices", "devices:read", "soon", "1d"], ["devices:read"], 1),
        (("--scope", "devices:read"), ["never"], ["devices:read"], None),
        (("--all-scopes", "--expires-in", "30d"), [], list(SCOPES), 30),
        (("--all-scopes", "--expires-in", "never"), [], list(SCOPES), None),
    ):
        person.extend(answers)
        secret = cli("keys", "create", "--name", "asked", *options).out.strip()
        assert person == [], "nobody asked for these"
        made = cli.json("keys", "list")[0]
        assert (made["scopes"], is_accepted(cli, secret)) == (scopes, True)
        if days is None:
            assert made["expires_at"] is None
        else:
            assert [
                is_accepted(cli, secret, now() + hours * DAY_MS // 24) for hours in (days * 24 - 1, days * 24 + 1)
            ] == [
                True,
                False,
            ]


def test_without_a_terminal_no_question_is_asked(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --json no question is asked, whatever the terminal is."""
    use_terminal(monkeypatch)
    assert cli.json("keys", "create", "--name", "ci")["scopes"] == list(SCOPES)
    said = cli("keys", "create", "--name", "k", "--scope", "devices:read", "--all-scopes", code=2)
    assert "either --scope" in said.err


def test_a_key_that_expires_soon_is_reported_once(cli: Cli) -> None:
    """By an event for each end; not of one that is revoked."""
    for name, time_given in (("late", "30d"), ("short", "4d"), ("gone", "4d")):
        cli("keys", "create", "--name", name, "--expires-in", time_given)
    cli("keys", "revoke", "gone", "--yes")

    def told(days: float) -> list[str]:
        context = Context(clock=lambda: now() + round(days * DAY_MS))
        with closing(open_database(cli.data_dir)) as connection:
            return [row.name for row in transact(connection, context, administration.warn_of_expiring_keys)]

    assert [told(2.9), told(3.1), told(3.2)] == [[], ["short"], []]
    cli("keys", "expire", "short", "--in", "5d")
    assert [told(3.2), told(4), told(4.9)] == [[], ["short"], []]
    assert [told(22.9), told(23.1), told(29), told(31)] == [[], ["late"], [], []]
    lines = cli("events", "security", "--type", "key.expiring", "--json").out.splitlines()
    assert [json.loads(line)["data"]["name"] for line in lines] == ["short", "short", "late"]


def test_the_doctor_warns_before_a_key_ends(cli: Cli) -> None:
    """One that has days of a year left; by its id, with what to do."""
    key_id = cli.json("keys", "create", "--name", "late", "--expires-in", "3d")["id"]
    assert "none expires soon" in cli("doctor", code=1).out
    with closing(open_database(cli.data_dir)) as connection:
        connection.execute("UPDATE api_keys SET created_at = created_at - ? WHERE name = 'late'", (365 * DAY_MS,))
        connection.commit()
    report = cli("doctor", code=1).out
    assert "1 key will expire soon" in report
    assert f"{key_id} ('late') of default at " in report
    assert "gateway keys expire KEY --in 90d" in report
