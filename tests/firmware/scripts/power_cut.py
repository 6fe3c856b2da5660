"""Runs main.py, and kills it before the n-th write to flash or message: `power_cut.py CONFIG N`."""

import gc

gc.threshold(4096)  # as main.py does

import os  # noqa: E402
import sys  # noqa: E402

from runtime import Runtime  # noqa: E402

left = [int(sys.argv[2])]


def before_step(runtime):  # noqa: ARG001  # a method
    """Count, and end here."""
    left[0] -= 1
    if left[0] == 0:
        os.system("kill -9 $PPID")  # noqa: S605  # MicroPython has no os.kill


Runtime.before_step = before_step

import main  # noqa: E402, F401  # it runs as it is imported
