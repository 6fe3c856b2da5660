"""Brokers that ask over HTTP who may do what: one set of rules (``gateway/broker/access_rules.py``), many dialects."""
