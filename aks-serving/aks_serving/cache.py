"""Plans and artifacts on the pod's own disk: what a pod starts from when storage is down.

A file is written under a temporary name, synced, and renamed, so that a name holds a whole file or none. An artifact's
digest is checked at every read, and a file that fails is removed: what the disk did to it is not served. Losing the
cache loses nothing but time, so a full or broken disk is logged and never stops serving.
"""

import hashlib
import logging
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from shared.core.errors import InvalidInputError
from shared.core.ids import EndpointName, endpoint_name
from shared.routing.plan import RoutePlan

log = logging.getLogger(__name__)


class DiskCache:
    """The cache in one directory. Several processes may share it. Methods block."""

    def __init__(self, directory: Path) -> None:
        self._plans = directory / "plans"
        self._artifacts = directory / "artifacts"

    def plans(self) -> dict[EndpointName, bytes]:
        """The plans last applied, by endpoint."""
        plans = {}
        for path in sorted(self._plans.glob("*.json")):
            try:
                plans[endpoint_name(path.stem)] = path.read_bytes()
            except (OSError, InvalidInputError) as error:
                log.warning("the cached plan %s cannot be read: %s", path, error)
        return plans

    def keep_plan(self, endpoint: str, data: bytes) -> None:
        """Keep a plan for the next start."""
        _write(self._plans / f"{endpoint}.json", data)

    def artifact(self, digest: str) -> bytes | None:
        """An artifact whose digest holds, or None."""
        path = self._artifacts / digest
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("the cached artifact %s cannot be read: %s", digest, error)
            return None
        if hashlib.sha256(data).hexdigest() == digest:
            return data
        log.error("the cached artifact %s was altered on disk: it is removed and fetched again", digest)
        path.unlink(missing_ok=True)
        return None

    def keep_artifact(self, digest: str, data: bytes) -> None:
        """Keep an artifact whose digest the caller has checked."""
        _write(self._artifacts / digest, data)

    def prune_artifacts(self, wanted: Callable[[], frozenset[str]]) -> None:
        """Remove the artifacts that are neither wanted nor named by a kept plan, of this process or of another.

        `wanted` is asked after the directory was listed: what is fetched meanwhile for a newer plan is not removed.
        """
        try:
            paths = [path for path in self._artifacts.iterdir() if not path.name.startswith(".")]
            keep = set(wanted())
            for data in self.plans().values():
                keep |= digests(RoutePlan.model_validate_json(data))
            for path in paths:
                if path.name not in keep:
                    path.unlink(missing_ok=True)
        except FileNotFoundError:
            return
        except ValueError:
            return  # what a kept plan needs cannot be read, so nothing is removed
        except OSError as error:
            log.warning("the artifact cache cannot be tidied: %s", error)


def digests(plan: RoutePlan) -> frozenset[str]:
    """The artifacts that a plan needs."""
    models = {route.artifact_digest for route in plan.routes}
    return frozenset(models | {route.golden_digest for route in plan.routes if route.golden_digest is not None})


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_directory(path.parent)
    except OSError as error:
        log.warning("%s is not kept for the next start: %s", path, error)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
