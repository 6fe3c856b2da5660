"""What the pages for firmware authors say, the simulator does."""

import re
from pathlib import Path

from device_sim.options import Options
from device_sim.radio import NOT_AUTHORISED, SESSION_EXPIRY_SECONDS

ROOT = Path(__file__).parents[2]
PAGES = [" ".join((ROOT / "docs" / name).read_text().split()) for name in ("firmware.md", "protocol.md")]


def test_the_mqtt_5_session_never_expires() -> None:
    """Never, or with the connection: both pages name the figures, the simulator takes the first."""
    for page in PAGES:
        (never, other) = re.findall(r"session expiry interval (?:of|is) (\d+) \(never\) or (\d)", page)[0]
        assert (int(never), int(other)) == (SESSION_EXPIRY_SECONDS, 0)


def test_the_keepalive_is_in_the_recommended_range() -> None:
    """And the longest that is named is what the Mosquitto settings allow."""
    allowed = re.search(r"^max_keepalive (\d+)$", (ROOT / "broker_config" / "mosquitto.conf").read_text(), re.MULTILINE)
    assert allowed is not None
    for page in PAGES:
        ((least, most),) = re.findall(r"[Kk]eepalive (?:is )?(\d+) s to (\d+) s", page)
        assert int(least) <= Options().keepalive_seconds <= int(most)
        assert f"at most {allowed[1]} s" in page


def test_the_page_lists_the_codes_of_a_revoked_token() -> None:
    """Each refusal that the simulator takes for one, under both versions (MQTT 5: 134 and 135)."""
    assert {134, 135} <= NOT_AUTHORISED
    for page in PAGES:
        assert re.search(r"code 5 \(MQTT 3\.1\.1\) or 135 \(MQTT 5\)", page)
        assert "4 and 134" in page
