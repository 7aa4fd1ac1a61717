"""The pages of approval links: what is asked, with the gate figures, and what came of the answer.

What stands in a page came from outside, so all is escaped; a page holds no script and asks for nothing from elsewhere.
A form sends the answer, so that opening a page changes nothing.
"""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from shared.approvals.asked import Asked
from shared.core.verdict import Verdict
from shared.rollout.approvers import stage_named
from shared.rollout.documents import Rollout
from shared.rollout.machine import RolloutState
from shared.routing.plan import FULL_WEIGHT_BP

if TYPE_CHECKING:
    import jinja2

_TEMPLATES = Path(__file__).parent
_MAX_REASON = 500


def asked_html(asked: Asked) -> str:
    """The page that asks."""
    rollout, link = asked.rollout, asked.link
    facts = {
        "strategy": str(rollout.policy.strategy),
        "stable now": f"version {rollout.stable.version}" if rollout.stable else "none",
        "share of the candidate now": _share(rollout.weight_bp),
        "share if approved": _share(_weight_after(rollout)),
        "author": asked.author or "not named",
        "rollout asked for by": rollout.requested_by,
        "reason given": rollout.reason,
        "waiting since": rollout.halted_at.isoformat(timespec="seconds") if rollout.halted_at else "",
        "asked": link.approver,
        "link good until": link.expires_at.isoformat(timespec="seconds"),
    }
    return _rendered(
        "asked.html.j2",
        title=f"Approve version {rollout.candidate.version} on {link.endpoint} for {stage_named(rollout, link.stage)}?",
        facts={name: value for name, value in facts.items() if value},
        verdicts=[(verdict, _figures(verdict)) for verdict in rollout.verdicts],
        max_reason=_MAX_REASON,
    )


def answered_html(rollout: Rollout, endpoint: str) -> str:
    """The page that tells what came of an answer."""
    named = f"version {rollout.candidate.version} on {endpoint}"
    if rollout.state is RolloutState.ABORTED:
        return message_html("Rejected", f"The rollout of {named} was taken back. Thank you.")
    said = f"The rollout of {named} goes on; the candidate's share is {_share(rollout.weight_bp)}. Thank you."
    return message_html("Approved", said)


def message_html(title: str, sentence: str) -> str:
    """A page that tells one thing."""
    return _rendered("message.html.j2", title=title, sentence=sentence)


def _weight_after(rollout: Rollout) -> int:
    following = rollout.next_stage
    return rollout.stages[following].weight_bp if following < len(rollout.stages) else FULL_WEIGHT_BP


def _share(weight_bp: int) -> str:
    return f"{weight_bp / 100:g} %"


def _figures(verdict: Verdict) -> dict[str, str]:
    interval = f"{verdict.interval[0]:.6g} to {verdict.interval[1]:.6g}" if verdict.interval else ""
    return {
        "value": "" if verdict.value is None else f"{verdict.value:.6g}",
        "interval": interval,
        "limit": "" if verdict.limit is None else f"{verdict.limit:.6g}",
        "n": "" if verdict.n is None else str(verdict.n),
    }


def _rendered(template: str, **values: object) -> str:
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> "jinja2.Environment":
    import jinja2  # noqa: PLC0415 - only where a page is asked for

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
