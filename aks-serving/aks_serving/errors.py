"""What goes wrong in serving, beside the errors of the domain (shared.core.errors). HTTP statuses are in `failures`."""

from collections.abc import Collection, Iterable
from enum import StrEnum

from shared.core.errors import NotFoundError, SlipwayError, UnavailableError
from shared.core.slots import Slot

_SHOWN = 80
_A_FEW = 5

WRONG = "the server made an error; its log says which"
"""What callers are told of a defect of the server's own."""


class OverloadedError(UnavailableError):
    """The bounded queue is full."""

    def __init__(self, waiting: int) -> None:
        super().__init__("the model server", f"{waiting} requests are waiting already; try again in a second")


class NotServingError(UnavailableError):
    """No version can answer now."""


class UnknownModelError(NotFoundError):
    """No endpoint has this name."""

    def __init__(self, model: str, served: Collection[str]) -> None:
        """`served` are the names of those that there are."""
        super().__init__(f"model {model[:_SHOWN]!r}", hint=f"served: {a_few(served)}")


def a_few(names: Collection[str]) -> str:
    """The first few names, and how many there are beside them."""
    named = sorted(names)
    shown, others = ", ".join(named[:_A_FEW]) or "none", len(named) - _A_FEW
    return f"{shown} and {others} more" if others > 0 else shown


class ElsewhereError(NotFoundError):
    """What was asked for is in pods of which this is none."""

    def __init__(self, endpoint: str, version: int | None, slots: Iterable[Slot | None]) -> None:
        """Of the endpoint, or of one version of it. `slots` are those of the pods that have it."""
        what, path, headers = f"endpoint {endpoint!r}", f"/v2/models/{endpoint}", f"x-slipway-endpoint: {endpoint}"
        if version is not None:
            what = f"version {version} of {what}"
            path, headers = f"{path}/versions/{version}", f"{headers} and x-slipway-version: {version}"
        SlipwayError.__init__(
            self,
            f"{what} is served by {pods_of(slots)}, and this is none of them: ask the Gateway, for {path} or with the "
            f"header{'s' if version is not None else ''} {headers}",
        )


def pods_of(slots: Iterable[Slot | None]) -> str:
    """Which pods, in words."""
    named = ["the shared pods" if slot is None else f"pods of its own (slot {slot})" for slot in slots]
    return " and ".join(dict.fromkeys(named))


class LoadCode(StrEnum):
    """Why a version cannot be loaded. The reason in a telemetry window begins with it, as in `altered: ...`."""

    ALTERED = "altered"
    """A file is not the one that the plan names by its digest."""
    MISSING = "missing"
    """A file is not in storage."""
    UNSIGNED = "unsigned"
    """It has no signature, and this server takes none without one."""
    UNKNOWN_KEY = "unknown_key"
    """Its signature was made by a key that is not trusted."""
    BAD_SIGNATURE = "bad_signature"
    """Its signature is malformed, or does not verify."""
    SIGNATURE_MISMATCH = "signature_mismatch"
    """Its signature verifies, and is about other files than the plan names."""
    GOLDEN = "golden"
    """It does not give what its golden rows recorded."""
    MODEL = "model"
    """The runtime cannot load it, or it takes or gives what this server does not know."""
    HANGS = "hangs"
    """It was not made in the time that it has."""
    MEMORY = "memory"
    """It does not fit into the memory that the server may take."""


class LoadError(SlipwayError):
    """A version cannot be loaded, and trying again with the same bytes will not help."""

    def __init__(self, code: LoadCode, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code


class ModelRunError(SlipwayError):
    """The model failed on a request. The message holds the first line of what the runtime said, no more."""

    def __init__(self, version: int, reason: str) -> None:
        super().__init__(f"version {version} failed on this request: {reason}")


class LostError(SlipwayError):
    """The server, not the model, failed a run: a defect of its own, or no thread to run on."""

    def __init__(self) -> None:
        super().__init__(WRONG)


class LateError(ModelRunError):
    """A run took so much longer than such runs do, and so much of its caller's time, that another was asked instead.

    Whether the version is at fault, one caller's time does not say.
    """

    def __init__(self, version: int, ran_s: float) -> None:
        super().__init__(version, f"it did not end within {ran_s:.1f} s, and its caller does not wait for long")


class BodyTooLargeError(SlipwayError):
    """A request's body is larger than the server takes."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is larger than {limit} bytes: send fewer rows at a time")


class ExpiredError(SlipwayError):
    """A request's deadline passed before a model ran it. It never runs."""

    def __init__(self, waited_s: float) -> None:
        super().__init__(
            f"the deadline passed after {waited_s * 1e3:.0f} ms, before a model ran this request: "
            "allow more time, or try again later"
        )
