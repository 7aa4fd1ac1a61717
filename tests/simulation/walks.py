"""Random lives of an endpoint: starts, commands, ticks over random windows, and what must hold after each."""

import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from shared.core.errors import SlipwayError
from shared.core.messages import CommandKind, RolloutCommand
from shared.core.verdict import Outcome, joined
from shared.registry.rollout_policy import Gates, Otherwise, RolloutPolicy, Stage, Strategy
from shared.rollout import commands, steps, ticks
from shared.rollout.decide import decide
from shared.rollout.documents import Rollout
from shared.rollout.endpoint import Endpoint
from shared.rollout.machine import COMMANDS, RolloutState
from shared.rollout.schedule import QuietStage
from shared.routing.plan import Role, RoutePlan
from shared.store.aggregate import PublishEntry
from shared.store.ports import BlobContainer
from shared.telemetry.window import ShadowCounts, Window
from tests.unit.rollout.evidence import counted, target

ONWARD = {RolloutState.PROGRESSING, RolloutState.AWAITING, RolloutState.WATCHING, RolloutState.PROMOTED}


@dataclass
class Walk:
    """One endpoint's random life."""

    rng: random.Random
    endpoint: Endpoint = field(default_factory=lambda: Endpoint(endpoint="digits"))
    now: datetime = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
    version: int = 0
    count: int = 0
    sequence: int = 0
    given: list[RolloutCommand] = field(default_factory=list)
    ready_for: set[int] = field(default_factory=set)
    """Versions that every pod that reported had ready, at some tick of their rollout."""
    seen: set[RolloutState] = field(default_factory=set)
    refused: int = 0
    edits: int = 0
    """Ticks and commands that changed the endpoint."""
    served: Counter[int] = field(default_factory=Counter)
    """The candidate's requests, or copies, by the plan's generation."""
    idle_share: float = 0.1
    latest: dict[str, Window] = field(default_factory=dict)
    """Of each pod, since the rollout began."""

    def step(self) -> None:
        """Do one thing, and see that all holds."""
        self.now += timedelta(seconds=self.rng.choice([1, 5, 30, 100]))
        before = self.endpoint.rollout.state if self.endpoint.rollout else None
        if self.endpoint.active is None and self.rng.random() < 0.5:
            self._start()
        elif self.endpoint.ticking is not None and self.rng.random() < 0.6:
            self._tick()
        else:
            self._command()
        self._check_plans(before)
        self._check_rollback()
        if self.endpoint.rollout:
            self.seen.add(self.endpoint.rollout.state)

    def _start(self) -> None:
        self.version += 1
        self.latest, self.idle_share = {}, self.rng.choice([0.05, 0.95])
        policy = self._policy()
        rollout = Rollout(
            rollout_id=f"rollout-{self.version:06d}",
            command_id=f"start-{self.version}",
            candidate=target(self.version),
            stable=None,
            policy=policy,
            started_at=self.now,
            published_at=self.now,
            next_tick_at=self.now,
            requested_by="ann",
        )
        steps.begin(self.endpoint, rollout, self.now)

    def _policy(self) -> RolloutPolicy:
        weights = sorted(self.rng.sample(range(100, 10_000), self.rng.randint(1, 3)))
        stages = tuple(
            Stage(weight_bp=weight, duration_s=self.rng.choice([1, 60]), approval=self.rng.random() < 0.3)
            for weight in weights
        )
        return RolloutPolicy(
            strategy=self.rng.choice(list(Strategy)),
            stages=stages,
            shadow_then=self.rng.choice([None, Strategy.CANARY]),
            shadow_s=10,
            watch_s=self.rng.choice([0, 60]),
            switch_approval=self.rng.random() < 0.3,
            max_stage_s=200,
            load_timeout_s=300,
            min_requests=10,
            gates=Gates(level=0.5),
            quorum=self.rng.choice([0.5, 1.0]),
            on_inconclusive=self.rng.choice(list(Otherwise)),
            on_load_failure=self.rng.choice(list(Otherwise)),
        )

    def _windows(self) -> list[Window]:
        """What the pods report: mostly of the plan in force, mostly healthy, sometimes nothing."""
        plan = self.endpoint.plan()
        assert plan is not None
        self.sequence += 1
        found = []
        for pod in ("a", "b"):
            if self.rng.random() < 0.1:
                continue
            behind = self.rng.random() < 0.1
            routes = plan.for_pod(pod).routes
            failing = [route.version for route in routes if self.rng.random() < 0.01]
            idle = self.rng.random() < self.idle_share
            bad = self.rng.random() < 0.05
            counts = {}
            for route in routes:
                requests = 0 if idle else route.weight_bp // 10
                errors = requests // 2 if bad and route.role is Role.CANDIDATE else 0
                mirrored = 0 if idle else route.mirror_bp // 10
                counts[route.version] = counted(
                    requests, errors, shadow=ShadowCounts(mirrored=mirrored, compared=mirrored)
                )
            found.append(
                Window(
                    endpoint="digits",
                    pod=pod,
                    sequence=self.sequence,
                    generation=plan.generation - behind,
                    started_at=self.now - timedelta(seconds=1),
                    ended_at=self.now,
                    loaded=[route.version for route in routes if route.version not in failing],
                    failed=dict.fromkeys(failing, "it does not fit"),
                    tripped={route.version: "it hangs" for route in routes if self.rng.random() < 0.005},
                    versions=counts,
                )
            )
        return found

    def _tick(self) -> None:
        endpoint, rollout = self.endpoint, self.endpoint.rollout
        assert rollout is not None
        windows = self._windows()
        rollout.tick += 1
        rollout.progress = ticks.took_in(rollout, windows, endpoint.generation, now=self.now)
        ticks.confirm_rollback(endpoint, rollout, self.now)
        if rollout.state.is_over:
            return
        candidate = rollout.candidate.version
        for window in windows:
            before = self.latest.get(window.pod, window)
            is_late = window.generation < before.generation
            told = before if is_late else window
            self.latest[window.pod] = told.model_copy(update={"ended_at": window.ended_at})
        fresh = [w for w in self.latest.values() if self.now - w.ended_at <= timedelta(seconds=30)]
        ready = [w for w in fresh if candidate in w.loaded and w.generation == endpoint.generation]
        if len(ready) >= max(1, rollout.policy.quorum * len(fresh)):
            self.ready_for.add(candidate)
        self.edits += 1
        for window in windows:
            counts = window.versions.get(candidate)
            if counts is not None:
                self.served[window.generation] += counts.requests + (counts.shadow.compared if counts.shadow else 0)
        state, stage, generation = rollout.state, rollout.stage, endpoint.generation
        is_preview = isinstance(rollout.current, QuietStage) and not rollout.mirror_bp
        least = 0 if state is RolloutState.LOADING or is_preview else rollout.least_requests
        decision = decide(rollout, self.now)
        ticks.apply(endpoint, rollout, decision, self.now)
        is_onward = rollout.state in ONWARD and (rollout.state, rollout.stage) != (state, stage)
        if is_onward:
            assert joined(decision.verdicts) is Outcome.PASS, (state, rollout.state, decision)
            assert self.served[generation] >= least, (state, rollout.state, decision)

    def _command(self) -> None:
        kinds = [kind for kind in CommandKind if kind is not CommandKind.START]
        self.count += 1
        command = RolloutCommand(
            command=self.rng.choice(kinds),
            command_id=f"command-{self.count}",
            endpoint="digits",
            version=self.rng.choice([None, self.rng.randint(1, max(1, self.version))]),
            requested_by=self.rng.choice(["bob", "cy"]),
            weight_bp=self.rng.choice([0, 77, 1_000, 9_999, 10_000]),
        )
        if self.given and self.rng.random() < 0.2:
            command = self.rng.choice(self.given)
        self._give(command)

    def _give(self, command: RolloutCommand) -> None:
        was_heard = self.endpoint.has_heard(command)
        rollout = self.endpoint.rollout
        state = rollout.state if rollout else None
        before = self.endpoint.model_dump_json()
        changed = self._carried_out(command)
        if not changed:
            assert self.endpoint.model_dump_json() == before, command
            self.refused += not was_heard
            return
        assert rollout is not None
        assert not was_heard, command
        after = self.endpoint.model_dump_json()
        assert commands.apply(self.endpoint, command, self.now) is False
        assert self.endpoint.model_dump_json() == after
        self.given.append(command)
        self.edits += 1
        if rollout.state is not state and rollout.state in {RolloutState.WATCHING, RolloutState.PROMOTED}:
            assert rollout.promoted_by or rollout.approvals, command

    def _carried_out(self, command: RolloutCommand) -> bool:
        """Whether a command had an effect; one that the state does not hear is refused by the names of both."""
        rollout = self.endpoint.rollout
        try:
            return commands.apply(self.endpoint, command, self.now)
        except SlipwayError as error:
            said = str(error)
        if rollout and rollout.state not in COMMANDS[command.command]:
            assert f"a rollout that is {rollout.state} does not hear {command.command}" in said
        return False

    def _check_plans(self, before: RolloutState | None) -> None:
        """Every plan that went out is coherent, and the last one is what the state calls for."""
        published = [e for e in self.endpoint.outbox if isinstance(e, PublishEntry)]
        plans = [RoutePlan.model_validate(e.body) for e in published if e.container is BlobContainer.ROUTES]
        for plan in plans:
            total = sum(route.weight_bp for route in plan.routes)
            assert total == (10_000 if plan.stable else 0), plan
            for route in plan.routes:
                if route.role is Role.CANDIDATE and route.weight_bp:
                    assert route.version in self.ready_for, (before, plan)
                if route.weight_bp and route.role is not Role.STABLE:
                    assert not self.endpoint.is_quarantined(route.version) or plan != plans[-1]
        if plans:
            self.last_plan = plans[-1]
        assert self.endpoint.generation == 0 or self.last_plan == self.endpoint.plan()
        self.endpoint.strike({entry.number for entry in self.endpoint.outbox})

    def _check_rollback(self) -> None:
        """From every state a rollback leaves a version serving that is not known to fail, and no candidate."""
        rollout = self.endpoint.rollout
        if rollout is None:
            return
        copy = Endpoint.from_body(self.endpoint.to_body())
        fallback = copy.fallback
        if rollout.state.is_over and (copy.stable is None or fallback is None):
            return
        is_meant = rollout.state is RolloutState.PROMOTED and copy.stable == rollout.candidate
        named = fallback.version if rollout.state.is_over and not is_meant and fallback else None
        command = RolloutCommand(
            command=CommandKind.ROLLBACK, command_id="now", endpoint="digits", version=named, requested_by="dee"
        )
        assert commands.apply(copy, command, self.now)
        plan = copy.plan()
        assert plan is not None
        assert plan.candidate is None
        assert copy.rollback is not None
        assert copy.is_quarantined(copy.rollback.from_version)
        if plan.stable is not None:
            assert plan.stable.weight_bp == 10_000
            assert not copy.is_quarantined(plan.stable.version)
