"""Measures the gateway on real parts, each figure beside a floor from the same run: ``python -m bench``."""
