"""The prose check: what it finds, what it leaves out, and its list of files that are not clean yet."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "prose.py"
LONG = " ".join(["Word"] + ["word"] * 30) + "."


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prose_check", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


prose = _load()


def _lines(path: str, source: str) -> list[int]:
    return [found.line for found in prose.findings(path, source)]


@pytest.mark.parametrize("sentence", ["It starts anew.", "Nobody reads it.", "The broker tells it.", LONG])
def test_a_finding_names_file_line_rule_and_sentence(sentence: str) -> None:
    """One finding a sentence, on the line where its paragraph starts."""
    (found,) = prose.findings("docs/a.md", f"# Title\n\nA clean one. {sentence}\n")
    assert (found.path, found.line, found.sentence) == ("docs/a.md", 3, sentence)
    assert found.rule in str(found)


@pytest.mark.parametrize(
    "text",
    [
        f"```\n{LONG} anew\n```\n",
        f"    - `{LONG} anew`\n",
        f"1. A step:\n\n       {LONG} anew\n\n2. The next.\n",
        "A [page](anew.md) at https://anew.example/anew holds it.\n",
        "Thirty words here. " * 10,
        " ".join(["- four words an item\n"] * 10),
        "| a | b |\n|---|---|\n" + "| ten words and ten more | again ten words and more |\n" * 5,
    ],
)
def test_code_urls_and_separate_items_are_no_findings(text: str) -> None:
    """Code is left out; list items, cells and sentences are counted apart."""
    assert _lines("docs/a.md", text) == []


def test_python_docstrings_comments_and_help_are_checked() -> None:
    """Each with its line; other strings and directives are not prose."""
    source = (
        '"""Starts anew."""\n'
        'x = "anew"\n'
        "y = 1  # noqa: S101 - begins anew\n"
        "# a comment that goes on\n# and begins anew\n"
        'field = Field(description="Begins " "anew.")\n'
        'def f():\n    """First.\n\n    Args:\n        one: Is\n            anew.\n    """\n'
    )
    assert _lines("gateway/a.py", source) == [1, 3, 4, 6, 8]


def test_tests_are_checked_for_banned_words_in_docstrings_alone() -> None:
    """A long docstring or a comment of a test is not a finding."""
    assert _lines("tests/test_a.py", f'"""{LONG}"""\n# anew\n') == []
    assert _lines("tests/test_a.py", '"""Begins anew."""\n') == [1]


def test_the_list_may_only_shrink(tmp_path: Path) -> None:
    """A listed file may be unclean; one that is clean or gone is an error, and tidying removes it."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "README.md").write_text("It begins anew.\n")
    (tmp_path / "CHANGELOG.md").write_text("It begins again.\n")
    (tmp_path / prose.TODO).write_text("# why\nREADME.md\nCHANGELOG.md\ndocs/gone.md\n")
    found, clean = prose.check(tmp_path, prose.read_todo(tmp_path))
    assert (found, clean) == ([], ["CHANGELOG.md", "docs/gone.md"])
    prose.tidy(tmp_path, clean)
    assert prose.read_todo(tmp_path) == ["README.md"]
    assert [each.path for each in prose.check(tmp_path, [])[0]] == ["README.md"]
