"""Real parts for the tests: brokers on free ports, raw MQTT packets, waiting for events."""
