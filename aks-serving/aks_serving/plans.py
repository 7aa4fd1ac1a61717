"""A published plan, read, and what each of its versions is made from."""

from shared.core.errors import InvalidInputError
from shared.core.ids import EndpointName
from shared.routing.plan import ArtifactFile, Route, RoutePlan, Signing

type MadeFrom = tuple[int, str, str, tuple[ArtifactFile, ...], Signing | None, str | None, str | None, bool]
"""What a loaded version was made from, the version first: a route that differs in any of it is loaded anew. Its role,
weight and slot are none of it.
"""


def parsed_plan(endpoint: EndpointName, data: bytes) -> RoutePlan:
    """The plan that is stored as an endpoint's. Raises InvalidInputError where it is none, or another's."""
    try:
        plan = RoutePlan.model_validate_json(data)
    except ValueError as error:
        raise InvalidInputError(str(error)) from error
    if plan.endpoint != endpoint:
        raise InvalidInputError(f"it is the plan of endpoint {plan.endpoint!r}, stored as that of {endpoint!r}")
    return plan


def made_from(route: Route) -> MadeFrom:
    """What a version is made from that is loaded as a route says."""
    return (
        route.version,
        route.artifact_digest,
        route.model_file,
        route.external,
        route.signing,
        route.golden_digest,
        route.profile_digest,
        route.allow_nan,
    )
