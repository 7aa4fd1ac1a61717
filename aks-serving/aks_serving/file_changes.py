"""Tells whether files that are read again when they change, such as keys, changed."""

from collections.abc import Sequence
from pathlib import Path


class FileChanges:
    """Of some files. One that is replaced, as by a rename or a link, is another; so is one that is gone, or back."""

    def __init__(self, *paths: Path) -> None:
        """To be made before the files are first read, so that no change is missed."""
        self._paths = paths
        self._seen = self._stamps()

    def look(self) -> bool:
        """Whether any is another than at the last look."""
        seen, self._seen = self._seen, self._stamps()
        return seen != self._seen

    def _stamps(self) -> Sequence[tuple[int, int, int] | None]:
        return [_stamp(path) for path in self._paths]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino, stat.st_size
