"""Service accounts at a broker that authenticates through the gateway: the gateway's own, and the doctor's."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from gateway.broker.access_rules import Role
from gateway.broker.doctor_accounts import DEVICE, READER, ProbeAccounts

GATEWAY_USER: Final = "gateway"


@dataclass(frozen=True)
class ServiceAccount:
    """An account that is not in the registry."""

    role: Role
    password: str = field(repr=False)

    def opens_with(self, password: str) -> bool:
        """Return whether this is the password; a wrong one takes as long."""
        return hmac.compare_digest(password.encode("utf-8", "surrogatepass"), self.password.encode())


Accounts = Mapping[str, ServiceAccount]
"""Service accounts by user name."""


def service_accounts(gateway_password: str, probes: ProbeAccounts, *, gateway_user: str = GATEWAY_USER) -> Accounts:
    """Return the service accounts."""
    return {
        READER: ServiceAccount(Role.DOCTOR, probes.reader),
        DEVICE: ServiceAccount(Role.DEVICE, probes.device),
        gateway_user: ServiceAccount(Role.GATEWAY, gateway_password),
    }
