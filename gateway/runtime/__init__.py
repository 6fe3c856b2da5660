"""The process: log, tracing, garbage collection, loop priority, files of its own."""
