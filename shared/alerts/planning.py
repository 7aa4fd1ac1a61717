"""What is to become of the news in a mailbox: told now, and with what else; held back by a silence; or told to nobody.

Pure: shared.alerts.notifications loads, decides by this, and saves.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from shared.alerts.documents import Alert, AlertState
from shared.alerts.held import Plan, Told
from shared.alerts.mailbox import Mailbox
from shared.alerts.notices import LISTED, MODELS_NAMED, News, Notice, gravest_first, item_of, line_of
from shared.alerts.silences import Silence, silence_on
from shared.core.alert_settings import AlertSink
from shared.core.canonical import digest_of


def plan_of(
    box: Mailbox,
    alerts: Mapping[str, Alert | None],
    silences: Iterable[Silence],
    sink: AlertSink,
    now: datetime,
) -> Plan:
    """What is to become of the news. `alerts` holds those that the mailbox needs; None: there is no such alert. News of
    one that is not there, or was read before the news was taken in, stays: what to tell of it is not known.
    """
    plan, ready = Plan(), dict[str, list[tuple[Alert, News]]]()
    held = list(silences)
    for key, model in box.needs(now, sink).items():
        if key not in alerts or box.is_after(alerts[key]):
            continue
        alert, waits, told = alerts[key], box.waiting.get(key), box.told.get(key)
        news = _news(alert, told, is_waiting=waits is not None) if alert else None
        if alert is None or news is None:
            plan.dropped[key] = alert.news if alert else waits.number if waits else 0
            if alert and alert.acknowledged and told is None:
                plan.quiet[key] = Told(
                    news=News.ACKNOWLEDGED, number=alert.news, since=alert.since, at=now, model=model, is_quiet=True
                )
            elif alert and told and told.is_quiet and alert.state is not AlertState.FIRING:
                update = {"news": News.RESOLVED, "number": alert.news, "at": now}
                plan.quiet[key] = told.model_copy(update=update)
            continue
        was_told = told is not None and told.news is not News.RESOLVED
        silence = silence_on(alert, held, now)
        if news is News.RESOLVED and not was_told and (silence or (waits and waits.withheld_by)):
            plan.dropped[key] = alert.news
        elif silence and news is not News.RESOLVED:
            plan.withheld[key] = silence.id
        else:
            ready.setdefault(model, []).append((alert, news))
    groups = [gravest_first(told) for told in ready.values()]
    plan.groups.extend(sorted(groups, key=lambda group: (group[0][0].severity.rank, group[0][0].changed_at)))
    return plan


def next_notice(box: Mailbox, plan: Plan, sink: AlertSink, now: datetime, *, public_url: str) -> Notice | None:
    """The notice to send next: of one group, or of all where no more messages are left. None: none is due or left."""
    since = now - timedelta(seconds=sink.per_s)
    left = sink.most - sum(at > since for at in box.sent_at)
    if box.notice is not None or not plan.groups or left <= 0:
        return None
    is_last = left == 1 and len(plan.groups) > 1
    told = gravest_first(one for group in plan.groups for one in group) if is_last else plan.groups[0]
    number = box.notices + 1
    return Notice(
        notice_id=f"notice-{digest_of([sink.name, number, now.isoformat()])[:32]}",
        at=now,
        models=tuple(dict.fromkeys(alert.model for alert, _ in told))[:MODELS_NAMED],
        lines=tuple(line_of(alert, news, public_url=public_url) for alert, news in told[:LISTED]),
        more=tuple(item_of(alert, news) for alert, news in told[LISTED:]),
        try_at=now,
    )


def _news(alert: Alert, told: Told | None, *, is_waiting: bool) -> News | None:
    """What there is to tell of an alert, by what was told before; None where there is nothing."""
    told = None if told is not None and told.news is News.RESOLVED else told
    if alert.state is not AlertState.FIRING:
        if told is None:
            return News.RESOLVED if alert.state is AlertState.RESOLVED else None
        return None if told.is_quiet else News.RESOLVED
    is_told = told is not None and told.news is News.FIRING
    if alert.acknowledged:
        return News.ACKNOWLEDGED if is_told else None
    if not is_waiting:
        return News.REPEATED
    return None if is_told and told is not None and told.since == alert.since else News.FIRING


def unwanted(
    notice: Notice, alerts: Mapping[str, Alert | None], silences: Iterable[Silence], now: datetime
) -> set[str]:
    """The alerts of a notice that nobody is to be told of any more: silenced or acknowledged since it was made.

    `alerts` are those that it says fire, as they stand.
    """
    held = list(silences)
    found = {item.alert_id: alerts.get(item.alert_id) for item in notice.says_firing}
    return {key for key, alert in found.items() if alert and (alert.acknowledged or silence_on(alert, held, now))}
