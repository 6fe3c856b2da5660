"""Several gateways on one registry: which of them does what only one may do at a time."""
