"""The share of its memory limit that a server takes, as its windows tell it."""

from pathlib import Path

import pytest
from aks_serving.memory import Usage, memory_share

_MIB = 1024 * 1024
_HUGE = "9223372036854771712"


def _tree(folder: Path, groups: str, files: dict[str, str]) -> tuple[Path, Path]:
    own = folder / "cgroup"
    own.write_text(groups)
    for name, text in files.items():
        path = folder / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "root", own


@pytest.mark.parametrize(
    ("groups", "files", "share"),
    [
        (
            "0::/\n",
            {"memory.max": "1000\n", "memory.current": "700\n", "memory.stat": "anon 500\ninactive_file 200\n"},
            0.5,
        ),
        (
            "0::/\n",
            {"memory.max": "1000", "memory.current": "100", "memory.stat": "inactive_file 300\n"},
            0.0,
        ),
        ("0::/\n", {"memory.max": "max", "memory.current": "700", "memory.stat": "inactive_file 0\n"}, None),
        (
            "0::/pod/one\n",
            {
                "pod/one/memory.max": "1000",
                "pod/one/memory.current": "100",
                "pod/one/memory.stat": "inactive_file 0\n",
                "pod/memory.max": "2000",
                "pod/memory.current": "1800",
                "pod/memory.stat": "inactive_file 0\n",
            },
            0.9,
        ),
        (
            "4:memory:/a\n",
            {
                "memory/a/memory.limit_in_bytes": "1000",
                "memory/a/memory.usage_in_bytes": "600",
                "memory/a/memory.stat": "inactive_file 5\ntotal_inactive_file 100\n",
                "memory/memory.limit_in_bytes": _HUGE,
            },
            0.5,
        ),
        ("0::/\n", {"memory.max": "1000", "memory.stat": "inactive_file 0\n"}, None),
        ("0::/\n", {"memory.max": "1000", "memory.current": "what", "memory.stat": "inactive_file 0\n"}, None),
        ("0::/\n", {}, None),
    ],
)
def test_it_is_that_of_the_group_that_is_nearest_to_its_limit(
    tmp_path: Path, groups: str, files: dict[str, str], share: float | None
) -> None:
    root, own = _tree(tmp_path, groups, files)
    found = memory_share(None, root=root, own=own)
    assert found == (None if share is None else pytest.approx(share))


def test_where_no_group_is_told_there_is_no_share(tmp_path: Path) -> None:
    assert memory_share(None, root=tmp_path, own=tmp_path / "none") is None


def test_against_a_limit_that_was_set_all_workers_count_and_what_they_share_once(tmp_path: Path) -> None:
    taken = Usage(private_bytes=10 * _MIB, shared_bytes=20 * _MIB)
    root, own = _tree(tmp_path, "0::/\n", {"memory.max": "1000"})
    share = memory_share(100 * _MIB, workers=3, used=lambda: taken, root=root, own=own)
    assert share == pytest.approx(0.5)


def test_this_process_takes_what_the_system_says() -> None:
    share = memory_share(1 << 40)
    assert share is not None
    assert 1e-6 < share < 0.1
