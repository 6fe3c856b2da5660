"""Text of a run: short names for ids, the plan above, what happened below, and what must not have."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Final

from tests.simulation.plan import Configuration
from tests.simulation.run import Outcome

_COMMAND: Final = re.compile(r"cmd_[0-9A-Z]{26}")
_DEVICE: Final = re.compile(r"dev_[0-9A-Z]{26}")


def format_run(outcome: Outcome) -> str:
    """The whole story."""
    lines = [f"seed {outcome.plan.seed}, {_describe_configuration(outcome.plan.configuration)}", ""]
    lines += [f"  plan  {step}" for step in outcome.plan.steps]
    lines.append("")
    for at, who, what, details in outcome.story:
        facts = " ".join(f"{name}={value}" for name, value in details.items() if value not in ("", None))
        lines.append(f"  {at:8.3f} s  {who:<9} {what} {facts}".rstrip())
    lines += ["", f"  → {outcome.violation}" if outcome.violation else "  → every invariant held"]
    return _shorten_ids("\n".join(lines))


def _describe_configuration(configuration: Configuration) -> str:
    plain = asdict(Configuration())
    changed = [f"{name} {value}" for name, value in asdict(configuration).items() if value != plain[name]]
    return ", ".join(changed) or "default configuration"


def _shorten_ids(text: str) -> str:
    for pattern, form in ((_COMMAND, "command-{}"), (_DEVICE, "device-{}")):
        for number, name in enumerate(dict.fromkeys(pattern.findall(text)), start=1):
            text = text.replace(name, form.format(number))
    return text
