"""Redaction of secrets in logs, errors and tracebacks (contract, section 1)."""

from __future__ import annotations

import re
from typing import Final

MASK: Final = "********"
CUT: Final = "…"

_SECRET: Final = re.compile(
    r"(dtok_|sk_live_|sk_test_|rk_live_|rk_test_|whsec_|bsec_|mqttpw_|gws_)[A-Za-z0-9_+/=-]{4,}"
)

# A device's MQTT password has no prefix. Its length and the name before it identify it.
_MQTT_PASSWORD: Final = re.compile(
    r"""(?a)((?:assword|ASSWORD)(?:\\?["'])?\s{0,4}[:=]\s{0,4}(?:\\?["'])?)[\w-]{43}(?![\w-])"""
)

# What must be in the text for each pattern to match. Most text has none of it, and this look-up takes a tenth of the
# time. Lengths are bounded and starts anchored, so that hostile text of any length is searched in linear time.
RULES: Final = (
    *((needed, _SECRET, rf"\1{CUT}") for needed in ("dtok_", "k_live_", "k_test_", "sec_", "mqttpw_", "gws_")),
    ("eyJ", re.compile(r"(?<![\w-])eyJ[\w-]{8,}\.[\w-]+\.[\w-]+"), f"eyJ{CUT}"),
    ("$", re.compile(r"\$[67]\$[^\s:]{8,}"), f"$6${CUT}"),
    *((needed, _MQTT_PASSWORD, rf"\1{CUT}") for needed in ("assword", "ASSWORD")),
    (" ", re.compile(r"(?i)\b(bearer|basic) [A-Za-z0-9._~+/=-]{4,}"), rf"\1 {CUT}"),
    # the word in our own examples stays
    (":/", re.compile(r"(:/{1,2}[^\s/:@]{0,128}):(?!PASSWORD@)\S{1,512}@"), rf"\1:{MASK}@"),
)


def redact(text: str) -> str:
    """Return the text without API keys, device tokens, webhook secrets, grants, and passwords (also in URLs).

    At most 8 characters of a token stay: the prefix that names its kind.
    """
    for needed, pattern, instead in RULES:
        if needed in text:
            text = pattern.sub(instead, text)
    return text
