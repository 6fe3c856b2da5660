"""MQTT 3.1.1 by aiomqtt."""
