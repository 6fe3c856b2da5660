"""How the cost of everything grows with the registry: ``python -m bench.growth`` (``make bench-growth``)."""
