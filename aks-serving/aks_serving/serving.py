"""What answers an endpoint's requests: a snapshot, replaced as a whole when another plan is applied.

A request keeps the snapshot that it began with. Nothing of it changes but its counts and what its guard has found.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from aks_serving.counts import Kind, Runs, Tally, VersionTally
from aks_serving.errors import ElsewhereError, NotServingError, UnknownModelError, a_few
from aks_serving.exchange import HEADER_LENGTH, Head
from aks_serving.fast import FastReader, fast_reader
from aks_serving.faults import Faults
from aks_serving.guard import TripGuard
from aks_serving.lanes import Lane
from aks_serving.model import Signature
from aks_serving.numbering import Numbering
from aks_serving.shadow import Mirrors, mirrors_of
from aks_serving.subjects import Share
from shared.core.errors import InvalidInputError, NotFoundError
from shared.core.ids import EndpointName
from shared.routing.plan import FULL_WEIGHT_BP, Route, RoutePlan
from shared.routing.prediction import prediction_prefix

if TYPE_CHECKING:
    from aks_serving.taking import FeatureCounter

CANDIDATE_OK, CANDIDATE_FAILED, STABLE_OK, STABLE_FAILED = range(4)
"""Places in `Serving.seen`."""
LOADING = "it is being loaded"
"""Why a version that the plan names does not serve, where nothing went wrong."""

_OCTETS = b"application/octet-stream"
_MAX_BINARY_HEADS = 64
_encode = msgspec.json.Encoder().encode


class Servings(dict[str, "Serving"]):
    """What answers each endpoint, and what follows from it for every request. Never changed, but replaced; only what
    was found out about heads (aks_serving.usual) is added.
    """

    __slots__ = ("infer_paths", "only", "usual")

    def __init__(self, servings: "Mapping[str, Serving]") -> None:
        super().__init__(servings)
        self.only = next(iter(self.values())) if len(self) == 1 else None
        """The only one, where there is one."""
        self.usual: dict[object, Any] = {}
        """What heads settle under this snapshot."""
        self.infer_paths = {f"/v2/models/{name}/infer": serving for name, serving in self.items()}

    def named(self, model: str | None) -> "Serving":
        """What answers an endpoint; without a name, the only one there is.

        Raises UnknownModelError, InvalidInputError where one of several is to be named, NotServingError where there is
        none.
        """
        serving = self.only if model is None else self.get(model)
        if serving is not None:
            return serving
        if model is not None:
            raise UnknownModelError(model, self)
        if not self:
            raise NotServingError("the model server", "it serves no model yet")
        raise InvalidInputError(f"name the model: the server serves {a_few(self)}")


class Face:
    """What the answers of one version, for one reason, have in common."""

    __slots__ = (
        "_binary_heads",
        "_headers",
        "fallback",
        "head",
        "id_prefix",
        "output_keys",
        "plain_middle",
        "role",
        "v2_outputs",
        "v2_start",
        "version",
    )

    def __init__(self, plan: RoutePlan, route: Route, kind: Kind, *, mark: str, signature: Signature) -> None:
        self.version = route.version
        self.role = route.role
        self.fallback = kind is Kind.FALLBACK
        self._headers = (
            (b"x-slipway-version", b"%d" % route.version),
            (b"x-slipway-role", route.role.encode()),
            (b"x-slipway-generation", b"%d" % plan.generation),
            *(((b"x-slipway-fallback", b"true"),) if self.fallback else ()),
        )
        self.head = Head(200, self._headers)
        self._binary_heads: dict[int, Head] = {}
        prefix = prediction_prefix(
            endpoint=EndpointName(plan.endpoint),
            version=route.version,
            generation=plan.generation,
            role=route.role,
            reason=kind.reason,
            pod=mark,
        )
        self.id_prefix = prefix.encode()
        self.plain_middle = (
            f',"model":"{plan.endpoint}","model_version":{route.version},"role":"{route.role}",'
            f'"generation":{plan.generation},"fallback":{str(self.fallback).lower()},"prediction_id":"{prefix}'
        ).encode()
        self.output_keys = tuple(_encode(spec.name) + b":" for spec in signature.outputs)
        self.v2_outputs = tuple(
            b'{"name":%b,"datatype":"%b","shape":[' % (_encode(spec.name), spec.datatype.encode())
            for spec in signature.outputs
        )
        self.v2_start = f'{{"model_name":"{plan.endpoint}","model_version":"{route.version}",'.encode()

    def binary_head(self, header_length: int) -> Head:
        """The head of an answer whose body is JSON of that length, and binary data after it: the same for answers of
        one shape, unless their requests' ids differ in length.
        """
        head = self._binary_heads.get(header_length)
        if head is None:
            if len(self._binary_heads) >= _MAX_BINARY_HEADS:
                self._binary_heads.clear()
            headers = ((HEADER_LENGTH, b"%d" % header_length), *self._headers)
            head = self._binary_heads[header_length] = Head(200, headers, content_type=_OCTETS)
        return head


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A plan as this pod follows it, the versions loaded for it, those that are not and why.

    `published` is the plan with what other pods have of it; None where it is the same.
    `waiting` names those of the latter that are still being fetched while storage does not answer; a window does not
    report them as failed, lest a short outage end a rollout.
    """

    plan: RoutePlan
    lanes: Mapping[int, Lane]
    failed: Mapping[int, str]
    waiting: frozenset[int] = frozenset()
    published: RoutePlan | None = None
    numbering: Numbering = field(default_factory=Numbering, compare=False)
    tally: Tally = field(default_factory=Tally, compare=False)
    routes: Mapping[int, Route] = field(init=False, compare=False)
    elsewhere: tuple[Route, ...] = field(init=False, compare=False)
    """The plan's routes that other pods have."""
    stable: Route | None = field(init=False, compare=False)
    candidate: Route | None = field(init=False, compare=False)
    candidate_weight_bp: int = field(init=False, compare=False)
    share: Share = field(init=False, compare=False)
    """The subjects that are the candidate's."""
    fast: FastReader | None = field(init=False, compare=False)
    """Reads requests of the usual form at once, where every version takes inputs of the same form."""
    gives_bytes: bool = field(init=False, compare=False)
    """Whether any version has an output of BYTES."""
    features: "dict[int, FeatureCounter]" = field(init=False, default_factory=dict, compare=False)
    """What counts the features of a version's requests, by version, where anything does."""
    mirrors: Mirrors | None = field(init=False, compare=False)
    """What copies requests to the plan's shadows, where it has any."""
    guard: TripGuard | None = field(default=None, compare=False)
    """Watches the candidate, where there is one that can be tripped."""
    seen: list[int] = field(default_factory=lambda: [0, 0, 0, 0], compare=False)
    """Assigned requests that the guard has not heard of: the candidate answered; it failed and stable answered; stable
    answered; stable failed."""
    tripped: dict[int, str] = field(default_factory=dict, compare=False)
    """Versions that get no more traffic under this generation, by this pod's own judgement, and why."""
    coming: dict[int, str] = field(default_factory=dict, compare=False)
    """The versions of the plan that is to be applied next, and why each does not serve yet."""
    faults: Faults = field(default_factory=Faults, compare=False)
    """Tells the log of runs that failed."""
    _faces: dict[tuple[int, Kind], Face] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        plan = self.plan
        keep = object.__setattr__
        keep(self, "routes", {route.version: route for route in plan.routes})
        published = () if self.published is None else self.published.routes
        keep(self, "elsewhere", tuple(route for route in published if route.version not in self.routes))
        keep(self, "stable", plan.stable)
        keep(self, "candidate", plan.candidate)
        keep(self, "candidate_weight_bp", plan.candidate.weight_bp if plan.candidate else 0)
        keep(self, "share", Share(plan.salt, self.candidate_weight_bp))
        keep(self, "mirrors", mirrors_of(plan, self.lanes, self.tally))
        outputs = [spec for lane in self.lanes.values() for spec in lane.model.signature.outputs]
        keep(self, "gives_bytes", any(spec.datatype == "BYTES" for spec in outputs))
        signatures = [lane.model.signature for lane in self.lanes.values() if lane.layout is not None]
        keep(self, "fast", fast_reader(signatures) if len(signatures) == len(self.lanes) else None)
        # Made now, not by the first request of each: it would take that as long again as all else.
        for version in self.lanes.keys() & self.routes.keys():
            self.face(version, Kind.ASSIGNED)

    @property
    def is_whole(self) -> bool:
        """Whether requests are answered whatever the candidate does: stable is loaded, or where there is none yet, a
        candidate that has traffic.
        """
        if self.stable is not None:
            return self.stable.version in self.lanes
        return self.candidate_weight_bp > 0 and self._candidate_answers

    @property
    def answers(self) -> bool:
        """Whether requests are answered: by stable, or by a candidate that has all of them."""
        return self.is_whole or (self.candidate_weight_bp == FULL_WEIGHT_BP and self._candidate_answers)

    @property
    def is_elsewhere(self) -> bool:
        """Whether the plan has versions for other pods alone."""
        return bool(self.elsewhere) and not self.plan.routes

    def planned_bp(self, route: Route) -> int:
        """The share of the endpoint's requests that a route of the plan has; in this pod it may have them all."""
        published = () if self.published is None or self.published.pods is not None else self.published.routes
        return next((found.weight_bp for found in published if found.version == route.version), route.weight_bp)

    def absent(self, version: int | None) -> NotFoundError | NotServingError:
        """What a caller is told who asks for a version that is not loaded, or for any where there is none.

        What the plan names may be there a moment later; what it does not name is not.
        """
        endpoint = self.plan.endpoint
        slots = [route.slot for route in self.elsewhere if version in {None, route.version}]
        if slots and (version is not None or self.is_elsewhere):
            return ElsewhereError(endpoint, version, slots)
        if version is None:
            return NotServingError(f"endpoint {endpoint!r}", "no version serves it yet")
        if version in self.routes or version in self.failed or version in self.coming:
            reason = self.failed.get(version) or self.coming.get(version, LOADING)
            return NotServingError(f"version {version} of endpoint {endpoint!r}", reason)
        loaded = ", ".join(str(number) for number in sorted(self.lanes)) or "none"
        return NotFoundError(f"version {version} of endpoint {endpoint!r}", hint=f"loaded: {loaded}")

    @property
    def _candidate_answers(self) -> bool:
        candidate = self.candidate
        return candidate is not None and candidate.version in self.lanes and candidate.version not in self.tripped

    def look(self) -> None:
        """Tell the guard of what was seen since the last look."""
        if self.guard is not None and any(self.seen):
            seen, self.seen[:] = tuple(self.seen), (0, 0, 0, 0)
            self.guard.observe(*seen)

    def face(self, version: int, kind: Kind) -> Face:
        """The face of a version that is loaded. Raises KeyError."""
        face = self._faces.get((version, kind))
        if face is None:
            signature = self.lanes[version].model.signature
            face = Face(self.plan, self.routes[version], kind, mark=self.numbering.mark, signature=signature)
            self._faces[version, kind] = face
        return face

    def tally_of(self, version: int) -> VersionTally:
        """The counts of a version, to be added to."""
        return self.tally.of(version)

    def overridden(self, version: int, by: str) -> None:
        """A request whose override names a version; one that the plan does not name counts nowhere."""
        if version in self.routes:
            self.tally.of(version).overridden(by)

    def count_runs(self) -> None:
        """Take what the versions ran, and what was copied to shadows, into the counts."""
        if self.mirrors is not None:
            self.mirrors.count()
        for version, lane in self.lanes.items():
            if lane.runs.any:
                self.tally.of(version).runs.add(lane.runs)
                lane.runs = Runs()
