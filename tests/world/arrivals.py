"""How commands and messages reach the services in a random life: by queue and by call, once, twice, late, in another
order or never; in processes that are killed at any port call, and beside another host that writes in between.
"""

import contextlib
import random
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

from shared.core.errors import ChangedMeanwhileError, ConflictError, SlipwayError
from shared.core.messages import CommandKind, Queue, RolloutCommand, RolloutTick
from shared.rollout.documents import Rollout
from shared.rollout.machine import COMMANDS
from tests.world.fakes import Killed
from tests.world.witness import Watch, Witness
from tests.world.world import World

_OF_ROLLOUTS = {Queue.ROLLOUT_COMMANDS, Queue.ROLLOUT_TICKS}
_DELIVERY = {"outbox", "outbox_pending"}
"""What delivery changes of a document."""
_AMID_CALLS = (2, 5, 10, 25)


class Arrivals:
    """The way of everything into a world, which a witness watches."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.rng = rng
        self.world = world
        self.witness = Witness(world=world)
        self.watch = Watch(witness=self.witness)
        for part in ("documents", "blobs", "queues"):
            getattr(world, part).fuse = self.watch
        self.heard: set[CommandKind] = set()
        """Kinds of commands that had an effect."""
        self.kills = self.refused = 0
        self._killed, self._amiss = 0.1, 1.0
        """How often a process is killed, and how much goes wrong with messages."""
        self._given: list[RolloutCommand] = []
        self.witness.look()

    def be_well(self) -> None:
        """From now on nobody is killed, and messages come once and in time."""
        self._killed = self._amiss = 0.0
        self.world.documents.other_writers.clear()

    def have_another_host_write(self) -> None:
        """Have another host handle a message just before somebody's next conditional write."""
        messages = [(queue, body) for _, queue, body in self.world.queues.messages if queue in _OF_ROLLOUTS]
        if messages:
            queue, body = self.rng.choice(messages)
            self.world.documents.other_writers.append(lambda: self._handle(queue, body))

    def give(self, command: RolloutCommand) -> None:
        """Have a command come: by queue, or by call; one that came before now and then comes again."""
        if self._given and self.rng.random() < 0.2:
            command = self.rng.choice(self._given)
        self._given.append(command)
        if self.rng.random() < 0.5:
            self.world.queues.messages.append(
                (self.world.clock.now(), Queue.ROLLOUT_COMMANDS.value, command.model_dump_json())
            )
            return
        try:
            self.amid(lambda: self._carry_out(command))
        except Killed:
            # Who has had no answer asks again.
            self._carry_out(command)

    def _carry_out(self, command: RolloutCommand) -> None:
        """Give a command, and give it again: the second time, and where it is refused, it changes nothing."""
        world = self.world
        is_alone = not world.documents.other_writers
        outer, self.witness.actor = self.witness.actor, command
        before, rollout = self._body(), world.endpoint().rollout
        try:
            world.rollouts.handle(command)
        except SlipwayError as error:
            self.refused += 1
            if is_alone and command.command is not CommandKind.START:
                self._check_refused(command, rollout, error, is_unchanged=self._body() == before)
        else:
            after = self._body()
            if is_alone and after != before:
                self.heard.add(command.command)
            if self.watch.at is None and is_alone and command.command is not CommandKind.START:
                world.rollouts.handle(command)
                assert self._body() == after, command
        finally:
            self.witness.actor = outer

    def _check_refused(
        self, command: RolloutCommand, rollout: Rollout | None, error: SlipwayError, *, is_unchanged: bool
    ) -> None:
        """A command that is refused changes nothing, and one that the state does not hear is refused by both names."""
        assert is_unchanged, error
        if rollout and isinstance(error, ConflictError) and rollout.state not in COMMANDS[command.command]:
            assert f"is {rollout.state} does not hear {command.command};" in str(error)

    def _body(self) -> dict[str, Any]:
        return self.world.endpoint().model_dump(mode="json", exclude=_DELIVERY)

    def deliver(self) -> None:
        """Hand over what is due, some of it twice, late or never."""
        rng, now = self.rng, self.world.clock.now()
        for _ in range(20):
            due = [message for message in self.world.queues.messages if message[0] <= now]
            if not due:
                return
            self.world.queues.messages = [message for message in self.world.queues.messages if message[0] > now]
            rng.shuffle(due)
            for _, queue, body in due:
                if queue in _OF_ROLLOUTS and rng.random() < 0.1 * self._amiss:
                    later = now + timedelta(seconds=rng.choice([0, 3, 30]))
                    self.world.queues.messages.append((later, queue, body))
                if queue in _OF_ROLLOUTS and rng.random() < 0.03 * self._amiss:
                    continue
                try:
                    self.amid(partial(self._handle, queue, body))
                except (Killed, ChangedMeanwhileError):
                    self.world.queues.messages.append((now + timedelta(seconds=1), queue, body))

    def _handle(self, queue: str, body: str) -> None:
        if queue == Queue.ROLLOUT_COMMANDS:
            self._carry_out(RolloutCommand.model_validate_json(body))
            return
        outer = self.witness.actor
        self.witness.actor = RolloutTick.model_validate_json(body) if queue == Queue.ROLLOUT_TICKS else None
        try:
            self.world.handle(queue, body)
        finally:
            self.witness.actor = outer

    def sweep(self) -> None:
        with contextlib.suppress(Killed):
            self.amid(self.world.sweep.sweep)

    def amid(self, do: Callable[[], object]) -> None:
        """Do something, in a process that may be killed at any of its port calls."""
        is_killed = self.rng.random() < self._killed
        self.watch.at = self.watch.calls + self.rng.randint(1, self.rng.choice(_AMID_CALLS)) if is_killed else None
        try:
            do()
        except Killed:
            self.kills += 1
            raise
        finally:
            self.watch.at = None
            self.witness.look()
            if self.witness.problem is not None:
                raise self.witness.problem
