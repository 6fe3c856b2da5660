"""PostgreSQL as an engine of the registry."""
