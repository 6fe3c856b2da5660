"""A run as people can read it: short names for ids, the plan above, what happened below, and what must not have."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Final

from tests.simulation.plan import Surroundings
from tests.simulation.run import Outcome

_COMMAND: Final = re.compile(r"cmd_[0-9A-Z]{26}")
_DEVICE: Final = re.compile(r"dev_[0-9A-Z]{26}")


def told(outcome: Outcome) -> str:
    """The whole story."""
    lines = [f"seed {outcome.plan.seed}, {_different(outcome.plan.surroundings)}", ""]
    lines += [f"  plan  {step}" for step in outcome.plan.steps]
    lines.append("")
    for at, who, what, details in outcome.story:
        facts = " ".join(f"{name}={value}" for name, value in details.items() if value not in ("", None))
        lines.append(f"  {at:8.3f} s  {who:<9} {what} {facts}".rstrip())
    lines += ["", f"  → {outcome.violation}" if outcome.violation else "  → every invariant held"]
    return _short("\n".join(lines))


def _different(surroundings: Surroundings) -> str:
    plain = asdict(Surroundings())
    odd = [f"{name} {value}" for name, value in asdict(surroundings).items() if value != plain[name]]
    return ", ".join(odd) or "plain surroundings"


def _short(text: str) -> str:
    for pattern, form in ((_COMMAND, "command-{}"), (_DEVICE, "device-{}")):
        for number, name in enumerate(dict.fromkeys(pattern.findall(text)), start=1):
            text = text.replace(name, form.format(number))
    return text
