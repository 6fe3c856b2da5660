"""The gateway's connection to the broker: what it receives, what it publishes, and the comparison of both ends."""
