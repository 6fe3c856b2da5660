"""What can go wrong between a simulated device, its companion app and a gateway; each message says what to do."""

from typing import TypeVar

E = TypeVar("E", bound=BaseException)


def caused_by(error: BaseException, kind: type[E]) -> E | None:
    """Return the error of this kind that is behind `error`, or None."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, kind):
        cause = cause.__cause__ or cause.__context__
    return cause


class SimulatorError(Exception):
    """Base of everything this package raises on purpose."""


class ApiError(SimulatorError):
    """The gateway answered with an error; `status` is HTTP's, `code` and `message` are the contract's.

    `retry_after` is the header's number of seconds, or None where the answer has none.
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
    """Whoever answers at that URL cannot be verified by TLS; `code` is OpenSSL's, 0 where it is not a certificate."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class AnswerError(SimulatorError):
    """Something answers at that URL, and it isn't the contract."""


class RadioError(SimulatorError):
    """A message could not be sent, or nobody confirmed it."""


class PowerCutError(Exception):
    """The power went before an action; raised by faults, caught by the runtime."""


class ProvisioningError(SimulatorError):
    """The device can't be provisioned as it is."""
