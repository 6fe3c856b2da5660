"""The client for asyncio. ``scripts/sync_client.py`` makes ``sync_client.py`` of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final, Unpack

from gateway.client import errors
from gateway.client.arguments import DeviceChanges, DeviceFilters, Json, WebhookChanges, given, path
from gateway.client.async_cells import AsyncCellCalls
from gateway.client.async_events import AsyncEventCalls
from gateway.client.async_jobs import AsyncJobCalls
from gateway.client.async_resets import AsyncResetCalls
from gateway.core.received_json import parse_json
from gateway.models import webhooks
from gateway.models.bindings import BoundDevice, JwkSet, RefreshedToken
from gateway.models.bulk import BulkCancelOutcomes, BulkOutcomes
from gateway.models.commands import Command, CommandList, PendingCommands
from gateway.models.devices import Device, DeviceHealth, DeviceList, DeviceStats
from gateway.models.end_users import Erasure
from gateway.models.heartbeats import HeartbeatAnswer, HeartbeatList
from gateway.models.resets import RecordingsWish
from gateway.models.system import Health, KeyFacts, Readiness

MOST_DEVICES: Final = 1_000
ME: Final = "me"


class AsyncClient(AsyncResetCalls, AsyncEventCalls, AsyncJobCalls, AsyncCellCalls):
    """Calls of the gateway's HTTP API with one credential: an API key, or the token of a device.

    Each call raises :class:`gateway.client.ApiError` when the gateway refuses, and ``httpx.HTTPError`` when it cannot
    be reached. A device calls itself ``me``.
    """

    async def register_device(
        self,
        serial_number: str,
        *,
        model: str | None = None,
        name: str | None = None,
        firmware_version: str | None = None,
        metadata: Json | None = None,
        once: str | None = None,
    ) -> Device:
        """Register a device; one that is known already is returned unchanged."""
        body = given(model=model, name=name, firmware_version=firmware_version, metadata=metadata)
        return await self._post(Device, path("devices"), {"serial_number": serial_number, **body}, once)

    async def list_devices(
        self,
        *,
        limit: int | None = None,
        cursor: str | None = None,
        total: bool | None = None,
        **filters: Unpack[DeviceFilters],
    ) -> DeviceList:
        """Return a page of devices."""
        return await self._get(DeviceList, path("devices"), limit=limit, cursor=cursor, total=total, **filters)

    async def iterate_devices(self, **filters: Unpack[DeviceFilters]) -> AsyncIterator[Device]:
        """Return all devices that pass the filters, page by page."""
        cursor: str | None = None
        while True:
            page = await self.list_devices(limit=MOST_DEVICES, cursor=cursor, **filters)
            for device in page.data:
                yield device
            cursor = page.next_cursor
            if cursor is None:
                return

    async def get_device(self, device_id: str) -> Device:
        """Return a device."""
        return await self._get(Device, path("devices", device_id))

    async def get_state(self, device_id: str) -> DeviceHealth:
        """Return what a device last said of itself."""
        return await self._get(DeviceHealth, path("devices", device_id, "state"))

    async def get_device_stats(self, *, tag: list[str] | None = None) -> DeviceStats:
        """Count the devices of the project, or those that have all of these tags."""
        return await self._get(DeviceStats, path("devices", "stats"), tag=tag)

    async def update_device(self, device_id: str, **changes: Unpack[DeviceChanges]) -> Device:
        """Change a device; metadata and settings are merged, ``tags`` replaces."""
        return await self._patch(Device, path("devices", device_id), {**changes})

    async def bind_device(
        self, device_id: str, end_user_id: str, *, supersede_reset: bool = False, once: str | None = None
    ) -> BoundDevice:
        """Bind a device to an end user; its token is in the answer, this once."""
        body = {"end_user_id": end_user_id, "supersede_reset": supersede_reset}
        return await self._post(BoundDevice, path("devices", device_id, "bind"), body, once)

    async def unbind_device(self, device_id: str) -> Device:
        """Unbind a device without wiping it."""
        return await self._post(Device, path("devices", device_id, "unbind"), {})

    async def reset_device(
        self,
        device_id: str,
        *,
        reason: str | None = None,
        recordings: RecordingsWish | None = None,
        once: str | None = None,
    ) -> Device:
        """Reset a device to factory settings."""
        body = given(reason=reason, recordings=recordings)
        return await self._post(Device, path("devices", device_id, "reset"), body, once)

    async def delete_device(self, device_id: str) -> Device:
        """Delete a device without wiping it."""
        return await self._delete(Device, path("devices", device_id))

    async def restore_device(self, device_id: str) -> Device:
        """Restore a deleted device, unbound."""
        return await self._post(Device, path("devices", device_id, "restore"), {})

    async def bulk_reset(
        self,
        device_ids: list[str],
        *,
        reason: str | None = None,
        recordings: RecordingsWish | None = None,
        dry_run: bool = False,
        once: str | None = None,
    ) -> BulkOutcomes:
        """Reset up to 1,000 devices."""
        body = {"device_ids": device_ids, "dry_run": dry_run, **given(reason=reason, recordings=recordings)}
        return await self._post(BulkOutcomes, path("devices", "bulk", "reset"), body, once)

    async def bulk_cancel(
        self, device_ids: list[str], *, dry_run: bool = False, once: str | None = None
    ) -> BulkCancelOutcomes:
        """Cancel the open resets of up to 1,000 devices."""
        body = {"device_ids": device_ids, "dry_run": dry_run}
        return await self._post(BulkCancelOutcomes, path("devices", "bulk", "reset", "cancel"), body, once)

    async def list_heartbeats(
        self,
        device_id: str,
        *,
        since: str | None = None,
        until: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        every: int | None = None,
    ) -> HeartbeatList:
        """Return a page of the history of a device; times are RFC 3339."""
        query = given(since=since, until=until, limit=limit, cursor=cursor, every=every)
        return await self._get(HeartbeatList, path("devices", device_id, "heartbeats"), **query)

    async def create_command(
        self,
        device_id: str,
        kind: str,
        *,
        params: Json | None = None,
        ttl_seconds: int | None = None,
        once: str | None = None,
    ) -> Command:
        """Queue a command for a device."""
        body = {"type": kind, **given(params=params, ttl_seconds=ttl_seconds)}
        return await self._post(Command, path("devices", device_id, "commands"), body, once)

    async def list_commands(
        self,
        device_id: str,
        *,
        status: str | None = None,
        kind: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> CommandList:
        """Return a page of the commands of a device, newest first."""
        query = given(status=status, type=kind, limit=limit, cursor=cursor)
        return await self._get(CommandList, path("devices", device_id, "commands"), **query)

    async def get_command(self, device_id: str, command_id: str) -> Command:
        """Return a command."""
        return await self._get(Command, path("devices", device_id, "commands", command_id))

    async def cancel_command(self, device_id: str, command_id: str) -> Command:
        """Cancel an open command."""
        return await self._delete(Command, path("devices", device_id, "commands", command_id))

    async def send_heartbeat(self, beat: Json, device_id: str = ME) -> HeartbeatAnswer:
        """Send a heartbeat; with an API key it is relayed for the device."""
        return await self._post(HeartbeatAnswer, path("devices", device_id, "heartbeat"), beat)

    async def list_pending_commands(self) -> PendingCommands:
        """Return the open commands of the device that asks."""
        return await self._get(PendingCommands, path("devices", ME, "commands", "pending"))

    async def acknowledge_command(
        self,
        command_id: str,
        status: str,
        *,
        result: Json | None = None,
        error: Json | None = None,
        receipt: str | None = None,
        device_id: str = ME,
    ) -> Command:
        """Say what became of a command."""
        body = {"status": status, **given(result=result, error=error, receipt=receipt)}
        return await self._post(Command, path("devices", device_id, "commands", command_id, "ack"), body)

    async def refresh_token(self, *, once: str | None = None) -> RefreshedToken:
        """Get another token for the device that asks."""
        return await self._post(RefreshedToken, path("devices", ME, "token", "refresh"), {}, once)

    async def export_end_user(self, end_user_id: str) -> AsyncIterator[Json]:
        """Return everything that is kept about a person, line by line; the last has the kind ``end`` and the counts.

        Raises:
            IncompleteExportError: the export ended without that line.
        """
        kind = None
        async for line in self.lines(path("end-users", end_user_id, "data"), {}):
            found: Json = parse_json(line)
            kind = found["kind"]
            yield found
        if kind != "end":
            raise errors.IncompleteExportError(
                f"The export of {end_user_id} was cut off, or an erasure began meanwhile. Start it again."
            )

    async def erase_end_user(self, end_user_id: str) -> Erasure:
        """Erase what is kept about a person. Call it again while its ``status`` is ``running``."""
        return await self._delete(Erasure, path("end-users", end_user_id))

    async def create_webhook(
        self,
        url: str,
        *,
        events: list[str] | None = None,
        description: str | None = None,
        enabled: bool | None = None,
        once: str | None = None,
    ) -> webhooks.CreatedWebhook:
        """Have events sent to a URL; the secret that signs them is in the answer, this once."""
        body = {"url": url, **given(events=events, description=description, enabled=enabled)}
        return await self._post(webhooks.CreatedWebhook, path("webhooks"), body, once)

    async def list_webhooks(self, *, limit: int | None = None, cursor: str | None = None) -> webhooks.WebhookList:
        """Return a page of webhooks, newest first."""
        return await self._get(webhooks.WebhookList, path("webhooks"), limit=limit, cursor=cursor)

    async def get_webhook(self, webhook_id: str) -> webhooks.Webhook:
        """Return a webhook."""
        return await self._get(webhooks.Webhook, path("webhooks", webhook_id))

    async def update_webhook(self, webhook_id: str, **changes: Unpack[WebhookChanges]) -> webhooks.Webhook:
        """Change a webhook."""
        return await self._patch(webhooks.Webhook, path("webhooks", webhook_id), {**changes})

    async def delete_webhook(self, webhook_id: str) -> webhooks.Webhook:
        """Delete a webhook."""
        return await self._delete(webhooks.Webhook, path("webhooks", webhook_id))

    async def rotate_webhook_secret(
        self, webhook_id: str, *, overlap_seconds: int | None = None
    ) -> webhooks.CreatedWebhook:
        """Give a webhook a new secret; both secrets sign for ``overlap_seconds`` (a day)."""
        body = given(overlap_seconds=overlap_seconds)
        return await self._post(webhooks.CreatedWebhook, path("webhooks", webhook_id, "rotate"), body)

    async def forget_previous_secret(self, webhook_id: str) -> webhooks.Webhook:
        """End the overlap of a webhook's last rotation."""
        return await self._delete(webhooks.Webhook, path("webhooks", webhook_id, "previous-secret"))

    async def send_test_event(self, webhook_id: str) -> webhooks.WebhookTest:
        """Send a test event and return what came back."""
        return await self._post(webhooks.WebhookTest, path("webhooks", webhook_id, "test"), {})

    async def list_deliveries(
        self,
        webhook_id: str,
        *,
        status: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> webhooks.DeliveryList:
        """Return a page of deliveries, those of the newest events first."""
        query = given(status=status, limit=limit, cursor=cursor)
        return await self._get(webhooks.DeliveryList, path("webhooks", webhook_id, "deliveries"), **query)

    async def replay_delivery(self, webhook_id: str, delivery_id: str) -> webhooks.Delivery:
        """Send a delivery again."""
        url = path("webhooks", webhook_id, "deliveries", delivery_id, "replay")
        return await self._post(webhooks.Delivery, url, {})

    async def get_key(self) -> KeyFacts:
        """Return what the API key may do."""
        return await self._get(KeyFacts, path("key"))

    async def get_jwks(self) -> JwkSet:
        """Return the public keys that sign grants."""
        return await self._get(JwkSet, "/.well-known/jwks.json")

    async def get_readiness(self) -> Readiness:
        """Return whether the gateway can do all of its work, and the facts; 503 is an answer here."""
        return Readiness.model_validate_json((await self.http.get("/ready")).content)

    async def get_health(self) -> Health:
        """Return whether the gateway serves; 503 is an answer here."""
        return Health.model_validate_json((await self.http.get("/health")).content)
