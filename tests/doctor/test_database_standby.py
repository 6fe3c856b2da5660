"""A real standby of the database: what ``gateway cluster`` and the doctor say of it, and what when it is away."""

from __future__ import annotations

from contextlib import closing

from gateway.doctor.database_checks import database
from gateway.doctor.findings import Finding, Level
from gateway.observability.metrics import Gauges
from gateway.observability.metrics_endpoint import set_standbys
from gateway.settings.loading import load
from gateway.store import View, open_reader, replication_sql
from gateway.store.postgres.engine import open_registry
from gateway.store.replication_sql import DatabaseState
from tests.support.postgres import execute
from tests.support.postgres_pair import PostgresPair
from tests.support.wait import eventually


async def test_a_standby_is_watched() -> None:
    """In step, then unseen by a user without rights, then away, while each commit waits for it; then a primary."""
    with PostgresPair() as pair:
        execute(pair.primary, "CREATE DATABASE registry")
        open_registry(pair.address("registry")).close()
        await pair.replicates()
        (standby,) = _state(pair).standbys
        assert (standby.name, standby.state, standby.sync_state) == (pair.standby.folder.name, "streaming", "sync")
        assert _finding(pair).level is Level.OK
        execute(pair.primary, "CREATE ROLE watcher LOGIN")
        unseen = _finding(pair, user="watcher")
        assert (unseen.level, "GRANT pg_monitor" in str(unseen.remedy)) == (Level.WARNING, True)
        assert not _state(pair, user="watcher").is_stuck
        of_standby = {"gateway_database_standby_behind_bytes", "gateway_database_standby_lag_seconds"}
        assert of_standby <= _metrics(_state(pair))
        assert not of_standby & _metrics(_state(pair, user="watcher"))  # 0 would say that it keeps up

        pair.standby.kill()
        await eventually(lambda: not _state(pair).standbys, "the primary has noticed")
        assert (_state(pair).waits_for, _state(pair).is_stuck) == ("*", True)
        away = _finding(pair)
        assert (away.level, "each commit waits for a standby ('*')" in away.says) == (Level.ERROR, True)

        pair.standby.start()
        await pair.replicates()
        assert _finding(pair).level is Level.OK
        pair.kill_primary()
        pair.promote()
        state = _state(pair)
        assert (state.waits_for, state.standbys, state.is_stuck) == ("", [], False)


async def test_a_commit_that_does_not_wait_for_the_standby_is_reported() -> None:
    """By the level, from the server's settings and from those of the user; without standbys none is waited for."""
    with PostgresPair() as pair:
        execute(pair.primary, "CREATE DATABASE registry")
        open_registry(pair.address("registry")).close()
        await pair.replicates()
        assert _fail_over(pair) is None
        for level, expected in (("local", Level.ERROR), ("remote_write", Level.WARNING), ("remote_apply", None)):
            execute(pair.primary, f"ALTER ROLE gateway SET synchronous_commit = {level}")
            found = _fail_over(pair)
            assert (found.level if found else None) == expected
        execute(pair.primary, "ALTER ROLE gateway SET synchronous_commit = local")
        found = _fail_over(pair)
        assert found is not None
        assert "no commit waits for *" in found.says
        assert 'ALTER ROLE "gateway" RESET synchronous_commit. Then restart' in str(found.remedy)
        execute(pair.primary, "ALTER ROLE gateway RESET synchronous_commit")

        execute(pair.primary, "ALTER SYSTEM SET synchronous_commit = local")
        await _reloaded(pair, "synchronous_commit", "local")
        found = _fail_over(pair)
        assert found is not None
        assert "Set synchronous_commit = on in the server's postgresql.conf" in str(found.remedy)
        execute(pair.primary, "ALTER SYSTEM SET synchronous_standby_names = ''")
        await _reloaded(pair, "synchronous_standby_names", "")
        assert _fail_over(pair) is None


async def _reloaded(pair: PostgresPair, name: str, value: str) -> None:
    execute(pair.primary, "SELECT pg_reload_conf()")
    await eventually(lambda: execute(pair.primary, f"SHOW {name}") == [(value,)], "new sessions have the setting")


def _fail_over(pair: PostgresPair) -> Finding | None:
    return next((each for each in _until_schema(pair.address("registry").url) if each.name == "fail-over"), None)


def _state(pair: PostgresPair, user: str = "gateway") -> DatabaseState:
    """What the primary, found among both hosts, says of itself."""
    address = pair.address("registry")
    with closing(open_reader(type(address)(address.url.replace("gateway@", f"{user}@")))) as connection:
        return replication_sql.state(View(connection))


def _metrics(state: DatabaseState) -> set[str]:
    """The names of the metrics that have a value."""
    gauges = Gauges()
    set_standbys(gauges, state)
    return {sample.name for family in gauges.registry.collect() for sample in family.samples}


def _finding(pair: PostgresPair, user: str = "gateway") -> Finding:
    url = pair.address("registry").url.replace("gateway@", f"{user}@")
    (found,) = [each for each in _until_schema(url) if each.name == "standby"]
    return found


def _until_schema(url: str) -> list[Finding]:
    """The findings about the server; a user without rights has none about the registry."""
    found: list[Finding] = []
    for each in database(load({"database": url}, {}).settings):
        found.append(each)
        if each.name == "connections":
            break
    return found
