"""A gateway for wearables that speak MQTT. It keeps their registry and never loses a reset."""

from importlib.metadata import version

__version__ = version("device-gateway")
