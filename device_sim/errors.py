"""Errors between a simulated device, its companion app and a gateway. Each message states what to do."""

from typing import TypeVar

E = TypeVar("E", bound=BaseException)


def caused_by(error: BaseException, kind: type[E]) -> E | None:
    """Return the first error of this kind among `error` and its causes, or None."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, kind):
        cause = cause.__cause__ or cause.__context__
    return cause


class SimulatorError(Exception):
    """Base of all errors that this package raises on purpose."""


class ApiError(SimulatorError):
    """The gateway answered with an error: `status` of HTTP, `code` and `message` of the contract.

    `retry_after` is the header's number of seconds, or None without the header.
    """

    def __init__(self, status: int, code: str, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(f"{message} ({status} {code})")
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after


class UnreachableError(SimulatorError):
    """No gateway answers at that URL."""


class UntrustedError(UnreachableError):
    """TLS cannot verify the server at that URL. `code` is OpenSSL's, 0 where the cause is not a certificate."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class AnswerError(SimulatorError):
    """The server at that URL does not follow the contract."""


class RadioError(SimulatorError):
    """A message could not be sent, or was not confirmed."""


class PowerCutError(Exception):
    """The power was cut before an action. Faults raise it, the runtime catches it."""


class ProvisioningError(SimulatorError):
    """The device can't be provisioned in its present state."""
