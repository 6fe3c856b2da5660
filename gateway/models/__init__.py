"""What travels: the bodies of requests, answers, events and MQTT messages."""
