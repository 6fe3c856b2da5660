"""The blocks of code in our documents: each says above itself which test runs it, or why none does.

A comment on the line before a block is ``<!-- run: NAME -->`` or ``<!-- not run: reason -->``. Blocks that show what
comes out (no language, ``text``, ``json``, ``http``) need none.
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SHOWN = ("", "text", "json", "http", "console", "mermaid")
"""Languages of what is to be looked at, not run."""

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<info>[^\n]*)\n(?P<code>.*?)^(?P=indent)```[ ]*$",
    re.MULTILINE | re.DOTALL,
)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_NOTE = re.compile(r"<!-- (not run|run): ([^\n]+?) -->\s*\Z")


@dataclass(frozen=True)
class Block:
    """A block: where it stands, beneath which heading, in which language, and what its note says."""

    path: Path
    line: int
    heading: str
    language: str
    code: str
    run_by: str | None
    reason: str | None

    @property
    def place(self) -> str:
        """Where a person finds it."""
        return f"{self.path.relative_to(ROOT)}:{self.line}"


def blocks(path: Path) -> list[Block]:
    """Every fenced block of a document, in order."""
    text = path.read_text(encoding="utf-8")
    return [_block(path, text, found) for found in _FENCE.finditer(text)]


def _block(path: Path, text: str, found: re.Match[str]) -> Block:
    before = text[: found.start()]
    # A comment of a shell inside an earlier block is no heading.
    headings = _HEADING.findall(_FENCE.sub("", before))
    note = _NOTE.search(before)
    kind, said = note.groups() if note else (None, None)
    return Block(
        path=path,
        line=before.count("\n") + 1,
        heading=headings[-1] if headings else "",
        language=found["info"].split(" ")[0],
        code="".join(line.removeprefix(found["indent"]) for line in found["code"].splitlines(keepends=True)),
        run_by=said if kind == "run" else None,
        reason=said if kind == "not run" else None,
    )


def run_by(name: str, path: Path) -> list[Block]:
    """The blocks of a document that the test of this name runs. There has to be one."""
    found = [block for block in blocks(path) if block.run_by == name]
    assert found, f"{path.name} has no block that is run by {name!r}"
    return found
