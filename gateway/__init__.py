"""A gateway for wearables that speak MQTT: it keeps their registry and resets them without ever losing a reset."""

from importlib.metadata import version

__version__ = version("device-gateway")
