"""The embedded broker: connections, admission, sessions, routing."""
