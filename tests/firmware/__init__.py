"""The reference firmware, run by a real MicroPython."""
