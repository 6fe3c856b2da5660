"""Domain: what may happen to a device. Bind, reset, commands, heartbeats, receipts; no transport."""
