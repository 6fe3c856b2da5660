"""Runs a console script on a machine whose clock was set back: `clock_set_back.py SECONDS SCRIPT ARGUMENT…`."""

import runpy
import sys
import time

_now, _now_ns = time.time, time.time_ns


def main() -> None:
    """Set both clocks of this process back, then become the script."""
    seconds = int(sys.argv[1])
    time.time = lambda: _now() - seconds
    time.time_ns = lambda: _now_ns() - seconds * 1_000_000_000
    sys.argv = sys.argv[2:]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
