"""Answers about the gateway itself: health, readiness, and the API key of the caller."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gateway.core.roles import Role
from gateway.models.fields import Outbound


class KeyFacts(Outbound):
    """An API key as its holder may know it."""

    id: str = Field(description="`key_…`.")
    project_id: str = Field(description="The only project that the key opens.")
    project_name: str = Field(description="For people.")
    scopes: list[str] = Field(description="What it may do, such as `devices:read`.")


class SessionFacts(Outbound):
    """The session of a person who signed in, as the page needs it."""

    id: str = Field(description="`ses_…`.")
    actor: str = Field(description="Who acts in this session, as events name it: `user:` and the provider's `sub`.")
    name: str = Field(description="The person's name, as the provider gave it at the sign-in.")
    project_id: str = Field(description="The only project that the session opens.")
    project_name: str = Field(description="For people.")
    role: Role = Field(description="What the provider's claims give the person.")
    scopes: list[str] = Field(description="What the role may do, such as `devices:read`.")
    expires_at: str = Field(description="When the person has to sign in again, at the latest.")
    csrf_token: str = Field(description="Send it as `X-CSRF-Token` with every change.")


class SignedOut(Outbound):
    """What is left to do after the end of a session."""

    end_session_url: str | None = Field(
        description="Where the browser ends the session at the provider, too; null where the provider has no such page "
        "or does not answer."
    )


class OidcOption(Outbound):
    """The provider that people sign in at."""

    name: str = Field(description="Host name of the provider, to show.")
    url: str = Field(description="Where the browser begins the sign-in, relative to the page.")


class SignInOptions(Outbound):
    """How people can sign in on the page, besides with an API key."""

    oidc: OidcOption | None = Field(description="Null where OpenID Connect is not set up.")


class Health(Outbound):
    """Whether the process serves and reaches its database."""

    status: Literal["healthy", "unhealthy"] = Field(description="`unhealthy` when the registry cannot be read.")
    database: Literal["connected", "disconnected"] = Field(description="Whether the registry can be read.")
    billing: Annotated[Literal["disabled"], Field(description="Always `disabled`.")] = "disabled"


class BrokerLink(Outbound):
    """How the link to the broker is."""

    kind: Literal["embedded", "mosquitto", "external"] = Field(
        description="`embedded`; `mosquitto`, run by the gateway itself; or `external`, which the operator runs."
    )
    connected: bool = Field(description="Whether the gateway has a session with the broker.")
    reconciled: bool = Field(description="Retained messages on the broker are the open commands of the registry.")
    mqtt_version: str | None = Field(description="The MQTT version of the session; null without a session.")
    error: str | None = Field(description="Why the gateway has no session; null when it has one.")


class BrokerAccess(Outbound):
    """Who steers accounts and live sessions at the broker."""

    managed_by: str = Field(description="`embedded`, `mosquitto`, or `none`: you manage the accounts at the broker.")
    error: str | None = Field(
        description="Why accounts are not in step now, or what the gateway cannot do about them; else null."
    )


class RegistryState(Outbound):
    """Whether the registry can be written."""

    error: str | None = Field(description="Why the last write failed, and what to do; null when it did not.")


class OutboxDepth(Outbound):
    """What has yet to reach the broker."""

    depth: int = Field(description="The number of changes that wait, 10000 at most.")
    at_least: bool = Field(description="Whether `depth` is that limit: more changes may wait than it says.")
    oldest_seconds: int = Field(description="How long the oldest change has waited, in seconds.")


class AnsweringGateway(Outbound):
    """The gateway that answers."""

    id: str = Field(description="Its `gateway_id`.")
    alone: bool = Field(description="Whether no other gateway can serve its registry: SQLite.")


class LeaseState(Outbound):
    """What one gateway of a registry does at a time: serve a broker, or do the work of the whole fleet."""

    name: str = Field(description="`broker:` and the broker's id, or `fleet`.")
    held: bool = Field(description="Whether this gateway holds it; if not, it stands by.")
    owner: str | None = Field(description="The id of the gateway that holds it; null when none does.")
    epoch: int = Field(description="How often it was taken so far.")
    age_seconds: int = Field(description="How long ago it was taken, in seconds.")
    error: str | None = Field(description="That no gateway holds it now; otherwise null.")


class RegisteredBroker(Outbound):
    """A broker of the registry."""

    id: str = Field(description="Its `broker_id`.")
    owner: str | None = Field(description="The id of the gateway that serves it; null when none does.")
    connected: bool = Field(description="Whether that gateway is connected to it and has compared it.")
    followed: bool = Field(
        description="Whether changes are marked for it. After ten minutes away they are not; it is compared in full "
        "when it is back."
    )
    outbox: int = Field(description="The number of changes that wait for it; 10000 stands for that many or more.")


class ListenerCertificate(Outbound):
    """What a listener with TLS shows its clients: ``http`` or ``mqtt``."""

    listener: str = Field(description="`http`, or `mqtt`: the embedded broker's.")
    expires_at: str = Field(description="When the certificate expires.")
    error: str | None = Field(
        description="Why the certificate is not valid, or why its successor was not loaded; otherwise null."
    )


class Readiness(Outbound):
    """Whether the gateway can do all of its work now, and the facts behind that."""

    ready: bool = Field(description="Whether every part is ready.")
    gateway: AnsweringGateway = Field(description="Which gateway answers; several may serve one registry.")
    registry: RegistryState = Field(description="Whether the last write to the registry succeeded.")
    broker: BrokerLink = Field(description="The link to the broker.")
    access: BrokerAccess = Field(description="Accounts and sessions at the broker.")
    leases: list[LeaseState] = Field(
        description="The leases of this gateway's broker and of the fleet. A gateway that stands by is ready while "
        "another one holds the lease of its broker."
    )
    brokers: list[RegisteredBroker] = Field(description="All brokers of the registry.")
    outbox: OutboxDepth = Field(description="Changes that have not reached the broker of this gateway yet.")
    certificates: list[ListenerCertificate] = Field(
        description="The certificates that listeners present; empty where no listener speaks TLS."
    )
