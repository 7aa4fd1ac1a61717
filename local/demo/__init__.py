"""The demo: the whole job on this machine, on real data, in about half a minute."""

from pathlib import Path

__all__ = ["run"]


def run(*, json_output: bool, state_dir: Path | None = None) -> int:
    """Show the demo, and return the exit code: see local.demo.show.run."""
    # Not imported above: the process that trains is in this package too, and needs none of it.
    from local.demo import show  # noqa: PLC0415

    return show.run(json_output=json_output, state_dir=state_dir)
