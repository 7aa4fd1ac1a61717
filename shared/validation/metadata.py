"""What a model says of itself without a manifest: metadata entries `slipway.<key>`, on a blob `slipway_<key>`.

Text alone: an entry becomes the manifest's value of that key, which the manifest's own rules then check. Others'
entries are passed over; one that claims to be ours and is not known is refused.
"""

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from shared.core.errors import InvalidInputError
from shared.registry.manifest import MAX_WHOLE_NUMBER, Manifest
from shared.validation.refusal import excerpt

BLOB_PREFIX = "slipway_"
_PREFIXES = ("slipway.", BLOB_PREFIX)
_TEXT = (
    "task",
    "label",
    "prediction",
    "probability",
    "description",
    "author",
    "training_data_version",
    "git_commit",
    "run_id",
    "positive_class",
)
_LISTS = ("feature_names", "slices", "protected")
_MAPPINGS: dict[str, tuple[type[int | float], ...]] = {"tags": (), "parameters": (int, float), "metrics": (float,)}
"""By key, the kinds of number that a value in it may be."""
KEYS = (*_TEXT, *_LISTS, *(f"{key}.<name>" for key in _MAPPINGS))


def manifest_values(entries: Mapping[str, str]) -> dict[str, Any]:
    """The manifest's keys and values that these entries give. Raises InvalidInputError naming an unknown one."""
    found: dict[str, Any] = {}
    for name, value in entries.items():
        if not name.lower().startswith(_PREFIXES):
            continue
        key = name[len(_PREFIXES[0]) :]
        if key.lower() in _TEXT:
            found[key.lower()] = value
        elif key.lower() in _LISTS:
            found[key.lower()] = [part.strip() for part in value.split(",")]
        else:
            mapping, item = _item(name, key)
            found.setdefault(mapping, {})[item] = _number(value, _MAPPINGS[mapping])
    return found


def merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Manifest values of several sources, key by key; a later one wins, within tags, parameters and metrics too."""
    values: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            below = values.get(key)
            if key in _MAPPINGS and isinstance(value, Mapping) and isinstance(below, Mapping):
                values[key] = {**below, **value}
            else:
                values[key] = value
    return values


def _item(name: str, key: str) -> tuple[str, str]:
    """The mapping and the key in it of an entry such as `tags.team`, which a blob's metadata writes `tags_team`."""
    for mapping in _MAPPINGS:
        if key.lower().startswith((f"{mapping}.", f"{mapping}_")) and len(key) > len(mapping) + 1:
            return mapping, key[len(mapping) + 1 :]
    keys = ", ".join(KEYS)
    known = f"; {key!r} needs a manifest" if key in Manifest.model_fields else ""
    raise InvalidInputError(
        f"unknown entry {excerpt(name, 60)!r}: the entries are slipway. with {keys}{excerpt(known, 80)}"
    )


def _number(text: str, kinds: Sequence[type[int | float]]) -> str | int | float:
    """Text as the first of these kinds of number that it is written as, where that is kept exactly. `nan` and `inf`
    stay text, as no number is, and so do the whole numbers that no document keeps.
    """
    for kind in kinds:
        with contextlib.suppress(ValueError):
            value = kind(text)
            return value if (math.isfinite(value) if kind is float else abs(value) <= MAX_WHOLE_NUMBER) else text
    return text
