"""Backup files: encrypted for recipients (age), and with a MAC beside them.

Encryption keeps a backup from readers of the medium. It does not prove who made the file: a recipient is public. The
MAC does, an HMAC-SHA256 of the file under a key that both sides have, in ``FILE.mac``.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import shutil
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gateway.errors import InvalidRequestError, NotFoundError, StoreError, UnavailableError
from gateway.runtime.private_files import replace_text
from gateway.runtime.sealing import key_id_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_AGE: Final = b"age-encryption.org/v1"
_MAC_PURPOSE: Final = b"device-gateway backup mac"
_ALGORITHM: Final = "hmac-sha256"
_PIECE: Final = 1 << 20


def encrypt(source: Path, target: Path, recipients: Sequence[str]) -> None:
    """Write ``source`` into ``target``, for these recipients (``age1…``, or a line ``ssh-ed25519 …``, ``ssh-rsa …``).

    Raises:
        InvalidRequestError: a recipient is not valid.
        UnavailableError: the package for it is not installed.
        OSError: ``target`` cannot be written.
    """
    pyrage = _pyrage()
    known = [_recipient(pyrage, each) for each in recipients]
    with source.open("rb") as plain, target.open("wb") as sealed:
        pyrage.encrypt_io(plain, sealed, known)
        sealed.flush()
        os.fsync(sealed.fileno())


def check_recipients(recipients: Sequence[str]) -> None:
    """Refuse invalid recipients, before anything is copied.

    Raises:
        InvalidRequestError, UnavailableError: as :func:`encrypt`.
    """
    pyrage = _pyrage()
    for each in recipients:
        _recipient(pyrage, each)


def _recipient(pyrage: Any, text: str) -> Any:
    kind = pyrage.ssh if text.startswith("ssh-") else pyrage.x25519
    try:
        return kind.Recipient.from_str(text)
    except pyrage.RecipientError as error:
        raise InvalidRequestError(
            f"--recipient: {text[:80]!r} is no recipient ({error}). 'age-keygen' prints one that begins with age1; a "
            "public key of SSH works, too."
        ) from error


def mac_file(file: Path) -> Path:
    """Return the file of this backup's MAC."""
    return file.with_name(f"{file.name}.mac")


def mac_of(file: Path, key: bytes) -> str:
    """Return the line for the file of the MAC."""
    with file.open("rb") as source:
        return _line(_digest(source, key, None), key)


def write_mac(target: Path, line: str) -> None:
    """Write the MAC beside the backup, in one step.

    Raises:
        StoreError: it cannot be written.
    """
    try:
        replace_text(mac_file(target), f"{line}\n")
    except OSError as error:
        raise StoreError(f"{mac_file(target)} cannot be written ({error.strerror}). Make the backup again.") from error


def _digest(source: Any, key: bytes, copy: Any) -> bytes:
    mac = hmac.new(hmac.digest(key, _MAC_PURPOSE, "sha256"), digestmod=hashlib.sha256)
    while piece := source.read(_PIECE):
        mac.update(piece)
        if copy is not None:
            copy.write(piece)
    return mac.digest()


def _line(digest: bytes, key: bytes) -> str:
    return f"{_ALGORITHM} {key_id_of(key)} {digest.hex()}"


@contextmanager
def opened(file: Path, data_dir: Path, *, identity: Path | None = None, mac_key: bytes | None = None) -> Iterator[Path]:
    """Yield the registry in this backup as a file; one that is copied or decrypted for it is removed after the block.

    The checked bytes are the yielded ones: the file on the medium may change meanwhile.

    Raises:
        NotFoundError: there is no such file.
        InvalidRequestError: its MAC is missing or wrong, or the identity does not open it.
        StoreError: there is no room for the copy.
    """
    if not file.is_file():
        raise NotFoundError(f"There is no file {file}. Check the path.")
    if mac_key is None and not _is_age(file):
        yield file
        return
    place = data_dir if data_dir.is_dir() else next(each for each in data_dir.absolute().parents if each.is_dir())
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=".restore-", dir=place))
            copy = _checked_copy(file, Path(folder), identity, mac_key)
        except OSError as error:
            raise StoreError(
                f"The backup {file} cannot be opened in {place} ({error.strerror}). Check the rights and room there."
            ) from error
        yield copy


def _checked_copy(file: Path, folder: Path, identity: Path | None, mac_key: bytes | None) -> Path:
    copy = folder / "backup"
    if mac_key is None:
        shutil.copyfile(file, copy)
    else:
        _copy_if_genuine(file, copy, mac_key)
    return _decrypted(file, copy, folder / "registry", identity) if _is_age(copy) else copy


def _copy_if_genuine(file: Path, copy: Path, key: bytes) -> None:
    wanted = mac_file(file)
    try:
        told = wanted.read_text("ascii").strip()
    except FileNotFoundError as error:
        raise InvalidRequestError(
            f"backup_mac_key_file is set, and {wanted} is not there, so nobody knows who wrote {file}. Nothing was "
            "changed. Bring the file of its MAC; or, if you know the backup, restore with --backup-mac-key-file none"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"{wanted} cannot be read ({error}). Nothing was changed.") from error
    with file.open("rb") as source, copy.open("xb") as target:
        found = _line(_digest(source, key, target), key)
    if hmac.compare_digest(found.encode(), told.encode()):
        return
    if told.split(" ")[1:2] != [key_id_of(key)]:
        raise InvalidRequestError(
            f"The MAC of {file} was made under another key ({told[:60]!r}) than that of backup_mac_key_file "
            f"({key_id_of(key)}). Nothing was changed. Name the key of that time with --backup-mac-key-file."
        )
    raise InvalidRequestError(
        f"{file} is not as it was written: its MAC is wrong. Nothing was changed. Use another one."
    )


def _decrypted(file: Path, copy: Path, target: Path, identity: Path | None) -> Path:
    if identity is None:
        raise InvalidRequestError(f"{file} is encrypted with age. Name the file with your identity: --identity FILE")
    pyrage = _pyrage()
    keys = _identities(pyrage, identity)
    with copy.open("rb") as sealed, target.open("xb") as plain:
        os.fchmod(plain.fileno(), 0o600)
        try:
            pyrage.decrypt_io(sealed, plain, keys)
        except pyrage.DecryptError as error:
            raise InvalidRequestError(
                f"{file} does not open with the identity in {identity} ({error}). Nothing was changed."
            ) from error
        except OSError as error:
            if error.errno is not None:
                raise
            raise InvalidRequestError(f"{file} is damaged or cut short ({error}). Use another backup.") from error
    return target


def _identities(pyrage: Any, file: Path) -> list[Any]:
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"--identity: {file} cannot be read ({error}).") from error
    try:
        if "PRIVATE KEY-----" in text:
            return [pyrage.ssh.Identity.from_buffer(text.encode())]
        lines = [line.strip() for line in text.splitlines()]
        found = [pyrage.x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")]
    except pyrage.IdentityError as error:
        raise InvalidRequestError(f"--identity: {file} holds no identity of age ({error}).") from error
    if not found:
        raise InvalidRequestError(f"--identity: {file} is empty. 'age-keygen' makes an identity.")
    return found


def _is_age(file: Path) -> bool:
    with file.open("rb") as source:
        return source.read(len(_AGE)) == _AGE


def _pyrage() -> Any:
    try:
        import pyrage  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise UnavailableError(
            "Backups for recipients need a package that is not installed: pip install 'device-gateway[age]'."
        ) from error
    return pyrage
