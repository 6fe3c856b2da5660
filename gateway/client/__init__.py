"""Typed client of the gateway's HTTP API: :class:`Client` blocks, :class:`AsyncClient` is for asyncio."""

from gateway.client.async_client import AsyncClient
from gateway.client.errors import ApiError, IncompleteExportError
from gateway.client.sync_client import Client

__all__ = ["ApiError", "AsyncClient", "Client", "IncompleteExportError"]
