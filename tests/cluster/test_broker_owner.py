"""The owner of a broker loses its lease while a request waits for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from gateway.broker.owner import BrokerOwner
from gateway.core.topics import Topics
from gateway.domain import backlog
from gateway.observability.metrics import Metrics
from gateway.settings.loading import load
from gateway.store import Context, Store, View
from gateway.store.wakeups import Wakeups


async def test_an_owner_that_loses_its_lease_asks_its_successor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection goes while it reads who else has a broker. No gateway answers here, so it says False in time."""
    settings = load({"data_dir": str(tmp_path)}, {}).settings
    async with Store(tmp_path, Context()) as store:
        unused = cast("Any", None)
        owner = BrokerOwner(settings, store, Wakeups(), Topics(), Metrics(), broker=unused, lease=unused)
        monkeypatch.setattr(owner, "_connection", object())
        real = backlog.is_shared

        def is_shared(view: View, broker: int, instant: int) -> bool:
            monkeypatch.setattr(owner, "_connection", None)
            return real(view, broker, instant)

        monkeypatch.setattr(backlog, "is_shared", is_shared)
        assert not await owner.taken_in(0.1)
