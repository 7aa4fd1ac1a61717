"""A rollout in the world under faults that a seed draws, and the same rollout without any, to hold it against.

The faults: kills at any port call, a host that stands still at any port call while the other goes on, messages that
come doubled, late, in another order or never, storage that does not answer for a minute, pods that restart under
another name or fall silent. Pods count exactly, without chance, so that a seed's rollout has one right end.

Two hosts are two entries into the same services: they keep nothing between calls.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from shared.core.errors import ChangedMeanwhileError, ConflictError, NotFoundError, SlipwayError, UnavailableError
from shared.core.messages import CommandKind, Queue, RolloutCommand
from shared.core.settings import Settings
from shared.registry.policy import Policy
from shared.registry.rollout_policy import RolloutPolicy
from shared.rollout.documents import Rollout
from shared.rollout.endpoint import ENDPOINT_ID, Endpoint
from shared.rollout.machine import RolloutState
from shared.routing.plan import RoutePlan, plan_blob_name
from shared.store.ports import BlobContainer, Container
from tests.world.campaign_draws import CANDIDATE, SET_BP, Faults, Regret, Scenario, Wish
from tests.world.campaign_pods import Server
from tests.world.copies import copy_of
from tests.world.fakes import Fuse, Killed
from tests.world.world import ENDPOINT, MODEL, World

SWEEP_S = 60
PRODUCTION = timedelta(seconds=float(str(Settings.__dataclass_fields__["sweep_grace_s"].default)))
"""The grace of the sweep where no setting says otherwise."""
ATTEMPTS, AGAIN_S = 5, 5.0
"""As host.json has it: a message that failed so often is a dead letter."""
MOST_S = 2_400
STEADY_S = 60
"""How long an end must last to be one."""
UNCHANGED_S = 80
"""Longer than a stage without traffic, or a person, waits."""
CHECK_S = 20
_AMID_CALLS = (1, 3, 6, 12, 25, 60)
_INSISTS_S = 60


def prepared() -> World:
    """A world in which version 1 is stable."""
    world = World(grace=PRODUCTION)
    world.put_policy(Policy(rollout=RolloutPolicy(watch_s=0, tick_s=5)))
    world.event(world.drop("one", name="1.onnx"))
    world.run(seconds=70)
    assert world.stable == 1
    # The pod of that time is gone, for all that anybody knows.
    world.clock.pass_s(600)
    return world


@dataclass
class Amid(Fuse):
    """What happens amid a handler's port calls: a kill, another host's work, or a storage that does not answer."""

    play: "Play | None" = None
    part: str = ""

    def before_call(self) -> None:
        """Let it happen."""
        self.calls += 1
        if self.play is not None:
            self.play.amid(self.part)


@dataclass
class Delivery:
    """A message on its way."""

    visible_s: float
    queue: str
    body: str
    attempts: int = 0


class Play:
    """One run of a scenario. `go_on` plays a second."""

    def __init__(self, start: World, scenario: Scenario, faults: Faults) -> None:
        self.world = copy_of(start)
        self.scenario, self.faults = scenario, faults
        self.second = 0
        self.plans: list[RoutePlan] = []
        """Every plan that was published, in the order in which it was."""
        self.kills = self.stalls = self.refusals = self.lost = 0
        self._rng = random.Random(f"play {faults.seed}")
        self._inbox: list[Delivery] = []
        self._plan_etag = ""
        self._depth = 0
        self._kill_at = self._stall_at = self._calls = 0
        self._heard_s: dict[str, int] = {}
        self._next_is_dropped = False
        self.served: Counter[int] = Counter()
        """Requests by version that the pods counted, those of pods that are gone too."""
        self._leaving: list[Server] = []
        """Servers that were told to stop, and may still have windows to send."""
        self.servers = [self._server(f"server-{number}") for number in range(scenario.pods)]
        for part in ("documents", "blobs", "queues"):
            getattr(self.world, part).fuse = Amid(play=self, part=part)
        self.world.put_policy(scenario.policy)
        self.world.event(self.world.drop("two", name="2.onnx"))

    def go_on(self) -> None:
        """Play a second: pods serve, messages come, people look, and each minute the sweep runs."""
        self._restart_pods()
        for number, server in enumerate(self.servers):
            is_cut_off = self.is_down("blobs") or self.faults.is_silent(number, self.second)
            server.live(self.world.blobs, self.world.clock, is_cut_off=is_cut_off)
            if server.is_dead:
                self.servers[number] = server.follower(f"server-{number}-{self.second:06x}-0")
        self._deliver()
        if self._depth == 0:
            self._people()
        if self.second % SWEEP_S == SWEEP_S - 1:
            self._attempt(self._sweep)
        self.world.clock.pass_s(1)
        self.second += 1

    def amid(self, part: str) -> None:
        """What the faults have in store for a port call."""
        self._note_plan()
        if self.is_down(part):
            self.refusals += 1
            raise UnavailableError(part, "it is down for a while")
        self._calls += 1
        if self._calls == self._kill_at:
            self.kills += 1
            raise Killed
        if self._calls == self._stall_at and self._depth == 1:
            self._stall()

    def is_down(self, part: str) -> bool:
        """Whether a part of storage does not answer now."""
        return self.faults.is_down(part, self.second)

    def endpoint(self) -> Endpoint | None:
        """The endpoint as it is stored, whatever its storage does."""
        held = self.world.documents.held.get((Container.ENDPOINTS, ENDPOINT, ENDPOINT_ID))
        return Endpoint.from_body(held.body) if held else None

    def rollout(self) -> Rollout | None:
        """The candidate's rollout as it stands, or stood at its end; None before it begins."""
        with self._undisturbed():
            found = self.world.rollouts.rollouts(ENDPOINT)
        return next((one for one in reversed(found) if one.candidate.version == CANDIDATE), None)

    def pulse(self) -> tuple[object, ...]:
        """Something that changes whenever the endpoint takes a step."""
        endpoint = self.endpoint()
        if endpoint is None or endpoint.rollout is None:
            return ()
        waits = endpoint.queued_version, endpoint.rollback is None, bool(endpoint.outbox), len(endpoint.alias_calls)
        return endpoint.rollout.rollout_id, endpoint.rollout.state, endpoint.rollout.stage, endpoint.generation, *waits

    def standing(self) -> dict[str, Any]:
        """Where everything stands, as far as it must not depend on faults."""
        with self._undisturbed():
            world, endpoint = self.world, self.world.endpoint()
            rollouts = world.rollouts.rollouts(ENDPOINT)
            blob = world.blobs.held[BlobContainer.ROUTES, plan_blob_name(ENDPOINT)]
            plan = endpoint.plan()
            return {
                "rollouts": sorted((one.candidate.version, one.state.value) for one in rollouts),
                "stage": [one.stage for one in rollouts if not one.state.is_over],
                "stable": world.stable,
                "quarantined": sorted(found.version for found in endpoint.quarantined),
                "good": [target.version for target in endpoint.good],
                "rollbacks": [(found.from_version, found.to_version) for found in world.rollouts.rollbacks(ENDPOINT)],
                "unconfirmed": endpoint.rollback is not None,
                "queued": endpoint.queued_version,
                "aliases": world.aliases.named(MODEL),
                "is_published": plan is not None and RoutePlan.model_validate_json(blob.data) == plan,
                "undelivered": [key for key, held in world.documents.held.items() if held.body.get("outbox_pending")],
                "problems": [problem.model_dump() for problem in world.audit.verify().problems],
            }

    def kinds(self) -> list[str]:
        """The steps of the endpoint that are on record, in order."""
        with self._undisturbed():
            return [event.kind for event in self.world.audit.events(f"endpoint:{MODEL}")]

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        kept, self.faults = self.faults, Faults(seed=self.faults.seed)
        kill_at, self._kill_at = self._kill_at, 0
        self._depth += 2
        try:
            yield
        finally:
            self.faults, self._kill_at = kept, kill_at
            self._depth -= 2

    def _note_plan(self) -> None:
        blob = self.world.blobs.held.get((BlobContainer.ROUTES, plan_blob_name(ENDPOINT)))
        if blob is not None and blob.info.etag != self._plan_etag:
            self._plan_etag = blob.info.etag
            self.plans.append(RoutePlan.model_validate_json(blob.data))

    def _deliver(self) -> None:
        if self.is_down("queues"):
            return
        while due := self._due():
            if self.faults.is_on(self.second):
                self._rng.shuffle(due)
            for delivery in due:
                self._attempt(partial(self._handle, delivery))

    def _due(self) -> list[Delivery]:
        now, start = self.world.clock.now(), self.world.clock.now() - timedelta(seconds=self.second)
        for visible_at, queue, body in self.world.queues.messages:
            self._take_in(Delivery((max(visible_at, now) - start).total_seconds(), queue, body))
        self.world.queues.messages.clear()
        due = [delivery for delivery in self._inbox if delivery.visible_s <= self.second]
        self._inbox = [delivery for delivery in self._inbox if delivery.visible_s > self.second]
        return due

    def _take_in(self, delivery: Delivery) -> None:
        """Put a message on its way, or several of it, or none, at once or late."""
        faults, rng = self.faults, self._rng
        if not faults.is_on(self.second):
            self._inbox.append(delivery)
            return
        if rng.random() < faults.lost:
            self.lost += 1
            return
        copies = rng.randint(2, 4) if rng.random() < faults.doubled else 1
        for _ in range(copies):
            late_s = rng.uniform(0, faults.latest_s) if rng.random() < faults.late else 0.0
            self._inbox.append(Delivery(delivery.visible_s + late_s, delivery.queue, delivery.body))

    def _handle(self, delivery: Delivery) -> None:
        """What a functions host does with a message, which comes again where that failed, a few times."""
        delivery.attempts += 1
        again = Delivery(self.second + AGAIN_S, delivery.queue, delivery.body, delivery.attempts)
        if delivery.attempts < ATTEMPTS:
            self._inbox.append(again)
        try:
            self.world.handle(delivery.queue, delivery.body)
        except ChangedMeanwhileError:
            raise
        except (ConflictError, NotFoundError):
            if delivery.queue != Queue.ROLLOUT_COMMANDS:
                raise
        self._inbox = [kept for kept in self._inbox if kept is not again]

    def _sweep(self) -> None:
        self.world.sweep.sweep()

    def _attempt(self, do: Callable[[], None]) -> None:
        """Let a host do something, which may fail or end by a kill."""
        before = self._calls, self._kill_at, self._stall_at
        self._calls = 0
        self._kill_at, self._stall_at = self._drawn(self.faults.killed), self._drawn(self.faults.stalled)
        self._depth += 1
        try:
            do()
        except (Killed, SlipwayError):
            pass
        except ExceptionGroup as group:
            assert not group.split(SlipwayError)[1]  # noqa: PT017 - what else fails is a defect
        finally:
            self._depth -= 1
            self._calls, self._kill_at, self._stall_at = before
        self._note_plan()

    def _drawn(self, share: float) -> int:
        is_drawn = self.faults.is_on(self.second) and self._rng.random() < share
        return self._rng.randint(1, self._rng.choice(_AMID_CALLS)) if is_drawn else 0

    def _stall(self) -> None:
        """This host stands still; the world goes on, with the other one."""
        self.stalls += 1
        for _ in range(self._rng.choice([0, 1, 7, 20])):
            self.go_on()
        self._deliver()

    def _restart_pods(self) -> None:
        if not self.is_down("blobs"):
            while self._leaving:
                self._leaving.pop().send(self.world.blobs)
        for at_s, number in self.faults.restarts:
            if at_s == self.second:
                index = number % len(self.servers)
                self.servers[index].leave(self.world.clock.now())
                self._leaving.append(self.servers[index])
                self.servers[index] = self._server(f"server-{index}-{at_s:06x}-0")

    def _server(self, name: str) -> Server:
        return Server(name=name, scenario=self.scenario, served=self.served)

    def _people(self) -> None:
        """People look now and then, and ask for what they want until they see it."""
        if self.second % 5 or any(self.is_down(part) for part in ("documents", "queues")):
            return
        endpoint = self.endpoint()
        rollout = endpoint.rollout if endpoint else None
        if endpoint is None or rollout is None or rollout.candidate.version != CANDIDATE:
            return
        if self.scenario.has_next and not self._next_is_dropped:
            self._next_is_dropped = True
            self.world.event(self.world.drop("three", name="3.onnx"))
        if rollout.state is RolloutState.AWAITING:
            self._say(CommandKind.APPROVE, f"approve-{rollout.next_stage}", rollout)
        if self.scenario.regret is Regret.LATER and rollout.state is RolloutState.PROMOTED:
            if not endpoint.quarantined:
                self._say(CommandKind.ROLLBACK, "regret", rollout)
        elif rollout.state is RolloutState.PAUSED:
            self._say(CommandKind.RESUME, "resume", rollout)
        elif rollout.stage_started_at and rollout.state in {RolloutState.PROGRESSING, RolloutState.WATCHING}:
            self._people_ask(rollout)

    def _people_ask(self, rollout: Rollout) -> None:
        """People ask for what they want of a stage that has begun."""
        scenario = self.scenario
        if scenario.regret in {Regret.ABORT, Regret.ROLLBACK}:
            self._say(CommandKind(scenario.regret.value), "regret", rollout)
        elif scenario.wish.value not in {Wish.NONE, *rollout.heard} and self._can_wish(rollout):
            self._say(CommandKind(scenario.wish.value), scenario.wish.value, rollout)
        elif scenario.is_promoted_by_hand and rollout.state is RolloutState.PROGRESSING:
            # A promotion does not pass over an approval, which a skip has it wait for.
            self._say(CommandKind.SKIP if scenario.rollout.switch_approval else CommandKind.PROMOTE, "promote", rollout)

    def _can_wish(self, rollout: Rollout) -> bool:
        """Whether a rollout stands where it hears what people wish for."""
        has_share = rollout.current is not None and rollout.weight_bp > 0
        wish, is_on = self.scenario.wish, rollout.state is RolloutState.PROGRESSING
        return is_on and (has_share or wish is not Wish.SET_WEIGHT)

    def _say(self, command: CommandKind, command_id: str, rollout: Rollout) -> None:
        if self.second - self._heard_s.get(command_id, -_INSISTS_S) < _INSISTS_S:
            return
        self._heard_s[command_id] = self.second
        version = 1 if self.scenario.regret is Regret.LATER and command is CommandKind.ROLLBACK else None
        message = RolloutCommand(
            command=command,
            command_id=command_id,
            endpoint=MODEL,
            version=version,
            weight_bp=SET_BP if command is CommandKind.SET_WEIGHT else None,
            rollout_id=rollout.rollout_id,
            requested_by="ann",
            reason="a person says so",
        )
        self.world.queues.messages.append((self.world.clock.now(), Queue.ROLLOUT_COMMANDS, message.model_dump_json()))


def undisturbed(start: World, scenario: Scenario) -> Play:
    """The scenario without faults, played until nothing changes any more."""
    play = Play(start, scenario, Faults(seed=scenario.seed))
    since_s, pulse = 0, play.pulse()
    while play.second - since_s < UNCHANGED_S and play.second < MOST_S:
        play.go_on()
        if play.pulse() != pulse:
            since_s, pulse = play.second, play.pulse()
    return play


def disturbed(start: World, scenario: Scenario, faults: Faults, end: dict[str, Any]) -> Play:
    """The scenario with faults, played until it stands at the same end and stays there, or for far too long."""
    play = Play(start, scenario, faults)
    while play.second < MOST_S:
        play.go_on()
        if play.second > faults.until_s and play.second % CHECK_S == 0 and play.standing() == end:
            for _ in range(STEADY_S):
                play.go_on()
            if play.standing() == end:
                break
    return play
