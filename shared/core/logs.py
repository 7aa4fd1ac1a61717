"""Log lines as JSON: one object a line, with the trace and what the work is about, and without secrets.

`SLIPWAY_LOG_FORMAT` is `text`, the default, or `json`. The keys: `time`, `level`, `logger`, `message`, then `trace_id`
and `span_id` where there is a trace, what the spans around it are about (model, version, rollout_id, message_id, ...),
and `exception`. A record's `extra` is not shown: what may be in it nobody has looked at.
"""

import json
import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime

from shared.core import tracing
from shared.core.errors import InvalidInputError

LOG_FORMAT = "SLIPWAY_LOG_FORMAT"

_REPLACEMENT = "***"
_SECRETS = re.compile(
    r"""(?P<before>
          \b(?:AccountKey|SharedAccessSignature|SharedAccessKey|InstrumentationKey|password|secret|token
             |(?:x-functions|api)[-_]?key)["']?\s*[=:]\s*["']?
        | [?&](?:code|sig|token|key)=
        | \b(?:Bearer|Authorization["']?\s*[=:]\s*["']?Basic)\s+
        | \bwhsec_
        | ://hooks\.slack\.com/(?:services|workflows|triggers)/
        | ://[^/\s:@]+:(?=[^/\s@]+@)
        )(?P<secret>[^\s;&"',@]+)""",
    re.IGNORECASE | re.VERBOSE,
)


class JsonFormatter(logging.Formatter):
    """Formats records as said above."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever the message holds."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": scrubbed(record.getMessage()),
        }
        context = tracing.current()
        if context is not None:
            line |= {"trace_id": context.trace_id, "span_id": context.span_id}
        line |= {key: value for key, value in tracing.about().items() if key not in line}
        if record.exc_info:
            line["exception"] = scrubbed(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False, default=str)


def wants_json(env: Mapping[str, str]) -> bool:
    """Whether the settings ask for JSON. Raises InvalidInputError naming the setting."""
    text = env.get(LOG_FORMAT, "").strip().lower() or "text"
    if text not in {"text", "json"}:
        raise InvalidInputError(f"the setting {LOG_FORMAT} is {text[:40]!r}: use text or json")
    return text == "json"


def use_json(logger: logging.Logger | None = None) -> None:
    """Have each handler of a logger, by default the root's, write JSON."""
    for handler in (logger or logging.getLogger()).handlers:
        handler.setFormatter(JsonFormatter())


def scrubbed(text: str) -> str:
    """A text without what looks like a key, a token, a signature or a password in it."""
    return _SECRETS.sub(lambda found: found["before"] + _REPLACEMENT, text)
