"""Calls about factory resets of the client that blocks, made by ``scripts/sync_client.py``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Unpack

from gateway.client.arguments import ResetFilters, path
from gateway.client.sync_transport import Transport
from gateway.models.certificates import ResetCertificate
from gateway.models.reset_list import Reset, ResetList, ResetSummary

MOST_RESETS: Final = 100


class ResetCalls(Transport):
    """Calls about factory resets."""

    def list_resets(
        self,
        *,
        device_id: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        **filters: Unpack[ResetFilters],
    ) -> ResetList:
        """Return a page of resets; times are RFC 3339."""
        return self._get(ResetList, path("resets"), device_id=device_id, limit=limit, cursor=cursor, **filters)

    def iterate_resets(self, *, device_id: str | None = None, **filters: Unpack[ResetFilters]) -> Iterator[Reset]:
        """Return all resets that pass the filters, page by page."""
        cursor: str | None = None
        while True:
            page = self.list_resets(device_id=device_id, limit=MOST_RESETS, cursor=cursor, **filters)
            for reset in page.data:
                yield reset
            cursor = page.next_cursor
            if cursor is None:
                return

    def list_device_resets(
        self,
        device_id: str,
        *,
        limit: int | None = None,
        cursor: str | None = None,
        **filters: Unpack[ResetFilters],
    ) -> ResetList:
        """Return a page of the resets of a device, which may be deleted."""
        return self._get(ResetList, path("devices", device_id, "resets"), limit=limit, cursor=cursor, **filters)

    def summarize_resets(self, *, since: str | None = None, until: str | None = None) -> ResetSummary:
        """Count open resets by age, and those that ended within a period by outcome."""
        return self._get(ResetSummary, path("resets", "summary"), since=since, until=until)

    def get_certificate(self, device_id: str, command_id: str, *, certificate: str | None = None) -> ResetCertificate:
        """Return the certificate of an ended reset; ``certificate`` is the id of an addendum, to get that one."""
        resource = path("devices", device_id, "resets", command_id, "certificate")
        return self._get(ResetCertificate, resource, certificate=certificate)
