"""Where other brokers ask who may do what: one set of rules (``gateway/broker/access_rules.py``), a dialect per broker."""
