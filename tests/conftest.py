"""What tests of several folders share."""

from support.rabbitmq_node import pytest_xdist_make_scheduler, rabbitmq, rabbitmq_node

__all__ = ["pytest_xdist_make_scheduler", "rabbitmq", "rabbitmq_node"]
