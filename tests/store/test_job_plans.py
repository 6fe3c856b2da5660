"""Jobs stay quick with many targets: how SQLite goes about each query of a list, a turn and a report."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gateway.domain import job_work
from gateway.models.jobs import Outcome
from gateway.store import View, job_sql, job_target_sql
from tests.domain.job_support import make
from tests.domain.support import World
from tests.store.test_reset_list_plans import Planned

pytestmark = pytest.mark.sqlite

BY_OUTCOME = "SEARCH t USING INDEX job_targets_by_outcome (job_id=? AND (outcome,position)>(?,?) AND outcome<?)"
QUERIES: dict[str, tuple[Callable[[View], Any], str]] = {
    "jobs": (
        lambda view: job_sql.page(view, "proj_1", None, None, 20),
        "jobs_by_project (project_id=? AND id<?)",
    ),
    "jobs with a status": (
        lambda view: job_sql.page(view, "proj_1", "aborted", None, 20),
        "jobs_by_status (status=? AND project_id=? AND id<?)",
    ),
    "targets": (
        lambda view: job_target_sql.page(view, "job_1", (), -1, 20),
        "SEARCH t USING PRIMARY KEY (job_id=? AND position>?)",
    ),
    "targets with an outcome": (
        lambda view: job_target_sql.page(view, "job_1", [Outcome.FAILED], -1, 20),
        BY_OUTCOME,
    ),
    "next turns": (lambda view: job_target_sql.with_outcome(view, "job_1", Outcome.WAITING, 10), BY_OUTCOME),
    "taking back": (lambda view: job_work.queued(view, "job_1", 5, 10), BY_OUTCOME),
    "jobs that take back": (job_sql.taking_back, "jobs_taken_back"),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A registry with a job."""
    with World(tmp_path_factory.mktemp("registry")) as opened:
        make(opened, [opened.register()])
        yield opened


@pytest.mark.parametrize("name", QUERIES)
def test_it_is_read_from_an_index_in_order(world: World, name: str) -> None:
    """Nothing is sorted, and no table is scanned."""
    read, index = QUERIES[name]
    view = Planned(world.view)
    read(view)
    plan = " | ".join(view.plans[-1])
    assert index in plan
    assert "TEMP B-TREE" not in plan
    assert not [step for step in view.plans[-1] if step.startswith("SCAN") and "INDEX" not in step]


def test_a_report_finds_its_target_by_the_command(world: World) -> None:
    """Each acknowledgement pays for this."""
    (plan,) = world.view.all("EXPLAIN QUERY PLAN SELECT * FROM job_targets t WHERE t.command_id = ?", "cmd_1")
    assert "job_targets_by_command (command_id=?)" in plan["detail"]
