"""Binding: the data that a device gets from a bind, and their form in the flash."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from device_sim.wire import mqtt_password

TOKEN = "device_token"  # noqa: S105  # the name of a flash entry, not a secret
PAIRING = "pairing"
WIFI = "wifi_networks"
_LONGEST_HOST, _HIGHEST_PORT = 253, 65535
WIPED_BY_A_RESET = (TOKEN, PAIRING, WIFI)  # the token first: a half-wiped device without its token cannot authenticate


@dataclass(frozen=True)
class Endpoint:
    """Address of the broker, and the topic prefix of this device from the bind answer."""

    host: str
    port: int
    tls: bool = False
    topic_prefix: str = ""

    @classmethod
    def from_answer(cls, mqtt: Mapping[str, Any], device_id: str) -> Self:
        """Read the `mqtt` part of a bind answer. The prefix is the part of its heartbeat topic before `devices/`."""
        heartbeat = str(mqtt.get("topics", {}).get("heartbeat", ""))
        prefix = heartbeat.removesuffix(f"devices/{device_id}/heartbeat")
        return cls(**_address({"tls": False, **mqtt}), topic_prefix=prefix)

    def moved(self, mqtt: Mapping[str, Any]) -> Self:
        """Read the `mqtt` part of the answer to a token refresh. A gateway that names no broker there means this one.

        Raises:
            KeyError, TypeError, ValueError: it names a broker, but not as the contract says.
        """
        return replace(self, **_address(mqtt)) if "host" in mqtt else self


def _address(mqtt: Mapping[str, Any]) -> dict[str, Any]:
    """Return the address of a broker. With a wrong one in its flash a device finds no broker again."""
    host, port, tls = mqtt["host"], mqtt["port"], mqtt["tls"]
    if type(host) is not str or type(port) is not int or type(tls) is not bool:
        raise TypeError("mqtt.host, mqtt.port or mqtt.tls has the wrong type")
    is_host = 0 < len(host) <= _LONGEST_HOST and all("!" <= letter <= "~" for letter in host)
    if not (is_host and 0 < port <= _HIGHEST_PORT):
        raise ValueError("mqtt.host and mqtt.port name no broker")
    return {"host": host, "port": port, "tls": tls}


@dataclass(frozen=True)
class Binding:
    """One bind: device id, token, generation, and the key that signs the grants for this device."""

    device_id: str
    generation: int
    device_token: str = field(repr=False)
    grant_key: Mapping[str, Any]
    mqtt: Endpoint
    end_user_id: str | None = None
    next_grant_key: Mapping[str, Any] | None = None
    """The key that `grant_key` has announced. Both count until the first command under this one."""

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any]) -> Self:
        """Read the answer of `POST /v1/devices/{id}/bind`.

        Raises:
            KeyError: a part of the contract's section 2 is missing.
        """
        device_id = str(answer["id"])
        return cls(
            device_id=device_id,
            generation=int(answer["binding_generation"]),
            device_token=str(answer["device_token"]),
            grant_key=dict(answer["grant_key"]),
            mqtt=Endpoint.from_answer(answer["mqtt"], device_id),
            end_user_id=answer.get("end_user_id"),
        )

    @classmethod
    def from_flash(cls, wiped: Mapping[str, Any]) -> Self | None:
        """Read a binding from the flash. Return None if a part is missing, as after a power cut during provisioning."""
        pairing, token = wiped.get(PAIRING), wiped.get(TOKEN)
        if pairing is None or token is None:
            return None
        return cls(
            device_id=pairing["device_id"],
            generation=pairing["binding_generation"],
            device_token=token,
            grant_key=pairing["grant_key"],
            mqtt=Endpoint(**pairing["mqtt"]),
            end_user_id=pairing.get("end_user_id"),
            next_grant_key=pairing.get("next_grant_key"),
        )

    @property
    def grant_keys(self) -> tuple[Mapping[str, Any], ...]:
        """Return the keys that this device obeys, the newest first."""
        return (self.grant_key,) if self.next_grant_key is None else (self.next_grant_key, self.grant_key)

    @property
    def mqtt_password(self) -> str:
        """Return the password at the broker (section 1).

        It is derived from the token and not stored. So the flash holds one secret, and a power cut cannot separate the
        two.
        """
        return mqtt_password(self.device_token)

    def pairing(self) -> dict[str, Any]:
        """Return all but the token, as it is written to the flash.

        Both keys are in this one value, so that a power cut cannot separate them.
        """
        endpoint = self.mqtt
        announced = {} if self.next_grant_key is None else {"next_grant_key": dict(self.next_grant_key)}
        return {
            "device_id": self.device_id,
            "binding_generation": self.generation,
            "end_user_id": self.end_user_id,
            "grant_key": dict(self.grant_key),
            **announced,
            "mqtt": {
                "host": endpoint.host,
                "port": endpoint.port,
                "tls": endpoint.tls,
                "topic_prefix": endpoint.topic_prefix,
            },
        }
