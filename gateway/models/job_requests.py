"""Jobs: the body that creates one (contract, section 8)."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    create_model,
    model_validator,
)

from gateway.core.command_types import CommandType
from gateway.core.visible_text import visible_not_blank
from gateway.models.devices import ListDevices
from gateway.models.fields import Inbound, Instant, Label, LiteralOf, Params, Text
from gateway.models.resets import Reason, names_no_one

MOST_TARGETS: Final = 100_000
MOST_PER_MINUTE: Final = 60_000
CONFIRMED_ABOVE: Final = 100
"""A factory reset of more devices than this must be confirmed by their count."""
DEFAULT_TTL_SECONDS: Final = 300
_PAGE_FIELDS: Final = frozenset({"limit", "cursor", "offset", "sort", "order", "total"})


def _action(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


_ActionType = Annotated[str, LiteralOf(CommandType)]


class JobAction(Inbound):
    """What is done to each device: a factory reset, or a command."""

    type: _ActionType = Field(description="`factory_reset`, or the type of a command.")
    params: Annotated[
        Params | None,
        Field(description="Of a factory reset: `recordings` (`keep` or `wipe`). Otherwise as of a single command."),
    ] = None
    ttl_seconds: Annotated[
        int | None,
        Field(ge=1, le=86_400, description="Seconds until a command expires, from its turn on; 300 unless given."),
    ] = None

    @model_validator(mode="after")
    def _is_possible(self) -> JobAction:
        if self.type == CommandType.SET_GRANT_KEY:
            raise ValueError(
                "should not be set_grant_key, which the gateway alone sends. Run 'gateway signing-keys deliver' instead"
            )
        if self.type != CommandType.FACTORY_RESET:
            return self
        if self.ttl_seconds is not None:
            raise ValueError("should have no ttl_seconds: a factory reset does not expire. Leave ttl_seconds out")
        unknown = set(self.params or {}) - {"recordings"}
        if unknown or (self.params or {}).get("recordings", "keep") not in ("keep", "wipe"):
            raise ValueError("should have params of a factory reset: 'recordings' with 'keep' or 'wipe', nothing else")
        return self


JobFilter: Final[type[BaseModel]] = create_model(
    "JobFilter",
    __config__=ConfigDict(frozen=True, extra="forbid"),
    __doc__="Filters of the list of devices. A device that passes all of them is a target.",
    **{  # type: ignore[call-overload]  # the fields of another model
        name: (field.rebuild_annotation(), field)
        for name, field in ListDevices.model_fields.items()
        if name not in _PAGE_FIELDS
    },
)


class JobTargets(Inbound):
    """The devices of a job: listed, or all that pass a filter."""

    device_ids: Annotated[
        list[Label] | None,
        Field(
            min_length=1,
            max_length=MOST_TARGETS,
            description="Ids of devices. One that is there twice counts once; an unknown one is `skipped`.",
        ),
    ] = None
    filter: Annotated[
        JobFilter | None,  # type: ignore[valid-type]  # made above
        Field(description="Filters as of `GET /v1/devices`; `{}` is every device of the project."),
    ] = None

    @model_validator(mode="after")
    def _is_one_of_both(self) -> JobTargets:
        if (self.device_ids is None) == (self.filter is None):
            raise ValueError("should have either device_ids or filter. Leave one of them out")
        return self

    @property
    def query(self) -> ListDevices:
        """Return the filter as the query of a list."""
        filters: BaseModel | None = self.filter
        return ListDevices.model_validate({} if filters is None else filters.model_dump(exclude_unset=True))


class JobRamp(Inbound):
    """A slow start."""

    from_per_minute: Annotated[int, Field(ge=1, le=MOST_PER_MINUTE, description="Devices per minute at the start.")]
    double_after: Annotated[
        int, Field(ge=1, le=86_400, description="Seconds after which the rate doubles, until it is `per_minute`.")
    ]


class JobPace(Inbound):
    """How fast targets get their turns."""

    per_minute: Annotated[
        int | None,
        Field(
            ge=1,
            le=MOST_PER_MINUTE,
            description="Devices per minute. Unless given: 60 times the setting `bulk_reset_per_second`.",
        ),
    ] = None
    ramp: Annotated[JobRamp | None, Field(description="A slow start; without it the full pace from the start.")] = None


class JobAbort(Inbound):
    """When a job stops by itself."""

    failed_percent: Annotated[
        int, Field(ge=1, le=100, description="Abort when so many percent of the executed and failed ones have failed.")
    ] = 10
    min_done: Annotated[
        int, Field(ge=1, le=MOST_TARGETS, description="Not before so many have been executed or have failed.")
    ] = 20


JobName = Annotated[
    Text,
    StringConstraints(min_length=1, max_length=128),
    AfterValidator(visible_not_blank),
    AfterValidator(names_no_one),
]
_ABORT: Final = JobAbort()
_PACE: Final = JobPace()


class CreateJob(Inbound):
    """Body of ``POST /jobs``."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "Recall 12",
                    "action": {"type": "factory_reset", "params": {"recordings": "keep"}},
                    "targets": {"filter": {"status": "bound", "model": "bota_pin"}},
                    "pace": {"per_minute": 600, "ramp": {"from_per_minute": 10, "double_after": 60}},
                    "abort": {"failed_percent": 5, "min_done": 20},
                    "dry_run": True,
                }
            ]
        }
    )

    name: Annotated[JobName, Field(description="For people; visible text. Do not name a person here.")]
    action: Annotated[
        JobAction,
        BeforeValidator(_action, json_schema_input_type=JobAction | _ActionType),
        Field(description='What is done to each device. The type alone is short for it: `"factory_reset"`.'),
    ]
    targets: Annotated[JobTargets, Field(description="To which devices. They are fixed when the job is created.")]
    reason: Reason = None
    start_at: Annotated[Instant | None, Field(description="When it starts (RFC 3339); null or left out: at once.")] = (
        None
    )
    pace: Annotated[JobPace, Field(description="How fast.")] = _PACE
    abort: Annotated[
        JobAbort | None,
        Field(description="When it stops by itself; 10 percent of at least 20 unless given; null: never."),
    ] = _ABORT
    confirm_count: Annotated[
        int | None,
        Field(
            ge=0,
            description="The number of targets that you mean. A factory reset of more than 100 devices needs it; "
            "where it differs from what is found, nothing is done.",
        ),
    ] = None
    dry_run: Annotated[bool, Field(description="Say what would happen, and change nothing.")] = False
