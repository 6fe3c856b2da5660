"""A simulated device whose firmware or radio is replaced by that of a fault."""

from typing import Any, ClassVar

from device_sim.actions import OpenLink
from device_sim.device import Device
from device_sim.links import Link
from device_sim.radio import MqttRadio, Radio
from device_sim.runtime import SimulatedDevice


class FaultyDevice(SimulatedDevice):
    """A device whose firmware or radio is replaced by that of a fault."""

    firmware: ClassVar[type[Device]] = Device
    radio_type: ClassVar[type[MqttRadio]] = MqttRadio

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._device = self.firmware(self._rng)

    async def _open(self, request: OpenLink) -> None:
        radio_type = self.radio_type

        class FaultyLink(Link):
            def _make_radio(self, request: OpenLink, *rest: Any) -> Radio:
                _, backoff, options = rest
                return radio_type(request.binding, request.connection, self._receive, backoff, options)

        await self._close()
        if self._tasks is None:
            return
        self._backoff.begin_link()
        self._link = FaultyLink(request, self._arrivals.put_nowait, self._api, self._backoff, self._options)
        self._link.open(self._tasks, self.serial)


def a_device(firmware: type[Device] = Device, radio: type[MqttRadio] = MqttRadio) -> type[FaultyDevice]:
    """A device with this fault."""
    return type("Planted", (FaultyDevice,), {"firmware": firmware, "radio_type": radio})
