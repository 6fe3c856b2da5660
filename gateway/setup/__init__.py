"""Files to run the gateway beside a Mosquitto: ``gateway broker init`` (docs/mosquitto.md)."""
