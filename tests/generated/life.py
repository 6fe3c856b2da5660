"""The whole life of a device, by the client that openapi-python-client makes of the document.

``python life.py URL KEY``: the test generates the client, checks this file with ``mypy --strict`` and runs it.
"""

import base64
import hashlib
import hmac
import sys
from typing import TypeVar

from device_gateway_client import AuthenticatedClient
from device_gateway_client.api.commands import create_command, delete_command, get_command, list_commands
from device_gateway_client.api.devices import (
    bind_device,
    delete_device,
    get_device,
    get_state,
    list_device_events,
    list_devices,
    register_device,
    reset_device,
    restore_device,
    update_device,
)
from device_gateway_client.api.devices_own import acknowledge_command, list_pending_commands, send_heartbeat
from device_gateway_client.api.events import list_events
from device_gateway_client.api.gateway import get_metrics, get_readiness
from device_gateway_client.models import (
    BindDevice,
    CommandAck,
    CommandAckStatus,
    CommandPayload,
    CreateCommand,
    ErrorAnswer,
    Heartbeat,
    ListDevicesSort,
    Radio,
    RegisterDevice,
    UpdateDevice,
)
from device_gateway_client.models.command_type import CommandType

T = TypeVar("T")


def good(answer: T | ErrorAnswer | None) -> T:
    """The answer of a call that was not refused."""
    if answer is None or isinstance(answer, ErrorAnswer):
        raise SystemExit(f"refused: {answer}")
    return answer


def receipt(token: str, command: CommandPayload, status: str) -> str:
    """What only the holder of the token can make."""
    message = f"{command.id}|{status}|{command.binding_generation}".encode()
    digest = hmac.new(hashlib.sha256(token.encode()).digest(), message, hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def live(url: str, key: str) -> None:
    """Register, bind, be heard, command, reset, delete, restore."""
    back_end = AuthenticatedClient(base_url=url, token=key)
    device = good(register_device.sync(client=back_end, body=RegisterDevice(serial_number="GEN-1", name="Ward 3")))
    assert device.recording_state is None
    assert device.settings.audio.bitrate_kbps == 32
    assert device.settings.upload.off_peak_hours is None
    changed = UpdateDevice.from_dict({"settings": {"audio": {"bitrate_kbps": 64}}})
    assert good(update_device.sync(device.id, client=back_end, body=changed)).settings.audio.bitrate_kbps == 64

    bound = good(bind_device.sync(device.id, client=back_end, body=BindDevice(end_user_id="eu_42")))
    own = AuthenticatedClient(base_url=url, token=bound.device_token)
    beat = Heartbeat.from_dict({"battery_percent": 81, "device_state": "idle", "connection_type": ["wifi"]})
    assert good(send_heartbeat.sync("me", client=own, body=beat)).status == "ok"
    doing = good(get_state.sync(device.id, client=back_end)).recording_state
    assert doing is not None
    assert (doing.connection_type, doing.pending_recordings) == ([Radio.WIFI], None)

    command = good(
        create_command.sync(device.id, client=back_end, body=CreateCommand(type_=CommandType.START_RECORDING))
    )
    assert good(delete_command.sync(device.id, command.id, client=back_end)).status == "cancelled"

    good(reset_device.sync(device.id, client=back_end))
    assert isinstance(list_pending_commands.sync("me", client=own), ErrorAnswer)  # the token opens the reset alone
    handed = good(send_heartbeat.sync("me", client=own, body=Heartbeat())).commands
    assert isinstance(handed, list)
    (open_reset,) = handed
    for status in (CommandAckStatus.DELIVERED, CommandAckStatus.EXECUTED):
        signed = CommandAck(status=status, receipt=receipt(bound.device_token, open_reset, status.value))
        good(acknowledge_command.sync("me", open_reset.id, client=own, body=signed))
    assert good(get_command.sync(device.id, open_reset.id, client=back_end)).status == "executed"
    assert len(good(list_commands.sync(device.id, client=back_end)).data) == 2

    told = good(list_device_events.sync(device.id, client=back_end)).data
    assert {"reset.completed", "command.cancelled"} <= {each.type_ for each in told}
    assert good(list_events.sync(client=back_end)).data
    good(delete_device.sync(device.id, client=back_end))
    assert isinstance(get_device.sync(device.id, client=back_end), ErrorAnswer)
    good(restore_device.sync(device.id, client=back_end))
    page = good(list_devices.sync(client=back_end, sort=ListDevicesSort.NAME, total=True))
    assert ([each.id for each in page.data], page.total, page.next_cursor) == ([device.id], 1, None)
    assert "gateway_" in good(get_metrics.sync(client=back_end))
    assert good(get_readiness.sync(client=back_end)).ready in (True, False)


if __name__ == "__main__":
    live(*sys.argv[1:])
