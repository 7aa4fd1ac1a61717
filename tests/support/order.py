"""The order in which files of tests are run where several processes share them: what takes long first.

xdist gives each process that has nothing to do the next file. Files of long tests begin early, so that none is begun
when the others are done; those that start the whole system come one after another file each, as two of them at once
are plenty for a small machine.
"""

from collections.abc import Callable, Sequence
from itertools import zip_longest

FOLDERS = (
    "e2e",
    "world",
    "functions",
    "hostile",
    "infra",
    "sandbox",
    "contract",
    "serving",
    "real",
    "simulation",
    "processes",
    "unit",
)
"""The folders of tests/, by what a file of theirs takes, the longest first."""


def longest_first[T](items: Sequence[T], file_of: Callable[[T], str]) -> list[T]:
    """The tests, those of a file together, in their own order. `file_of` gives a test's file: `tests/unit/...`."""
    files: dict[str, list[T]] = {}
    for item in items:
        files.setdefault(file_of(item), []).append(item)
    ranked = sorted(files, key=lambda file: _rank(_folder(file)))
    systems = [file for file in ranked if _folder(file) == FOLDERS[0]]
    others = ranked[len(systems) :]
    between = [file for pair in zip_longest(systems, others[: len(systems)]) for file in pair if file is not None]
    return [item for file in [*between, *others[len(systems) :]] for item in files[file]]


def _folder(file: str) -> str:
    return file.split("/")[1]


def _rank(folder: str) -> int:
    return FOLDERS.index(folder) if folder in FOLDERS else len(FOLDERS)
