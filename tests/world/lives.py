"""Random lives of an endpoint through the services: every command, under every strategy and policy, in any order, while
pods err, stick, fall silent, restart and cannot load, queries fail, and models are altered. How it all arrives, and
which faults there are on the way, is tests.world.arrivals; tests.world.witness looks after every write.
"""

import contextlib
import random
from datetime import timedelta
from typing import Any

from shared.core.errors import ConflictError, NotFoundError
from shared.core.ids import VersionNumber
from shared.core.messages import CommandKind, RolloutCommand
from shared.registry.rollout_policy import (
    FreezeWindow,
    Gates,
    Otherwise,
    Provider,
    QueryGate,
    Stage,
    Strategy,
    WhenBusy,
)
from shared.rollout.machine import COMMANDS
from shared.rollout.queries import QueryAnswer
from tests.world.arrivals import Arrivals
from tests.world.copies import copy_of
from tests.world.fakes import Killed
from tests.world.strategies import alter, policy
from tests.world.witness import ASKS, PEOPLE, ToldPod
from tests.world.world import ENDPOINT, MODEL, World

_ANSWERS = (
    *(QueryAnswer(value=2.0), QueryAnswer(value=2.0), QueryAnswer(value=0.0)),
    *(QueryAnswer(), QueryAnswer(error="it is down")),
)
_MOST_VERSIONS = 12
_ENDING = {CommandKind.ABORT, CommandKind.ROLLBACK, CommandKind.PROMOTE}


class Life(Arrivals):
    """One endpoint's random life. `step` does one thing and lets a while pass; `end` lets all come to rest."""

    def __init__(self, start: World, seed: int) -> None:
        super().__init__(copy_of(start), random.Random(seed))
        self.world.stores[Provider.PROMETHEUS] = self
        self.rolled_back = 0
        """How often a rollback was tried, in a copy of the world."""
        self._seconds = self._count = 0
        self._versions = self.world.registry.model(MODEL).latest_version
        pods = [ToldPod(name=f"pod-{n}", tell=self.witness.told) for n in range(self.rng.randint(2, 3))]
        self.world.pod, self.world.others = pods[0], list(pods[1:])

    def ask(self, query: str) -> QueryAnswer:
        """Answer a query as a metrics store would, now this, now that."""
        self.witness.answers[query] = self.rng.choice(_ANSWERS)
        return self.witness.answers[query]

    def step(self) -> None:
        """Do one thing, and let a while pass."""
        rng = self.rng
        is_idle = self.world.endpoint().active is None
        acts = [self._command, self._start, self._policy, self._weather, self._drop, self._pardon, self._spoil]
        rng.choices(acts, [2, 12, 2, 2, 1, 1, 1] if is_idle else [10, 1, 1, 3, 1, 0, 1])[0]()
        if rng.random() < 0.2:
            self._check_way_back()
        self.live(rng.choice([0, 1, 2, 5, 20]))

    def live(self, seconds: int) -> None:
        """Let time pass: messages come, pods report, and each minute the sweep runs."""
        for _ in range(seconds):
            self.deliver()
            for pod in (self.world.pod, *self.world.others):
                pod.report(self.world.blobs, self.world.clock, ENDPOINT)
            self.world.clock.pass_s(1)
            self._seconds += 1
            if self._seconds % 60 == 0:
                self.sweep()
        self.deliver()

    def end(self) -> None:
        """Let all faults be over and the world come to rest, and see that it does."""
        self.be_well()
        for pod in (self.world.pod, *self.world.others):
            pod.is_silent = pod.is_stuck = False
        self.live(130)
        endpoint = self.world.endpoint()
        plan = endpoint.plan()
        assert not endpoint.outbox
        assert plan is None or self.witness.published == plan.generation
        assert self.world.audit.verify().problems == []
        if endpoint.ticking:
            late = self.world.clock.now() - endpoint.ticking.next_tick_at
            assert late <= timedelta(seconds=2), "its ticks have stopped"
        begun = [rollout.rollout_id for rollout in self.world.rollouts.rollouts(ENDPOINT)]
        assert len(begun) == len(set(begun))

    # What happens.

    def _command(self) -> None:
        rng = self.rng
        rollout = self.world.endpoint().rollout
        ids = [None, None, rollout.rollout_id if rollout else None, "rollout-000002-gone"]
        self._count += 1
        command = RolloutCommand(
            command=rng.choice([kind for kind in CommandKind if kind is not CommandKind.START]),
            command_id=f"command-{self._count}",
            endpoint=ENDPOINT,
            rollout_id=rng.choices(ids, [4, 4, 4, 1])[0],
            version=rng.choice([None, None, rng.randint(1, self._versions)]),
            requested_by=rng.choice(PEOPLE),
            weight_bp=rng.choice([None, 0, 0, 0, 77, 3_000, 10_000]),
            override=rng.random() < 0.2,
            reason="they say so",
        )
        if rollout and rng.random() < 0.5:
            # One that it hears, lest most be refused.
            fit = [kind for kind, states in COMMANDS.items() if rollout.state in states]
            gentle = [kind for kind in fit if kind not in _ENDING]
            command = command.model_copy(update={"command": rng.choice(gentle or fit)})
        self.give(command)

    def _start(self) -> None:
        rng = self.rng
        others = tuple(rng.sample(range(1, self._versions + 1), 2)) if rng.random() < 0.2 else ()
        endpoint = self.world.endpoint()
        fit = [n for n in range(1, self._versions + 1) if not endpoint.is_quarantined(n)]
        if len(fit) < 2:
            self._pardon()
        if rng.random() < 0.2:
            fit = list(range(1, self._versions + 2))
        self._count += 1
        command = RolloutCommand(
            command=CommandKind.START,
            command_id=f"start-{self._count}",
            endpoint=ENDPOINT,
            version=rng.choice(fit),
            requested_by=ASKS,
            shadows=others,
            override=rng.random() < 0.2,
            reason="it is time",
        )
        self.give(command)

    def _policy(self) -> None:
        rng = self.rng
        weights = sorted(rng.sample(range(500, 10_000, 500), rng.randint(1, 3)))
        now = self.world.clock.now()
        freeze = FreezeWindow(name="now", since=now, until=now + timedelta(seconds=rng.randint(5, 60)))
        revenue = QueryGate(name="revenue", query="revenue", at_least=1.0, dry_run=rng.random() < 0.3)
        fields: dict[str, Any] = {
            "automatic": rng.random() < 0.5,
            "strategy": rng.choice(list(Strategy)),
            "stages": tuple(
                Stage(weight_bp=weight, duration_s=rng.choice([1, 5, 15]), approval=rng.random() < 0.2)
                for weight in weights
            ),
            "shadow_then": rng.choice([None, Strategy.CANARY]),
            "shadow_s": 5,
            "preview_s": rng.choice([0, 5]),
            "watch_s": rng.choice([0, 10]),
            "switch_approval": rng.random() < 0.2,
            "gates": Gates(
                level=0.2,
                smoke_requests=rng.choice([0, 5]),
                disagreement=rng.choice([None, 0.1]),
                queries=(revenue,) if rng.random() < 0.3 else (),
            ),
            "tick_s": rng.choice([1, 2, 5]),
            "failure_limit": rng.randint(1, 3),
            "error_limit": rng.randint(1, 3),
            "max_stage_s": 40,
            "load_timeout_s": 60,
            "quorum": rng.choice([0.5, 1.0]),
            "max_unavailable": rng.choice([0, 1]),
            "on_inconclusive": rng.choice(list(Otherwise)),
            "on_load_failure": rng.choice(list(Otherwise)),
            "when_busy": rng.choice(list(WhenBusy)),
            "freezes": (freeze,) if rng.random() < 0.15 else (),
        }
        with contextlib.suppress(Killed):
            self.amid(lambda: self.world.put_policy(policy(**fields)))

    def _weather(self) -> None:
        """How the pods and the versions fare from now on: half of the time, well."""
        rng = self.rng
        is_bad = rng.random() < 0.4
        if rng.random() < 0.2 and self.world.others:
            self._count += 1
            self.world.others[-1] = ToldPod(name=f"pod-new-{self._count}", tell=self.witness.told)
        for pod in (self.world.pod, *self.world.others):
            pod.is_silent, pod.is_stuck = (is_bad and rng.random() < share for share in (0.2, 0.4))
            pod.requests = 0 if is_bad and rng.random() < 0.3 else 1_000
            pod.pinned = rng.choice([0, 2])
            pod.errors, pod.unloadable, pod.disagreements, pod.tripped = {}, {}, {}, {}
            for version in range(1, self._versions + 1):
                if is_bad and rng.random() < 0.3:
                    pod.errors[version] = rng.choice([0.0, 0.02, 0.5])
                    pod.disagreements[version] = 0.5
                if is_bad and rng.random() < 0.05:
                    pod.unloadable[version] = "no memory"
                if is_bad and rng.random() < 0.03:
                    pod.tripped[version] = "it hangs"

    def _drop(self) -> None:
        """Another version comes, which policy may roll out; now and then one that fails its validation."""
        if self._versions < _MOST_VERSIONS:
            self._versions += 1
            what = "worse" if self.rng.random() < 0.2 else "content"
            self.world.event(self.world.drop(f"{what} {self._versions}", name=f"{self._versions}.onnx"))

    def _pardon(self) -> None:
        """Somebody clears a quarantine, or archives a version."""
        quarantined = self.world.endpoint().quarantined
        with contextlib.suppress(ConflictError, NotFoundError, Killed):
            if quarantined:
                version = self.rng.choice(quarantined).version
                self.world.rollouts.clear_quarantine(ENDPOINT, version, by="bob", reason="it was the network")
            elif self._versions == _MOST_VERSIONS:
                version = self.rng.randint(1, self._versions)
                self.world.rollouts.archive(MODEL, VersionNumber(version), by="bob", reason="old")

    def _spoil(self) -> None:
        """Somebody alters a stored model, where there are enough of them; or another host is about to write too."""
        if self._versions >= _MOST_VERSIONS // 2 and self.rng.random() < 0.2:
            with contextlib.suppress(NotFoundError):
                alter(self.world, self.rng.randint(2, self._versions))
            return
        self.have_another_host_write()

    # What must be possible at any time.

    def _check_way_back(self) -> None:
        """In a copy of the world somebody rolls back: at once no candidate is left, and nothing that failed serves."""
        other = copy_of(self.world)
        endpoint = other.endpoint()
        if endpoint.rollout is None:
            return
        good = [target.version for target in endpoint.good]
        unfit = {version for version in good if other.registry.version(MODEL, VersionNumber(version)).altered}
        serving = endpoint.stable.version if endpoint.stable else None
        named = next((version for version in reversed(good) if version not in {serving, *unfit}), None)
        if endpoint.active is None and named is None:
            return
        command = RolloutCommand(
            command=CommandKind.ROLLBACK,
            command_id="back",
            endpoint=ENDPOINT,
            version=named if endpoint.active is None else None,
            requested_by="dee",
        )
        other.rollouts.handle(command)
        back = other.endpoint()
        plan = back.plan()
        assert plan is not None
        assert plan.candidate is None
        assert not plan.shadows
        assert back.rollback is not None
        if endpoint.stable is not None and (endpoint.active is None or not endpoint.is_quarantined(serving or 0)):
            assert plan.stable is not None
            assert plan.stable.weight_bp == 10_000
            assert not back.is_quarantined(plan.stable.version)
        self.rolled_back += 1
