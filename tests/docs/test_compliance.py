"""The example of a certificate in ``docs/compliance.md`` is one that the gateway writes. Run this file to print it."""

import base64
import json
import re
import tempfile
from pathlib import Path

from gateway.domain import devices
from gateway.models.resets import ResetDevice
from gateway.store import certificate_sql
from tests.domain.support import World

PAGE = Path(__file__).parents[2] / "docs" / "compliance.md"
RESULT = {
    "wiped": ["device_token", "pairing", "wifi_networks", "recordings"],
    "kept": ["serial_number"],
    "recordings": {"wiped": 12, "kept": 0},
    "technique": {"device_token": "overwritten", "recordings": "key_destroyed"},
}


def example(data_dir: Path) -> str:
    """The claims of the certificate of a reset that its device has executed, from seeded randomness."""
    with World(data_dir) as world:
        device_id = world.register("BP-000123", firmware_version="1.4.2")
        token = world.bind(device_id, "eu_42").device_token
        asked = ResetDevice(reason="Returned by ward 3, goes to repair.", recordings="wipe")
        world.run(devices.reset, world.project_id, device_id, "key_1", asked=asked)
        command = world.command(device_id)
        for status, later in (("delivered", 4_000), ("executed", 2_000)):
            world.now += later
            world.ack(command, status, token, **({"result": RESULT} if status == "executed" else {}))
        (certificate,) = certificate_sql.of_reset(world.view, command.id)
    body = certificate.jws.split(".")[1]
    return json.dumps(json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))), indent=2)


def test_the_example_of_a_certificate_is_true(tmp_path: Path) -> None:
    """Byte by byte; its id and its hashes follow from the seed."""
    (shown,) = re.findall(r"^```json\n(.*?)\n```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert shown == example(tmp_path)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print(example(Path(folder)))  # noqa: T201 - for the page
