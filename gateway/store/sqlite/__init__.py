"""The SQLite engine: connections, the writer thread, readers, checkpoints, backup."""
