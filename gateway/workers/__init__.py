"""Background workers: expiry of commands, changes by other processes, notes of the position."""
