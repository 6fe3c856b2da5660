"""Files written in one step: what a reader finds after a process was killed at any line of the write."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.core import files

OLD, NEW = b"old\n" * 3_000, b"new\n" * 5_000
KILLED = """
import os, signal, sys
from pathlib import Path
from gateway.core import files

steps = 0

def at_each_line(frame, event, _):
    global steps
    if frame.f_code.co_filename != files.__file__:
        return None
    if event == "line":
        steps += 1
        if steps == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
    return at_each_line

sys.settrace(at_each_line)
files.replace(Path(sys.argv[1]), b"new\\n" * 5_000, mode=0o640, prepare=lambda descriptor: os.fchmod(descriptor, 0o640))
"""


def killed_at(file: Path, step: int) -> bool:
    """Replace the file in a process that is killed before so many lines; whether it was."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(file), str(step)], check=False)
    assert done.returncode in (0, -signal.SIGKILL)
    return done.returncode != 0


def test_a_killed_writer_leaves_the_old_content_or_the_new(tmp_path: Path) -> None:
    """Wherever it is killed; the next write succeeds and leaves no draft."""
    file, found, step = tmp_path / "file", list[bytes](), 1
    file.write_bytes(OLD)
    while killed_at(file, step):
        found.append(file.read_bytes())
        file.write_bytes(OLD)
        step += 1
    assert found == sorted(found, reverse=True), "it goes from old to new once"
    assert {*found} == {OLD, NEW}
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (NEW, 0o640)
    assert list(tmp_path.iterdir()) == [file]


def test_symbolic_links_are_not_followed(tmp_path: Path) -> None:
    """Neither in the place of the file nor in that of its draft."""
    victim, file = tmp_path / "victim", tmp_path / "file"
    victim.write_bytes(OLD)
    file.symlink_to(victim)
    (tmp_path / ".file.new").symlink_to(victim)
    files.replace(file, NEW)
    assert (file.read_bytes(), victim.read_bytes()) == (NEW, OLD)
    assert (file.is_symlink(), file.stat().st_mode & 0o777) == (False, 0o600)
    with pytest.raises(FileExistsError):
        files.create(file, OLD)
    assert file.read_bytes() == NEW


def test_a_failed_write_leaves_the_old_content(tmp_path: Path) -> None:
    """The draft is gone, too."""
    file = tmp_path / "file"
    file.write_bytes(OLD)

    def fail(_: int) -> None:
        raise PermissionError

    with pytest.raises(PermissionError):
        files.replace(file, NEW, prepare=fail)
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("file", OLD)]


def test_a_new_file_is_written_through_a_temporary_file(tmp_path: Path) -> None:
    """A new file is for its owner alone; a draft takes the name of what was there."""
    made, target = tmp_path / "made", tmp_path / "target"
    files.create(made, NEW)
    assert (made.read_bytes(), made.stat().st_mode & 0o777) == (NEW, 0o600)
    target.write_bytes(OLD)
    files.put_in_place(made, target)
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("target", NEW)]
