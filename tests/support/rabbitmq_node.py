"""A broker that takes longer to start than the tests run: one node, and one worker that has all of its tests."""

from collections.abc import Iterator

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling, Scheduling

from tests.support.rabbitmq import RabbitMq

NAME = "rabbitmq"
"""Stands in the name of every test of it: of its file, or of the case."""
TOGETHER = (NAME, "test_postgres_plans.py", "test_other_lists_stay_flat.py", "test_calls_stay_flat.py")
"""Tests of one of these share what takes long to make: the node, or registries of 100,000 devices."""


class OneWorkerForWhatIsShared(LoadScopeScheduling):  # type: ignore[misc]  # xdist ships no types
    """Each test goes to a free worker, but those that share what takes long to make go to one worker, first of all.

    xdist has this as ``loadgroup``, which pytest 9 does not let it do.
    """

    def _split_scope(self, nodeid: str) -> str:
        return next((name for name in TOGETHER if name in nodeid), nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    """Called by xdist."""
    return OneWorkerForWhatIsShared(config, log)


@pytest.fixture(scope="session")
def rabbitmq_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMq]:
    """One RabbitMQ for all tests of this worker."""
    with RabbitMq(tmp_path_factory.mktemp(NAME)) as node:
        yield node


@pytest.fixture
def rabbitmq(rabbitmq_node: RabbitMq) -> RabbitMq:
    """That node, with nothing of another test in it but retained messages."""
    rabbitmq_node.forget()
    return rabbitmq_node
