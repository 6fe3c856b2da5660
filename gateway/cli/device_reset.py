"""``gateway devices reset``: reset a device to factory settings."""

from __future__ import annotations

import click

from gateway.cli import output, presence, reset_status
from gateway.cli.api import ApiClient, Json, Place, at, with_gateway
from gateway.cli.command_wait import exit_code, wait_for, wait_options
from gateway.cli.device_lookup import device_argument, on_device
from gateway.cli.devices import ask, json_option, summary, yes_option
from gateway.cli.options import SettingsCommand
from gateway.cli.reset_wishes import reset_options, wishes
from gateway.cli.suggestions import again


@click.command(
    cls=SettingsCommand,
    name="reset",
    epilog="\b\nExamples:\n  gateway devices reset dev_01JD3M5QZ8V9T2R4W6X7Y8Z9AB\n"
    "  gateway devices reset BP-000123 --yes --wait --timeout 10m\n"
    "  gateway devices reset BP-000123 --recordings wipe --reason 'returned by ward 3'",
)
@device_argument
@reset_options
@yes_option
@wait_options
@json_option
@with_gateway
def reset(
    place: Place,
    *,
    device: str,
    reason: str | None,
    recordings: str | None,
    yes: bool,
    wait: bool,
    timeout_ms: int | None,
    as_json: bool,
) -> int:
    """Reset a device to factory settings.

    It is unbound at once, and wipes itself when it gets the command, however late that is. One without a token, such
    as one that was unbound before, cannot get it: that is said. With --wait the exit code is 0 once it was wiped, 1 if
    the reset ended otherwise, and 8 if it is still open.
    """
    what = "will be unbound and wiped" + (", its recordings too" if recordings == "wipe" else "")
    meant = ask(place, device, yes=yes, what=what, more=_before_reset)
    asked = wishes(reason, recordings)
    facts, command, state = on_device(place, meant, lambda api, device_id: _reset(api, device_id, asked))
    if not as_json:
        told = {"command": command and command["id"], "command status": command and command["status"]}
        output.details({**summary(facts), **told})
    if command and not reset_status.may_be_fetched(facts, command):
        reset_status.warn_unfetched(facts["id"], command["id"])
    else:
        reset_status.warn_behind_bluetooth(state, command)
        if command and wait:
            command = wait_for(place, command, timeout_ms)
        elif not as_json:
            output.note(f"How far it is: {again('commands', 'list', facts['id'])}")
    if as_json:
        output.as_json({**facts, "command": command})
    return exit_code(command) if wait and command else 0


async def _reset(api: ApiClient, device_id: str, asked: Json) -> tuple[Json, Json | None, Json]:
    device = await api.post(at("devices", device_id, "reset"), asked)
    return device, await reset_status.newest(api, device_id), await api.get(at("devices", device_id, "state"))


def _before_reset(state: Json, why: str | None) -> str:
    """Return the caveats of a wipe."""
    bluetooth = presence.BLUETOOTH_ONLY if presence.is_behind_bluetooth(state) else None
    waits = f"Whether it is online is not known: {why}. The reset waits until it can be sent." if why else None
    kept = "A cancel later does not undo this: it stays unbound, and has to be bound again."
    return " ".join(filter(None, (bluetooth or waits, kept)))
