"""Where other brokers ask who may do what: one set of rules (``gateway/broker/access.py``), a dialect per broker."""
