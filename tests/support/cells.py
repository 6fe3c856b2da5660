"""The files of `broker_config/cells`, with the secrets of a trial."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

CELLS = Path(__file__).parents[2] / "broker_config" / "cells"
NAME = "gateway.test"
"""The name in the certificate of the cells."""


@dataclass(frozen=True)
class Secrets:
    """What `secrets.sh` made, readable for the user of the test alone."""

    folder: Path

    @property
    def gateway(self) -> Path:
        """The folder of the gateways."""
        return self.folder / "gateway"

    @property
    def haproxy(self) -> Path:
        """The folder of the load balancer."""
        return self.folder / "haproxy"

    @property
    def database(self) -> Path:
        """The folder of the databases."""
        return self.folder / "database"

    @property
    def authority(self) -> Path:
        """The certificate that all others are signed by."""
        return self.gateway / "ca.pem"


def make_secrets(folder: Path) -> Secrets:
    """Run `secrets.sh` as an operator does."""
    subprocess.run(["sh", CELLS / "secrets.sh", NAME, folder], check=True, capture_output=True)
    return Secrets(folder)


def own_secrets(folder: Path) -> Secrets:
    """The same, for programs that run as the user of the test, not as those of the images."""
    made = make_secrets(folder)
    if os.geteuid() == 0:
        for each in folder.rglob("*"):
            shutil.chown(each, os.geteuid(), os.getegid())
    return made


def program(name: str, package: str) -> str:
    """The path of a program that `scripts/tools.sh` installs."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    assert found, f"this test needs {name}: apt-get install {package}"
    return found
