"""Timeline of the demo: what happened, what was observed, and whether that was expected."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any, Final

from rich.console import Console
from rich.markup import escape

from gateway.core.text import as_called

_NEXT: Final = (
    ("demo --keep-running", "a gateway with three devices alive, its page, a key and a curl line"),
    ("serve", "a gateway of your own, with its broker, on this machine"),
    ("docs start", "the same by hand, in two minutes"),
    ("docs firmware", "what a device has to do; 'docs' alone lists all pages"),
)


@dataclass
class Timeline:
    """Prints each line at once, or keeps all of them for one JSON document at the end."""

    as_json: bool = False
    checks: list[dict[str, Any]] = field(default_factory=list)
    entries: list[dict[str, Any]] = field(default_factory=list)
    _console: Console = field(default_factory=lambda: Console(highlight=False, soft_wrap=True))
    _began: float = field(default_factory=time.monotonic)

    def chapter(self, title: str) -> None:
        """Begin a new part."""
        self._keep("chapter", title)
        self._print(f"\n[bold]{escape(title)}[/bold]")

    def tell(self, who: str, text: str) -> None:
        """Report that something happened."""
        self._keep("event", text, who=who)
        self._print(f"{self._clock()}  [cyan]{escape(who):<9}[/cyan] {escape(text)}")

    def check(self, name: str, *, ok: bool, saw: str) -> None:
        """Report an observation from outside. The demo fails unless all are as expected."""
        self.checks.append({"check": name, "ok": ok, "saw": saw})
        self._keep("check", name, ok=ok, saw=saw)
        mark = "[green]✓[/green]" if ok else "[bold red]✗[/bold red]"
        self._print(f"{self._clock()}  {mark}         {escape(name)}: [dim]{escape(saw)}[/dim]")

    @property
    def passed(self) -> bool:
        """Return whether every observation was as expected."""
        return bool(self.checks) and all(check["ok"] for check in self.checks)

    def end(self) -> None:
        """Print the summary."""
        seconds = time.monotonic() - self._began
        good = sum(check["ok"] for check in self.checks)
        if self.as_json:
            document = {
                "ok": self.passed,
                "seconds": round(seconds, 2),
                "checks": self.checks,
                "timeline": self.entries,
            }
            self._console.file.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
            return
        colour = "green" if self.passed else "red"
        self._print(
            f"\n[bold {colour}]{good} of {len(self.checks)} observations as they have to be[/] in {seconds:.1f} s"
        )
        if self.passed:
            self._print_next_steps()

    def _print_next_steps(self) -> None:
        program = escape(as_called())
        self._print("\n[bold]What next[/bold]")
        for command, purpose in _NEXT:
            self._print(f"  {program} {command:<20} [dim]{purpose}[/dim]")

    def _clock(self) -> str:
        return f"[dim]{time.monotonic() - self._began:6.2f}s[/dim]"

    def _keep(self, kind: str, text: str, **facts: Any) -> None:
        self.entries.append(
            {"at_seconds": round(time.monotonic() - self._began, 3), "kind": kind, "text": text, **facts}
        )

    def _print(self, text: str) -> None:
        if not self.as_json:
            self._console.print(text)
