"""Free TCP ports for servers that cannot be asked to bind port 0."""

from broker_config.local import EPHEMERAL_START, FIRST_PORT, free_port

__all__ = ["EPHEMERAL_START", "FIRST_PORT", "free_port"]
