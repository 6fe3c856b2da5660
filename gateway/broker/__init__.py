"""The broker's side: who may do what, the embedded broker, and keeping a Mosquitto in step with the registry."""
