"""The dead letter's document: a message that fails, and whether it waits for somebody to look.

A letter is known by its queue and its body, so that the same message, sent again, is the same letter. Its states move
by the table below, and in no other way.
"""

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from shared.core.canonical import canonical_json, digest_of_bytes
from shared.core.errors import ConflictError
from shared.core.messages import Queue, RegisterDrop
from shared.core.tracing import unstamped
from shared.registration.documents import NO_MODEL
from shared.store.aggregate import Aggregate, MessageEntry
from shared.store.ports import Container

BLOB_POISON_QUEUE = "webjobs-blobtrigger-poison"
"""Where the Functions runtime puts the events of blobs that failed for the last time."""
UNRECORDED = (
    "it ended without an error being recorded: its process was killed, or the database did not take the error, which "
    "is in the app's log then"
)
_RECORDED = "; the last one that was recorded of such a message: "

_IDS_KEPT = 20


class LetterState(StrEnum):
    """Where a letter stands."""

    FAILING = "failing"
    """It failed, and its queue has it tried again."""
    KEPT = "kept"
    """It failed for the last time, and waits for somebody to look."""
    REPLAYED = "replayed"
    """It was put back on its queue."""
    SETTLED = "settled"
    """It succeeded after all: replayed, tried again, or sent anew by the sweep."""
    DISCARDED = "discarded"
    """Somebody looked, and it is not wanted any more."""


class LetterEvent(StrEnum):
    """What moves a letter."""

    FAIL = "fail"
    KEEP = "keep"
    REPLAY = "replay"
    SUCCEED = "succeed"
    DISCARD = "discard"


TRANSITIONS: Mapping[tuple[LetterState, LetterEvent], LetterState] = {
    (LetterState.FAILING, LetterEvent.FAIL): LetterState.FAILING,
    (LetterState.FAILING, LetterEvent.KEEP): LetterState.KEPT,
    (LetterState.FAILING, LetterEvent.SUCCEED): LetterState.SETTLED,
    # The same message may have been sent again, by the sweep or by a person, while the letter waits.
    (LetterState.KEPT, LetterEvent.FAIL): LetterState.KEPT,
    (LetterState.KEPT, LetterEvent.KEEP): LetterState.KEPT,
    (LetterState.KEPT, LetterEvent.SUCCEED): LetterState.SETTLED,
    (LetterState.KEPT, LetterEvent.REPLAY): LetterState.REPLAYED,
    (LetterState.KEPT, LetterEvent.DISCARD): LetterState.DISCARDED,
    (LetterState.REPLAYED, LetterEvent.FAIL): LetterState.FAILING,
    (LetterState.REPLAYED, LetterEvent.KEEP): LetterState.KEPT,
    (LetterState.REPLAYED, LetterEvent.SUCCEED): LetterState.SETTLED,
    (LetterState.SETTLED, LetterEvent.FAIL): LetterState.FAILING,
    (LetterState.SETTLED, LetterEvent.KEEP): LetterState.KEPT,
    (LetterState.SETTLED, LetterEvent.SUCCEED): LetterState.SETTLED,
    (LetterState.DISCARDED, LetterEvent.FAIL): LetterState.FAILING,
    (LetterState.DISCARDED, LetterEvent.KEEP): LetterState.KEPT,
    (LetterState.DISCARDED, LetterEvent.SUCCEED): LetterState.DISCARDED,
}


class LetterBody(BaseModel):
    """A message's body as a document can hold it: text, or base64 of what is no UTF-8."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoding: Literal["text", "base64"] = "text"
    content: str

    @classmethod
    def of(cls, body: bytes) -> Self:
        """The body as it came."""
        try:
            return cls(content=body.decode())
        except UnicodeDecodeError:
            import base64  # noqa: PLC0415 - hardly ever

            return cls(encoding="base64", content=base64.b64encode(body).decode())

    def message(self) -> dict[str, Any] | None:
        """The JSON object that it holds, or None."""
        if self.encoding != "text":
            return None
        try:
            found = json.loads(self.content)
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None


class DeadLetter(Aggregate):
    """A message that fails, or failed for the last time."""

    container: ClassVar[Container] = Container.REPORTS

    id: str
    kind: Literal["dead_letter"] = "dead_letter"
    model: str = NO_MODEL
    """The partition: letters belong to queues, not to models."""
    queue: str
    body: LetterBody
    state: LetterState = LetterState.FAILING
    reason: str = ""
    """The last error, in a sentence."""
    failed_since: bool = False
    """Whether an error was recorded since the letter was last kept, replayed, settled or discarded."""
    attempts: int = 0
    """How many attempts are known to have failed. One whose process was killed is not."""
    count: int = 0
    """How often it failed for the last time."""
    first_seen_at: AwareDatetime
    last_seen_at: AwareDatetime
    commands: list[str] = Field(default_factory=list)
    """The latest commands that were carried out, by what they asked for and their ids: one sent twice has its effect
    once."""
    message_ids: list[str] = Field(default_factory=list)
    """The queue's ids of the messages it was last kept for, so that one that is delivered twice counts once."""

    @property
    def stream(self) -> str:
        """The name of its audit stream."""
        return f"dead_letter:{self.model}:{self.id.removeprefix('letter-')}"

    @property
    def partition(self) -> str:
        """Its container's partition key."""
        return self.model

    def move(self, event: LetterEvent) -> None:
        """Move by the table. Raises ConflictError, with nothing changed, where it holds no such move."""
        after = TRANSITIONS.get((self.state, event))
        if after is None:
            raise ConflictError(
                f"the dead letter {self.id} is {self.state}, and {event} is for one that is {LetterState.KEPT}: "
                "look at its history in the audit"
            )
        if event is not LetterEvent.FAIL:
            self.failed_since = False
        self.state = after

    def has_done(self, event: LetterEvent, command_id: str) -> bool:
        """Whether it was moved by this command already."""
        return _command(event, command_id) in self.commands

    def note_command(self, event: LetterEvent, command_id: str) -> None:
        """Remember a command that moved it."""
        self.commands = [*self.commands, _command(event, command_id)][-_IDS_KEPT:]

    def is_counted(self, message_id: str) -> bool:
        """Whether it was kept for this message of the queue already."""
        return message_id in self.message_ids

    def lack_error(self) -> None:
        """Say that none was recorded. One that was, of an earlier round or of a message with the same body, is told."""
        before = self.reason.rpartition(_RECORDED)[2] if self.reason.startswith(UNRECORDED) else self.reason
        self.reason = UNRECORDED + (_RECORDED + before if before not in {"", UNRECORDED} else "")

    def count_message(self, message_id: str) -> None:
        """Remember a message that it is kept for."""
        self.count += 1
        self.message_ids = [*self.message_ids, message_id][-_IDS_KEPT:]

    def put_back(self) -> None:
        """Send the message to its queue again. Raises ConflictError where no function could take it."""
        message = self.body.message()
        if self.queue not in set(Queue) or message is None:
            raise ConflictError(
                f"the dead letter {self.id} of {self.queue} cannot be put back: it is no message of Slipway's; "
                "find out who sent it, and discard it"
            )
        self._append(MessageEntry(number=self._next_number(), queue=Queue(self.queue), body=message))


def _command(event: LetterEvent, command_id: str) -> str:
    return f"{event}:{command_id}"


def letter_id(queue: str, body: LetterBody) -> str:
    """The id of a letter. Spaces, the order of fields in a JSON object and its trace make no difference."""
    message = body.message()
    try:
        content = body.content.encode() if message is None else canonical_json(unstamped(message))
    except (ValueError, RecursionError):  # NaN, which canonical JSON does not hold
        content = body.content.encode()
    return f"letter-{digest_of_bytes(queue.encode() + b'\0' + content)[:32]}"


def body_of_drop(blob: str) -> bytes:
    """The message that has a drop registered, as the sweep sends it."""
    return json.dumps(RegisterDrop(blob=blob).model_dump(mode="json")).encode()
