"""Entry point of `python -m device_sim`, the same as `device-sim`."""

from device_sim.cli import main

main(prog_name="device-sim")
