"""MQTT 5: connect, session, packets, receive queue."""
