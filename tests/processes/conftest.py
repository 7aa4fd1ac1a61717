"""The command run in this process, as tests/unit/cli does."""

from tests.unit.cli.conftest import api, bare, slipway

__all__ = ["api", "bare", "slipway"]
