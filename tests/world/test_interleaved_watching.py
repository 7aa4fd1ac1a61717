"""Reports that two calls make at once: what was found of a rollout that is over is not held against the next one."""

from functools import partial

from tests.world.interleaving import Meanwhile
from tests.world.test_watching import rolled_out, taken_off, with_candidate
from tests.world.twins import twin
from tests.world.watched import Watched, counted, rows_of
from tests.world.world import MODEL, World


def test_a_report_on_a_rollout_that_is_over_raises_no_alarm_on_the_next_one_of_the_version() -> None:
    watched = Watched()
    watched.hour()
    with_candidate(watched, hours=9)
    rolled_out(watched, stable=0.0, candidate=0.0)
    watched.world.clock.pass_s(600)
    watched.write(
        {
            "1:stable": counted(watched.profile, rows_of(watched.rng, 1_200)),
            "2:candidate": counted(watched.profile, rows_of(watched.rng, 400, {"income": 2.0})),
        }
    )
    begun = watched.world

    def begin_anew() -> None:
        """The candidate's rollout ends, and another one of it begins."""
        watched.world.clock.pass_s(1)
        taken_off(watched)
        with_candidate(watched, hours=9)
        watched.world.watching.watch()

    for writes_before in range(4):
        watched.world = twin(begun)
        watched.world.documents.other_writers = [*[lambda: None] * writes_before, begin_anew]
        watched.world.watching.report_now(MODEL)
        assert watched.world.documents.other_writers == []
        assert watched.report(2, "candidate").alarms == {}
        assert "concurrent_drift" not in watched.firing()


def test_an_endpoint_is_watched_as_it_stands_at_its_turn_and_not_as_it_stood_when_the_call_began() -> None:
    watched = Watched()
    watched.hour()
    with_candidate(watched, hours=9)
    watched.world.clock.pass_s(600)
    watched.write(
        {
            "1:stable": counted(watched.profile, rows_of(watched.rng, 1_200)),
            "2:candidate": counted(watched.profile, rows_of(watched.rng, 400, {"income": 2.0})),
        }
    )
    begun = watched.world

    def end(world: World) -> None:
        """It takes long until it is its turn, and its rollout is over by then."""
        world.clock.pass_s(200)
        watched.world = world
        taken_off(watched)

    for at in (2, 3, 4):
        world = watched.world = twin(begun)
        world.documents.fuse = world.blobs.fuse = Meanwhile(at=at, other=partial(end, world))
        world.watching.watch()
        assert world.endpoint().active is None
        assert "concurrent_drift" not in watched.firing()
