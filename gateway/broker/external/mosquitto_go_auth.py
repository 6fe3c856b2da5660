"""Dialect of mosquitto-go-auth's HTTP backend: parameters as JSON or as a form, answers by status or by JSON."""

from __future__ import annotations

from typing import Final

from gateway.broker.access_rules import Action
from gateway.broker.clients import BrokerClient
from gateway.broker.external.decisions import AuthDecisions
from gateway.broker.external.dialect import AuthAnswer, Dialect, as_json
from gateway.broker.external.fields import Fields

_DENY: Final = as_json({"ok": False, "error": "not allowed"}, status=403)
_ALLOW: Final = as_json({"ok": True, "error": ""})
ACTIONS: Final = {
    1: (Action.RECEIVE,),
    2: (Action.PUBLISH,),
    3: (Action.RECEIVE, Action.PUBLISH),
    4: (Action.SUBSCRIBE,),
}
"""Meaning of Mosquitto's ``MOSQ_ACL_…`` numbers."""


async def _user(judge: AuthDecisions, fields: Fields) -> AuthAnswer:
    return _answer(good=await judge.lets_in(_client(fields), fields.text("password")))


async def _superuser(judge: AuthDecisions, fields: Fields) -> AuthAnswer:
    del judge, fields
    return _DENY  # there is no superuser, not even the gateway


async def _acl(judge: AuthDecisions, fields: Fields) -> AuthAnswer:
    client, topic = _client(fields), fields.text("topic")
    for action in ACTIONS[fields.number("acc")]:
        if not await judge.allows(client, action, topic):
            return _DENY
    return _ALLOW


def _client(fields: Fields) -> BrokerClient:
    return BrokerClient(fields.text("clientid"), fields.text("username"))


def _answer(*, good: bool) -> AuthAnswer:
    return _ALLOW if good else _DENY


DIALECT: Final = Dialect({"user": _user, "superuser": _superuser, "acl": _acl}, _DENY)
