"""The checks of home brokers find the faults that they are there for."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.domain import cells
from gateway.mqtt import command_pages, publisher
from gateway.store import Tx, broker_session_sql, broker_sql, home_sql, outbox_sql, token_sql
from gateway.store.broker_sql import FIRST, BrokerRecord
from tests.domain import test_cells as rules
from tests.domain.brokers import check_fault, with_homes
from tests.domain.support import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A registry whose devices have homes."""
    with with_homes(tmp_path) as opened:
        yield opened


def _at_old_alone(tx: Tx, device_pks: list[int], pks: list[int]) -> None:
    MARKS(tx, device_pks, pks[:1])


def _at_new_alone(tx: Tx, device_pks: list[int], pks: list[int]) -> None:
    MARKS(tx, device_pks, pks[1:])


def _first(tx: Tx, before: int | None) -> BrokerRecord:
    del before
    return broker_sql.by_pk(tx, FIRST, tx.now)


MARKS = outbox_sql.mark_everything
FAULTS: dict[str, tuple[object, str, object, Callable[[World], None]]] = {
    "every broker is marked": (
        outbox_sql,
        "serves",
        lambda *_: "TRUE",
        rules.test_only_the_home_is_marked_and_knows_the_credential,
    ),
    "every password file has every device": (
        token_sql,
        "serves",
        lambda *_: "CAST(? AS BIGINT) > 0",
        rules.test_only_the_home_is_marked_and_knows_the_credential,
    ),
    "every broker keeps the sessions": (
        broker_session_sql,
        "serves",
        lambda *_: "CAST(? AS BIGINT) > 0",
        rules.test_only_the_home_is_marked_and_knows_the_credential,
    ),
    "a move tells the old broker alone": (
        outbox_sql,
        "mark_everything",
        _at_old_alone,
        rules.test_a_reset_that_was_accepted_before_a_move_is_delivered_after_it,
    ),
    "a move tells the new broker alone": (
        outbox_sql,
        "mark_everything",
        _at_new_alone,
        rules.test_a_token_that_is_revoked_after_a_move_opens_neither,
    ),
    "the old broker publishes, too": (
        publisher,
        "wanted",
        lambda due: due.command,
        rules.test_a_reset_that_was_accepted_before_a_move_is_delivered_after_it,
    ),
    "a status stays at the old broker": (
        home_sql,
        "is_served",
        lambda *_: True,
        rules.test_a_status_at_another_broker_than_the_home_is_cleared,
    ),
    "a comparison wants commands at every broker": (
        command_pages,
        "served_elsewhere",
        lambda *_: set(),
        rules.test_a_comparison_wants_a_command_at_the_home_alone,
    ),
    "a device is moved while it wipes itself": (
        home_sql,
        "wiping",
        lambda *_: set(),
        rules.test_a_device_that_is_wiping_itself_stays,
    ),
    "nothing that has moved is marked for a broker that is back": (
        home_sql,
        "moved_since",
        lambda *_: [],
        rules.test_a_broker_that_is_back_learns_what_has_moved,
    ),
    "the load is not looked at": (
        cells,
        "_least_loaded",
        _first,
        rules.test_a_bind_chooses_the_broker_with_the_fewest_devices,
    ),
    "homes stay in the mode any": (cells, "release", lambda *_: 0, rules.test_homes_are_given_up_in_the_mode_any),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(world: World, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """With the fault planted, the test of that rule fails."""
    check_fault(world, monkeypatch, *FAULTS[fault])
