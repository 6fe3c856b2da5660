"""Wire format of the contract: base64url, HMAC, times, and the messages made of them."""

from binascii import a2b_base64, b2a_base64
from hashlib import sha256

from strict_json import parts, read_json, require

COMMAND_TYPES = ("factory_reset", "start_recording", "stop_recording", "trigger_upload", "reboot", "set_grant_key")
COMMAND = (("id", str), ("type", str), ("params", dict), ("binding_generation", int), ("grant_token", str))
BIND = (("id", str), ("binding_generation", int), ("device_token", str), ("grant_key", dict), ("mqtt", dict))
ADDRESS = (("host", str), ("port", int), ("tls", bool))
ONLINE, OFFLINE = b'{"status":"online"}', b'{"status":"offline"}'


def base64url(raw):
    """Return the text without padding."""
    return b2a_base64(raw).decode().strip().rstrip("=").replace("+", "-").replace("/", "_")


def unbase64url(text):
    """Return the bytes, or raise ValueError when it is not the one form that `base64url` gives."""
    raw = a2b_base64(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4))
    require(base64url(raw) == text, "not base64url")
    return raw


def hmac_sha256(key, message):
    """Return the 32 bytes of RFC 2104."""
    key = sha256(key).digest() if len(key) > 64 else key
    for pad in (0x36, 0x5C):
        message = sha256(bytes([byte ^ pad for byte in key + bytes(64 - len(key))]) + message).digest()
    return message


def mqtt_password(token):
    """Return the password at the broker (section 1 of the contract)."""
    return base64url(hmac_sha256(token.encode(), b"mqtt"))


def receipt(token, command_id, status, generation):
    """Return the receipt of an acknowledgement (section 3 of the contract)."""
    return base64url(hmac_sha256(sha256(token.encode()).digest(), f"{command_id}|{status}|{generation}".encode()))


def rfc3339(at):
    """Return milliseconds since 1970 as `2026-11-01T12:00:00.000Z`."""
    second = at // 1000 % 86400
    day = at // 86400000 + 719468  # since the first of March of the year 0, so that the leap day is the last one
    century = (4 * day + 3) // 146097
    day -= 146097 * century // 4
    year = (4 * day + 3) // 1461  # of the century
    day -= 1461 * year // 4
    month = (5 * day + 2) // 153  # since March
    date = f"{100 * century + year + month // 10:04d}-{(month + 2) % 12 + 1:02d}-{day - (153 * month + 2) // 5 + 1:02d}"
    return f"{date}T{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}.{at % 1000:03d}Z"


def expiry(text):
    """Return a time of the gateway, which ends in Z, in the form of `rfc3339`, so that it compares as text."""
    require(len(text) >= 20 and text[10] == "T" and text[-1] == "Z", "expires_at is not a time with Z")
    return f"{text[:19]}.{(text[20:-1] + '000')[:3]}Z"


def encode(fields):
    """Return the canonical JSON of a message, without absent fields. Equal fields give equal bytes."""
    return b"".join(parts({name: value for name, value in fields.items() if value is not None}))


def pick(fields, kinds):
    """Return the fields of these names, or raise ValueError that names the first one without the right type."""
    for name, kind in kinds:
        is_good = type(fields) is dict and type(fields.get(name)) is kind
        require(is_good, f"{name} is missing or has the wrong type")
    return {name: fields[name] for name, _ in kinds}


def address(fields):
    """Return host, port and TLS of a broker, or raise ValueError. With a wrong one in flash no broker answers again."""
    broker = pick(fields, ADDRESS)
    is_host = 0 < len(broker["host"]) < 254 and all("!" <= letter <= "~" for letter in broker["host"])
    require(is_host and 0 < broker["port"] < 65536, "mqtt.host and mqtt.port name no broker")
    return broker


def parse_command(topic_type, payload):
    """Return the fields of a command that the firmware needs, and its topic's type; or raise ValueError.

    Nothing is trusted before `grant.check`.
    """
    raw = read_json(payload)
    command = pick(raw, COMMAND)
    expires_at = None if raw.get("expires_at") is None else pick(raw, [("expires_at", str)])["expires_at"]
    return dict(command, topic_type=topic_type, expires_at=expires_at and expiry(expires_at))


def binding_from_answer(answer):
    """Return the binding in the answer of `POST /v1/devices/{id}/bind`, or raise ValueError that names the field.

    A companion app may add `http`, the base URL of the gateway for heartbeats without MQTT.
    """
    binding = pick(answer, BIND)
    device_id = binding.pop("id")
    broker = address(dict(binding["mqtt"], tls=binding["mqtt"].get("tls", False)))
    heartbeat = pick(binding["mqtt"].get("topics"), [("heartbeat", str)])["heartbeat"]
    broker["topic_prefix"], found, rest = heartbeat.partition(f"devices/{device_id}/heartbeat")
    require(found and not rest, "mqtt.topics.heartbeat is not that of this device")
    if answer.get("http") is not None:
        binding["http"] = pick(answer, [("http", str)])["http"]
    return dict(binding, device_id=device_id, mqtt=broker, end_user_id=answer.get("end_user_id"))


def token_from_answer(answer, mqtt):
    """Return the token in the answer to a token refresh, and the broker that admits it, or raise ValueError.

    A gateway that names no broker there means the one of the binding, `mqtt`.
    """
    token = pick(answer, [("device_token", str)])["device_token"]
    told = answer.get("mqtt")
    return token, dict(mqtt, **address(told)) if type(told) is dict and "host" in told else mqtt
