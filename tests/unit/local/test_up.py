"""The keeper of a running system: what dies is started again, ever more slowly while it goes on dying."""

from dataclasses import dataclass, field
from pathlib import Path

from local.processes import ProcessStartError
from local.up import Keeper
from shared.core.errors import UnavailableError


@dataclass
class FakeParts:
    """Parts that fall when told to, and a clock."""

    parts: list[str] = field(default_factory=lambda: ["azurite", "functions"])
    down: set[str] = field(default_factory=set)
    trouble: Exception | None = None
    now_s: float = 0.0
    started: list[tuple[float, str]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    restarts: int = 0
    untold: int = 0

    def fallen(self) -> list[str]:
        return [part for part in self.parts if part in self.down]

    def start_part(self, part: str) -> None:
        self.started.append((self.now_s, part))
        if self.trouble is not None:
            raise self.trouble
        self.down.discard(part)

    def restarted(self) -> None:
        if self.untold > 0:
            self.untold -= 1
            raise OSError(28, "No space left on device")
        self.restarts += 1

    def keeper(self) -> Keeper:
        return Keeper(self, say=self.said.append, restarted=self.restarted, monotonic=lambda: self.now_s)


def pass_seconds(parts: FakeParts, keeper: Keeper, seconds: int) -> None:
    for _ in range(seconds):
        keeper.look()
        parts.now_s += 1.0


def test_a_dead_part_is_started_again_after_a_second_and_clients_are_told() -> None:
    parts = FakeParts()
    keeper = parts.keeper()
    parts.down = {"functions"}
    pass_seconds(parts, keeper, 3)
    assert parts.started == [(1.0, "functions")]
    assert parts.restarts == 1
    assert parts.said == ["functions has ended by itself; it is started again in 1 s", "functions runs again"]


def test_a_part_that_does_not_start_is_tried_ever_more_slowly() -> None:
    parts = FakeParts(down={"functions"}, trouble=UnavailableError("functions", "no"))
    pass_seconds(parts, parts.keeper(), 100)
    assert [at for at, _ in parts.started] == [1.0, 3.0, 7.0, 15.0, 31.0, 61.0, 91.0]
    assert parts.restarts == 0


def test_parts_that_die_together_are_started_again_together() -> None:
    parts = FakeParts(down={"azurite", "functions"})
    keeper = parts.keeper()
    pass_seconds(parts, keeper, 2)
    assert sorted(part for _, part in parts.started) == ["azurite", "functions"]


def test_a_part_that_ran_long_before_it_died_starts_again_without_delay_for_old_deaths() -> None:
    parts = FakeParts()
    keeper = parts.keeper()
    for _ in range(4):
        parts.down = {"functions"}
        pass_seconds(parts, keeper, 20)
    parts.now_s += 60.0
    parts.started.clear()
    parts.down = {"functions"}
    at = parts.now_s
    pass_seconds(parts, keeper, 3)
    assert parts.started == [(at + 1.0, "functions")]


def test_each_death_within_a_minute_of_the_last_doubles_the_delay() -> None:
    parts = FakeParts()
    keeper = parts.keeper()
    delays = []
    for _ in range(3):
        parts.down = {"functions"}
        died_at = parts.now_s
        pass_seconds(parts, keeper, 10)
        delays.append(parts.started[-1][0] - died_at)
    assert delays == [1.0, 2.0, 4.0]


def test_a_start_that_fails_with_a_log_is_told_with_it(tmp_path: Path) -> None:
    log = tmp_path / "functions.log"
    log.write_text("the last words")
    parts = FakeParts(down={"functions"}, trouble=ProcessStartError("functions", "it ended with 1", log))
    pass_seconds(parts, parts.keeper(), 2)
    assert "the last words" in parts.said[-1]


def test_a_full_disk_puts_off_a_start_and_ends_nothing() -> None:
    parts = FakeParts(down={"functions"}, trouble=OSError(28, "No space left on device"))
    keeper = parts.keeper()
    pass_seconds(parts, keeper, 3)
    assert "functions cannot be started: [Errno 28] No space left on device" in parts.said[-1]
    parts.trouble = None
    pass_seconds(parts, keeper, 10)
    assert parts.said[-1] == "functions runs again"


def test_clients_are_told_of_a_part_that_runs_again_as_soon_as_that_can_be_written() -> None:
    parts = FakeParts(down={"functions"}, untold=1)
    pass_seconds(parts, parts.keeper(), 10)
    assert parts.restarts == 1
    assert parts.said[-1] == "functions runs again"
