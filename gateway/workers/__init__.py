"""Work in the background: expiry of commands, changes by other processes, notes of the position."""
