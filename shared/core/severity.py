"""How soon somebody must look at an alert: its rule says so, or a policy, and sinks are told from one on."""

from enum import StrEnum


class Severity(StrEnum):
    """How soon somebody must look."""

    CRITICAL = "critical"
    """Now: requests fail."""
    WARNING = "warning"
    """Today."""
    INFO = "info"
    """When there is time."""

    @property
    def rank(self) -> int:
        """0 for the gravest."""
        return list(Severity).index(self)
