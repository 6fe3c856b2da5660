"""Cross-field validation of settings: a conflict is reported at the start, with the setting to change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker_config.sizes import DEFAULT_DEVICES
from gateway.core.addresses import BrokerUrl
from gateway.settings import sign_in
from gateway.settings.types import AUTO, EMBEDDED, MOSQUITTO

if TYPE_CHECKING:
    from gateway.settings.sign_in import SignInFields


class ConflictingSettingsError(ValueError):
    """Two settings that exclude each other; ``setting`` is the one to change."""

    def __init__(self, setting: str, message: str) -> None:
        super().__init__(message)
        self.setting = setting


def check(settings: SignInFields) -> None:
    """Check that they agree.

    Raises:
        ConflictingSettingsError: they do not, or would not be safe together.
    """
    _refuse_open_listeners(settings)
    _refuse_contradictions(settings)


def _refuse_open_listeners(settings: SignInFields) -> None:
    """Refuse listeners on which keys and tokens cross a network in the clear, unless a setting allows it."""
    listeners = {"http": (settings.http, settings.http_cert_file)}
    if settings.own_broker:
        listeners["mqtt"] = (settings.mqtt, settings.mqtt_cert_file)
    if settings.broker_auth:
        listeners["broker_auth"] = (settings.broker_auth, settings.http_cert_file)
    for name, (address, certificate) in listeners.items():
        if not address.is_loopback and certificate is None and not settings.insecure_listen:
            files = _certified_by(name)
            raise ConflictingSettingsError(
                name,
                "should be a loopback address such as 127.0.0.1, since other machines would reach it without TLS; "
                f"set {files}_cert_file and {files}_key_file ('gateway docs tls'), or insecure_listen "
                "(--insecure-listen) if that network may see keys and device tokens",
            )


def _certified_by(listener: str) -> str:
    """Return whose certificate a listener shows."""
    return "http" if listener == "broker_auth" else listener


def _refuse_contradictions(settings: SignInFields) -> None:
    """Refuse a setting that could not take effect: it is a mistake, better reported now than found later."""
    tls = isinstance(settings.broker, BrokerUrl) and settings.broker.tls
    contradictions = {
        "broker_ca_file": (
            settings.broker_ca_file
            and not tls
            and not (settings.broker_api_url and settings.broker_api_url.scheme == "https"),
            "needs a broker with an mqtts:// URL",
        ),
        "broker_cert_file": (settings.broker_cert_file and not tls, "needs a broker with an mqtts:// URL"),
        "mqtt_cert_file": (
            settings.mqtt_cert_file and not settings.own_broker,
            "is for the gateway's own broker: give it to yours itself",
        ),
        "mqtt_client_ca_file": (
            settings.mqtt_client_ca_file and settings.broker == MOSQUITTO,
            "needs the embedded broker: Mosquitto does not compare a certificate's CN with the device's id",
        ),
        "mqtt_version": (
            settings.broker in (EMBEDDED, AUTO) and settings.mqtt_version == "5",
            "should be auto or 3.1.1 (embedded broker)",
        ),
        "mosquitto_password_file": (
            settings.own_broker and settings.mosquitto_password_file,
            "needs broker to be the URL of that Mosquitto",
        ),
        "mosquitto_pid_file": (
            settings.mosquitto_pid_file and not settings.mosquitto_password_file,
            "needs mosquitto_password_file as well",
        ),
        "mosquitto_reload_socket": (
            settings.mosquitto_reload_socket and not settings.mosquitto_password_file,
            "needs mosquitto_password_file as well",
        ),
        "mosquitto_devices": (
            settings.mosquitto_devices != DEFAULT_DEVICES and not settings.mosquitto_password_file,
            "needs mosquitto_password_file as well",
        ),
        "home_assistant": (
            settings.home_assistant and not settings.publish_state,
            "needs publish_state as well: that is what Home Assistant shows",
        ),
        "home_assistant_prefix": (
            settings.home_assistant and not settings.home_assistant_prefix.startswith(settings.topic_prefix),
            f"should begin with topic_prefix ({settings.topic_prefix}): the gateway writes nowhere else",
        ),
        **_asking_contradictions(settings),
        **_database_contradictions(settings),
        **sign_in.contradictions(settings),
    }
    for name, (contradicts, message) in contradictions.items():
        if contradicts:
            raise ConflictingSettingsError(name, message)
    _refuse_half_certificates(settings)


def _asking_contradictions(settings: SignInFields) -> dict[str, tuple[object, str]]:
    """Return the conflicts of a broker that authenticates through the gateway, which must know its own account."""
    url, asked = settings.broker, settings.broker_auth
    named = isinstance(url, BrokerUrl) and url.username and url.password
    return {
        "broker_auth": (
            asked and (not named or settings.mosquitto_password_file),
            "needs broker to be mqtt[s]://USER:PASSWORD@HOST:PORT, and no mosquitto_password_file beside it",
        ),
        "broker_auth_secret_file": (settings.broker_auth_secret_file and not asked, "needs broker_auth as well"),
        "broker_api_url": (settings.broker_api_url and not asked, "needs broker_auth as well"),
    }


def _database_contradictions(settings: SignInFields) -> dict[str, tuple[object, str]]:
    """Return the conflicts of a registry on PostgreSQL."""
    address, file = settings.database, settings.database_password_file
    return {
        "database_password_file": (
            file and (address is None or address.password is not None),
            "needs database to be postgresql://USER@HOST/DATABASE without a password in it",
        ),
        "backup_mac_key_file": (
            settings.backup_mac_key_file and address,
            "is for 'gateway backup', which needs SQLite: PostgreSQL has its own tools ('gateway docs scaling')",
        ),
    }


def _refuse_half_certificates(settings: SignInFields) -> None:
    """Refuse a certificate without its key, or an authority for clients without both."""
    for name in ("http", "mqtt", "broker"):
        needs = {"cert_file": "key_file", "key_file": "cert_file", "client_ca_file": "cert_file"}
        for ending, other in needs.items():
            given, needed = getattr(settings, f"{name}_{ending}", None), getattr(settings, f"{name}_{other}")
            if given and not needed:
                raise ConflictingSettingsError(f"{name}_{ending}", f"needs {name}_{other} as well")
