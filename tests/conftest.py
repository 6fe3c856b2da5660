"""What tests of several folders share."""

from tests.support.guarantees import pytest_collection_modifyitems
from tests.support.measured import pytest_terminal_summary
from tests.support.rabbitmq_node import pytest_xdist_make_scheduler, rabbitmq, rabbitmq_node

__all__ = [
    "pytest_collection_modifyitems",
    "pytest_terminal_summary",
    "pytest_xdist_make_scheduler",
    "rabbitmq",
    "rabbitmq_node",
]
