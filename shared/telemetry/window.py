"""A telemetry window: what one pod counted for one endpoint under one generation of the route plan.

A pod closes its window every few seconds and whenever it applies another generation, so a window never mixes two
plans. It is written once, to `telemetry/<endpoint>/<minute>/<pod>-<sequence>`, and never changed. Counts merge by
adding whole numbers: any order and any grouping is counting all at once. Where a bound leaves names out, which ones it
leaves out is no matter of the grouping either. Labels of predictions alone are kept by how frequent they are, where
there are more than shared.telemetry.predictions.MAX_MERGED_KEYS: beyond it a grouping may name others of them.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from fractions import Fraction
from hashlib import blake2b
from typing import Annotated, Any, Self

import msgspec
from msgspec import Meta, field

from shared.core.contracts import Aware, Contract, Count, First
from shared.core.slots import Slot
from shared.telemetry.exact import Exact, NonNegativeExact, keep_exact
from shared.telemetry.feedback import MILLION, FeedbackCounts
from shared.telemetry.histogram import merged
from shared.telemetry.names import window_name
from shared.telemetry.predictions import added

MAX_NAMES = 50
"""Of the names by which overrides are counted."""
OTHERS = "(others)"
_PROCESS = re.compile(r"-([0-9a-f]{6})(?:-[0-9]+)?$")
_FORMER = {"difference": ("difference_millionths", MILLION), "difference_squared": ("squared_millionths", MILLION**2)}
"""What sums of shadows were called as floats: in windows of older servers, and in endpoints of that time."""
_SUMS = ("difference_millionths", "squared_millionths")


class ShadowCounts(Contract, frozen=False, kw_only=True):  # type: ignore[misc] # a server counts in it
    """What became of the copies of requests that a shadow was to get.

    `mirrored` were chosen; of these, `shed` were dropped for want of capacity to spare, `errors` failed, and `compared`
    ran where the request was answered too; of these, `disagreements` gave another first output (another label, or a
    number beyond tolerance). `difference_millionths` sums, over `numbers` compared values, the shadow's value less the
    answer's, rounded to a millionth, and `squared_millionths` its square, in millionths of millionths.
    """

    mirrored: Count = 0
    shed: Count = 0
    errors: Count = 0
    compared: Count = 0
    disagreements: Count = 0
    numbers: Count = 0
    difference_millionths: Exact = 0
    squared_millionths: NonNegativeExact = 0

    def __post_init__(self) -> None:
        """Read sums from text, too. Raises ValidationError."""
        super().__post_init__()
        keep_exact(self, *_SUMS)

    def model_dump_json(self) -> str:
        """As JSON, without spaces, whatever was counted since it was made."""
        keep_exact(self, *_SUMS)
        return super().model_dump_json()

    @classmethod
    def renamed(cls, given: object) -> object:
        """Floats of older servers and stored endpoints, in millionths."""
        if not isinstance(given, Mapping) or not given.keys() & _FORMER.keys():
            return given
        read = dict(given)
        for name, (now_named, scale) in _FORMER.items():
            value = read.get(name)
            if isinstance(value, int | float) and math.isfinite(value):
                read[now_named] = round(Fraction(read.pop(name)) * scale)
        return read

    @property
    def difference(self) -> float:
        """The sum of the differences."""
        return self.difference_millionths / MILLION

    @property
    def difference_squared(self) -> float:
        """The sum of their squares."""
        return self.squared_millionths / MILLION**2


class VersionCounts(Contract, frozen=True, kw_only=True):
    """What happened to the requests that a plan assigned to one version.

    `requests` counts those assigned and tried; `errors` those of them that the version failed (whether or not another
    version then answered); `fallbacks` those that this version answered in place of one that failed, which stand in
    neither of the former; `pinned` those whose caller named the version, which stand in none of the former, and
    `pinned_errors` those of these that it failed. `predictions` counts the first outputs of answered requests, a row
    each: a label under its text, a number under its bucket (shared.telemetry.predictions).
    `overrides` counts the requests whose signed override named the version, by who signed it.
    `latency_ms` holds the milliseconds of assigned requests that the version answered, counted per bucket
    (shared.telemetry.histogram).
    """

    requests: Count = 0
    errors: Count = 0
    fallbacks: Count = 0
    pinned: Count = 0
    pinned_errors: Count = 0
    latency_ms: dict[int, int] = field(default_factory=dict)
    predictions: dict[str, Count] = field(default_factory=dict)
    overrides: dict[str, Count] = field(default_factory=dict)
    shadow: ShadowCounts | None = None


class Deaths(Contract, frozen=True, kw_only=True):
    """Processes in one place that ended unbidden within an hour, under the rollout that the latest of them was in: how
    many, by each version that they had loaded, or were loading.
    """

    rollout_id: str
    processes: dict[int, Count]


class Window(Contract, frozen=True, kw_only=True):
    """One window of one pod. `loaded` names the versions ready to answer, `failed` those it could not load, and why."""

    schema_version: First = 1
    endpoint: str
    pod: str
    sequence: Count
    generation: Count
    started_at: Aware
    ended_at: Aware
    loaded: list[int]
    failed: dict[int, str] = field(default_factory=dict)
    tripped: dict[int, str] = field(default_factory=dict)
    """Versions that this pod's guard took out of traffic under this generation, and why."""
    refused: dict[str, Count] = field(default_factory=dict)
    """Requests that no version ran: `overloaded`, `expired`, `invalid`, `cancelled`; `elsewhere`, where the plan has
    what was asked for in other pods.
    """
    memory_share: Annotated[float, Meta(ge=0)] | None = None
    """The share of its memory limit that the pod used at the window's end; None where it has no limit."""
    deaths: Deaths | None = None
    """The processes before this one in the same place that ended unbidden. They are told again in each window."""
    versions: dict[int, VersionCounts] = field(default_factory=dict)
    feedback: list[FeedbackCounts] = field(default_factory=list)
    """Feedback that came in this window, on predictions of whatever generation, hour and pod."""
    is_last: bool = False
    """Whether the pod stops, as it was told to: nothing comes after it. One that dies does not say so."""
    slot: Slot | None = None
    """The slot that the pod is of. One of none says nothing, so that readers of an older release take its windows."""

    @classmethod
    def decoded(cls, data: bytes | str) -> Self:
        """As of any contract, also of an older server."""
        text = data if isinstance(data, str) else data.decode()
        if any(f'"{name}"' in text for name in _FORMER):
            return cls.model_validate(msgspec.json.decode(text, type=dict[str, Any]))
        return super().decoded(text)

    @classmethod
    def renamed(cls, given: object) -> object:
        """With the sums of its shadows as they are counted now."""
        match given:
            case {"versions": dict(versions), **others}:
                return {**others, "versions": {version: _renamed(counts) for version, counts in versions.items()}}
        return given

    def model_dump_json(self) -> str:
        """As JSON, without spaces."""
        said = {name: getattr(self, name) for name in self.__struct_fields__ if name != "slot" or self.slot}
        return msgspec.json.encode(said, enc_hook=str).decode()


def _renamed(counts: object) -> object:
    match counts:
        case {"shadow": shadow, **others}:
            return {**others, "shadow": ShadowCounts.renamed(shadow)}
    return counts


def window_blob_name(endpoint: str, ended_at: datetime, pod: str, sequence: int) -> str:
    """Where a window is stored, within the telemetry container, by the minute of its end (shared.telemetry.names)."""
    return window_name(endpoint, ended_at, pod, sequence)


def host_of(pod: str) -> str:
    """The place of a process, by the name that it has in its windows: that of `host-5f3a9c-0` is `host`."""
    return _PROCESS.sub("", pod)


def start_of(pod: str) -> str:
    """What tells the starts in a place apart, by the name of a process of it; empty where the name does not say."""
    found = _PROCESS.search(pod)
    return found[1] if found else ""


def merge_counts(counts: list[VersionCounts]) -> VersionCounts:
    """The sum of counts."""
    return VersionCounts(
        requests=sum(c.requests for c in counts),
        errors=sum(c.errors for c in counts),
        fallbacks=sum(c.fallbacks for c in counts),
        pinned=sum(c.pinned for c in counts),
        pinned_errors=sum(c.pinned_errors for c in counts),
        latency_ms=merged(c.latency_ms for c in counts),
        predictions=added(c.predictions for c in counts),
        overrides=added_names(c.overrides for c in counts),
        shadow=_merge_shadows([c.shadow for c in counts if c.shadow is not None]),
    )


def added_names(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sum of counts by name. Of more than MAX_NAMES some are kept, and the others counted together.

    Those are kept whose hash is least: a name that is among them in the sum is so in each of its parts, which have
    therefore not counted it with the others.
    """
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    if len(total) <= MAX_NAMES:
        return dict(total)
    names = sorted((name for name in total if name != OTHERS), key=_hash)[: MAX_NAMES - 1]
    kept = {name: total[name] for name in names}
    return kept | {OTHERS: total.total() - sum(kept.values())}


def _hash(name: str) -> tuple[bytes, str]:
    return blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), name


def _merge_shadows(counts: list[ShadowCounts]) -> ShadowCounts | None:
    if not counts:
        return None
    return ShadowCounts(**{name: sum(getattr(one, name) for one in counts) for name in ShadowCounts.__struct_fields__})
