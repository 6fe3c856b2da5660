"""Wire format of the contract: base64url, HMAC, times, and the messages made of them."""

from binascii import a2b_base64, b2a_base64
from hashlib import sha256

from strict_json import MAX_INTEGER, MAX_PAYLOAD, canonical, read_json, write  # noqa: F401  # for those who import wire

COMMAND_TYPES = ("factory_reset", "start_recording", "stop_recording", "trigger_upload", "reboot", "set_grant_key")
ONLINE = b'{"status":"online"}'
OFFLINE = b'{"status":"offline"}'
COMMAND_FIELDS = (
    ("id", str),
    ("type", str),
    ("params", dict),
    ("binding_generation", int),
    ("grant_token", str),
)


# --- base64url and HMAC -----------------------------------------------------------------------------------------------


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


# --- times ------------------------------------------------------------------------------------------------------------


def rfc3339(at):
    """Return milliseconds since 1970 as `2026-11-01T12:00:00.000Z`."""
    seconds = at // 1000
    year, month, day = _date(seconds // 86400)
    hour, minute, second = seconds // 3600 % 24, seconds // 60 % 60, seconds % 60
    return f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}.{at % 1000:03d}Z"


def milliseconds(text):
    """Return milliseconds since 1970 of an RFC 3339 time with an offset or `Z`, or raise ValueError."""
    if len(text) < 20 or text[4] + text[7] + text[10] + text[13] + text[16] != "--T::":
        raise ValueError("not an RFC 3339 time")
    year, month, day = _number(text[:4], 1, 9999), _number(text[5:7], 1, 12), _number(text[8:10], 1, 31)
    clock = _number(text[11:13], 0, 23) * 3600 + _number(text[14:16], 0, 59) * 60 + _number(text[17:19], 0, 59)
    if _date(_days(year, month, day)) != (year, month, day):
        raise ValueError("no such day")
    rest, fraction = text[19:], ""
    if rest[0] == ".":
        size = 1
        while rest[size : size + 1] in tuple("0123456789"):
            size += 1
        rest, fraction = rest[size:], rest[1:size]
        _number(fraction, 0, 10**9)
    return (_days(year, month, day) * 86400 + clock - _offset(rest)) * 1000 + int((fraction + "000")[:3])


def _number(digits, least, most):
    if not digits or not all(each in "0123456789" for each in digits) or not least <= int(digits) <= most:
        raise ValueError("not an RFC 3339 time")
    return int(digits)


def _offset(text):
    """Return the seconds of `Z` or of `+hh:mm`."""
    if text == "Z":
        return 0
    if len(text) != 6 or text[0] not in "+-" or text[3] != ":":
        raise ValueError("not an RFC 3339 time")
    seconds = _number(text[1:3], 0, 23) * 3600 + _number(text[4:], 0, 59) * 60
    return -seconds if text[0] == "-" else seconds


def _days(year, month, day):
    """Return the days since 1970-01-01. The year begins in March, so that the leap day is its last."""
    year, month = (year, month - 3) if month > 2 else (year - 1, month + 9)
    return 365 * year + year // 4 - year // 100 + year // 400 + (153 * month + 2) // 5 + day - 719469


def _date(days):
    year = (days + 719468) * 400 // 146097 + 1
    while _days(year, 3, 1) > days:
        year -= 1
    rest = days - _days(year, 3, 1)
    month = (5 * rest + 2) // 153
    day = rest - (153 * month + 2) // 5 + 1
    return (year, month + 3, day) if month < 10 else (year + 1, month - 9, day)


# --- messages ---------------------------------------------------------------------------------------------------------


def encode(fields):
    """Return the JSON of a message, without absent fields. Equal fields give equal bytes."""
    return canonical({name: value for name, value in fields.items() if value is not None})


def topic(binding, what):
    """Return the full name of `heartbeat`, `status`, `errors`, `commands/reboot`, `commands/reboot/ack`."""
    return f"{binding['mqtt']['topic_prefix']}devices/{binding['device_id']}/{what}"


def parse_command(payload):
    """Return the fields of a command that the firmware needs, or raise ValueError.

    `expires_at` is in milliseconds since 1970, or None. Nothing is trusted before `grant.check`.
    """
    raw = read_json(payload)
    command = {name: _of(raw, name, kind) for name, kind in COMMAND_FIELDS}
    expires_at = raw.get("expires_at")
    command["expires_at"] = None if expires_at is None else milliseconds(_of(raw, "expires_at", str))
    return command


def binding_from_answer(answer):
    """Return the binding in the answer of `POST /v1/devices/{id}/bind`, or raise ValueError that names the field.

    A companion app may add `http`, the base URL of the gateway for heartbeats without MQTT.
    """
    device_id, mqtt = _of(answer, "id", str), _of(answer, "mqtt", dict)
    heartbeat, end = _of(_of(mqtt, "topics", dict), "heartbeat", str), f"devices/{device_id}/heartbeat"
    if not heartbeat.endswith(end):
        raise ValueError(f"mqtt.topics.heartbeat does not end in {end}")
    binding = {
        "device_id": device_id,
        "binding_generation": _of(answer, "binding_generation", int),
        "device_token": _of(answer, "device_token", str),
        "grant_key": _of(answer, "grant_key", dict),
        "mqtt": {
            "host": _of(mqtt, "host", str),
            "port": _of(mqtt, "port", int),
            "tls": _of(mqtt, "tls", bool) if "tls" in mqtt else False,
            "topic_prefix": heartbeat[: -len(end)],
        },
        "end_user_id": answer.get("end_user_id"),
    }
    if answer.get("http") is not None:
        binding["http"] = _of(answer, "http", str)
    return binding


def _of(fields, name, kind):
    if type(fields) is not dict or type(fields.get(name)) is not kind:
        raise ValueError(f"{name} is missing or has the wrong type")
    return fields[name]
