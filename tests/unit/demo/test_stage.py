"""What a demo leaves of its state directory is nothing, whatever those that it has just stopped still write there."""

import threading
from contextlib import suppress
from pathlib import Path

from local.demo.stage import remove

WRITERS, FIRST, LAST = 4, 300, 3_000
"""How many files are there before the removal begins: so many that it takes a while. And how many there may be."""


def write_on(folder: Path, begun: threading.Event) -> None:
    """Write files until there are enough, or the folder is gone."""
    with suppress(FileNotFoundError):
        for number in range(LAST):
            (folder / f"{number}").touch()
            if number == FIRST:
                begun.set()


def test_what_is_written_while_the_state_is_removed_is_removed_too(tmp_path: Path) -> None:
    state = tmp_path / "state"
    writers = []
    for number in range(WRITERS):
        folder, begun = state / f"part-{number}", threading.Event()
        folder.mkdir(parents=True)
        writers.append(threading.Thread(target=write_on, args=(folder, begun)))
        writers[-1].start()
        begun.wait()
    remove(state)
    assert list(tmp_path.iterdir()) == []
    for writer in writers:
        writer.join()
