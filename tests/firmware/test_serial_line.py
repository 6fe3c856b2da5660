"""The serial line of the firmware: what a companion app may send, and what it is answered."""

import json
from pathlib import Path

import pytest

from tests.firmware.device import FirmwareDevice, Json, powered
from tests.support.wait import eventually

BIND: Json = {
    "id": "dev_01KAG0000000000000000EXAMP",
    "binding_generation": 2147483647,
    "device_token": "dtok_0123456789ABCDEFGHIJKLMNOPQRSTUVab",
    "grant_key": {"kty": "OKP", "crv": "Ed25519", "x": "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg"},
    "mqtt": {
        "host": "127.0.0.1",
        "port": 1,
        "tls": False,
        "topics": {"heartbeat": "ward/devices/dev_01KAG0000000000000000EXAMP/heartbeat"},
    },
}


async def test_bad_lines_are_refused_and_change_nothing(tmp_path: Path) -> None:
    """Each answer names what is wrong; the line works on, and the flash stays as it is."""
    device = FirmwareDevice(tmp_path / "device")
    async with powered(device):
        await device.fact("powered_on")
        before = device.stored("kept")
        for line, remedy in (
            (b"hello", "one JSON object a line"),
            (b"{}", "one JSON object a line"),
            (b'{"do":"info","do":"reset"}', "one JSON object a line"),
            (b'{"do":"fly"}', "info, provision, reset, shutdown"),
            (b"[" * 5000, "one JSON object a line"),
            (b'{"do":"info","fill":"' + b"x" * 9000 + b'"}', "8192 bytes"),
            (b'{"do":"provision"}', "id"),
            (b'{"do":"provision","networks":[1]}', "ssid"),
        ):
            said = await device.ask_raw(line)
            assert (said["ok"], remedy in said["error"]) == (False, True), said
        for name in BIND:
            lacking = {each: value for each, value in BIND.items() if each != name}
            said = await device.ask(do="provision", bind=lacking, networks=[])
            assert (said["ok"], f"{name} is missing" in said["error"]) == (False, True), said
        assert (device.stored("wiped"), device.stored("kept")) == ({}, before)
        await device.ask_raw(b"x" * 150_000)  # more than the heap; its parts are bad lines

        async def works_again() -> bool:
            return bool((await device.ask(do="info"))["ok"])

        await eventually(works_again, "the line works again")


@pytest.mark.checklist("C2", "C4")
async def test_a_paired_device_refuses_another_binding(tmp_path: Path) -> None:
    """It keeps host, port, prefix and the largest generation as given, and has to be reset before the next binding."""
    device = FirmwareDevice(tmp_path / "device")
    async with powered(device):
        said = await device.ask(do="provision", bind=BIND, networks=[])
        assert (said["ok"], said["binding_generation"]) == (True, 2147483647)
        stored = device.stored("wiped")
        mqtt = {"host": "127.0.0.1", "port": 1, "tls": False, "topic_prefix": "ward/"}
        assert (stored["pairing"]["mqtt"], stored["pairing"]["binding_generation"]) == (mqtt, 2147483647)
        again = await device.ask(do="provision", bind={**BIND, "binding_generation": 1}, networks=[])
        assert again == {"ok": False, "error": "the device is paired; reset it first"}
        assert device.stored("wiped") == stored
        assert json.dumps(stored["device_token"]) not in device.out
        assert (await device.ask(do="reset"))["ok"]
        assert device.stored("wiped") == {}
        assert (await device.ask(do="provision", bind=BIND, networks=[]))["ok"]
