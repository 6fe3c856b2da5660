"""Prose check: banned words and long sentences in documents, docstrings, comments and API texts.

``scripts/prose.py`` checks the whole tree, and ``scripts/prose.py PATH …`` checks single files in full.
``scripts/prose_todo.txt`` lists what is not clean yet. The list may only shrink: an entry that is clean is an error.
``scripts/prose.py --tidy`` removes such entries.
"""

import argparse
import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

LONGEST = 30
ROOT = Path(__file__).resolve().parents[1]
TODO = Path("scripts/prose_todo.txt")

CODE = ("gateway", "device_sim", "broker_config", "bench", "scripts")
DOCUMENTS = ("*.md", "docs/**/*.md", "tests/**/*.md", ".github/**/*.md")
# Written from code by `make docs` and `make access`; their words are checked where they are written.
GENERATED = ("docs/cli.md", "docs/reference/", "docs/access.md")
# Keyword arguments whose strings people read.
TEXT_KEYWORDS = {"description", "help", "summary", "short_help", "epilog"}

MACHINE = r"(?:gateway|broker|device|server|listener|thread|loop|registry|store|worker|process|log|client|firmware)s?"
OF_PEOPLE = r"(?:heard|hears?|tells?|told|believes?|believed|wishe?s?|wants?|likes?)"
# "of its own rank" is fine, "a thread of its own" is not.
NO_NOUN = r"(?=\W*$|\W*[.,;:()]|\s(?:and|or|but|on|for|in|with|to|that|which|who|over|by|at|from|as|where|when)\b)"
BANNED = {
    r"anew": "again, new",
    r"who(?:ever|mever|soever)": "name the role: the caller, the operator",
    r"somebody|nobody": "name the role, or use the passive: no client, an operator",
    rf"(?:of|on|by) (?:its|their) own{NO_NOUN}": "say what it has: a separate thread, its own file",
    r"(?:is|are|was|were) (?-i:none)": "does not exist, is invalid",
    r"for good": "permanently",
    r"knock(?:s|ed|ing)?": "connect, send a request",
    r"good-?byes?|farewells?": "offline message",
    r"deaf": "not subscribed, not reading",
    r"last word": "last will, offline message",
    r"goes? deaf|(?:is|are|be) calm": "name what stops",
    r"thither|hither|whence|wherefore|whereabouts|nought|aught": "a word of today",
    rf"{MACHINE} (?:has |have |is |are |was |were )?{OF_PEOPLE}": "a machine receives, reports, trusts, requests",
    rf"{MACHINE} (?:comes?|came) in": "a client connects, a message arrives",
}
_BANNED = [(re.compile(rf"\b(?:{words})(?!\w)", re.IGNORECASE), hint) for words, hint in BANNED.items()]


class Finding(NamedTuple):
    """A sentence that breaks a rule."""

    path: str
    line: int
    rule: str
    sentence: str

    def __str__(self) -> str:
        """Format it as compilers do, so that editors jump to the line."""
        return f"{self.path}:{self.line}: {self.rule}: {self.sentence}"


class Block(NamedTuple):
    """A paragraph, list item, table cell, docstring paragraph or comment, and the line where it starts."""

    line: int
    text: str


# --- sentences ----------------------------------------------------------------------------------------------------

_MARKUP = (
    (re.compile(r"<!--.*?-->", re.DOTALL), " "),
    (re.compile(r"``.+?``|`[^`]+`", re.DOTALL), "CODE"),
    (re.compile(r"!\[[^\]]*\]\([^)]*\)"), " "),
    (re.compile(r"\[([^\]]*)\]\([^)]*\)", re.DOTALL), r"\1"),
    (re.compile(r"<?https?://[^\s>)]+>?"), "URL"),
    (re.compile(r"</?[a-z][^>]*>"), " "),
    (re.compile(r"\*\*|__|\*(?=\w)|(?<=\w)\*"), ""),
)
_ABBREVIATION = re.compile(r"\b(e\.g|i\.e|etc|vs|cf|no|nos|approx)\.(?=\s+\S)", re.IGNORECASE)
_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]*[A-Z0-9])|\n\n+")
_WORD = re.compile(r"\S*[^\W_]\S*")


def plain(text: str) -> str:
    """Return the text without markup: code and URLs count as one word each."""
    for pattern, replacement in _MARKUP:
        text = pattern.sub(replacement, text)
    return _ABBREVIATION.sub(r"\1", text)


def sentences(text: str) -> list[str]:
    """Split a block into sentences."""
    return [" ".join(part.split()) for part in _END.split(plain(text)) if part.strip()]


def broken_rules(sentence: str, *, length: bool = True) -> Iterator[str]:
    """Yield what a sentence breaks; no limit on its length where ``length`` is off."""
    words = len(_WORD.findall(sentence))
    if length and words > LONGEST:
        yield f"{words} words, at most {LONGEST}"
    for pattern, hint in _BANNED:
        if found := pattern.search(sentence):
            yield f"“{found.group()}” (write: {hint})"


# --- Markdown -----------------------------------------------------------------------------------------------------

_FENCE = re.compile(r"\s*(?:>\s*)?(```+|~~~+)")
_STARTS = re.compile(r"\s*(?:>\s*)?(?:[-*+]|\d+[.)])\s+(?:\[[ x]\]\s+)?|\s*#+\s+|\s*>\s?")
_TABLE_RULE = re.compile(r"[\s|:-]+")


def markdown_blocks(source: str) -> Iterator[Block]:
    """Yield paragraphs, headings, list items and table cells; code blocks are left out."""
    lines: list[str] = []
    start, fence = 1, ""
    for number, line in enumerate([*source.splitlines(), ""], 1):
        if mark := _FENCE.match(line):
            fence = "" if fence and mark[1].startswith(fence) else fence or mark[1]
            line = ""  # noqa: PLW2901 - a fence ends the paragraph
        elif fence:
            continue
        is_row = line.lstrip().startswith("|")
        begins = _STARTS.match(line)
        if lines and (not line.strip() or is_row or begins):
            yield Block(start, " ".join(lines))
            lines = []
        if is_row and not _TABLE_RULE.fullmatch(line):
            yield from (Block(number, cell) for cell in re.split(r"(?<!\\)\|", line) if cell.strip())
        elif line.strip() and not is_row:
            start = start if lines else number
            lines.append(line[begins.end() :] if begins else line.strip())


# --- Python -------------------------------------------------------------------------------------------------------

_DIRECTIVE = re.compile(r"#!|#\s*(?:noqa|type:|ruff:|pragma|mypy:)")
_NOQA = re.compile(r"#\s*(?:noqa|type: ignore)[^-]*(?:-\s*)?")
_SECTION = re.compile(r"^\s*(?:Args|Raises|Returns|Yields|Attributes|Example|Examples|Note):\s*$", re.MULTILINE)
_ENTRY = re.compile(r"^\s*(?:[-*]|[\w.*`]+(?: \([^)]*\))?:)\s+", re.MULTILINE)


def docstring_blocks(line: int, text: str) -> Iterator[Block]:
    """Yield the paragraphs and entries of a docstring; examples and indented code are left out."""
    text = re.sub(r"^\s*(?:>>>|\.\.\. ).*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"::\n\n(?:[ \t]+.*\n?|\n)+", ":\n\n", text)
    yield from markdown_blocks_at(line, _ENTRY.sub("\n\n", _SECTION.sub("\n", text)))


def markdown_blocks_at(line: int, text: str) -> Iterator[Block]:
    """Yield the blocks of a text that starts at a line of a file; the lines are those of the whole text."""
    yield from (Block(line, block.text) for block in markdown_blocks(text))


def comment_blocks(source: str) -> Iterator[Block]:
    """Yield comments; consecutive lines without code are one comment."""
    lines: list[str] = []
    start = last = -1
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        row, stands_alone = token.start[0], token.line.lstrip().startswith("#")
        text = _NOQA.sub("", token.string) if _DIRECTIVE.match(token.string) else token.string.lstrip("#:")
        if lines and not (stands_alone and row == last + 1 and text.strip()):
            yield Block(start, " ".join(lines))
            lines = []
        start = start if lines else row
        lines.append(text.strip())
        last = row if stands_alone else -1
    if lines:
        yield Block(start, " ".join(lines))


def _docstring(node: ast.AST) -> ast.Constant | None:
    body = getattr(node, "body", None)
    first = body[0] if isinstance(body, list) and body else None
    value = first.value if isinstance(first, ast.Expr) else None
    return value if isinstance(value, ast.Constant) and isinstance(value.value, str) else None


def _literal(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_literal(part) if isinstance(part, ast.Constant) else "CODE" for part in node.values)
    if isinstance(node, ast.BinOp):
        return _literal(node.left) + _literal(node.right)
    return ""


def docstrings_and_texts(source: str, *, texts: bool) -> Iterator[Block]:
    """Yield docstrings and, where ``texts`` is on, API texts and help texts of the command line."""
    for node in ast.walk(ast.parse(source)):
        if found := _docstring(node):
            yield from docstring_blocks(found.lineno, str(found.value))
        elif texts and isinstance(node, ast.keyword) and node.arg in TEXT_KEYWORDS:
            yield from markdown_blocks_at(node.value.lineno, _literal(node.value))


def python_blocks(source: str, *, docstrings_only: bool) -> Iterator[Block]:
    """Yield what people read in a Python file."""
    yield from docstrings_and_texts(source, texts=not docstrings_only)
    if not docstrings_only and "#" in source:
        yield from comment_blocks(source)


# --- the tree -----------------------------------------------------------------------------------------------------


def findings(path: str, source: str) -> list[Finding]:
    """Return what is wrong in a file; in tests only banned words in docstrings count."""
    is_test = path.startswith("tests/") and path.endswith(".py")
    blocks = python_blocks(source, docstrings_only=is_test) if path.endswith(".py") else markdown_blocks(source)
    found = {
        Finding(path, line, rule, sentence)
        for line, text in blocks
        for sentence in sentences(text)
        for rule in broken_rules(sentence, length=not is_test)
    }
    return sorted(found)


def checked_files(root: Path) -> list[str]:
    """Return the paths of all files that are checked, from the root of the tree."""
    documents = {found for pattern in DOCUMENTS for found in root.glob(pattern)}
    programs = {found for name in (*CODE, "tests") for found in (root / name).rglob("*.py")}
    paths = sorted(found.relative_to(root).as_posix() for found in documents | programs)
    return [path for path in paths if not path.startswith(GENERATED)]


def _covers(entry: str, path: str) -> bool:
    return path == entry or path.startswith(entry.rstrip("/") + "/")


def check(root: Path, todo: Iterable[str]) -> tuple[list[Finding], list[str]]:
    """Return the findings outside of the list, and the entries of the list that are clean."""
    todo = list(todo)
    found: list[Finding] = []
    unclean: set[str] = set()
    for path in checked_files(root):
        here = findings(path, (root / path).read_text(encoding="utf-8"))
        entries = [entry for entry in todo if _covers(entry, path)]
        if here and entries:
            unclean.update(entries)
        elif not entries:
            found += here
    return found, [entry for entry in todo if entry not in unclean]


def read_todo(root: Path) -> list[str]:
    """Return the entries of the list of files and folders that are not clean yet."""
    lines = (root / TODO).read_text(encoding="utf-8").splitlines() if (root / TODO).exists() else []
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def tidy(root: Path, clean: Iterable[str]) -> None:
    """Remove entries from the list."""
    gone = set(clean)
    lines = (root / TODO).read_text(encoding="utf-8").splitlines()
    (root / TODO).write_text("".join(f"{line}\n" for line in lines if line.strip() not in gone), encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Print the findings, and return the exit status."""
    parser = argparse.ArgumentParser(description="Check the prose of the tree, or of some files in full.")
    parser.add_argument("paths", nargs="*", help="files or folders to check, whether they are on the list or not")
    parser.add_argument("--tidy", action="store_true", help="remove clean entries from the list")
    options = parser.parse_args(arguments)
    if options.paths:
        wanted = [path.rstrip("/") for path in options.paths]
        paths = [path for path in checked_files(ROOT) if any(_covers(entry, path) for entry in wanted)]
        found = [each for path in paths for each in findings(path, (ROOT / path).read_text(encoding="utf-8"))]
        clean: list[str] = []
    else:
        found, clean = check(ROOT, read_todo(ROOT))
    if options.tidy:
        tidy(ROOT, clean)
        clean = []
    for each in found:
        print(each)  # noqa: T201 - its output
    for entry in clean:
        print(f"{TODO}: {entry} is clean: remove the entry (scripts/prose.py --tidy)")  # noqa: T201 - its output
    return 1 if found or clean else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
