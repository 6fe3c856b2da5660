"""Definition of all settings: names, types, defaults, bounds and help texts. They are read once and then frozen.

Every setting has one name: ``mqtt_keepalive_seconds`` in TOML is ``GATEWAY_MQTT_KEEPALIVE_SECONDS`` in the environment
and ``--mqtt-keepalive-seconds`` on the command line. ``gateway/settings/loading.py`` reads the sources.
"""

from __future__ import annotations

from pydantic import ConfigDict

from gateway.core.addresses import Address, BrokerUrl
from gateway.settings.groups import (
    BROKER,
    INTEGRATORS,
    KEPT,
    LIMITS,
    PLACE,
    PRESENCE,
    TLS,
    off,
    on,
    setting,
)
from gateway.settings.registry import RegistryFields
from gateway.settings.types import (
    ANY_HOST,
    AUTO,
    EMBEDDED,
    Broker,
    Count,
    DiscoveryPrefix,
    File,
    GatewayId,
    HostPort,
    Hosts,
    MaybeYesNo,
    Models,
    MqttVersion,
    Reachable,
    Seconds,
    TopicPrefix,
    YesNo,
)


class SettingsFields(RegistryFields):
    """Most settings in force; times in seconds, ages in days. Each value is checked where it is defined."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    http: HostPort = setting(PLACE, Address("127.0.0.1", 8080), "Where the HTTP API listens; port 0 picks a free one.")
    mqtt: HostPort = setting(
        PLACE, Address("127.0.0.1", 1883), "Where the gateway's own broker listens; port 0 picks a free one."
    )
    insecure_listen: YesNo = off(
        PLACE, "Listen beyond this machine without TLS: keys and device tokens can then be read on the network."
    )
    http_allowed_hosts: Hosts = setting(
        PLACE,
        (AUTO,),
        "Host names that HTTP requests may name, besides localhost and any IP address; * stands for all, *.NAME for "
        "its subdomains. With auto: only localhost and IP addresses if http listens on loopback without TLS, else all.",
    )
    http_page: YesNo = on(PLACE, "Serve the page for people at /; false: 404.")
    http_docs: YesNo = on(PLACE, "Serve the page at /docs to try the API; false: 404.")

    http_cert_file: File = setting(
        TLS, None, "PEM file with the certificate chain of the HTTP API, which makes it HTTPS; none: no TLS."
    )
    http_key_file: File = setting(TLS, None, "PEM file with the key of http_cert_file, without a password.")
    http_hsts_seconds: Count = setting(
        TLS,
        31_536_000,
        "How long browsers use HTTPS alone for the host's name, on every port of it (Strict-Transport-Security); 0: "
        "the header is not sent.",
        ge=0,
        le=63_072_000,
    )
    http_client_ca_file: File = setting(
        TLS,
        None,
        "PEM file of the authority that signs device certificates: devices then need one over HTTPS as well as their "
        "token, its CN their id. API keys need none.",
    )
    mqtt_cert_file: File = setting(
        TLS,
        None,
        "PEM file with the certificate chain of the gateway's own broker, which makes it MQTTS; none: no TLS.",
    )
    mqtt_key_file: File = setting(TLS, None, "PEM file with the key of mqtt_cert_file, without a password.")
    mqtt_client_ca_file: File = setting(
        TLS,
        None,
        "PEM file of the authority that signs device certificates: devices then need one at the embedded broker as "
        "well as their password, its CN their id.",
    )

    broker: Broker = setting(
        BROKER,
        EMBEDDED,
        "The MQTT broker: embedded; mosquitto: a Mosquitto that the gateway runs itself. auto: Mosquitto where it is "
        "installed, else embedded. Or the URL of a running broker (mqtts:// for TLS).",
    )
    broker_ca_file: File = setting(
        BROKER, None, "PEM file of the authority that signed the broker's certificate; none: the system's authorities."
    )
    broker_cert_file: File = setting(
        BROKER, None, "PEM file with the certificate that the gateway shows the broker, where that asks for one."
    )
    broker_key_file: File = setting(BROKER, None, "PEM file with the key of broker_cert_file, without a password.")
    mqtt_version: MqttVersion = setting(
        BROKER, "auto", "MQTT version towards the broker; auto: 5 where the broker speaks it, else 3.1.1."
    )
    mqtt_keepalive_seconds: Count = setting(
        BROKER, 30, "Longest silence between gateway and broker before the link counts as dead.", ge=5, le=3600
    )
    mqtt_advertise: Reachable = setting(
        BROKER, None, "Broker address in the bind answer to a device; none: the broker's own."
    )
    mqtt_tls_advertise: MaybeYesNo = setting(
        BROKER, None, "Whether the bind answer asks a device to use TLS; none: as the gateway does itself."
    )
    compare_seconds: Seconds = setting(
        BROKER,
        300.0,
        "How often the commands that the broker retains are compared with the registry, besides at each connect.",
        ge=5,
        le=86_400,
    )
    topic_prefix: TopicPrefix = setting(BROKER, "", "Put before every topic; ends with /.")
    gateway_id: GatewayId = setting(
        BROKER,
        None,
        "Name in gateways/ID/status and issuer of grants; none: made at the first start and kept. Of several gateways "
        "each needs its own; the first one is that towards devices.",
    )

    models: Models = setting(
        PRESENCE, ("bota_pin", "bota_note", "bota_pin_pro"), "Models that can be registered; the first is the default."
    )
    heartbeat_interval_seconds: Seconds = setting(
        PRESENCE, 60.0, "How often a device is expected to send a heartbeat.", ge=0.05, le=86_400
    )
    offline_after_intervals: Count = setting(
        PRESENCE, 3, "Heartbeat intervals of silence after which a device is offline.", ge=1, le=1000
    )
    offline_grace_seconds: Seconds = setting(
        PRESENCE, 10.0, "How long a lost connection may take to come back before the device is offline.", ge=0, le=3600
    )
    bind_broker_wait_seconds: Seconds = setting(
        PRESENCE, 5.0, "How long a bind waits for the broker to know the new token before it answers.", ge=0, le=60
    )
    cancel_broker_wait_seconds: Seconds = setting(
        PRESENCE,
        5.0,
        "How long the cancel of a published command waits until what the broker holds is taken in, before it answers "
        "503.",
        ge=0,
        le=60,
    )

    publish_state: YesNo = on(
        INTEGRATORS, "Keep each device's object retained on devices/ID/state; false: clear what is retained there."
    )
    state_refresh_seconds: Seconds = setting(
        INTEGRATORS,
        300.0,
        "How old last_heartbeat_at may get in a state that nothing else changes; 0: each heartbeat is published.",
        ge=0,
        le=86_400,
    )
    publish_events: YesNo = on(INTEGRATORS, "Publish events as CloudEvents on devices/ID/events/TYPE.")
    home_assistant: YesNo = off(
        INTEGRATORS,
        "Announce each device to Home Assistant ('gateway docs home-assistant'); false: clear what is retained there.",
    )
    home_assistant_prefix: DiscoveryPrefix = setting(
        INTEGRATORS, "homeassistant", "Discovery prefix of that Home Assistant; begins with topic_prefix."
    )

    heartbeat_raw_days: Count = setting(
        KEPT,
        30,
        "Age at which heartbeats are thinned to one row for each device and hour. It takes effect below "
        "heartbeat_history_days.",
        ge=1,
        le=3650,
    )
    heartbeat_history_days: Count = setting(
        KEPT, 30, "Age at which heartbeats, and what they were thinned to, are deleted.", ge=1, le=3650
    )
    event_history_days: Count = setting(
        KEPT, 365, "Age at which events and finished jobs are deleted.", ge=1, le=36_500
    )
    delivery_history_days: Count = setting(KEPT, 30, "Age at which deliveries to webhooks are deleted.", ge=1, le=3650)
    refusals_kept: Count = setting(
        KEPT, 1000, "Refused MQTT messages kept for diagnosis, the newest ones.", ge=0, le=1_000_000
    )
    encryption_key_file: File = setting(
        KEPT,
        None,
        "File with the key under which signing keys and webhook secrets are encrypted in the registry ('gateway docs "
        "store'); none: they lie in the clear.",
    )
    backup_mac_key_file: File = setting(
        KEPT,
        None,
        "File with the key of the MAC that 'gateway backup' puts beside a backup and 'gateway restore' then demands; "
        "none: no MAC.",
    )

    max_body_bytes: Count = setting(LIMITS, 65_536, "Largest HTTP request body.", ge=1024, le=16_777_216)
    rate_limit_per_minute: Count = setting(LIMITS, 600, "HTTP requests per key and minute; 0: any.", ge=0, le=1_000_000)
    refused_credentials_per_minute: Count = setting(
        LIMITS,
        300,
        "HTTP requests with a missing or wrong credential per address and minute that get a 401; more get a 429. "
        "Behind a proxy all have its address; 0: any.",
        ge=0,
        le=1_000_000,
    )
    event_streams_per_key: Count = setting(
        LIMITS, 10, "Event streams that one key may have open at a time.", ge=0, le=10_000
    )
    event_streams: Count = setting(LIMITS, 200, "Event streams that are served at a time.", ge=0, le=100_000)
    webhook_allow_private: YesNo = off(
        LIMITS,
        "Send webhooks also to addresses of private networks, and by http://, although a caller with a key could then "
        "send requests into your network.",
    )
    webhook_allow_loopback: YesNo = off(
        LIMITS,
        "Send webhooks also to the gateway's own machine (127.0.0.1, localhost), by http:// too, although a caller "
        "with a key could reach what listens for that machine alone.",
    )
    bulk_reset_per_second: Count = setting(
        LIMITS, 50, "Pace at which commands of a bulk reset are published, and of a job without another.", ge=1, le=1000
    )
    device_messages_per_second: Count = setting(
        LIMITS,
        1,
        "Heartbeats a second that are accepted from one device in the long run, and as many statuses and "
        "acknowledgements; 0: no limit. At least ten in each heartbeat_interval_seconds are accepted. What a device "
        "does not use it may use later, up to 10,000 (a week of one a minute) or 200 seconds' worth (acknowledgements: "
        "100, or 2 seconds' worth). An acknowledgement that changes its command is always accepted.",
        ge=0,
        le=1_000_000,
    )
    device_events_per_hour: Count = setting(
        LIMITS,
        12,
        "Events an hour that one device may cause without an operator, of each type: online, low battery, storage "
        "full, other firmware, refused acknowledgements; 0: no limit. What it does not use it may use later, up to "
        "2 hours' worth. Further events are counted, and the next event gives their number as `suppressed`.",
        ge=0,
        le=1_000_000,
    )
    http_connections: Count = setting(
        LIMITS,
        2_000,
        "HTTP connections that may be open at once. One more takes the place of one that waits for a request or for "
        "its client to read. At most half the descriptors that the process may have.",
        ge=10,
        le=1_000_000,
    )
    http_connections_per_address: Count = setting(
        LIMITS,
        1_000,
        "How many of them one address may have, of IPv6 one /64 network. Behind a proxy all have its address; 0: any.",
        ge=0,
        le=1_000_000,
    )

    @property
    def allowed_hosts(self) -> tuple[str, ...]:
        """Return ``http_allowed_hosts``, with ``auto`` resolved.

        A page under another name cannot reach a listener with TLS, since the certificate does not hold that name.
        """
        if self.http_allowed_hosts != (AUTO,):
            return self.http_allowed_hosts
        return () if self.http.is_loopback and self.http_cert_file is None else (ANY_HOST,)

    @property
    def embedded(self) -> bool:
        """Return whether the gateway is sure to use its embedded broker."""
        return self.broker == EMBEDDED

    @property
    def own_broker(self) -> bool:
        """Return whether the gateway runs a broker itself, of whichever kind."""
        return not isinstance(self.broker, BrokerUrl)
