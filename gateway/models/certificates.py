"""Certificates of reset: what their signature covers, and how the API shows them (contract, section 7)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from gateway.core import ids
from gateway.models.fields import CreatedAt, Outbound
from gateway.models.resets import RecordingsWish, Technique

Time = Annotated[str | None, Field(description="RFC 3339; null: not yet, or not known.")]
Outcome = Literal["executed", "failed", "cancelled", "superseded"]
LateStatus = Literal["delivered", "executed", "failed"]


class CertifiedDevice(Outbound):
    """The device, as it was at the request."""

    serial_number: str = Field(description="As registered.")
    model: str = Field(description="As registered.")
    firmware_version: str | None = Field(description="Null: not known.")


class CertifiedPerson(Outbound):
    """The person the device was bound to at the request."""

    hash: str = Field(description="HMAC-SHA256 of the id, under a random salt of this person.")


class CertifiedRequest(Outbound):
    """Who asked for what."""

    at: str = Field(description="When, RFC 3339.")
    actor: str | None = Field(
        description="The id of an API key, `user:…` for a person, or `cli`; null: not known any more."
    )
    actor_name: str | None = Field(
        default=None,
        exclude_if=lambda name: name is None,
        description="The name that it had at the request. Absent where it is not known, or holds an end user's id.",
    )
    reason: str | None = Field(description="The reason that was given, or null.")
    request_id: str | None = Field(description="`X-Request-Id` of the request, or null.")
    recordings: RecordingsWish = Field(description="What was asked for the recordings.")


class CertifiedGeneration(Outbound):
    """`binding_generation` of the device before and after the request."""

    before: int = Field(description="That of the binding that the reset ended.")
    after: int | None = Field(description="Null: not known any more.")


class CertifiedGrant(Outbound):
    """The signed permission that the device obeys."""

    kid: str = Field(description="The key that signed it.")
    jti: str = Field(description="The id of the command.")


class CertifiedRecordings(Outbound):
    """How many recordings the device says it wiped and kept."""

    wiped: int = Field(description="How many.")
    kept: int = Field(description="How many.")


class CertifiedReceipt(Outbound):
    """The device's own word on the outcome."""

    alg: Literal["HMAC-SHA256"] = Field(default="HMAC-SHA256", description="How it is made.")
    verified: bool = Field(description="The gateway has checked it.")
    late: bool = Field(description="It came after the reset was final.")


class CertifiedLate(Outbound):
    """What the device said after the reset was final."""

    status: LateStatus = Field(description="Its word. The outcome stays.")


class CertifiedActions(Outbound):
    """What the gateway did after the end, as far as known when this was signed."""

    token_revoked_at: Time
    sessions_closed_at: Time
    retained_cleared_at: Time


class CertificateClaims(BaseModel):
    """The claims of a certificate."""

    model_config = ConfigDict(frozen=True)

    iss: str = Field(description="The gateway.")
    iat: int = Field(description="When it was signed: seconds since the epoch.")
    jti: str = Field(description="`cert_…`")
    sub: str = Field(description="The id of the device.")
    project_id: str = Field(description="The project, whose chain it is in.")
    number: int = Field(description="Its number in that chain, from 1, without gaps.")
    addendum_to: str | None = Field(description="Of an addendum: the id of the first certificate. Null: it is that.")
    outcome: Outcome = Field(description="How the reset ended.")
    device: CertifiedDevice = Field(description="Which device, as it was at the request.")
    end_user: CertifiedPerson | None = Field(description="Null: the device was unbound, or that is not known.")
    request: CertifiedRequest = Field(description="Who asked for the reset.")
    generation: CertifiedGeneration = Field(description="`binding_generation` before and after the request.")
    grant: CertifiedGrant = Field(description="Which signed permission the device obeys.")
    delivered_at: Time
    executed_at: Time
    finished_at: Time
    wiped: list[str] | None = Field(description="What the device says it wiped; null: it said nothing of that.")
    kept: list[str] | None = Field(description="What the device says it kept; null: it said nothing of that.")
    recordings: CertifiedRecordings | None = Field(description="Null: the device said nothing of them.")
    technique: dict[str, Technique] | None = Field(description="How, by entry of `wiped`; null: it said nothing.")
    late: CertifiedLate | None = Field(description="Of an addendum; null otherwise.")
    receipt: CertifiedReceipt | None = Field(description="Null: the device said nothing of the outcome.")
    gateway: CertifiedActions = Field(description="What the gateway did after the end.")
    previous: str | None = Field(
        description="SHA-256 of the JWS of the project's certificate before this one, in hexadecimal; null: the first."
    )


class SignedCertificate(Outbound):
    """A certificate: its claims, and the JWS that proves them."""

    id: str = Field(description="`cert_…`")
    created_at: CreatedAt
    claims: CertificateClaims = Field(description="What the JWS says.")
    jws: str = Field(description="Compact JWS (EdDSA). Its key is in `/.well-known/jwks.json`.")
    sha256: str = Field(description="SHA-256 of `jws`, in hexadecimal. The project's next certificate repeats it.")


class ResetCertificate(SignedCertificate):
    """A certificate of a reset, and those that add what the device said later."""

    addenda: list[SignedCertificate] = Field(description="Later words of the device, oldest first.")


class ChosenCertificate(BaseModel):
    """Query of ``GET /devices/{id}/resets/{cmd}/certificate``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    certificate: Annotated[
        Annotated[str, StringConstraints(pattern=f"^{ids.CERTIFICATE}{ids.BODY}$")] | None,
        Field(description="The id of an addendum, to get that one. Omit it for the first certificate."),
    ] = None
