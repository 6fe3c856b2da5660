"""Routing by a tree of path segments: it takes as many steps as the path has segments."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

_PARAMETER: Final = re.compile(r"\{(?P<name>[a-z_]+)\}")


@dataclass
class _Node:
    """The possible segments after those so far."""

    endpoint: ASGIApp | None = None
    literal: dict[str, _Node] = field(default_factory=dict)
    named: dict[str, _Node] = field(default_factory=dict)
    """Parameters by name; any segment but an empty one matches."""


class Paths:
    """An ASGI application that passes a request to the endpoint of its path, or to ``unknown``.

    A path must match exactly, a slash at its end included. A literal segment takes precedence over a parameter.
    Parameters are in ``scope["path_params"]``.
    """

    def __init__(self, served: Iterable[tuple[str, ASGIApp]], unknown: ASGIApp) -> None:
        self._root = _Node()
        self._unknown = unknown
        for template, endpoint in served:
            _node_of(self._root, template).endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        parameters: dict[str, str] = {}
        endpoint = _find(self._root, scope["path"].split("/"), 0, parameters)
        scope["path_params"] = parameters
        await (endpoint or self._unknown)(scope, receive, send)


def _node_of(root: _Node, template: str) -> _Node:
    node = root
    for segment in template.split("/"):
        parameter = _PARAMETER.fullmatch(segment)
        into, name = (node.literal, segment) if parameter is None else (node.named, parameter["name"])
        node = into.setdefault(name, _Node())
    return node


def _find(node: _Node, segments: list[str], at: int, parameters: dict[str, str]) -> ASGIApp | None:
    if at == len(segments):
        return node.endpoint
    segment = segments[at]
    if (child := node.literal.get(segment)) and (endpoint := _find(child, segments, at + 1, parameters)):
        return endpoint
    for name, child in node.named.items() if segment else ():
        if endpoint := _find(child, segments, at + 1, parameters):
            parameters[name] = segment
            return endpoint
    return None
