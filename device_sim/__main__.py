"""`python -m device_sim` is `device-sim`."""

from device_sim.cli import main

main(prog_name="device-sim")
