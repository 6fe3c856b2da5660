"""Wire format of the contract: base64url, HMAC, times, and the messages made of them."""

from binascii import a2b_base64, b2a_base64
from hashlib import sha256

from strict_json import canonical, read_json

COMMAND_TYPES = ("factory_reset", "start_recording", "stop_recording", "trigger_upload", "reboot", "set_grant_key")
COMMAND = (("id", str), ("type", str), ("params", dict), ("binding_generation", int), ("grant_token", str))
BIND = (("id", str), ("binding_generation", int), ("device_token", str), ("grant_key", dict), ("mqtt", dict))
BROKER = (("host", str), ("port", int), ("tls", bool))
ONLINE, OFFLINE = b'{"status":"online"}', b'{"status":"offline"}'


def base64url(raw):
    """Return the text without padding."""
    return b2a_base64(raw).decode().strip().rstrip("=").replace("+", "-").replace("/", "_")


def unbase64url(text):
    """Return the bytes, or raise ValueError when it is not the one form that `base64url` gives."""
    raw = a2b_base64(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4))
    if base64url(raw) != text:
        raise ValueError("not base64url")
    return raw


def hmac_sha256(key, message):
    """Return the 32 bytes of RFC 2104."""
    key = sha256(key).digest() if len(key) > 64 else key
    key = key + bytes(64 - len(key))
    inner = sha256(bytes([byte ^ 0x36 for byte in key]) + message).digest()
    return sha256(bytes([byte ^ 0x5C for byte in key]) + inner).digest()


def mqtt_password(token):
    """Return the password at the broker (section 1 of the contract)."""
    return base64url(hmac_sha256(token.encode(), b"mqtt"))


def receipt(token, command_id, status, generation):
    """Return the receipt of an acknowledgement (section 3 of the contract)."""
    word = f"{command_id}|{status}|{generation}"
    return base64url(hmac_sha256(sha256(token.encode()).digest(), word.encode()))


def rfc3339(at):
    """Return milliseconds since 1970 as `2026-11-01T12:00:00.000Z`."""
    seconds = at // 1000
    days = seconds // 86400 + 719468  # since the first of March of the year 0, so that the leap day is the last one
    era, day = days // 146097, days % 146097  # 400 years
    year = (day - day // 1460 + day // 36524 - day // 146096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    day -= (153 * month + 2) // 5 - 1
    year += 400 * era + month // 10
    month = (month + 2) % 12 + 1
    hour, minute, second = seconds // 3600 % 24, seconds // 60 % 60, seconds % 60
    return f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}.{at % 1000:03d}Z"


def expiry(text):
    """Return a time of the gateway, which ends in Z, in the form of `rfc3339`, so that it compares as text."""
    if len(text) < 20 or text[10] != "T" or text[-1] != "Z":
        raise ValueError("expires_at is not a time with Z")
    return f"{text[:19]}.{(text[20:-1] + '000')[:3]}Z"


def encode(fields):
    """Return the JSON of a message, without absent fields. Equal fields give equal bytes."""
    return canonical({name: value for name, value in fields.items() if value is not None})


def topic(binding, what):
    """Return the full name of `heartbeat`, `status`, `errors`, `commands/reboot`, `commands/reboot/ack`."""
    return f"{binding['mqtt']['topic_prefix']}devices/{binding['device_id']}/{what}"


def pick(fields, kinds):
    """Return the fields of these names, or raise ValueError that names the first one without the right type."""
    for name, kind in kinds:
        if type(fields) is not dict or type(fields.get(name)) is not kind:
            raise ValueError(f"{name} is missing or has the wrong type")
    return {name: fields[name] for name, _ in kinds}


def parse_command(payload):
    """Return the fields of a command that the firmware needs, or raise ValueError.

    Nothing is trusted before `grant.check`.
    """
    raw = read_json(payload)
    command = pick(raw, COMMAND)
    expires_at = raw.get("expires_at")
    command["expires_at"] = None if expires_at is None else expiry(pick(raw, [("expires_at", str)])["expires_at"])
    return command


def binding_from_answer(answer):
    """Return the binding in the answer of `POST /v1/devices/{id}/bind`, or raise ValueError that names the field.

    A companion app may add `http`, the base URL of the gateway for heartbeats without MQTT.
    """
    binding = pick(answer, BIND)
    mqtt, device_id = binding["mqtt"], binding.pop("id")
    heartbeat = pick(pick(mqtt, [("topics", dict)])["topics"], [("heartbeat", str)])["heartbeat"]
    end = f"devices/{device_id}/heartbeat"
    if not heartbeat.endswith(end):
        raise ValueError(f"mqtt.topics.heartbeat does not end in {end}")
    mqtt["tls"] = mqtt.get("tls", False)
    binding["mqtt"] = pick(mqtt, BROKER)
    binding["mqtt"]["topic_prefix"] = heartbeat[: -len(end)]
    binding["device_id"], binding["end_user_id"] = device_id, answer.get("end_user_id")
    if answer.get("http") is not None:
        binding["http"] = pick(answer, [("http", str)])["http"]
    return binding
