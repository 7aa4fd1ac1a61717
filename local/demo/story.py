"""The demo's story: four models dropped one after the other while users go on asking.

A first model is rolled out at once, a better one step by step; a worse one is rejected by validation; one that
validation cannot see through fails on live traffic and is taken back by itself. What happens is told from what the
admin API and the answers show, never from what was meant to happen.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from local.demo.admin import Admin
from local.demo.digits import PIXELS
from local.demo.errors import DemoError
from local.demo.screen import Screen
from local.demo.stickiness import plans_of
from local.demo.traffic import Traffic
from local.demo.training import Entry
from local.demo.workshop import Workshop
from shared.registry.policy import Policy, ValidationPolicy
from shared.registry.rollout_policy import Gates, RolloutPolicy, Stage, Triggers

MODEL = "digits"
POLICY = Policy(
    # Two cores do everything here, training and validation included: what is slow is slow for both versions.
    validation=ValidationPolicy(latency_floor_ms=100),
    rollout=RolloutPolicy(
        watch_s=0,
        stages=(Stage(weight_bp=1_000, duration_s=5), Stage(weight_bp=5_000, duration_s=5)),
        gates=Gates(p99_ms=10_000),
        triggers=Triggers(p99_ms=10_000),
        tick_s=1,
        min_requests=40,
        failure_limit=2,
        max_stage_s=600,
        load_timeout_s=600,
    ),
)


@dataclass(slots=True, kw_only=True)
class Drop:
    """A model that was dropped: when its upload ended, when its version was seen, and that version."""

    entry: Entry
    uploaded_s: float
    registered_s: float
    version: int
    validation: dict[str, Any] = field(default_factory=dict)


class Story:
    """Tells the story on a running system. `drops` holds what has been dropped so far."""

    def __init__(
        self, *, admin: Admin, screen: Screen, workshop: Workshop, start_traffic: Callable[[], Traffic], server_url: str
    ) -> None:
        """`start_traffic` begins the stream of requests, once there is somebody to answer them."""
        self.drops: dict[Entry, Drop] = {}
        self._admin = admin
        self._screen = screen
        self._workshop = workshop
        self._start_traffic = start_traffic
        self._server_url = server_url
        self._traffic: Traffic | None = None
        self._latest = ""

    @property
    def traffic(self) -> Traffic:
        """The stream of requests. Raises DemoError where it has not begun."""
        if self._traffic is None:
            raise DemoError("the stream of requests has not begun")
        return self._traffic

    def tell(self) -> None:
        """Tell it all. Raises DemoError where it cannot go on."""
        stages = " and ".join(
            f"{stage.weight_bp / 100:g} % for {stage.duration_s:g} s" for stage in POLICY.rollout.stages
        )
        self._admin.put_policy(POLICY)
        self._screen.say(f"policy of model {MODEL}: canary, {stages}, then all")
        self._first()
        self._better()
        self._worse()
        self._faulty()

    def _first(self) -> None:
        self._screen.step("A first model: a random forest that reads handwritten digits")
        drop = self._drop(Entry.FIRST)
        self._must_be(drop, "validated")
        rollout = self._rolled_out(drop)
        if rollout["state"] != "promoted":
            raise DemoError(f"the first rollout ended as {rollout['state']}: {rollout['reason']}")
        self._wait("the model server to answer", self._answers)
        traffic = self._traffic = self._start_traffic()
        first = self._wait("the first answer", lambda: traffic.answers[0] if traffic.answers else None)
        self._screen.good(
            f"version {first.version} answers, {first.answered_s - drop.uploaded_s:.1f} s after its drop; "
            "from now on many users ask without a pause"
        )

    def _better(self) -> None:
        self._screen.step("A better model: gradient boosting, rolled out step by step")
        drop = self._drop(Entry.BETTER)
        self._must_be(drop, "validated")
        before, after = self._accuracy(Entry.FIRST), self._accuracy(Entry.BETTER)
        if after <= before:
            raise DemoError(f"the better model measures {after:.2%} and the first one {before:.2%}: it is not better")
        self._screen.good(f"it measures better: accuracy {after:.2%} after {before:.2%}, on the same validation data")
        self._rolled_out(drop)

    def _worse(self) -> None:
        self._screen.step("A worse model: a decision tree of depth 2")
        drop = self._drop(Entry.WORSE)
        self._must_be(drop, "rejected")
        for verdict in drop.validation["verdicts"]:
            if verdict["outcome"] != "pass":
                self._screen.detail(f"  {verdict['sentence']}")

    def _faulty(self) -> None:
        self._screen.step(
            "A model that validation cannot see through: a graph that errs on images brighter than its data"
        )
        traffic = self.traffic
        drop = self._drop(Entry.FAULTY)
        self._must_be(drop, "validated")
        users = traffic.bring_new_scanner()
        self._screen.say(f"{users} users have got a new scanner meanwhile, whose images are brighter")
        self._rolled_out(drop)
        generation = self._wait("the plan without the candidate to answer", self._latest_generation)
        stood_in = sum(answer.fallback for answer in traffic.answers)
        self._screen.say(
            f"stable answered {stood_in} requests in the candidate's place; {len(traffic.failures)} failed; "
            f"generation {generation} of the plan answers without it"
        )

    def _drop(self, entry: Entry) -> Drop:
        path = self._wait(f"{entry.filename} to be trained", lambda: self._workshop.model(entry))
        name = self._admin.drop(path)
        uploaded_s = time.monotonic()
        self._screen.say(f"dropped incoming/{name} ({path.stat().st_size / 1_000:.0f} kB)")
        version = self._wait(f"{name} to be registered", lambda: self._admin.version_of(name))
        drop = Drop(entry=entry, uploaded_s=uploaded_s, registered_s=time.monotonic(), version=int(version["version"]))
        self.drops[entry] = drop
        self._screen.good(
            f"registered as version {drop.version} after {drop.registered_s - uploaded_s:.1f} s, "
            f"SHA-256 {version['artifact_digest'][:12]}"
        )
        return drop

    def _must_be(self, drop: Drop, state: str) -> None:
        """Wait for validation's word on a version, and tell it. Raises DemoError where it is another one."""

        def decided() -> dict[str, Any] | None:
            version = next(v for v in self._admin.versions() if v["version"] == drop.version)
            return None if version["state"] in {"registered", "validating"} else version

        version = self._wait(f"version {drop.version} to be validated", decided)
        drop.validation = version["validation"]
        metrics = ", ".join(f"{name} {value:.2%}" for name, value in drop.validation["metrics"].items())
        tell = self._screen.good if version["state"] == "validated" else self._screen.bad
        tell(f"{version['state']}: {metrics or 'nothing could be measured'}")
        if version["state"] != state:
            reasons = "; ".join(v["sentence"] for v in drop.validation["verdicts"] if v["outcome"] != "pass")
            raise DemoError(f"version {drop.version} is {version['state']} and should be {state}. {reasons}".strip())

    def _accuracy(self, entry: Entry) -> float:
        return float(self.drops[entry].validation["metrics"]["accuracy"])

    def _rolled_out(self, drop: Drop) -> dict[str, Any]:
        """Follow a version's rollout to its end, telling its stages and what the gates say of them."""
        teller = _RolloutTeller(self._screen)

        def ended() -> dict[str, Any] | None:
            rollout = self._admin.rollout_of(drop.version)
            if rollout is None:
                return None
            self._latest = teller.tell(rollout)
            return rollout if rollout["ended_at"] is not None else None

        rollout = self._wait(f"the rollout of version {drop.version} to end", ended)
        self._latest = ""
        return rollout

    def _latest_generation(self) -> int | None:
        """The latest generation of the plan, once users have answers of it and the audit trail knows it.

        The event that a rollout ended is delivered after its end is seen.
        """
        traffic = self.traffic
        known = max(plans_of(self._admin.endpoint_events()))
        newest = max((answer.generation for answer in traffic.answers[-50:]), default=0)
        return newest if newest == known == self._admin.generation() else None

    def _answers(self) -> bool | None:
        """Whether the server answers a request for an empty image."""
        body = {"model": MODEL, "features": [[0] * PIXELS]}
        response = httpx.post(f"{self._server_url}/predict", json=body, timeout=5, trust_env=False)
        return True if response.is_success else None

    def _wait[T](self, what: str, condition: Callable[[], T | None]) -> T:
        return self._admin.wait_for(what, condition, meanwhile=lambda: self._screen.live(self._live(what)))

    def _live(self, what: str) -> str:
        if self._traffic is None:
            return f"waiting for {what}"
        shares = ", ".join(f"version {version} {share:.0%}" for version, share in self._traffic.shares().items())
        counted = f"{self._traffic.sent} requests, {len(self._traffic.failures)} failed · {shares}"
        return f"{counted} · {self._latest or what}"


class _RolloutTeller:
    """Tells a rollout's course as it is seen: each stage, what the gates say when it turns, and the end."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._stage: tuple[str, int | None] | None = None
        self._tick = 0
        self._outcomes: dict[str, str] = {}

    def tell(self, rollout: dict[str, Any]) -> str:
        """Tell what is new, and return what the gates say now."""
        stage = (rollout["state"], rollout["stage"])
        moved = stage != self._stage
        if rollout["tick"] != self._tick:
            self._tell_verdicts(rollout, all_of_them=moved)
        if moved:
            self._stage, self._outcomes = stage, {}
            self._tell_move(rollout)
        self._tick = rollout["tick"]
        return str(rollout["reason"])

    def _tell_verdicts(self, rollout: dict[str, Any], *, all_of_them: bool) -> None:
        before = self._outcomes
        self._outcomes = {verdict["check"]: verdict["outcome"] for verdict in rollout["verdicts"]}
        for verdict in rollout["verdicts"]:
            is_reason = rollout["ended_at"] is not None and verdict["sentence"] in rollout["reason"]
            if (all_of_them or before.get(verdict["check"]) != verdict["outcome"]) and not is_reason:
                self._screen.detail(f"  {verdict['check']} {verdict['outcome']}: {verdict['sentence']}")

    def _tell_move(self, rollout: dict[str, Any]) -> None:
        state, version = rollout["state"], rollout["version"]
        if state == "loading":
            self._screen.say(f"version {version}: the server loads it, replays its golden rows and warms it up")
        elif state == "progressing":
            self._screen.say(
                f"version {version}: stage {rollout['stage'] + 1} of {len(rollout['stages'])}, "
                f"{rollout['weight_bp'] / 100:g} % of the users"
            )
        elif state == "promoted":
            self._screen.good(f"version {version} is promoted: {rollout['reason']}")
        else:
            self._screen.bad(f"version {version} is taken back ({state}): {rollout['reason']}")
