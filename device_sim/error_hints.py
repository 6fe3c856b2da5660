"""Hints for the command line: what to do about an error."""

from device_sim.errors import AnswerError, ApiError, SimulatorError, UnreachableError, UntrustedError

UNAUTHORIZED = 401
NO_CERTIFICATE = 0
EXPIRED = 10  # X509_V_ERR_CERT_HAS_EXPIRED
OTHER_NAMES = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
BY_CODE = {
    "unauthorized": "check the key (--key, --api-key-file or GATEWAY_API_KEY); "
    "`gateway keys create --name simulator` makes one",
    "insufficient_scope": "the key needs devices:write; `gateway keys create --name simulator` makes one that has it",
    "device_already_bound": (
        "this serial number is bound and its token is shown only once: go on with the --flash that holds it, unbind "
        "the device first (POST /v1/devices/{id}/unbind), or take another --serial or --seed"
    ),
    "reset_pending": (
        "a reset is open for this device: let the device that holds the token carry it out, cancel it, or bind anew "
        "with --supersede-reset"
    ),
    "invalid_request": "look at the message; --serial, --model and --end-user are what was sent",
    "rate_limit_exceeded": "wait a little, or provision fewer devices at once",
}


def remedy(error: SimulatorError) -> str:
    """Return a sentence about what to do next; empty when the error message is enough."""
    match error:
        case UntrustedError(code=code):
            return _gateway_trust_hint(code)
        case UnreachableError():
            return "start one with `gateway serve`, or name the right one with --url or GATEWAY_URL"
        case AnswerError():
            return "check --url (or GATEWAY_URL); it is the address that `gateway serve` prints, without /v1"
        case ApiError(status=status) if status == UNAUTHORIZED:
            return BY_CODE["unauthorized"]
        case ApiError(code=code):
            return BY_CODE.get(code, "")
    return ""


def broker_trust_hint(code: int) -> str:
    """Return what to do about a broker's certificate that OpenSSL refused with this code."""
    if code in OTHER_NAMES:
        return "the gateway's mqtt_advertise should be a name that it is made out to"
    if code == EXPIRED:
        return "have it renewed"
    return "name its authority with --ca-file"


def _gateway_trust_hint(code: int) -> str:
    if code == NO_CERTIFICATE:
        return "check --url or GATEWAY_URL; what answers there may speak plain http://"
    if code in OTHER_NAMES:
        return "name the gateway in --url or GATEWAY_URL as its certificate does, or have that renewed for this name"
    if code == EXPIRED:
        return "have it renewed, and check the clock of this machine"
    return "name the PEM file of the authority that signed it with --ca-file"
