"""The id of a prediction: names what answered, so that nothing needs to be looked up request by request.

`churn.3.7.ca.k3qx7m2p4z.6740a1f2.1f`: endpoint, version, generation of the plan, role and reason, the pod's mark, the
second (UTC, hexadecimal Unix time) and a count. Whoever has the registry and the audit trail finds from it the
version's digest, data, approvals and the decision that gave it this traffic. An id is a claim by whoever shows it: it
is not signed.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Self

from shared.core.errors import InvalidInputError
from shared.core.ids import EndpointName, endpoint_name
from shared.routing.plan import Role

_FORM = re.compile(
    r"(?P<endpoint>[^.]{1,200})\.(?P<version>[1-9][0-9]{0,8})\.(?P<generation>[1-9][0-9]{0,8})\.(?P<role>[scm])"
    r"(?P<reason>[afp])\.(?P<pod>[a-z0-9]{4,32})\.(?P<second>[1-9a-f][0-9a-f]{0,8})\."
    r"(?P<count>0|[1-9a-f][0-9a-f]{0,15})"
)
"""Versions and generations of nine digits at most: what a window may count (shared.telemetry.plausible), so that no id
that somebody made up has a whole window left out.
"""


class Reason(StrEnum):
    """Why a version was asked."""

    ASSIGNED = "assigned"
    """The plan gave it the request's subject."""
    FALLBACK = "fallback"
    """It answered in place of a version that failed."""
    PINNED = "pinned"
    """The caller named it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionId:
    """A prediction id, taken apart."""

    endpoint: EndpointName
    version: int
    generation: int
    role: Role
    reason: Reason
    pod: str
    """The mark of the process that answered, new at each of its starts."""
    at: datetime
    """When it was answered, to the second."""
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an id. Raises InvalidInputError."""
        match = _FORM.fullmatch(text)
        if match is None:
            raise InvalidInputError(
                f"{text[:100]!r} is not a prediction id: use what an answer's `prediction_id` or its header "
                "x-slipway-prediction-id says, as in churn.3.7.sa.k3qx7m2p4z.6740a1f2.1f"
            )
        return cls(
            endpoint=endpoint_name(match["endpoint"]),
            version=int(match["version"]),
            generation=int(match["generation"]),
            role=_ROLES[match["role"]],
            reason=_REASONS[match["reason"]],
            pod=match["pod"],
            at=datetime.fromtimestamp(int(match["second"], 16), UTC),
            count=int(match["count"], 16),
        )

    def __str__(self) -> str:
        """As it stands in an answer."""
        prefix = prediction_prefix(
            endpoint=self.endpoint,
            version=self.version,
            generation=self.generation,
            role=self.role,
            reason=self.reason,
            pod=self.pod,
        )
        return f"{prefix}{int(self.at.timestamp()):x}.{self.count:x}"


def prediction_prefix(
    *, endpoint: EndpointName, version: int, generation: int, role: Role, reason: Reason, pod: str
) -> str:
    """The part of an id that the answers of one version under one generation share, up to and with its last dot."""
    letters = _LETTER_OF_ROLE[role] + _LETTER_OF_REASON[reason]
    return f"{endpoint}.{version}.{generation}.{letters}.{pod}."


_ROLES = {"s": Role.STABLE, "c": Role.CANDIDATE, "m": Role.SHADOW}
_REASONS = {"a": Reason.ASSIGNED, "f": Reason.FALLBACK, "p": Reason.PINNED}
_LETTER_OF_ROLE = {role: letter for letter, role in _ROLES.items()}
_LETTER_OF_REASON = {reason: letter for letter, reason in _REASONS.items()}
