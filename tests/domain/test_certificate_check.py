"""The check of certificates without a registry: what is right passes, and each manipulation is named."""

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest

from gateway.domain import certificates, grants
from gateway.domain.certificate_check import CertificateError, Checked, check, entries, keys
from gateway.store import certificate_sql
from tests.domain.support import World

Json = dict[str, Any]
Lines = list[str]


class Export:
    """A chain of six certificates under two keys, as it is exported, and the keys of a stranger."""

    def __init__(self, folder: Path) -> None:
        with World(folder) as world:
            for number in range(5):
                device_id, token = world.bound(f"SN-{number}")
                command = world.reset(device_id)
                if number == 2:
                    world.run(grants.rotate)
                world.cancel(device_id, command.id)
                if number == 1:
                    world.ack(command, "executed", token)
            self.project_id = world.project_id
            self.rows = certificate_sql.page(world.view, world.project_id, after=0, limit=99)
            self.jwks: list[Json] = [key.model_dump() for key in grants.published_keys(world.view)]
            self.grant: str = world.view.value("SELECT grant_token FROM commands ORDER BY id DESC LIMIT 1")
            self.private_key = world.view.value("SELECT private_key FROM signing_keys WHERE retired_at IS NULL")
        with World(folder / "other", seed=2) as other:
            other.run(grants.ensure_key)
            self.others_jwks: list[Json] = [key.model_dump() for key in grants.published_keys(other.view)]

    @property
    def lines(self) -> Lines:
        """As ``gateway certificates export`` writes it."""
        return [
            json.dumps({"id": row.id, "number": row.seq, "sha256": row.sha256, "jws": row.jws}) for row in self.rows
        ]

    @property
    def answer(self) -> Json:
        """As the API answers the reset with an addendum."""
        shown = [
            {"id": row.id, "claims": certificates.claims(row.jws).model_dump(), "jws": row.jws, "sha256": row.sha256}
            for row in (self.rows[1], self.rows[2])
        ]
        return {**shown[0], "addenda": [shown[1]]}

    def signed(self, claims: Json, **header: str) -> str:
        """Anything, signed with the key in use."""
        kid = self.rows[-1].kid
        key = grants._private(self.private_key)  # noqa: SLF001 - a forger who has it
        return jwt.encode(claims, key, algorithm="EdDSA", headers={"kid": kid, "typ": certificates.TYPE, **header})


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """One chain for all tests."""
    folder = tmp_path_factory.mktemp("chain")
    (folder / "other").mkdir()
    return Export(folder)


def checked(lines: Lines, jwks: list[Json], *, is_partial: bool = False) -> list[Checked]:
    """What the check says of these lines."""
    return check(lines, keys(json.dumps({"keys": jwks})), is_partial=is_partial)


def test_a_chain_and_each_form_of_one_certificate_are_right(export: Export) -> None:
    """NDJSON, a JSON list, bare JWS lines; the API's JSON on one line and on many; the compact JWS alone."""
    assert [row.kind for row in export.rows] == ["first", "first", "addendum", "first", "first", "first"]
    assert len({row.kid for row in export.rows}) == 2
    whole = [Checked(export.project_id, 1, 6, 6)]
    jws = [row.jws for row in export.rows]
    as_list = json.dumps([json.loads(line) for line in export.lines], indent=1).splitlines()
    for lines in (export.lines, ["", *export.lines, "\n"], jws, as_list, [json.dumps(jws)]):
        assert checked(lines, export.jwks) == whole
    for lines in ([json.dumps(export.answer)], json.dumps(export.answer, indent=1).splitlines()):
        assert checked(lines, export.jwks) == [Checked(export.project_id, 2, 3, 2)]
    assert checked([jws[3]], export.jwks) == [Checked(export.project_id, 4, 4, 1)]
    assert checked(export.lines[2:], export.jwks, is_partial=True) == [Checked(export.project_id, 3, 6, 4)]


def _changed_claim(export: Export) -> Lines:
    head, body, signature = export.rows[2].jws.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    changed = json.dumps({**claims, "outcome": "executed"}, separators=(",", ":")).encode()
    forged = base64.urlsafe_b64encode(changed).rstrip(b"=").decode()
    return [*export.lines[:2], json.dumps({"jws": f"{head}.{forged}.{signature}"}), *export.lines[3:]]


def _resigned(export: Export, **changes: Any) -> Lines:
    """The holder of the key signs another last certificate."""
    claims = certificates.claims(export.rows[-1].jws).model_dump()
    return [*export.lines[:-1], json.dumps({"jws": export.signed({**claims, **changes})})]


def _beside(export: Export, **changes: Any) -> Lines:
    answer = export.answer
    return [json.dumps({**answer, **changes})]


BROKEN: dict[str, tuple[Callable[[Export], Lines], str]] = {
    "empty": (lambda _: ["", "\n"], "The file is empty"),
    "something else": (lambda _: ["hello"], "The file: cannot be read"),
    "another document": (lambda _: ['{"keys": []}'], "line 1: is no certificate"),
    "cut off in a line": (lambda it: [*it.lines[:-1], it.lines[-1][:-40]], "line 6: cannot be read, as if it was cut"),
    "cut off in the only line": (lambda it: [it.lines[0][:-40]], "The file: cannot be read, as if it was cut off"),
    "a JWS cut off": (lambda it: [it.rows[0].jws[:-20]], "line 1: the signature is wrong"),
    "a JWS without a part": (lambda _: [json.dumps({"jws": "a.b"})], "line 1: 'jws' is no compact JWS"),
    "a changed claim": (_changed_claim, "line 3: the signature is wrong"),
    "a missing link": (lambda it: it.lines[:2] + it.lines[3:], "line 3: .*number 4 .*Missing: 3"),
    "two missing links": (lambda it: it.lines[:1] + it.lines[3:], "line 2: .*Missing: 2 to 3"),
    "no beginning": (lambda it: it.lines[1:], "begins with number 2: numbers 1 to 1 are missing"),
    "a duplicated link": (lambda it: it.lines[:3] + it.lines[2:], "line 4: .*comes after number 3. It is a duplicate"),
    "swapped links": (lambda it: [it.lines[1], it.lines[0]], "line 2: .*the order was changed"),
    "a broken link": (
        lambda it: _resigned(it, previous="0" * 64),
        r"line 6: .*'previous' is not the SHA-256 of cert_",
    ),
    "no link": (lambda it: _resigned(it, previous=None), "line 6: .*the chain is broken"),
    "a second beginning": (lambda it: _resigned(it, number=7, previous=None), "Missing: 6"),
    "a first with a link": (lambda it: [_resigned(it, number=1)[-1]], "should be null for number 1"),
    "a grant": (lambda it: [it.grant], "line 1: is no certificate of reset: its header should say EdDSA"),
    "claims of something else": (lambda it: [it.signed({"jti": "cert_1"})], "is signed, but holds no certificate"),
    "claims beside": (lambda it: _beside(it, claims={"outcome": "executed"}), "'claims' beside the JWS are not what"),
    "digest beside": (lambda it: _beside(it, sha256="00"), "'sha256' beside the JWS is not"),
    "addenda that are none": (lambda it: _beside(it, addenda="none"), "'addenda' should be a list"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_manipulation_is_named(export: Export, name: str) -> None:
    """With its place, and what to do where something can be done."""
    manipulated, told = BROKEN[name]
    with pytest.raises(CertificateError) as refused:
        checked(manipulated(export), export.jwks)
    assert re.search(told, refused.value.message), refused.value.message
    assert refused.value.message.endswith((".", ")"))


def test_a_key_that_is_not_in_the_set_is_named(export: Export) -> None:
    """Another gateway's keys do not do, nor does another key under the same id."""
    with pytest.raises(CertificateError, match=f"line 1: the key {export.rows[0].kid} is not in the set of --jwks"):
        checked(export.lines, export.others_jwks)
    disguised = [{**export.others_jwks[0], "kid": key["kid"]} for key in export.jwks]
    with pytest.raises(CertificateError, match="line 1: the signature is wrong"):
        checked(export.lines, disguised)


@pytest.mark.parametrize("text", ["", "hello", "[]", '{"keys": 1}', '{"keys": []}', '{"keys": [{"kty": "RSA"}]}'])
def test_a_set_without_a_key_is_refused(text: str) -> None:
    """With where to get one."""
    with pytest.raises(CertificateError, match=r"--jwks: .*\.well-known/jwks\.json"):
        keys(text)


def test_a_leaked_key_counts_only_before_a_good_one(export: Export) -> None:
    """A later certificate of a key that did not leak repeats the digest; without one a thief can have made it."""
    first, last = export.rows[0].kid, export.rows[-1].kid
    leaked = {kid: [{**key, **({"leaked_at": "then"} if key["kid"] == kid else {})} for key in export.jwks]
              for kid in (first, last)}  # fmt: skip
    assert checked(export.lines, leaked[first]) == [Checked(export.project_id, 1, 6, 6)]
    alone = (export.lines[:1], export.lines[:2], [json.dumps(export.answer)])
    for lines, jwks in (*((lines, leaked[first]) for lines in alone), (export.lines, leaked[last])):
        with pytest.raises(CertificateError, match="signed with a key that leaked"):
            checked(lines, jwks)


def test_chains_of_several_projects_may_be_in_one_file(export: Export, tmp_path: Path) -> None:
    """Each is checked apart, in any mixture."""
    with World(tmp_path, seed=3) as other:
        device_id, _ = other.bound()
        other.cancel(device_id, other.reset(device_id).id)
        (row,) = certificate_sql.page(other.view, other.project_id, after=0, limit=9)
        jwks = [key.model_dump() for key in grants.published_keys(other.view)]
    lines = [*export.lines[:2], row.jws, *export.lines[2:]]
    assert checked(lines, export.jwks + jwks) == [Checked(export.project_id, 1, 6, 6), Checked(row.project_id, 1, 1, 1)]


def test_a_long_chain_is_read_line_by_line(export: Export) -> None:
    """The next line is read when the one before is done."""
    read: list[int] = []

    def lines() -> Any:
        for number, line in enumerate(export.lines):
            read.append(number)
            yield line

    first = next(entries(lines()))
    assert (first.place, read) == ("line 1", [0])
