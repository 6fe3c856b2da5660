"""What to do about what went wrong, said beside the error on the command line."""

from device_sim.errors import AnswerError, ApiError, SimulatorError, UnreachableError

UNAUTHORIZED = 401
BY_CODE = {
    "unauthorized": "check the key (--key or GATEWAY_API_KEY); `gateway keys create --name simulator` makes one",
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
    """Return a sentence that says what to do next; empty when the error says it all."""
    match error:
        case UnreachableError():
            return "start one with `gateway serve`, or name the right one with --url or GATEWAY_URL"
        case AnswerError():
            return "check --url (or GATEWAY_URL); it is the address that `gateway serve` prints, without /v1"
        case ApiError(status=status) if status == UNAUTHORIZED:
            return BY_CODE["unauthorized"]
        case ApiError(code=code):
            return BY_CODE.get(code, "")
    return ""
