"""Metrics and traces, and how they are read."""
