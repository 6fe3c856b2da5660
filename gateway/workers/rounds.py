"""Rounds of a worker: the same work again and again, which neither a full disk nor a bug of ours ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from gateway.errors import StoreError
from gateway.store import Store
from gateway.store.lease_sql import LeaseLostError

log = structlog.get_logger()


async def repeat(name: str, store: Store, work: Callable[[], Awaitable[object]], seconds: float) -> None:
    """Do this work until cancelled, with so many seconds between its end and the next round.

    What fails is logged under ``name``.

    Raises:
        LeaseLostError: another gateway does this work by now.
    """
    not_stored, failed = f"{name}.not_stored", f"{name}.failed"
    while True:
        try:
            await work()
        except LeaseLostError:
            raise
        except StoreError as error:
            if error.message != store.trouble:  # the store has logged that already
                log.error(not_stored, reason=error.message)  # noqa: TRY400 - no bug of ours
        except Exception:  # a bug of ours must not stop the gateway
            log.exception(failed)
        await asyncio.sleep(seconds)
