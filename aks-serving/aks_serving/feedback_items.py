"""The bodies of feedback: what a piece of it may say, and what it comes to: a value, two classes, two numbers.

A label beside the prediction that was answered is a pair of classes where both are texts, truth values or whole
numbers, and a pair of numbers where both are numbers; whole numbers are both, and whoever reads the counts knows the
model's task. Nothing here knows a plan or a version.
"""

from typing import Annotated

import msgspec

from aks_serving.errors import BodyTooLargeError
from shared.core.errors import InvalidInputError, SlipwayError
from shared.telemetry.feedback import MAX_LABEL_CHARS, MAX_NUMBER

MAX_ITEMS = 1_000
MAX_BODY_BYTES = 1_000_000
"""Decoded. A body is read in one go, and predictions wait for that long."""
_LAST_OF_ASCII_CONTROL, _DELETE = 0x1F, 0x7F

type Label = str | bool | int | float


class FeedbackTooLargeError(BodyTooLargeError):
    """The body is larger than MAX_BODY_BYTES, or than the server takes."""

    def __init__(self, found_bytes: int, limit: int) -> None:
        """`found_bytes` as it came: where those are no more than the limit, it is what it unpacks to that is."""
        found = f"{found_bytes} bytes" if found_bytes > limit else f"more than {limit} bytes, unpacked"
        SlipwayError.__init__(
            self, f"the body has {found}: send at most {limit} bytes and {MAX_ITEMS} pieces of feedback at a time"
        )


class FeedbackItem(msgspec.Struct, forbid_unknown_fields=True):
    """What came of a prediction: a `value` from 0 to 1 (1 is best), or a `label` beside the `prediction` that was
    answered, or both. Which prediction, its `prediction_id` says; or else `user_id` (and `model`, where the server
    serves several) says who was answered.

    A label and its prediction are classes where they are texts, truth values or whole numbers, and are counted as
    numbers where both are numbers. Classes that come without a value have the value 1 where they are equal, else 0.
    """

    prediction_id: str | None = None
    user_id: str | int | None = None
    model: str | None = None
    value: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    label: Label | None = None
    prediction: Label | None = None


class FeedbackBatch(msgspec.Struct, forbid_unknown_fields=True):
    """Several pieces of feedback."""

    feedback: Annotated[list[FeedbackItem], msgspec.Meta(min_length=1, max_length=MAX_ITEMS)]


class Accepted(msgspec.Struct):
    """How many pieces of feedback were counted, and how many were known already."""

    accepted: int
    repeated: int


class Said(msgspec.Struct, frozen=True):
    """What a piece of feedback says of its prediction; None what it does not."""

    value: float | None
    classes: tuple[str, str] | None
    """What was predicted, and what was so."""
    numbers: tuple[float, float] | None
    """Likewise."""


_ITEM = msgspec.json.Decoder(FeedbackItem)
_BATCH = msgspec.json.Decoder(FeedbackBatch)
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def read_items(body: bytes) -> tuple[list[FeedbackItem], bool]:
    """The pieces of feedback of a body, and whether it is a batch of them. Raises InvalidInputError."""
    try:
        is_batch = "feedback" in _FIELDS.decode(body)
        return (_BATCH.decode(body).feedback if is_batch else [_ITEM.decode(body)]), is_batch
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInputError(
            f'the body is no feedback like {{"prediction_id": "...", "value": 1}}, nor {{"feedback": [...]}} of 1 to '
            f"{MAX_ITEMS} such: {error}"
        ) from error


def said_of(item: FeedbackItem) -> Said:
    """What a piece of feedback says of its prediction. Raises InvalidInputError."""
    value, label, prediction = item.value, item.label, item.prediction
    if (label is None) is not (prediction is None):
        given, missing = ("label", "prediction") if prediction is None else ("prediction", "label")
        raise InvalidInputError(
            f"it has a {given} and no {missing}: give what was answered and what was so, or neither"
        )
    classes, numbers = None, None
    if label is not None and prediction is not None:
        numbers = _numbers(prediction, label)
        classes = _classes(prediction, label)
        if classes is None and numbers is None:
            raise InvalidInputError(
                f"its label is a {type(label).__name__} and its prediction a {type(prediction).__name__}: give both as "
                "text or both as numbers"
            )
        if classes is not None and value is None:
            value = float(classes[0] == classes[1])
    elif value is None:
        raise InvalidInputError("it says nothing: give a value from 0 to 1, or a label and the prediction")
    return Said(value, classes, numbers)


def _numbers(prediction: Label, label: Label) -> tuple[float, float] | None:
    if any(isinstance(one, str | bool) for one in (prediction, label)):
        return None
    for one in (prediction, label):
        if not abs(one) <= MAX_NUMBER:  # type: ignore[arg-type] # not so of NaN either
            raise InvalidInputError(
                f"{one!s:.40} is beyond {MAX_NUMBER:g}: give numbers in larger units, and classes as text"
            )
    return float(prediction), float(label)


def _classes(prediction: Label, label: Label) -> tuple[str, str] | None:
    if isinstance(prediction, float) or isinstance(label, float) or type(prediction) is not type(label):
        return None
    return _class(prediction), _class(label)


def _class(label: str | bool | int) -> str:  # noqa: FBT001 - a label
    text = label if isinstance(label, str) else str(label).lower()
    if not text or len(text) > MAX_LABEL_CHARS:
        raise InvalidInputError(f"a class of {len(text)} characters: give 1 to {MAX_LABEL_CHARS}")
    if any(ord(sign) <= _LAST_OF_ASCII_CONTROL or ord(sign) == _DELETE for sign in text):
        raise InvalidInputError(f"the class {text!r} has control characters: leave them out")
    return text
