"""Dialect of RabbitMQ's ``rabbitmq_auth_backend_http`` for its MQTT plugin: forms in, a word out.

Its MQTT is AMQP underneath. A topic is a routing key of the exchange ``amq.topic``, with ``.`` for ``/`` and ``*`` for
``+``. A subscription is a queue ``mqtt-subscription-<client id>qos<0 or 1>``. Only these are granted, so a device's
token opens nothing else that RabbitMQ carries. Only MQTT sends a client id, so nothing is granted over AMQP.
"""

from __future__ import annotations

from typing import Final

from gateway.broker.access_rules import Action
from gateway.broker.clients import BrokerClient
from gateway.broker.external.decisions import AuthDecisions
from gateway.broker.external.dialect import AuthAnswer, Dialect
from gateway.broker.external.fields import Fields

_DENY: Final = AuthAnswer(b"deny", media_type="text/plain")
_ALLOW: Final = AuthAnswer(b"allow", media_type="text/plain")
_VHOST: Final = "/"
_EXCHANGE: Final = "amq.topic"
_TOPIC_ACTIONS: Final = {"write": Action.PUBLISH, "read": Action.SUBSCRIBE}


async def _user(judge: AuthDecisions, fields: Fields) -> AuthAnswer:
    return _answer(good=await judge.lets_in(_client(fields, "client_id"), fields.text("password")))


async def _vhost(judge: AuthDecisions, fields: Fields) -> AuthAnswer:
    known = await judge.identity_of(_client(fields, "client_id")) is not None
    return _answer(good=known and fields.text("vhost") == _VHOST)


async def _resource(judge: AuthDecisions, fields: Fields) -> AuthAnswer:
    client = _client(fields, "client_id")
    kind, name, permission = fields.text("resource"), fields.text("name"), fields.text("permission")
    if fields.text("vhost") != _VHOST or await judge.identity_of(client) is None:
        return _DENY
    if kind == "exchange":
        return _answer(good=name == _EXCHANGE and permission in ("read", "write"))
    own = [f"mqtt-subscription-{client.client_id}qos{qos}" for qos in (0, 1)]
    return _answer(good=kind == "queue" and name in own)


async def _topic(judge: AuthDecisions, fields: Fields) -> AuthAnswer:
    client = _client(fields, "variable_map.client_id")
    if fields.text("vhost") != _VHOST or fields.text("name") != _EXCHANGE:
        return _DENY
    topic = fields.text("routing_key").replace(".", "/").replace("*", "+")
    action = _TOPIC_ACTIONS[fields.text("permission")]
    return _answer(good=await judge.allows(client, action, topic, prefix=judge.prefix.replace(".", "/")))


def _client(fields: Fields, client_id: str) -> BrokerClient:
    return BrokerClient(fields.text(client_id), fields.text("username"))


def _answer(*, good: bool) -> AuthAnswer:
    return _ALLOW if good else _DENY


DIALECT: Final = Dialect({"user": _user, "vhost": _vhost, "resource": _resource, "topic": _topic}, _DENY)
