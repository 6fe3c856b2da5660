"""Settings of the programs beside the gateway, and of how the gateway runs."""

from __future__ import annotations

from broker_config.sizes import DEFAULT_DEVICES, MOST_DEVICES
from gateway.settings.groups import ASKING, MOSQUITTO, RUNNING, setting
from gateway.settings.model import SettingsFields
from gateway.settings.types import (
    Count,
    File,
    LogFormat,
    LogLevel,
    MaybeBrokerApi,
    MaybeCollector,
    MaybeHostPort,
    Seconds,
)


class RunningFields(SettingsFields):
    """Those settings, with all before them."""

    mosquitto_password_file: File = setting(
        MOSQUITTO, None, "Mosquitto's password file, which the gateway then writes; none: it leaves Mosquitto alone."
    )
    mosquitto_pid_file: File = setting(
        MOSQUITTO, None, "Mosquitto's pid file, to have it read the password file again (SIGHUP)."
    )
    mosquitto_reload_socket: File = setting(
        MOSQUITTO,
        None,
        "Socket of 'gateway broker reloader', which signals a Mosquitto of another user; none: the gateway signals it.",
    )

    mosquitto_devices: Count = setting(
        MOSQUITTO,
        DEFAULT_DEVICES,
        "Size of the fleet that mosquitto.conf was written for ('gateway broker init --devices'). A larger one gets a "
        "warning.",
        ge=1,
        le=MOST_DEVICES,
    )

    broker_auth: MaybeHostPort = setting(
        ASKING,
        None,
        "Where a broker asks the gateway who may do what ('gateway docs other-brokers'); port 0 picks a free one; "
        "none: it does not.",
    )
    broker_auth_secret_file: File = setting(
        ASKING,
        None,
        "File with the secret that the broker shows there; none: broker-auth-secret in the data directory, made when "
        "missing.",
    )
    broker_api_url: MaybeBrokerApi = setting(
        ASKING,
        None,
        "That broker's own API, to cut live sessions: rabbitmq+http://USER:PASSWORD@HOST:PORT, emqx+… or vernemq+….",
    )

    metrics_token_file: File = setting(
        RUNNING,
        None,
        "File with the token that opens /metrics, made when missing; none: API keys with devices:read do, and on the "
        "gateway's own machine none is needed.",
    )
    otlp_endpoint: MaybeCollector = setting(
        RUNNING,
        None,
        "Where traces go, by OTLP over HTTP: the URL of a collector, such as http://127.0.0.1:4318; none: nowhere.",
    )
    log_level: LogLevel = setting(RUNNING, "info", "Least severe events that are logged.")
    log_format: LogFormat = setting(
        RUNNING, "auto", "Form of the log on stderr; auto: console on a terminal, else JSON."
    )
    log_lines_per_second: Count = setting(
        RUNNING,
        200,
        "Lines of one kind (one `event`) that are logged in a second, of one library 10 at most; 0: all of them. The "
        "next says how many were left out.",
        ge=0,
        le=1_000_000,
    )
    shutdown_seconds: Seconds = setting(
        RUNNING, 5.0, "Time that a stop may take before what still runs is cut off.", ge=0.1, le=300
    )
