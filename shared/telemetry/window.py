"""A telemetry window: what one pod counted for one endpoint under one generation of the route plan.

A pod closes its window every few seconds and whenever it applies another generation, so a window never mixes two
plans. It is written once, to `telemetry/<endpoint>/<hour>/<pod>-<sequence>`, and never changed. Counts merge by adding.
"""

from datetime import UTC, datetime

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, NonNegativeInt

from shared.telemetry.histogram import merged


class VersionCounts(BaseModel):
    """What happened to the requests that a plan assigned to one version.

    `requests` counts those assigned and tried; `errors` those of them that the version failed (whether or not another
    version then answered); `fallbacks` those that this version answered in place of one that failed, which stand in
    neither of the former; `pinned` those whose caller named the version, which stand in none of the former.
    `latency_ms` holds the milliseconds of assigned requests that the version answered, counted per bucket
    (shared.telemetry.histogram).
    """

    model_config = ConfigDict(extra="forbid")

    requests: NonNegativeInt = 0
    errors: NonNegativeInt = 0
    fallbacks: NonNegativeInt = 0
    pinned: NonNegativeInt = 0
    latency_ms: dict[int, int] = Field(default_factory=dict)


class Window(BaseModel):
    """One window of one pod. `loaded` names the versions ready to answer, `failed` those it could not load, and why."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = Field(default=1, ge=1, le=1)
    endpoint: str
    pod: str
    sequence: NonNegativeInt
    generation: NonNegativeInt
    started_at: AwareDatetime
    ended_at: AwareDatetime
    loaded: list[int]
    failed: dict[int, str] = Field(default_factory=dict)
    versions: dict[int, VersionCounts] = Field(default_factory=dict)


def window_blob_name(endpoint: str, ended_at: datetime, pod: str, sequence: int) -> str:
    """Where a window is stored, within the telemetry container. The hour is that of its end, in UTC."""
    return f"{endpoint}/{ended_at.astimezone(UTC):%Y-%m-%dT%H}/{pod}-{sequence:010d}.json"


def merge_counts(counts: list[VersionCounts]) -> VersionCounts:
    """The sum of counts."""
    return VersionCounts(
        requests=sum(c.requests for c in counts),
        errors=sum(c.errors for c in counts),
        fallbacks=sum(c.fallbacks for c in counts),
        pinned=sum(c.pinned for c in counts),
        latency_ms=merged(c.latency_ms for c in counts),
    )
