"""Dialect of EMQX 5: HTTP authentication and authorisation, with the bodies of ``broker_config/emqx.conf``.

Anything but 200 means *ignore* to EMQX, and a client that every backend ignores may be admitted. So a denial is a 200
as well.
"""

from __future__ import annotations

from typing import Final

from gateway.broker.access_rules import Action
from gateway.broker.clients import BrokerClient
from gateway.broker.external.decisions import AuthDecisions
from gateway.broker.external.dialect import AuthAnswer, Dialect, as_json
from gateway.broker.external.fields import Fields

_ACTIONS: Final = {"publish": Action.PUBLISH, "subscribe": Action.SUBSCRIBE}
_DENY: Final = as_json({"result": "deny", "is_superuser": False})
_ALLOW: Final = as_json({"result": "allow", "is_superuser": False})


async def _authenticate(judge: AuthDecisions, fields: Fields) -> AuthAnswer:
    return _answer(good=await judge.lets_in(_client(fields), fields.text("password")))


async def _authorize(judge: AuthDecisions, fields: Fields) -> AuthAnswer:
    action = _ACTIONS[fields.text("action")]
    retain = action is Action.PUBLISH and fields.flag("retain")
    return _answer(good=await judge.allows(_client(fields), action, fields.text("topic"), retain=retain))


def _client(fields: Fields) -> BrokerClient:
    return BrokerClient(fields.text("clientid"), fields.text("username"))


def _answer(*, good: bool) -> AuthAnswer:
    return _ALLOW if good else _DENY


DIALECT: Final = Dialect({"authenticate": _authenticate, "authorize": _authorize}, _DENY)
