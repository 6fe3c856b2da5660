"""What may happen to a device: bind, reset, commands, heartbeats, receipts. Imports no transport."""
