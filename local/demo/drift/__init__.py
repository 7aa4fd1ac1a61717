"""The demo of drift: a model of winter's flights is asked about July's, on this machine, on real data."""

from pathlib import Path

__all__ = ["run"]


def run(*, json_output: bool, state_dir: Path | None = None) -> int:
    """Show the demo, and return the exit code: see local.demo.stage.run."""
    # Not imported above: the process that trains is in this package too, and needs none of it.
    from local.demo.drift.show import run as show  # noqa: PLC0415

    return show(json_output=json_output, state_dir=state_dir)
