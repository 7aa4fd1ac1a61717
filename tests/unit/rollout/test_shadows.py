"""Whether a shadow agrees: at every look, with its errors, and with nothing said of what was not compared."""

import random

import pytest

from shared.core.verdict import Outcome
from shared.registry.rollout_policy import GateName, Gates
from shared.rollout.decide import decide
from shared.rollout.machine import RolloutEvent
from shared.rollout.rollbacks import Trigger
from tests.unit.rollout.evidence import CANDIDATE, NOW, OTHER, binding, judged, shadow, shadowing, target, verdict

CHECK = GateName.DISAGREEMENT


def compared(n: int, disagreements: int, **counts: float) -> object:
    return shadow(mirrored=n, compared=n, disagreements=disagreements, **counts)


def outcome(n: int, disagreements: int, limit: float | None = 0.05) -> Outcome:
    found = shadowing({CANDIDATE: compared(n, disagreements)}, gates=Gates(disagreement=limit))  # type: ignore[dict-item]
    return verdict(found, CHECK).outcome


@pytest.mark.parametrize(
    ("n", "disagreements", "wanted"),
    [
        (0, 0, Outcome.INCONCLUSIVE),
        (99, 99, Outcome.INCONCLUSIVE),
        (100, 4, Outcome.INCONCLUSIVE),
        (100, 7, Outcome.INCONCLUSIVE),
        (1_000, 0, Outcome.PASS),
        (10_000, 300, Outcome.PASS),
        (10_000, 700, Outcome.FAIL),
        (100, 100, Outcome.FAIL),
    ],
)
def test_agreement_passes_or_fails_once_it_is_proven(n: int, disagreements: int, wanted: Outcome) -> None:
    assert outcome(n, disagreements) is wanted


def test_a_limit_of_none_at_all_passes_without_a_disagreement_and_fails_with_one() -> None:
    assert [outcome(1_000, differing, limit=0.0) for differing in (0, 1)] == [Outcome.PASS, Outcome.FAIL]


def test_a_proof_of_disagreement_ends_the_rollout_at_once() -> None:
    found = shadowing({CANDIDATE: shadow(mirrored=1_000, compared=1_000, disagreements=500)})
    assert judged(found, CHECK).is_proof
    decision = decide(found, NOW)
    assert (decision.event, decision.trigger) == (RolloutEvent.FAIL, Trigger.DISAGREEMENT)


def test_a_shadow_that_fails_gives_no_answer_which_is_another_one() -> None:
    found = verdict(shadowing({CANDIDATE: shadow(mirrored=1_000, compared=500, errors=500)}), CHECK)
    assert (found.outcome, found.n, found.value) == (Outcome.FAIL, 1_000, 0.5)


def test_the_sentence_tells_flips_errors_the_numbers_and_what_was_shed() -> None:
    counts = shadow(
        mirrored=2_000,
        shed=1_000,
        errors=10,
        compared=990,
        disagreements=20,
        numbers=990,
        difference_millionths=99 * 10**6,
        squared_millionths=500 * 10**12,
    )
    found = verdict(shadowing({CANDIDATE: counts}), CHECK)
    assert found.sentence.startswith("another answer to 20 and none to 10 of 1000 copies (3.00%, between ")
    assert "; numbers differ by 0.1 in the mean (0.0561 to 0.144); " in found.sentence
    assert "; 50% of the copies were shed for want of spare capacity: " in found.sentence
    assert found.interval is not None
    assert found.interval[0] < 0.03 < found.interval[1]


def test_further_shadows_are_told_of_and_decide_nothing() -> None:
    counts = {
        CANDIDATE: shadow(mirrored=1_000, compared=1_000),
        OTHER: shadow(mirrored=1_000, compared=1_000, disagreements=1_000),
    }
    found = shadowing(counts, shadows=(target(OTHER),))
    other = judged(found, "disagreement_v3")
    assert (other.verdict.outcome, other.verdict.advisory, other.is_proof) == (Outcome.FAIL, True, False)
    assert binding(found) == {Outcome.PASS}


def test_without_a_limit_enough_copies_pass_and_too_few_do_not() -> None:
    gates = Gates(disagreement=None)
    few, enough = (
        shadowing({CANDIDATE: shadow(mirrored=n, compared=n, disagreements=n)}, gates=gates) for n in (99, 100)
    )
    assert Outcome.INCONCLUSIVE in binding(few)
    assert binding(enough) == {Outcome.PASS}
    found = verdict(enough, CHECK)
    assert (found.advisory, found.value, found.limit) == (True, 1.0, None)


def test_a_rate_at_the_limit_is_rarely_called_more_however_often_one_looks() -> None:
    draw, gates, wrong = random.Random(8), Gates(disagreement=0.05, level=0.2), 0
    for _ in range(60):
        n = differing = 0
        fails = False
        for _ in range(20):
            n += 50
            differing += sum(draw.random() < 0.05 for _ in range(50))
            found = shadowing({CANDIDATE: shadow(mirrored=n, compared=n, disagreements=differing)}, gates=gates)
            fails |= judged(found, CHECK).verdict.outcome is Outcome.FAIL
        wrong += fails
    assert wrong <= 0.2 * 60
