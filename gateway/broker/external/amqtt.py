"""Dialect of amqtt's own HTTP plugins (``amqtt.contrib.http``): JSON in and out, by GET unless configured otherwise."""

from __future__ import annotations

from typing import Final

from gateway.broker.access_rules import Action
from gateway.broker.clients import BrokerClient
from gateway.broker.external.decisions import AuthDecisions
from gateway.broker.external.dialect import AuthAnswer, Dialect, as_json
from gateway.broker.external.fields import Fields

_DENY: Final = as_json({"ok": False})
_ALLOW: Final = as_json({"ok": True})
_ACTIONS: Final = {1: Action.RECEIVE, 2: Action.PUBLISH, 4: Action.SUBSCRIBE}


async def _user(judge: AuthDecisions, fields: Fields) -> AuthAnswer:
    return _answer(good=await judge.lets_in(_client(fields), fields.text("password")))


async def _acl(judge: AuthDecisions, fields: Fields) -> AuthAnswer:
    action = _ACTIONS[fields.number("acc")]
    return _answer(good=await judge.allows(_client(fields), action, fields.text("topic")))


def _client(fields: Fields) -> BrokerClient:
    return BrokerClient(fields.text("client_id"), fields.text("username"))


def _answer(*, good: bool) -> AuthAnswer:
    return _ALLOW if good else _DENY


DIALECT: Final = Dialect({"user": _user, "acl": _acl}, _DENY)
