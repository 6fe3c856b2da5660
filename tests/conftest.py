"""What tests of several folders share."""

import pytest

from tests.support import checklist, guarantees
from tests.support.measured import pytest_terminal_summary
from tests.support.rabbitmq_node import pytest_xdist_make_scheduler, rabbitmq, rabbitmq_node

__all__ = [
    "pytest_terminal_summary",
    "pytest_xdist_make_scheduler",
    "rabbitmq",
    "rabbitmq_node",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the engine that registries of tests are on."""
    parser.addoption("--engine", choices=("sqlite", "postgresql"), default="sqlite")


def pytest_configure(config: pytest.Config) -> None:
    """Put registries of tests on PostgreSQL, if the run is for that engine."""
    if config.getoption("--engine") == "postgresql":
        from tests.support import postgres  # noqa: PLC0415 - it starts a server when it is used

        postgres.stand_in()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse a run in which a test names a guarantee or a checklist line that the documents lack.

    On PostgreSQL leave out what holds for a file alone.
    """
    guarantees.refuse_unknown(items)
    checklist.refuse_unknown(items)
    if config.getoption("--engine") == "postgresql":
        left_out = [item for item in items if item.get_closest_marker("sqlite")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
