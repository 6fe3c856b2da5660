"""The accounts at a broker that asks the gateway which are there while it runs: its own, and the doctor's."""

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
    """What somebody who knows the password may be."""

    role: Role
    password: str = field(repr=False)

    def opens_with(self, password: str) -> bool:
        """Whether this is the password; takes as long for a wrong one."""
        return hmac.compare_digest(password.encode("utf-8", "surrogatepass"), self.password.encode())


Accounts = Mapping[str, ServiceAccount]
"""By user name."""


def service_accounts(gateway_password: str, probes: ProbeAccounts, *, gateway_user: str = GATEWAY_USER) -> Accounts:
    """Those accounts."""
    return {
        READER: ServiceAccount(Role.DOCTOR, probes.reader),
        DEVICE: ServiceAccount(Role.DEVICE, probes.device),
        gateway_user: ServiceAccount(Role.GATEWAY, gateway_password),
    }
