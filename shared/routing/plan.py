"""The route plan: the one thing that the control plane tells the data plane.

Published to `routes/<endpoint>.json`, a whole new document each time, numbered by `generation`. A server applies a plan
only if its generation is higher than the one it serves.
"""

from enum import StrEnum
from typing import Annotated, Self

from msgspec import Meta, ValidationError

from shared.core.contracts import Contract, Count, First, Number
from shared.core.slots import Slot

FULL_WEIGHT_BP = 10_000
MAX_FILE_BYTES = 8_000_000_000
"""The largest file of an artifact."""
MAX_FILE_NAME_LENGTH = 256

type Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
"""A digest. A server makes paths of it, so that nothing else may stand there."""
type FileName = Annotated[str, Meta(max_length=MAX_FILE_NAME_LENGTH)]
"""A file's name within a drop. A server checks by itself that it leads nowhere but down."""
type BasisPoints = Annotated[int, Meta(ge=0, le=FULL_WEIGHT_BP)]
type HeaderName = Annotated[str, Meta(pattern=r"^[a-z0-9-]{1,100}\Z")]
"""A header's name, in lower case."""
type CookieName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,100}\Z")]


class Role(StrEnum):
    """What a version is to its endpoint."""

    STABLE = "stable"
    CANDIDATE = "candidate"
    SHADOW = "shadow"
    """Gets copies of requests; what it answers is compared with the answer that was given, and dropped."""


class ArtifactFile(Contract, frozen=True, kw_only=True):
    """A file of an artifact: its name within the drop, and the SHA-256 under which it is stored."""

    name: FileName
    digest: Sha256
    size_bytes: Count


class Signing(Contract, frozen=True, kw_only=True):
    """A cryptographic signature over a drop's files, in OpenSSF model signing's form, and who may have made it."""

    digest: Sha256
    """SHA-256 of the signature file, at `artifacts/sha256/<digest>`."""
    trusted_keys: Annotated[tuple[str, ...], Meta(min_length=1)]
    """Public keys in PEM, of which one must have made it. A server that pins keys of its own goes by those alone."""


class SubjectSource(Contract, frozen=True, kw_only=True):
    """Where a request says whom it is for: the first of header, body field and cookie that is there.

    A request that says nothing is assigned at random, each one anew.
    """

    header: HeaderName | None = "x-slipway-user"
    body: bool = True
    """Whether `user_id` in the body (V2: among the parameters) is heard."""
    cookie: CookieName | None = None


class Guard(Contract, frozen=True, kw_only=True):
    """What a pod does by itself about a candidate that fails more requests than stable does at the same time.

    The pod tests the two error rates ten times a second, by a test that may be looked at as often as one likes
    (shared.sequential); at the level's evidence it sends the candidate no more traffic under this generation.
    """

    enabled: bool = True
    level: Annotated[float, Meta(gt=0, lt=1)] = 0.001
    """At most the probability that a candidate that is no worse than stable is ever tripped: in a policy, by any of the
    pods that report under any of the stages' plans; in a plan, by one that reports (a process: a pod may have several)
    under its generation, to which end the policy's is divided by those that reported when the plan was made, and by the
    stages with traffic."""
    margin: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    """By how much the candidate's error rate may exceed stable's."""


class Route(Contract, frozen=True, kw_only=True):
    """A version and its share of the traffic in basis points. A share of 0 means: loaded and warm, no traffic."""

    version: Number
    role: Role
    weight_bp: BasisPoints
    mirror_bp: BasisPoints = 0
    """The share of the endpoint's requests of which a shadow gets a copy, while there is capacity to spare."""
    artifact_digest: Sha256
    """SHA-256 of the ONNX file, at `artifacts/sha256/<digest>`."""
    size_bytes: Count
    model_file: FileName = "model.onnx"
    """The ONNX file's name within the drop, by which a signature knows it."""
    external: tuple[ArtifactFile, ...] = ()
    """The files that hold tensors of the model, under the names that the model knows them by."""
    signing: Signing | None = None
    golden_digest: Sha256 | None = None
    """SHA-256 of the golden rows (a JSON file), also under `artifacts/sha256/`."""
    profile_digest: Sha256 | None = None
    """SHA-256 of the reference profile that the version's traffic is counted by, also under `artifacts/sha256/`."""
    allow_nan: bool = True
    """Whether the outputs may hold what is no finite number. Otherwise such an output is the version's failure."""
    slot: Slot | None = None
    """The endpoint's own pods that have it; None: those that endpoints share."""


class RoutePlan(Contract, frozen=True, kw_only=True):
    """What an endpoint serves. `salt` seeds the assignment of subjects, anew for each rollout.

    The weights sum to 10,000; only a plan without a stable version may sum to 0: nothing is served yet. Where versions
    are in different pods, the Gateway before them draws by the weights, and a pod gives its version all that it gets.
    """

    schema_version: First = 1
    endpoint: str
    generation: Number
    rollout_id: str | None = None
    salt: str
    routes: tuple[Route, ...]
    pods: tuple[str, ...] | None = None
    """Where given, these pods give the candidate all their traffic and the others none; the weights then tell the share
    of the pods."""
    subject: SubjectSource = SubjectSource()
    guard: Guard = Guard()
    trace: str | None = None
    """The W3C `traceparent` of what led to it. It decides nothing."""

    def __post_init__(self) -> None:
        """Check it as a whole, too. Raises ValidationError."""
        super().__post_init__()
        versions = [route.version for route in self.routes]
        if len(set(versions)) != len(versions):
            raise ValidationError(f"a version stands in two routes: {versions}")
        for role in (Role.STABLE, Role.CANDIDATE):
            if sum(route.role is role for route in self.routes) > 1:
                raise ValidationError(f"more than one {role} route")
        for route in self.routes:
            if route.role is Role.SHADOW and route.weight_bp:
                raise ValidationError(f"version {route.version} is a shadow and has a weight: a shadow answers nobody")
            if route.role is not Role.SHADOW and route.mirror_bp:
                raise ValidationError(f"version {route.version} is {route.role} and is mirrored to: only a shadow is")
        self._check_slots()
        if self.pods is not None and (self.stable is None or self.candidate is None):
            raise ValidationError(
                "pods are named, and there are no stable and candidate routes between which they choose"
            )
        total = sum(route.weight_bp for route in self.routes)
        if total != FULL_WEIGHT_BP and (self.stable is not None or total != 0):
            raise ValidationError(f"the weights sum to {total} basis points, not {FULL_WEIGHT_BP}")

    def _check_slots(self) -> None:
        slots = [route.slot for route in self.routes if route.slot is not None]
        if len(set(slots)) != len(slots):
            raise ValidationError(f"two routes have the slot {slots[0]}: two versions in pods of their own share none")
        if slots and self.shadows:
            raise ValidationError(
                "a version has a slot and another is a shadow, which needs what is mirrored in its process"
            )
        if slots and self.pods is not None:
            raise ValidationError(
                "a version has a slot and pods are named, which choose between versions in one process"
            )

    @property
    def stable(self) -> Route | None:
        """The stable route, or None before the first promotion."""
        return next((route for route in self.routes if route.role is Role.STABLE), None)

    @property
    def candidate(self) -> Route | None:
        """The candidate route, or None where no rollout is active."""
        return next((route for route in self.routes if route.role is Role.CANDIDATE), None)

    def for_pod(self, pod: str) -> Self:
        """The plan as one pod is to follow it."""
        if self.pods is None or self.candidate is None or self.stable is None:
            return self
        weight_bp = FULL_WEIGHT_BP if pod in self.pods else 0
        weights = {Role.CANDIDATE: weight_bp, Role.STABLE: FULL_WEIGHT_BP - weight_bp}
        routes = [route.model_copy(update={"weight_bp": weights.get(route.role, 0)}) for route in self.routes]
        return self.model_copy(update={"routes": tuple(routes)})

    def for_slot(self, slot: Slot | None) -> Self:
        """The plan as the pods of a slot are to follow it; None: those that endpoints share. Without routes where they
        have no version of it.

        The weights stand where every version is in these pods. Where another is elsewhere, the one that is here has all
        traffic: what reaches these pods was drawn for it.
        """
        here = tuple(route for route in self.routes if route.slot is slot)
        if len(here) == len(self.routes):
            return self
        routes = tuple(route.model_copy(update={"weight_bp": FULL_WEIGHT_BP}) for route in here)
        return self.model_copy(update={"routes": routes})

    @property
    def is_slotted(self) -> bool:
        """Whether a version has pods of its own."""
        return any(route.slot is not None for route in self.routes)

    @property
    def shadows(self) -> tuple[Route, ...]:
        """The routes that get copies of requests."""
        return tuple(route for route in self.routes if route.role is Role.SHADOW)


def plan_blob_name(endpoint: str) -> str:
    """Where the plan is stored, within the routes container."""
    return f"{endpoint}.json"


def artifact_blob_name(digest: str) -> str:
    """Where an artifact is stored, within the artifacts container."""
    return f"sha256/{digest}"
