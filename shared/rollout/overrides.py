"""Who had a version answer by a signed override header, on record: each tick tells of the windows that it took in.

Servers count such requests by version and by who signed the override (shared.signing.override). While a rollout lasts,
a version without traffic is there to be reached so: what was tried of it, and by whom, is part of why it went on.
"""

from datetime import datetime

from shared.rollout.documents import Rollout
from shared.rollout.endpoint import Endpoint


def put_on_record(endpoint: Endpoint, rollout: Rollout, now: datetime) -> None:
    """Put the overrides that this tick took in on record, an event for each version and signer."""
    for version, signers in sorted(rollout.progress.overrides.items()):
        for by, requests in sorted(signers.items()):
            endpoint.record(
                "override_used", now, rollout_id=rollout.rollout_id, version=version, by=by, requests=requests
            )
