"""``gateway sessions``: who is in session, and how an operator ends that."""

import json
from contextlib import closing

from gateway.domain import sessions
from gateway.domain.sessions import Grant, Person
from gateway.store import Context, Tx, View, key_sql, open_database, transact
from tests.cli.support import Cli

HOUR_MS = 3_600_000


def begin(cli: Cli, sub: str, number: int = 1) -> str:
    """A session of an hour; its id."""
    with closing(open_database(cli.data_dir)) as connection:
        project_id = key_sql.projects(View(connection))[0].id

        def start(tx: Tx) -> str:
            person = Person(sub, f"{sub.title()} Example")
            grant = Grant(project_id, "operator")
            return sessions.start(tx, person, grant, HOUR_MS, tokens="{}", state=f"{sub} {number}").session.id

        return transact(connection, Context(), start)


def test_sessions_are_listed_and_revoked(cli: Cli) -> None:
    """By id, and by person; in the audit trail the command line is the actor. No secret is shown."""
    one, two, three = begin(cli, "ann"), begin(cli, "ann", 2), begin(cli, "bob")
    listed = cli("sessions", "list")
    assert [row[0] for row in listed.rows] == [three, two, one]
    assert "Ann Example" in listed.out
    assert "gws_" not in listed.out
    assert cli("sessions", "revoke", one).out == f"{one} of Ann Example (user:ann) is revoked.\n"
    assert [each["id"] for each in cli.json("sessions", "revoke", "user:ann")] == [two]
    states = {each["id"]: each["state"] for each in cli.json("sessions", "list")}
    assert states == {one: "revoked", two: "revoked", three: "open"}
    trail = cli("events", "security", "--type", "session.ended", "--json").out.splitlines()
    assert [json.loads(line)["data"]["actor"] for line in trail] == ["cli", "cli"]


def test_what_is_not_open_is_not_found(cli: Cli) -> None:
    """An unknown person, an unknown session, one that has ended."""
    one = begin(cli, "ann")
    cli("sessions", "revoke", one)
    for wanted in (one, "user:ann", "user:nobody", "ses_1"):
        refused = cli("sessions", "revoke", wanted, code=4)
        assert f"There is no open session '{wanted}'. 'gateway sessions list' shows" in refused.err
