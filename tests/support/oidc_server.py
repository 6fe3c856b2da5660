"""The program of a provider for tests: ``oidc-provider-mock``, and what that lacks.

PKCE is checked, keys have ids and can be rotated, answers can be spoilt, tokens of any kind can be signed.
``python -m tests.support.oidc_server`` serves on a free port and prints its address.
"""

import base64
import hashlib
import hmac
import json
import re
import sys
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import flask
from authlib import jose
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from oidc_provider_mock import app as make_app
from werkzeug.serving import make_server

Json = dict[str, Any]

STYLE = re.compile(r"<link\s[^>]*>")
challenges: dict[str, str] = {}
"""The code challenge of each code."""
behaviour: Json = {"metadata": {}, "callback": {}, "id_token": {}, "token": {}, "status": {}}
"""What differs from a provider that does all as it should."""
grants: list[str] = []
"""Kinds of the grants that were given tokens."""


def encoded(content: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def new_key() -> Any:
    """A signing key with an id."""
    key = jose.RSAKey.generate_key(is_private=True)
    return jose.RSAKey.import_key({**key.as_dict(is_private=True), "kid": key.thumbprint()})


def storage() -> Any:
    """What the provider stores."""
    return flask.g.oidc_provider_mock_storage


def signed(header: Json, claims: Json) -> str:
    """A token, signed as its header says: by the key, by its public half as a shared secret, or not at all."""
    key = storage().jwk
    header = present({"alg": "RS256", "kid": key.as_dict()["kid"], **header})
    unsigned = f"{encoded(json.dumps(header).encode())}.{encoded(json.dumps(claims).encode())}"
    if header["alg"] == "none":
        return f"{unsigned}."
    if header["alg"] == "HS256":
        shared = key.as_pem(is_private=False)
        return f"{unsigned}.{encoded(hmac.digest(shared, unsigned.encode(), 'sha256'))}"
    signature = key.get_private_key().sign(unsigned.encode(), PKCS1v15(), SHA256())
    return f"{unsigned}.{encoded(signature)}"


def present(claims: Json) -> Json:
    """Claims without those that are to be left out."""
    return {name: value for name, value in claims.items() if value is not None}


def before() -> Any:
    """Give the first key an id; refuse what a control says, and a code without its verifier."""
    if not getattr(storage(), "has_kid", False):
        storage().jwk, storage().has_kid = new_key(), True
    path, form = flask.request.path, flask.request.form
    if path in behaviour["status"]:
        return flask.Response("{}", behaviour["status"][path], content_type="application/json")
    if path == "/oauth2/token" and form.get("grant_type") == "authorization_code":
        challenge = encoded(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if challenges.get(form.get("code", "")) != challenge:
            return flask.Response('{"error": "invalid_grant"}', 400, content_type="application/json")
    return None


def after(response: Any) -> Any:
    """Change an answer as the controls say."""
    path = flask.request.path
    if response.mimetype == "text/html":  # its style is on another host, and tests ask none
        response.set_data(STYLE.sub("", response.get_data(as_text=True)))
    if path == "/.well-known/openid-configuration" and response.status_code == 200:
        response.set_data(json.dumps({**response.get_json(), **behaviour["metadata"]}))
    elif path == "/jwks" and "published" in behaviour:
        response.set_data(json.dumps({"keys": [behaviour["published"]]}))
    elif path == "/oauth2/authorize" and response.status_code == 302:
        _note_challenge(response)
    elif path == "/oauth2/token" and response.status_code == 200:
        grants.append(flask.request.form["grant_type"])
        _spoil(response)
    return response


def _note_challenge(response: Any) -> None:
    location = response.headers["location"]
    code = parse_qs(urlsplit(location).query).get("code", [""])[0]
    if flask.request.args.get("code_challenge_method") == "S256":
        challenges[code] = flask.request.args.get("code_challenge", "")
    response.headers["location"] = location + "".join(f"&{n}={v}" for n, v in behaviour["callback"].items())


def _spoil(response: Any) -> None:
    spoilt, body = behaviour["id_token"], {**response.get_json(), **behaviour["token"]}
    if "id_token" in body:  # signed again in any case: the mock's own token names no key
        payload = body["id_token"].split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        body["id_token"] = signed(spoilt.get("header", {}), present({**claims, **spoilt.get("claims", {})}))
    response.set_data(json.dumps(present(body)))


def rotate() -> Json:
    """Sign with another key from now on."""
    storage().jwk = new_key()
    return {}


def withdraw() -> Json:
    """Publish another key from now on, and go on signing with the one that is not published any more."""
    behaviour["published"] = new_key().as_dict(is_private=False)
    return {}


def sign() -> Json:
    """Sign any claims."""
    asked = flask.request.get_json()
    claims = {"iss": flask.request.host_url.rstrip("/"), "iat": int(time.time()), **asked["claims"]}
    return {"token": signed(asked["header"], present(claims))}


def behave() -> Json:
    """Behave otherwise from now on."""
    behaviour.pop("published", None)
    behaviour.update(flask.request.get_json())
    return {}


def used() -> Json:
    """Which grants were given tokens."""
    return {"grants": grants}


def serve() -> None:
    """Serve until the process is ended."""
    app = make_app(require_client_registration=True)
    app.debug = False
    app.before_request(before)
    app.after_request(after)
    for control in (rotate, withdraw, sign, behave, used):
        app.add_url_rule(f"/control/{control.__name__}", view_func=control, methods=["POST"])
    server = make_server("127.0.0.1", 0, app, threaded=True)
    sys.stdout.write(f"http://127.0.0.1:{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    serve()
