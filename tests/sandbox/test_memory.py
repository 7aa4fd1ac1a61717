"""What validation predicts a version to cost a server, beside what the server's own loader takes."""

from pathlib import Path

from benchmarks.memory_prediction import BAR, measured, predicted
from benchmarks.models import layers, saved
from shared.validation.probes.memory import settled_bytes


def test_the_prediction_holds_for_a_model_of_more_than_20_mb(tmp_path: Path) -> None:
    """benchmarks/memory_prediction.py has models of other kinds and sizes."""
    folders = [tmp_path / name for name in ("model", "work", "server")]
    for folder in folders:
        folder.mkdir()
    files = saved(layers(1_600, 2), folders[0])
    assert files.size_bytes > 20_000_000
    told, found = predicted(files, folders[1]), measured(files, folders[2])
    assert abs(told / found - 1) <= BAR, (told, found)


def test_memory_that_is_let_go_is_seen_to_go() -> None:
    before = settled_bytes()
    held = b"x" * 50_000_000
    assert settled_bytes() - before >= 45_000_000
    del held
    assert settled_bytes() - before <= 5_000_000
