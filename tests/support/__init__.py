"""Real parts for the tests: brokers on ports of their own, raw MQTT packets, waiting for events."""
