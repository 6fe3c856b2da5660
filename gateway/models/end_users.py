"""What the API says of a person's data: the answer of an erasure (contract, section 7)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gateway.models.fields import Outbound


class ErasureCounts(Outbound):
    """How much of what was erased; all are 0 where nothing was kept about the person."""

    bindings: int = Field(description="Bindings of devices to the person, deleted.")
    heartbeats: int = Field(description="Heartbeats received during these bindings, deleted.")
    states: int = Field(description="Devices whose newest reported values were the person's: those values, deleted.")
    events: int = Field(description="Events that named the person, where the pseudonym stands now.")
    deliveries: int = Field(description="Ended webhook deliveries of these events, deleted.")
    commands: int = Field(
        description="Final commands of these bindings whose parameters and results were deleted, and others that named "
        "the person, where the pseudonym stands now."
    )
    answers: int = Field(description="Answers kept under an `Idempotency-Key` that named the person, deleted.")
    refused_messages: int = Field(
        description="Refused messages that named the person, or came from a device during these bindings, deleted."
    )


class Mention(Outbound):
    """A place that you or a device filled, and that names the person. The gateway changes nothing there."""

    field: str = Field(description="What names the person, such as `device.metadata` or `webhook.url`.")
    id: str = Field(description="The id of what has this field.")


class Erasure(Outbound):
    """The erasure of an end user."""

    status: Literal["finished", "running"] = Field(
        description="`running`: accepted, and finished by the gateway, also after a restart. Send the request again to "
        "wait for its end."
    )
    pseudonym: str = Field(
        description="What stands in events instead of the id. It is random: nothing resolves it. The event "
        "`end_user.erased` names it."
    )
    counts: ErasureCounts = Field(description="What was erased; until now where it is still running.")
    open_resets: list[str] = Field(
        description="Devices whose reset of this person's binding is still open: they may still hold the person's "
        "recordings."
    )
    mentions: list[Mention] = Field(
        description="At most 100 places that name the person and that only you can change, such as metadata. Empty "
        "while the erasure runs."
    )
    has_more_mentions: bool = Field(description="Whether there are more such places.")
