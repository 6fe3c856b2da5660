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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a run in which a test names a guarantee or a checklist line that the documents lack."""
    guarantees.refuse_unknown(items)
    checklist.refuse_unknown(items)
