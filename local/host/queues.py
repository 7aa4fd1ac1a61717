"""Queue listeners: take messages, run their handler, settle them. Semantics are those of Azure's queue trigger.

- Messages are received up to `batch_size` at once, whenever `new_batch_threshold` or fewer are in work, and stay
  invisible for the lease; a message in work has its lease renewed at half.
- A handler that succeeded has its message deleted. After a failure the message becomes visible again after the retry
  delay, until it has been dequeued `max_dequeue_count` times: then its body goes, verbatim, to the poison queue.
- A queue without a poison queue leaves a failed message invisible until its lease ends, so that it cannot spin.
- A body that is not base64 where it should be goes to the poison queue at once.
- An empty queue is looked at with a randomised exponential back-off from 100 ms. Azure's default lets it grow to a
  minute; here it stops at half a second (or at host.json's maxPollingInterval, where that is less), so that one
  machine's queues drain within a second. A poison queue, for whose messages nobody waits, is looked at half as often.
- A queue that was found empty is only glanced at until it is not (local.host.glances).

A message is deleted only after its handler ended, so a process that dies at any point loses none: what it held comes
back when its lease ends. Handlers can therefore see a message twice.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from azure.core.exceptions import AzureError, HttpResponseError, ResourceNotFoundError
from azure.storage.queue import QueueClient, QueueMessage

from local.host.glances import Glance
from local.host.hostjson import QueueOptions
from local.host.messages import Message, decode
from local.host.storage import ensure_queue, in_thread, pause, send_creating

POISON_SUFFIX = "-poison"

_log = logging.getLogger("host.queues")

_BACKOFF_MIN_S = 0.1
_BACKOFF_CAP_S = 0.5
_POISON_BACKOFF_CAP_S = 1.0
_OUTAGE_PAUSE_S = 2.0
_MAX_QUEUE_NAME = 63
_SERVER_ERROR = 500


class QueueListener:
    """Listens to one queue. `handle` returns whether it succeeded, and must not raise.

    Without a `poison` queue, failed messages come back for as long as they live.
    """

    def __init__(
        self,
        *,
        queue: QueueClient,
        poison: QueueClient | None,
        options: QueueOptions,
        lease_s: int,
        handle: Callable[[Message], Awaitable[bool]],
    ) -> None:
        self._queue = queue
        self._poison = poison
        self._options = options
        self._lease_s = lease_s
        self._handle = handle
        self._glance = Glance(queue)
        self._was_empty = False
        cap_s = _POISON_BACKOFF_CAP_S if queue.queue_name.endswith(POISON_SUFFIX) else _BACKOFF_CAP_S
        self._backoff = Backoff(min(cap_s, options.poll_cap_s))

    async def prepare(self) -> None:
        """Create the queue unless it exists. Raises AzureError."""
        await in_thread(ensure_queue, self._queue)

    async def run(self, stopping: asyncio.Event) -> None:
        """Take messages until the host stops, then let those in work finish.

        Cancelled, it makes the messages still in work visible to others at once.
        """
        in_work: set[asyncio.Task[None]] = set()
        try:
            while not stopping.is_set():
                if len(in_work) > self._options.new_batch_threshold:
                    await asyncio.wait(in_work, return_when=asyncio.FIRST_COMPLETED)
                    continue
                received = await self._receive()
                for message in received or ():
                    task = asyncio.create_task(self._process(_Held(message)))
                    in_work.add(task)
                    task.add_done_callback(in_work.discard)
                await pause(stopping, self._next_delay(received))
            if in_work:
                await asyncio.wait(in_work)
        finally:
            for task in in_work:
                task.cancel()
            await asyncio.gather(*in_work, return_exceptions=True)
            self._glance.close()

    def _next_delay(self, received: list[QueueMessage] | None) -> float:
        if received is None:
            return _OUTAGE_PAUSE_S
        if len(received) == self._options.batch_size:
            return 0.0
        return self._backoff.after(found=bool(received))

    async def _receive(self) -> list[QueueMessage] | None:
        """A batch of messages; None where the queue could not be asked."""
        try:
            return await in_thread(self._receive_batch)
        except ResourceNotFoundError:
            _log.warning("queue %s is gone: creating it again", self._queue.queue_name)
            return await self._recreate()
        except AzureError as error:
            _log.warning("queue %s cannot be read, trying on: %s", self._queue.queue_name, _brief(error))
            return None

    async def _recreate(self) -> list[QueueMessage] | None:
        try:
            await self.prepare()
        except AzureError as error:
            _log.warning("queue %s cannot be created, trying on: %s", self._queue.queue_name, _brief(error))
            return None
        return []

    def _receive_batch(self) -> list[QueueMessage]:
        if self._was_empty and self._glance.is_empty():
            return []
        # One page is one request; iterating over all would ask again until a page comes back empty.
        pages = self._queue.receive_messages(
            messages_per_page=self._options.batch_size, visibility_timeout=self._lease_s
        ).by_page()
        found = list(next(pages, ()))
        self._was_empty = not found
        return found

    async def _process(self, held: "_Held") -> None:
        try:
            await self._handle_held(held)
        except AzureError as error:
            # Its lease ended and another reader has it, or the storage does not answer: either way it is not lost.
            _log.warning("message %s of %s is not settled: %s", held.id, self._queue.queue_name, _brief(error))

    async def _handle_held(self, held: "_Held") -> None:
        if self._poison is not None and held.dequeue_count > self._options.max_dequeue_count:
            await self._move_to_poison(held, self._poison, "it was dequeued too often")
            return
        try:
            message = held.decoded(base64=self._options.base64)
        except ValueError as error:
            if self._poison is not None:
                await self._move_to_poison(held, self._poison, f"its body cannot be decoded: {error}")
            return
        if await self._handle_with_renewal(held, message):
            await in_thread(self._queue.delete_message, held.id, held.pop_receipt)
        elif self._poison is not None:
            await self._give_back(held, self._poison)

    async def _handle_with_renewal(self, held: "_Held", message: Message) -> bool:
        done = asyncio.Event()
        renewal = asyncio.create_task(self._renew(held, done))
        try:
            return await self._handle(message)
        except asyncio.CancelledError:
            done.set()
            await renewal
            await in_thread(self._show_again, held, 0)
            raise
        finally:
            # The receipt changes with each renewal: the message is settled with the last one, never beside one.
            done.set()
            await renewal

    async def _renew(self, held: "_Held", done: asyncio.Event) -> None:
        delay_s = self._lease_s / 2
        while not await pause(done, delay_s):
            try:
                await in_thread(self._show_again, held, self._lease_s)
                delay_s = self._lease_s / 2
            except AzureError as error:
                _log.warning("the lease of message %s is not renewed: %s", held.id, _brief(error))
                if isinstance(error, HttpResponseError) and (error.status_code or 0) < _SERVER_ERROR:
                    return
                delay_s = min(1.0, self._lease_s / 8)

    async def _give_back(self, held: "_Held", poison: QueueClient) -> None:
        if held.dequeue_count >= self._options.max_dequeue_count:
            await self._move_to_poison(held, poison, f"it failed {held.dequeue_count} times")
        else:
            await in_thread(self._show_again, held, self._options.retry_delay_s)

    def _show_again(self, held: "_Held", after_s: int) -> None:
        updated = self._queue.update_message(held.id, held.pop_receipt, visibility_timeout=after_s)
        held.pop_receipt = str(updated.pop_receipt)

    async def _move_to_poison(self, held: "_Held", poison: QueueClient, reason: str) -> None:
        # Copied before it is deleted: a crash in between leaves two, never none.
        await in_thread(send_creating, poison, held.content)
        await in_thread(self._queue.delete_message, held.id, held.pop_receipt)
        _log.error("message %s of %s moved to %s: %s", held.id, self._queue.queue_name, poison.queue_name, reason)


class Backoff:
    """Waits between looks at an empty queue: from 100 ms, doubling with a jitter of a fifth, up to a cap."""

    def __init__(self, cap_s: float) -> None:
        self._cap_s = max(cap_s, _BACKOFF_MIN_S)
        self._next_s = _BACKOFF_MIN_S

    def after(self, *, found: bool) -> float:
        """The wait after a look that found messages, or none."""
        if found:
            self._next_s = _BACKOFF_MIN_S
            return _BACKOFF_MIN_S
        wait_s = min(self._next_s * random.uniform(0.8, 1.2), self._cap_s)  # noqa: S311 - no secret hangs on it
        self._next_s = min(self._next_s * 2, self._cap_s)
        return wait_s


@dataclass(slots=True)
class _Held:
    """A received message and the receipt that holds it now."""

    raw: QueueMessage
    pop_receipt: str = ""

    def __post_init__(self) -> None:
        self.pop_receipt = str(self.raw.pop_receipt)

    @property
    def id(self) -> str:
        return str(self.raw.id)

    @property
    def content(self) -> str:
        return str(self.raw.content)

    @property
    def dequeue_count(self) -> int:
        return int(self.raw.dequeue_count or 0)

    def decoded(self, *, base64: bool) -> Message:
        times: list[Any] = [self.raw.inserted_on, self.raw.expires_on, self.raw.next_visible_on]
        return Message(
            id=self.id,
            body=decode(self.content, base64=base64),
            dequeue_count=self.dequeue_count,
            pop_receipt=self.pop_receipt,
            inserted_at=times[0],
            expires_at=times[1],
            next_visible_at=times[2],
        )


def poison_name(queue: str) -> str | None:
    """The name of a queue's poison queue; None where it can have none."""
    name = f"{queue}{POISON_SUFFIX}"
    return None if queue.endswith(POISON_SUFFIX) or len(name) > _MAX_QUEUE_NAME else name


def _brief(error: AzureError) -> str:
    return str(error).partition("\n")[0]
