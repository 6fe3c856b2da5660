"""Dialect of VerneMQ's webhooks: one endpoint, and a header that names the hook (``…_m5`` for MQTT 5).

VerneMQ caches an answer for as long as ``cache-control`` says, so every answer is ``no-store``.
"""

from __future__ import annotations

from typing import Final

from gateway.broker.access_rules import Action
from gateway.broker.clients import BrokerClient
from gateway.broker.external.decisions import AuthDecisions
from gateway.broker.external.dialect import AuthAnswer, Dialect, as_json
from gateway.broker.external.fields import Fields

_DENY: Final = as_json({"result": {"error": "not_allowed"}})
_ALLOW: Final = as_json({"result": "ok"})
_REFUSED_QOS: Final = 128  # what a SUBACK says of a filter that was not granted


async def _hook(judge: AuthDecisions, fields: Fields) -> AuthAnswer:
    return await _HOOKS[fields.hook.removesuffix("_m5")](judge, fields)


async def _register(judge: AuthDecisions, fields: Fields) -> AuthAnswer:
    return _answer(good=await judge.lets_in(_client(fields), fields.text("password")))


async def _publish(judge: AuthDecisions, fields: Fields) -> AuthAnswer:
    topic, retain = fields.text("topic"), fields.flag("retain")
    return _answer(good=await judge.allows(_client(fields), Action.PUBLISH, topic, retain=retain))


async def _subscribe(judge: AuthDecisions, fields: Fields) -> AuthAnswer:
    """Decide on each filter separately; without any granted one, deny the whole."""
    client, told = _client(fields), []
    for wanted in fields.each("topics"):
        topic, qos = wanted.text("topic"), wanted.number("qos")
        granted = await judge.allows(client, Action.SUBSCRIBE, topic)
        told.append({"topic": topic, "qos": qos if granted else _REFUSED_QOS})
    if all(each["qos"] == _REFUSED_QOS for each in told):
        return _DENY
    return as_json({"result": "ok", "topics": told})


def _client(fields: Fields) -> BrokerClient:
    return BrokerClient(fields.text("client_id"), fields.text("username"))


def _answer(*, good: bool) -> AuthAnswer:
    return _ALLOW if good else _DENY


_HOOKS: Final = {"auth_on_register": _register, "auth_on_publish": _publish, "auth_on_subscribe": _subscribe}
DIALECT: Final = Dialect({"hook": _hook}, _DENY)
