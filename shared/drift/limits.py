"""What drift must come to before it is an alarm."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """A feature drifted where one of the measures is at its limit and chance is ruled out.

    None is no limit: the measure is reported all the same.
    """

    psi: float | None = 0.2
    jensen_shannon: float | None = None
    hellinger: float | None = None
    kolmogorov_smirnov: float | None = None
    wasserstein: float | None = None
    unusable: float | None = 0.05
    """The share of rows that are missing, infinite or of an unseen category, above the reference's."""
    false_discovery_rate: float = 0.05
    min_rows: int = 100


MEASURES = ("psi", "jensen_shannon", "hellinger", "kolmogorov_smirnov", "wasserstein", "unusable")
"""Names of the measures, in limits as in scores."""
