"""Certificates of a site: from a trial authority, or copies of the operator's files.

Chain and key stand in one file each, so that a renewal is one step for every reader. While Mosquitto has the new chain
and the old key, it refuses every client (docs/mosquitto.md).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography import x509

from gateway.core.clock import DAY_MS, system_clock
from gateway.errors import InvalidRequestError
from gateway.runtime.owned_files import Owner, make_folder, own, read, replace
from gateway.tls.ca import Authority
from gateway.tls.certificates import CertificateError, client_context, expiry

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.setup.file_manifest import State
    from gateway.setup.options import DeploymentPlan

RENEWED_BEFORE_MS: Final = 30 * DAY_MS
_AUTHORITY: Final = "authority"


def of_authority(site: DeploymentPlan, wanted: dict[str, Owner], trusted: dict[str, Owner]) -> dict[str, State]:
    """Write a certificate of the site's own authority into the files ``wanted``, and the authority's into ``trusted``.

    A certificate that is good for the same names, and for a while yet, stays. Return the outcome of each file.
    """
    folder = site.directory / _AUTHORITY
    make_folder(folder, Owner(0o700))
    authority = Authority(folder)
    pem = authority.files.certificate.read_bytes()
    return {name: _renewed(authority, site, name, owner) for name, owner in wanted.items()} | {
        name: copied(site.directory / name, pem, owner) for name, owner in trusted.items()
    }


def of_files(site: DeploymentPlan, wanted: dict[str, Owner], trusted: dict[str, Owner]) -> dict[str, State]:
    """Write the operator's certificate into the files ``wanted``, and its authority, if any, into ``trusted``.

    Raises:
        CertificateError: the files cannot be used together.
        InvalidRequestError: the certificate holds no name of the site.
    """
    chain, key, *authority = site.files
    client_context(authority[0] if authority else None, chain, key)
    held = _names(chain)
    if missing := [each for each in site.names if not {each, f"*.{each.partition('.')[2]}"} & held]:
        raise InvalidRequestError(
            f"{chain} is made out to {', '.join(sorted(held))}, and not to {', '.join(missing)}: devices would refuse "
            "it. Name one of those with --name."
        )
    content = chain.read_bytes().rstrip() + b"\n" + key.read_bytes()
    files = {name: (content, owner) for name, owner in wanted.items()}
    files |= {name: (each.read_bytes(), owner) for each in authority for name, owner in trusted.items()}
    return {name: copied(site.directory / name, *each) for name, each in files.items()}


def _renewed(authority: Authority, site: DeploymentPlan, name: str, owner: Owner) -> State:
    file = site.directory / name
    is_there = read(file) is not None
    if is_there and _is_good(file, authority, site.certified):
        own(file, owner)
        return "unchanged"
    state: State = "updated" if is_there else "written"
    with tempfile.TemporaryDirectory(dir=authority.directory) as folder:
        pair = authority.server("server", site.certified, Path(folder))
        replace(file, pair.certificate.read_bytes() + pair.key.read_bytes(), owner)
    return state


def _is_good(file: Path, authority: Authority, names: Iterable[str]) -> bool:
    try:
        return (
            expiry(file) - system_clock() > RENEWED_BEFORE_MS
            and _names(file) == set(names)
            and authority.has_signed(x509.load_pem_x509_certificates(file.read_bytes())[0])
        )
    except CertificateError:
        return False


def _names(chain: Path) -> set[str]:
    first = x509.load_pem_x509_certificates(chain.read_bytes())[0]
    try:
        names = first.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))}


def copied(file: Path, content: bytes, owner: Owner) -> State:
    """Write a copy that belongs to ``owner``, and return its outcome."""
    there = read(file)
    state: State = "written" if there is None else "updated"
    if there == content:
        own(file, owner)
        return "unchanged"
    replace(file, content, owner)
    return state
