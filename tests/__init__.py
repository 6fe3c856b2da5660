"""Tests: a folder for each package of the gateway, and for what they share (README.md)."""
