"""Command line `device-sim`: one device or a fleet, against any gateway by URL and API key."""

import atexit
import gc
import json
import random
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from device_sim.app import GatewayApi
from device_sim.arguments import RADIOS, build_options, check_url, choose_serial, common_options, parse_mix, require_key
from device_sim.binding import Binding
from device_sim.cli_errors import Failure, SimulatorCommands, failure
from device_sim.conformance.command import conformance
from device_sim.flash import DirectoryFlash, Flash, MemoryFlash
from device_sim.fleet import DEFAULT_MIX, Fleet
from device_sim.hints import repeat_command
from device_sim.lifecycle import RunOptions, run_lifecycle
from device_sim.load import LoadPlan
from device_sim.load_devices import run_load
from device_sim.options import RadioKind
from device_sim.output import FleetView, print_json, print_line
from device_sim.runtime import SimulatedDevice
from device_sim.signals import run_until_signal
from device_sim.terminal_text import escaped
from device_sim.tls import tls_context

SECONDS_OF_A_SEED = 1_000_000
REASONS_SHOWN = 5
EPILOG = """\b
Exit codes: 0 done, 1 failure (the message says what to do), 2 wrong usage; `conformance` also 3, not all was checked.
Shell completion: eval "$(_DEVICE_SIM_COMPLETE=bash_source device-sim)" (or zsh_source, fish_source).
"""


@click.group(cls=SimulatorCommands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="device-gateway", prog_name="device-sim")
def main() -> None:
    """Simulated wearables with real connections, and a conformance kit for real ones, for a device gateway.

    \b
    Example:
      export GATEWAY_API_KEY=sk_test_…
      device-sim run --serial SN1 --flash ./sn1 --interval 5
    """  # noqa: D301  # \b keeps click from reflowing the paragraph
    atexit.register(gc.freeze)  # or Python looks for garbage among all that was imported when it ends


main.add_command(conformance)


@main.command()
@common_options
@click.option("--serial", help="Serial number. Default: the one in the flash, else one made from the seed.")
@click.option(
    "--radio", type=click.Choice(RADIOS), default="wifi", show_default=True, help="The radio that it was built with."
)
@click.option("--flash", "flash_dir", type=click.Path(path_type=Path, file_okay=False),
              help="Directory of its flash, which survives this program. Default: memory.")  # fmt: skip
@click.option("--end-user", default="eu_simulated", show_default=True, help="End user to bind to.")
@click.option(
    "--seed", type=click.IntRange(min=0), help="Seed of battery, pauses and serial number, for a repeatable run."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per fact.")
@click.option(
    "--cert-file",
    type=click.Path(exists=True, dir_okay=False),
    help="The device's certificate (PEM; its CN is the device's id), for a broker that requires one.",
)
@click.option("--key-file", type=click.Path(exists=True, dir_okay=False), help="The key of --cert-file (PEM).")
@click.option("--supersede-reset", is_flag=True, help="Bind although a reset is open; that reset becomes cancelled.")
@click.option("--reprovision", is_flag=True, help="Bind again after each reset.")
@click.option("--until-reset", is_flag=True, help="Exit with 0 after a reset.")
def run(**given: Any) -> None:
    """Provision one device and run it until Ctrl-C.

    A flash that is provisioned already is used without change. Each line of the output is a fact.

    \b
    Examples:
      device-sim run --url http://127.0.0.1:8080 --api-key-file key.txt
      device-sim run --radio ble --interval 5 --until-reset
    """  # noqa: D301  # the same
    seed = random.randrange(SECONDS_OF_A_SEED) if given["seed"] is None else given["seed"]  # noqa: S311  # no secret
    flash: Flash = DirectoryFlash(given["flash_dir"]) if given["flash_dir"] else MemoryFlash()
    serial = choose_serial(given["serial"], flash, seed)
    require_key(given, paired=Binding.from_flash(flash.wiped_area) is not None and given["radio"] != "ble")
    run_until_signal(_run_one(given, serial, flash, seed))


@main.command()
@common_options
@click.option("--count", type=click.IntRange(min=1), default=10, show_default=True, help="Number of devices.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True,
              help="Seed of serial numbers, radios and batteries.")  # fmt: skip
@click.option("--radio-mix", default=",".join(f"{radio}={weight:g}" for radio, weight in DEFAULT_MIX.items()),
              show_default=True, metavar="RADIO=WEIGHT,…", help="Weight of each radio.")  # fmt: skip
@click.option(
    "--duration", type=click.FloatRange(min=0), metavar="SECONDS", help="Stop after this time. Default: on Ctrl-C."
)
@click.option("--flash", "flash_dir", type=click.Path(path_type=Path, file_okay=False),
              help="Directory with one flash per device. An existing fleet continues.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="The summary as JSON, without a progress bar.")
def fleet(**given: Any) -> None:
    """Provision many devices, run them, and print a summary.

    Provisioning waits for the gateway's rate limit. If a device could not be provisioned, the exit code is 1, also
    after Ctrl-C, and the reasons are printed.

    \b
    Example:
      device-sim fleet --count 50 --seed 7 --interval 10 --duration 60
    """  # noqa: D301  # the same
    mix = parse_mix(given["radio_mix"])
    require_key(given, paired=False)
    run_until_signal(_run_fleet(given, mix))


@main.command()
@click.option(
    "--url",
    envvar="GATEWAY_URL",
    show_envvar=True,
    default="http://127.0.0.1:8080",
    show_default=True,
    callback=check_url,
    help="URL of the gateway.",
)
@click.option(
    "--key",
    envvar="GATEWAY_API_KEY",
    show_envvar=True,
    metavar="sk_…",
    help="API key with devices:write; not needed once --credentials holds the devices.",
)
@click.option("--api-key-file", type=click.Path(exists=True, dir_okay=False), help="File with the API key.")
@click.option(
    "--ca-file",
    type=click.Path(exists=True, dir_okay=False),
    help="Authorities (PEM) to trust for TLS, over HTTP and MQTT.",
)
@click.option(
    "--devices",
    type=click.IntRange(1, 20_000),
    default=1_000,
    show_default=True,
    metavar="N",
    help="Number of devices, each with its own connection.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0),
    default=1_000.0,
    show_default=True,
    metavar="R",
    help="Heartbeats a second, of all devices together. 0: as many as the broker accepts.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="Duration of the load.",
)
@click.option(
    "--credentials",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="File of the devices and their tokens. Devices in it are used without provisioning.",
)
@click.option("--json", "as_json", is_flag=True, help="The result as JSON.")  # fmt: skip
def load(**given: Any) -> None:
    """Send heartbeats of 250 bytes at QoS 1 at a rate, and print how many the broker acknowledged.

    The devices send heartbeats only, so that they need little CPU. Devices LOAD-000000 and so on are registered and
    bound (again, if they are bound), unless the file of --credentials holds them already.

    \b
    Examples:
      device-sim load --devices 1000 --rate 5000
      device-sim load --devices 1000 --rate 0 --seconds 30 --credentials load.json
    """  # noqa: D301  # the same
    has_devices = given["credentials"] is not None and given["credentials"].exists()
    require_key(given, paired=has_devices)
    run_until_signal(_run_load(given))


async def _run_one(given: dict[str, Any], serial: str, flash: Flash, seed: int) -> None:
    tls = tls_context(given["ca_file"], given["cert_file"], given["key_file"])
    async with GatewayApi(given["url"], given["key"] or "", tls=tls) as api:
        device = SimulatedDevice(
            serial=serial,
            radio=given["radio"],
            flash=flash,
            api=api,
            interval=given["interval"],
            rng=random.Random(seed),  # noqa: S311  # a simulation has to be repeatable
            on_fact=print_json if given["as_json"] else print_line,
            options=build_options(given),
        )
        run_options = RunOptions(
            given["end_user"], given["supersede_reset"], given["reprovision"], given["until_reset"]
        )
        context = click.get_current_context()
        await run_lifecycle(device, run_options, lambda: _print_unpaired(context, serial))


def _print_unpaired(context: click.Context, serial: str) -> None:
    again = repeat_command(context, {"--serial": serial})
    click.echo(
        f"{escaped(serial)} stays unpaired. To provision it anew, end this with Ctrl-C and run (or begin with "
        f"--reprovision): {again}",
        err=True,
    )


async def _run_fleet(given: dict[str, Any], mix: dict[RadioKind, float]) -> None:
    async with GatewayApi(given["url"], given["key"], tls=tls_context(given["ca_file"])) as api:
        devices = Fleet(
            api=api,
            count=given["count"],
            seed=given["seed"],
            radio_mix=mix,
            interval=given["interval"],
            flash_root=given["flash_dir"],
            options=build_options(given),
        )
        view = FleetView(devices, quiet=given["as_json"])
        try:
            await view.run(given["duration"])
        finally:
            _print_summary(devices, view, as_json=given["as_json"])
            # Check in the finally block, so that a fleet with missing devices also fails when Ctrl-C stops it.
            _require_all_provisioned(devices)


def _require_all_provisioned(fleet: Fleet) -> None:
    """Raise Failure unless all devices were provisioned; it names each reason with its number of devices."""
    messages = [f"{len(fleet.failures)} of {len(fleet.devices)} devices failed."] if fleet.failures else []
    reasons = Counter(failure(error).message for error in fleet.failures.values())
    for reason, count in reasons.most_common(REASONS_SHOWN):
        first = min(serial for serial, error in fleet.failures.items() if failure(error).message == reason)
        messages.append(f"{first}: {reason}" if count == 1 else f"{first} and {count - 1} more: {reason}")
    if fleet.unprovisioned:
        messages.append(f"Stopped before {fleet.unprovisioned} of {len(fleet.devices)} devices were provisioned.")
    if messages:
        raise Failure("\n".join(messages))


def _print_summary(devices: Fleet, view: FleetView, *, as_json: bool) -> None:
    if as_json:
        rows = [asdict(row) for row in devices.summary()]
        failures = {serial: str(error) for serial, error in devices.failures.items()}
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        click.echo(json.dumps({"at": now, "seed": devices.seed, "radios": rows, "failures": failures}))
    else:
        view.print_summary()


async def _run_load(given: dict[str, Any]) -> None:
    result = await run_load(
        GatewayApi(given["url"], given["key"] or "", tls=tls_context(given["ca_file"])),
        LoadPlan(given["rate"], given["seconds"]),
        devices=given["devices"],
        file=given["credentials"],
        tls=tls_context(given["ca_file"]),
    )
    click.echo(json.dumps(result.as_dict()) if given["as_json"] else escaped(str(result)))
    if result.acknowledged < result.sent:
        raise Failure(f"The broker did not answer {result.sent - result.acknowledged} heartbeats.")
