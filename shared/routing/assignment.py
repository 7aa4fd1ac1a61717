"""Sticky assignment: which version answers a subject.

A subject falls into one of 10,000 buckets by a salted hash; the candidate takes the buckets below its weight. So the
same subject gets the same version on every pod with no shared state, raising the weight moves subjects to the
candidate only, and two rollouts (two salts) draw their subjects independently. Golden vectors:
tests/unit/routing/assignment_vectors.json.
"""

from hashlib import blake2b

from shared.routing.plan import FULL_WEIGHT_BP, Route, RoutePlan


def bucket(salt: str, subject: str) -> int:
    """The subject's bucket, 0 to 9,999: the first 8 bytes (big-endian) of BLAKE2b-64 over `salt`, NUL, `subject`."""
    hashed = int.from_bytes(blake2b(f"{salt}\0{subject}".encode(), digest_size=8).digest())
    return hashed * FULL_WEIGHT_BP >> 64


def route_for(plan: RoutePlan, bucket_of_subject: int) -> Route | None:
    """The route of a bucket, or None where the plan serves nothing yet."""
    candidate, stable = plan.candidate, plan.stable
    if candidate is not None and bucket_of_subject < candidate.weight_bp:
        return candidate
    return stable
