"""Brokers that authenticate through the gateway over HTTP: one set of access rules, many dialects."""
