"""Whether the packages that tests import are those of the tree that the tests stand in.

An editable install leads to the tree that it was made of: in a copy, as one makes to break something on purpose, tests
would go on testing that one, all of them green.
"""

from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("shared", "functions", "cli", "local", "aks_serving")


def strangers(root: Path) -> list[str]:
    """The packages that come from elsewhere than a tree, each with from where; none of them is imported."""
    found = {name: spec.origin if (spec := find_spec(name)) else None for name in PACKAGES}
    return [
        f"{name} from {origin}"
        for name, origin in found.items()
        if origin is None or not Path(origin).resolve().is_relative_to(root)
    ]
