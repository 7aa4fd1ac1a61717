"""Convergence: which of the pods that report have applied a plan, which cannot, and which have fallen silent.

A pod that stops reporting is not one that fails: it may have been scaled away, and nobody waits for it. A pod that
reports and does not apply is waited for; one that says it cannot load a version has failed. The pods given are those
of the slots that the plan has versions in: nobody waits for one that has no part in it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from math import ceil

from shared.core.slots import Slot
from shared.rollout.progress import FORGOTTEN, PodSeen

FRESH_S = 30.0
"""A pod whose latest window ended longer ago than this has fallen silent."""
_GONE_S = 300.0
"""A pod that has been silent for longer was scaled away, as far as a rolling rollout is concerned."""
SENT_S = 60.0
"""Pods that were sent no request for as long are sent none any more, as far as can be told: of little traffic many
windows have none.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Convergence:
    """How far the pods have applied a generation, and have the versions that it names ready."""

    versions: tuple[int, ...]
    """Those that must be ready."""
    reporting: tuple[str, ...]
    ready: tuple[str, ...]
    failing: Mapping[str, str]
    """Pods that cannot load a version, and why."""
    silent: tuple[str, ...]
    is_reached: bool
    """Whether of each slot the quorum is ready, and at least one pod of that in which versions must be."""
    slot: Slot | None = None
    """In which they must be ready; the pods of another must have applied the plan."""
    is_missing: bool = False
    """Whether no pod of that slot reports."""

    @property
    def healthy_share(self) -> float | None:
        """The share of the pods that report that are ready; None where none reports."""
        return len(self.ready) / len(self.reporting) if self.reporting else None

    @property
    def sentence(self) -> str:
        """How things stand, in words."""
        named = " and ".join(f"version {version}" for version in self.versions)
        if named and self.slot is not None and self.is_missing:
            return (
                f"no pod of slot {self.slot} reports, in which {named} is to be: deploy the endpoint's pods of that "
                "slot, or roll out with placement shared (docs/kubernetes.md, Dedicated pods)"
            )
        done = f"have {named} ready" if named else "have applied the plan"
        if named and self.slot is not None:
            done = f"have applied the plan, those of slot {self.slot} with {named} ready"
        said = f"{len(self.ready)} of {len(self.reporting)} pods that report {done}"
        if self.failing:
            pod, why = next(iter(self.failing.items()))
            said += f"; pod {pod} cannot load {named}: {why}"
        return f"{said}; {len(self.silent)} fell silent" if self.silent else said


def convergence(
    pods: Mapping[str, PodSeen],
    *,
    generation: int,
    versions: tuple[int, ...],
    quorum: float,
    now: datetime,
    slots: Collection[Slot | None] = (None,),
    slot: Slot | None = None,
) -> Convergence:
    """How far the pods are. `versions` are those that must be ready, in the pods of `slot`; `slots` are those of the
    pods given, which must all have applied the generation.
    """
    reporting = fresh(pods, now)
    silent = tuple(sorted(n for n, s in pods.items() if n not in reporting and _age(s, now) <= FORGOTTEN))
    applied = {name: pods[name] for name in reporting if pods[name].generation >= generation}
    ready = tuple(
        sorted(name for name, seen in applied.items() if seen.slot is not slot or set(versions) <= set(seen.loaded))
    )
    failing = {
        name: "; ".join(applied[name].failed[v] for v in versions if v in applied[name].failed)
        for name in sorted(applied)
        if set(versions) & set(applied[name].failed)
    }
    of_slot = {one: [name for name in reporting if pods[name].slot is one] for one in {*slots, slot}}
    lacking = [
        one
        for one, names in of_slot.items()
        if len(set(names) & set(ready)) < max(one is slot, ceil(quorum * len(names) - 1e-9))
    ]
    return Convergence(
        versions=versions,
        reporting=reporting,
        ready=ready,
        failing=failing,
        silent=silent,
        is_reached=not lacking,
        slot=slot,
        is_missing=not of_slot[slot],
    )


def applied(pods: Mapping[str, PodSeen], generation: int, now: datetime) -> tuple[str, ...]:
    """The pods that said that they have applied a generation, however long ago; none while one is to be waited for.

    That is one that reports and has not applied it; where none reports, also one that fell silent before it had.
    """
    done = tuple(sorted(name for name, seen in pods.items() if seen.generation >= generation))
    known = fresh(pods, now) or tuple(name for name, seen in pods.items() if _age(seen, now) <= FORGOTTEN)
    return done if set(known) <= set(done) else ()


def still_sent(pods: Mapping[str, PodSeen], slots: Collection[Slot | None], now: datetime) -> tuple[str, ...]:
    """The pods of other slots than those that were sent requests within a minute: the Gateway has not heard that the
    plan has nothing for them. They may write no window without requests, so that one that is silent is not gone.
    """
    return tuple(
        name
        for name, seen in sorted(pods.items())
        if seen.slot not in slots and seen.late_at is not None and (now - seen.late_at).total_seconds() < SENT_S
    )


def lingering(pods: Mapping[str, PodSeen], slots: Collection[Slot | None], now: datetime) -> tuple[str, ...]:
    """The pods that report, of other slots than those, that go on with a version in case the Gateway has not heard."""
    return tuple(name for name in fresh(pods, now) if pods[name].slot not in slots and pods[name].loaded)


def fresh(pods: Mapping[str, PodSeen], now: datetime) -> tuple[str, ...]:
    """The pods that report, in order."""
    return tuple(sorted(name for name, seen in pods.items() if _age(seen, now) <= timedelta(seconds=FRESH_S)))


def unavailable(found: Convergence, pods: Mapping[str, PodSeen], now: datetime) -> tuple[str, ...]:
    """The pods that a rolling rollout misses: those that cannot load a version, and those that fell silent lately.

    Whether a pod crashed or was scaled away is not kept here: after five minutes it is not missed any more.
    """
    missed = [name for name in found.silent if _age(pods[name], now) <= timedelta(seconds=_GONE_S)]
    return tuple(sorted({*missed, *found.failing}))


def chosen(pods: tuple[str, ...], share_bp: int, salt: str, *, keep: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The pods of a share, rounded up: those of `keep` first, so that a larger share takes none of them away.

    Of one salt a larger share of the same pods holds every pod of a smaller one.
    """
    kept = set(keep)

    def rank(pod: str) -> tuple[bool, bytes]:
        return pod not in kept, blake2b(f"{salt}\0{pod}".encode(), digest_size=8).digest()

    return tuple(sorted(sorted(pods, key=rank)[: ceil(len(pods) * share_bp / 10_000)]))


def _age(seen: PodSeen, now: datetime) -> timedelta:
    return now - seen.at
