"""The broker inside the gateway: connections, admission, sessions, routing, capacity."""
