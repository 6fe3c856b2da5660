"""What a bind or a refresh gives a device: token, broker access and public key (contract, section 2)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from gateway.models.devices import Device
from gateway.models.fields import EndUserId, Inbound, Outbound


class BindDevice(Inbound):
    """Body of ``POST /devices/{id}/bind``."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"end_user_id": "eu_42"}]})

    end_user_id: EndUserId = Field(description="Whose the device becomes: an id of your own that begins with `eu_`.")
    supersede_reset: bool = Field(default=False, description="Cancel an open reset and bind all the same.")


class MqttTopics(Outbound):
    """The topics a device may use."""

    heartbeat: str = Field(description="To publish, QoS 1, not retained.")
    status: str = Field(description="To publish, QoS 1, retained; the last will belongs here too.")
    commands: dict[str, str] = Field(description="One full topic per command type: subscribe to each by its name.")
    errors: str = Field(description="To subscribe: messages that were refused, and why.")


class MqttAccess(Outbound):
    """How a device reaches the broker; the password belongs to the device token, and is shown this once."""

    host: str = Field(description="Host name of the broker.")
    port: int = Field(description="TCP port of the broker.")
    tls: bool = Field(description="Whether the broker speaks TLS on this port.")
    username: str = Field(description="The MQTT user: the device's id.")
    password: str = Field(
        repr=False,
        description="The MQTT password: base64url(HMAC-SHA256(token, `mqtt`)) without padding. It lives and dies with"
        " the token.",
    )
    client_id: str = Field(description="The MQTT client id: the device's id.")
    topics: MqttTopics = Field(description="The full names of the topics that the device may use.")


class Jwk(Outbound):
    """The public key that signs grants (RFC 8037)."""

    kty: Annotated[Literal["OKP"], Field(description="The key type (RFC 8037).")] = "OKP"
    crv: Annotated[Literal["Ed25519"], Field(description="The elliptic curve.")] = "Ed25519"
    x: str = Field(description="The public key, base64url.")
    kid: str = Field(description="The id of the key. The header of a grant names it.")
    alg: Annotated[Literal["EdDSA"], Field(description="The signature algorithm.")] = "EdDSA"
    use: Annotated[Literal["sig"], Field(description="The use of the key: signatures.")] = "sig"


class LeakedJwk(Jwk):
    """A key that others know. What it signed counts only where a later certificate of the chain repeats its digest."""

    leaked_at: str = Field(description="Since when it is known to have leaked.")


class BoundDevice(Device):
    """A device just bound, with what its firmware needs to live; the token is shown this once."""

    device_token: str = Field(
        repr=False,
        description="The device's HTTP bearer, and what the key of its receipts is made of. The broker does not take "
        "it. It is shown this once.",
    )
    mqtt: MqttAccess = Field(description="Where the broker is, and what the device may publish and subscribe to.")
    grant_key: Jwk = Field(
        description="The public key that this device's commands are signed with, to keep on the device."
    )


class JwkSet(Outbound):
    """The public keys that sign grants, and those that signed certificates of reset (RFC 7517)."""

    keys: list[LeakedJwk | Jwk] = Field(description="The public keys, the one in use first.")


class RefreshedMqtt(Outbound):
    """How a device reaches the broker from now on; topics, user name and client id stay as they are."""

    host: str = Field(description="Host name of the broker.")
    port: int = Field(description="TCP port of the broker.")
    tls: bool = Field(description="Whether the broker speaks TLS on this port.")
    password: str = Field(
        repr=False,
        description="The MQTT password: base64url(HMAC-SHA256(token, `mqtt`)) without padding. It lives and dies with"
        " the token.",
    )


class RefreshedToken(Outbound):
    """A new token of the same binding with its MQTT password, shown this once."""

    device_token: str = Field(
        repr=False,
        description="The device's HTTP bearer, and what the key of its receipts is made of. The broker does not take "
        "it. It is shown this once.",
    )
    mqtt: RefreshedMqtt = Field(description="How the device reaches the broker from now on.")
    binding_generation: int = Field(description="The generation of the binding, unchanged.")
