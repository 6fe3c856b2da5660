"""Password files on disk: what one has that another has not, and what a write of the file costs."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.broker.mosquitto.entries_in_force import InForce
from gateway.broker.mosquitto.password_draft import PasswordDraft
from gateway.broker.mosquitto.password_entries import people_in
from gateway.broker.mosquitto.password_file import PasswordEntryError, PasswordFile, password_entry
from gateway.broker.mosquitto.password_lines import BLOCK_BYTES, MISSING, PasswordLines, other_lines

GATEWAY = password_entry("gateway-secret", b"twelve bytes")
OTHER = password_entry("other", b"twelve bytes")
MANY = 2 * BLOCK_BYTES // len(f"dev_{0:06}:{GATEWAY}\n")
"""So many devices that the file has three pieces."""


def lines(path: Path, users: dict[str, str]) -> PasswordLines:
    """A file with these users, open."""
    path.write_text("".join(f"{name}:{entry}\n" for name, entry in users.items()))
    return PasswordLines.of(path)


@pytest.mark.parametrize("reverse", [False, True])
def test_users_that_are_gone_or_changed_are_found(tmp_path: Path, *, reverse: bool) -> None:
    """At both ends of a file and in its middle, devices and accounts, also in a file that a person has sorted."""
    before = {"alice": GATEWAY} | {f"dev_{number:06}": GATEWAY for number in range(MANY)} | {"gateway": GATEWAY}
    after = before | {"alice": OTHER, f"dev_{MANY // 2:06}": OTHER, "dev_new": GATEWAY}
    for gone in ("dev_000000", f"dev_{MANY - 1:06}", "gateway"):
        del after[gone]
    before = dict(reversed(before.items())) if reverse else before
    found = lines(tmp_path / "a", before).missing_in(lines(tmp_path / "b", dict(sorted(after.items()))))
    assert found == {"alice", f"dev_{MANY // 2:06}", "dev_000000", f"dev_{MANY - 1:06}", "gateway"}


def test_a_file_misses_nothing_in_itself(tmp_path: Path) -> None:
    """Nor does no file at all."""
    same = lines(tmp_path / "a", {"dev_a": GATEWAY, "zoe": GATEWAY})
    assert same.missing_in(same) == set()
    assert PasswordLines.of(tmp_path / "missing").missing_in(same) == set()


@pytest.mark.parametrize("is_known", [False, True])
def test_outdated_entries_are_found(tmp_path: Path, *, is_known: bool) -> None:
    """In each file that may be in force: of a device without that good entry, and of an account that has another."""
    devices = {f"dev_{number:06}": GATEWAY for number in range(1_000)}
    path = tmp_path / "passwords"
    lines(path, {"alice": GATEWAY} | devices | {"zoe": GATEWAY})
    stamp = PasswordFile(path, pid_file=None, fixed={}).stamp()
    in_force = InForce(path, stamp if is_known else None)
    good = {"dev_000000": {GATEWAY, OTHER}, "dev_000500": set[str](), "dev_000999": {OTHER}, "dev_new": {GATEWAY}}
    accounts = {"alice": GATEWAY, "zoe": OTHER}
    assert in_force.outdated(good, accounts) == {"dev_000500", "dev_000999", "zoe"}
    in_force.written(lines(tmp_path / "next", {"dev_new": OTHER}))
    assert in_force.outdated(good, accounts) == {"dev_000500", "dev_000999", "dev_new", "zoe"}
    assert InForce(tmp_path / "none", MISSING).outdated(good, accounts) == set()


def test_lines_of_accounts_keep_their_numbers(tmp_path: Path) -> None:
    """Over the pieces in which the file is read: a bad line is named by its number."""
    file = lines(tmp_path / "a", {f"dev_{number:06}": GATEWAY for number in range(MANY)})
    with (tmp_path / "a").open("a") as end:
        end.write("\nbad line\r\n")
    assert list(other_lines(file._descriptor)) == [(MANY + 1, ""), (MANY + 2, "bad line")]  # noqa: SLF001
    assert people_in(other_lines(file._descriptor)).unusable == (f"line {MANY + 2}",)  # noqa: SLF001


def test_a_draft_writes_nothing_while_the_content_is_the_same(tmp_path: Path) -> None:
    """Twenty thousand devices again: no draft is begun; one device more: a new file with all of them."""
    file = PasswordFile(tmp_path / "passwords", pid_file=None, fixed={"alice": GATEWAY, "gateway": GATEWAY})
    devices = [(f"dev_{number:06}", GATEWAY) for number in range(20_000)]
    file.write(devices)
    with file.draft(file.fixed) as draft:
        draft.add_devices(iter(devices))
        content = draft.finish(file.fixed)
        assert [each.name for each in tmp_path.iterdir()] == ["passwords"]
        assert not file.put(draft)
    more = [*devices, ("dev_999999", GATEWAY)]
    with file.draft(file.fixed) as draft:
        draft.add_devices(iter(more))
        assert content.missing_in(draft.finish(file.fixed)) == set()
        assert file.put(draft)
    wanted = [("alice", GATEWAY), *more, ("gateway", GATEWAY)]
    assert file.path.read_text() == "".join(f"{name}:{entry}\n" for name, entry in wanted)
    assert [each.name for each in tmp_path.iterdir()] == ["passwords"]


def test_changed_devices_are_found_by_halving(tmp_path: Path) -> None:
    """First, last, new and removed ones; the file reads back as if all had been written, and the edited are named."""
    file = PasswordFile(tmp_path / "passwords", pid_file=None, fixed={"alice": GATEWAY, "gateway": GATEWAY})
    devices = {f"dev_{number:06}": GATEWAY for number in range(0, 3 * MANY, 3)}
    file.write(devices.items())
    last = max(devices)
    changes = {"dev_000000": OTHER, "dev_000001": GATEWAY, "dev_000003": None, "dev_000004": None, last: None}
    with file.draft(file.fixed) as draft:
        assert draft.keep_devices({"dev_000006": GATEWAY, "dev_000007": None, "dev_zzz": None}) == set()
        assert draft.same_accounts(file.written) == file.fixed
        draft.finish(file.fixed)
        assert not file.put(draft)
    with file.draft(file.fixed) as draft:
        assert draft.keep_devices(changes | {"dev_zzz": OTHER}) == {"dev_000000", "dev_000003", last}
        assert draft.same_accounts(file.written) is None
        draft.finish(file.fixed | {"zoe": OTHER})
        assert file.put(draft)
    wanted = devices | {"dev_000000": OTHER, "dev_000001": GATEWAY, "dev_zzz": OTHER}
    del wanted["dev_000003"], wanted[last]
    whole = {"alice": GATEWAY} | dict(sorted(wanted.items())) | {"gateway": GATEWAY, "zoe": OTHER}
    assert file.path.read_text() == "".join(f"{name}:{entry}\n" for name, entry in whole.items())


@given(st.sets(st.integers(0, 99)), st.dictionaries(st.integers(0, 99), st.booleans()))
def test_changes_of_devices_are_as_a_whole_write(
    tmp_path_factory: pytest.TempPathFactory, first: set[int], changes: dict[int, bool]
) -> None:
    """Any changes of any file, whatever its size."""
    folder = tmp_path_factory.mktemp("given")
    file = PasswordFile(folder / "passwords", pid_file=None, fixed={"alice": GATEWAY, "gateway": GATEWAY})
    devices = {f"dev_{number:02}": GATEWAY for number in first}
    file.write(devices.items())
    changed = {f"dev_{number:02}": OTHER if stays else None for number, stays in changes.items()}
    with file.draft(file.fixed) as draft:
        assert draft.keep_devices(changed) == devices.keys() & changed.keys()
        draft.finish(file.fixed)
        file.put(draft)
    other = PasswordFile(folder / "other", pid_file=None, fixed=file.fixed)
    other.write((name, entry) for name, entry in (devices | changed).items() if entry is not None)
    assert file.path.read_bytes() == other.path.read_bytes()


def test_a_draft_that_is_not_put_leaves_nothing(tmp_path: Path) -> None:
    """What fails on the way leaves the file as it was, and no draft beside it."""
    file = PasswordFile(tmp_path / "passwords", pid_file=None, fixed={})
    file.write([("dev_a", GATEWAY)])
    two_lines = f"dev_b:{GATEWAY}\ndev_c"
    for wrong in ([("dev_b", GATEWAY), ("dev_a", GATEWAY)], [("dev_a", OTHER), (two_lines, GATEWAY)]):
        with pytest.raises(PasswordEntryError), file.draft({}) as draft:
            fill(draft, wrong)
    assert file.path.read_text() == f"dev_a:{GATEWAY}\n"
    assert [each.name for each in tmp_path.iterdir()] == ["passwords"]


def fill(draft: PasswordDraft, devices: list[tuple[str, str]]) -> None:
    """Add them, and end the draft."""
    draft.add_devices(devices)
    draft.finish({})
