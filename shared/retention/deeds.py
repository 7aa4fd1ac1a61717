"""The deeds of a run, in a blob: what it archives and deletes, which no document has room for.

Whoever can write to storage can overwrite the blob. Deeds are believed only while they are those that the plan's id,
which the run's document holds, is the digest of; others are never done.
"""

from pydantic import ValidationError

from shared.core.errors import IntegrityError
from shared.retention.documents import Deeds, RetentionPlan, RetentionRun
from shared.store.ports import BlobContainer, BlobStore

_MAX_BYTES = 32_000_000
"""Room for the longest names that as many blobs as a plan holds can have."""


def deeds_blob_name(model: str, plan_id: str) -> str:
    """Where a plan's deeds are stored, within the reports container."""
    return f"{model}/retention/{plan_id}.json"


def store_deeds(blobs: BlobStore, plan: RetentionPlan) -> None:
    """Store what a plan does, unless it is stored already."""
    name = deeds_blob_name(plan.model, plan.plan_id)
    blobs.create(BlobContainer.REPORTS, name, plan.deeds.model_dump_json().encode())


def deeds_of(blobs: BlobStore, run: RetentionRun) -> Deeds:
    """What a run does. Raises IntegrityError where what is stored is not what its plan was."""
    name = deeds_blob_name(run.model, run.plan_id)
    blob = blobs.read(BlobContainer.REPORTS, name, max_bytes=_MAX_BYTES)
    if blob is None:
        raise IntegrityError(f"the deeds of {run.id} are gone from {BlobContainer.REPORTS}/{name}: put them back")
    try:
        deeds = Deeds.model_validate_json(blob.data)
    except ValidationError:
        deeds = None
    if deeds is None or deeds.plan_id(run.model) != run.plan_id:
        raise IntegrityError(
            f"{BlobContainer.REPORTS}/{name} does not hold the deeds of {run.id}: find out who changed it, "
            "and put the right bytes back"
        )
    return deeds
