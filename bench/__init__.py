"""Benchmark of the gateway with real brokers and clients, each figure beside a floor from the same run.

Run it with ``python -m bench``.
"""
