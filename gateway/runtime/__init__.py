"""The process: log, tracing, garbage collection, loop priority, files."""
