"""Runs main.py, and kills it before the n-th write to flash or message: `power_cut.py CONFIG N`."""

import gc

gc.threshold(4096)  # as main.py does

import os  # noqa: E402
import sys  # noqa: E402

import flash  # noqa: E402
import mqtt  # noqa: E402
import runtime  # noqa: E402

left = [int(sys.argv[2])]


def counted(owner, name):
    """Have this method count before it does anything, and end here when the count is over."""
    method = getattr(owner, name)

    def step(*arguments, **options):
        left[0] -= 1
        if left[0] == 0:
            os.system("kill -9 $PPID")  # noqa: S605  # MicroPython has no os.kill
        return method(*arguments, **options)

    setattr(owner, name, step)


run = runtime.Runtime.run


async def run_counted(device):
    """Count from here on, not what main.py writes before."""
    for owner, name in (
        (flash.Flash, "write"),
        (flash.Flash, "erase"),
        (mqtt.Mqtt, "publish"),
        (runtime.Runtime, "post"),
    ):
        counted(owner, name)
    await run(device)


runtime.Runtime.run = run_counted

import main  # noqa: E402, F401  # it runs as it is imported
