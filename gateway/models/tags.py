"""Tags of devices: what one may look like, and how many a device may have (contract, section 8)."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AfterValidator, Field, StringConstraints

from gateway.models.validation import TAG

MAX_TAGS: Final = 32


def _folded(tags: list[str]) -> list[str]:
    folded = sorted(set(tags))
    if len(folded) > MAX_TAGS:
        raise ValueError(f"should have at most {MAX_TAGS} tags, has {len(folded)}")
    return folded


Tag = Annotated[str, StringConstraints(pattern=TAG)]
Tags = Annotated[list[Tag], AfterValidator(_folded), Field(json_schema_extra={"maxItems": MAX_TAGS})]
"""Tags as they come in; sorted by their bytes, each once."""
TagFilter = Annotated[
    list[Tag],
    Field(
        max_length=MAX_TAGS,
        description="Only devices with this tag. Repeat it for several tags: all must match (`tag=pilot&tag=ward-3`).",
    ),
]
