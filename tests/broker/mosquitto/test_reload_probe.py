"""The sentinel: a password file counts as taken up when Mosquitto goes by it, not when it was signalled."""

from pathlib import Path

import pytest

from gateway.broker.mosquitto.password_file import BrokerSignalError, PasswordFile, password_entry
from gateway.broker.mosquitto.reload_probe import AGAIN_SECONDS, TRIES, ReloadProbe, patience
from gateway.core.addresses import Address
from gateway.mqtt.probe import ProbeRefusedError, ProbeTarget, connected
from tests.support.mosquitto import GATEWAY_PASSWORD, Mosquitto


class ForgottenSignals(PasswordFile):
    """As Mosquitto 2.0 does with a SIGHUP that comes while it is busy with another: the first ones have no effect."""

    forgotten = 0

    def reload(self) -> None:
        """Signal, unless that is to be forgotten."""
        if self.forgotten:
            self.forgotten -= 1
        else:
            super().reload()


def _file(broker: Mosquitto, forgotten: int) -> ForgottenSignals:
    file = ForgottenSignals(broker.password_file, pid_file=broker.pid_file, fixed={})
    file.forgotten = forgotten
    return file


def _write(file: PasswordFile, sentinel: ReloadProbe, **more: str) -> None:
    entries = {"gateway": GATEWAY_PASSWORD} | more
    file.fixed = {name: password_entry(word) for name, word in entries.items()} | sentinel.account()
    file.write(())


def test_a_large_file_gets_more_time() -> None:
    """A million users are 145 MB: a signal each second would make Mosquitto read them again and again."""
    assert patience(None) == AGAIN_SECONDS
    assert patience((1, 1, 145_000_000)) == AGAIN_SECONDS + 14.5


@pytest.mark.parametrize("forgotten", [0, 1, 2])
async def test_an_ignored_signal_is_sent_again(tmp_path: Path, forgotten: int) -> None:
    """As soon as the new file counts as loaded, clients in it are admitted, and all others are refused."""
    async with Mosquitto(tmp_path, users={"old": "old-password"}) as broker:
        target = ProbeTarget(Address(broker.host, broker.port))
        file = _file(broker, forgotten)
        sentinel = ReloadProbe(file, target)
        _write(file, sentinel, new="new-password")
        await sentinel.taken_up()
        async with connected(target, "new", "new-password"):
            pass
        with pytest.raises(ProbeRefusedError):
            async with connected(target, "old", "old-password"):
                pass


async def test_a_signal_without_effect_is_an_error(tmp_path: Path) -> None:
    """It says which file and which settings to look at."""
    async with Mosquitto(tmp_path) as broker:
        file = _file(broker, TRIES)
        sentinel = ReloadProbe(file, ProbeTarget(Address(broker.host, broker.port)))
        _write(file, sentinel)
        with pytest.raises(BrokerSignalError, match=str(broker.password_file)):
            await sentinel.taken_up()
