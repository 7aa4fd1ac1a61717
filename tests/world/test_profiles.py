"""The reference profile from the validation that leaves it to the plan that names it to the servers."""

from pathlib import Path

from shared.core.canonical import canonical_json, digest_of_bytes
from shared.core.ids import Digest
from shared.core.messages import ValidateVersion
from shared.core.verdict import Outcome, Verdict
from shared.registry.documents import ModelVersion
from shared.routing.plan import Route, RoutePlan, artifact_blob_name, plan_blob_name
from shared.store.outbox import Outbox
from shared.store.ports import BlobContainer
from shared.store.repository import Repository
from shared.telemetry.profile import Profile
from shared.validation.report import ValidationReport
from shared.validation.sandbox import SandboxLimits, StoredPart, Validation
from shared.validation.service import ValidationService
from tests.world.test_retention import finish, register, start, version
from tests.world.world import MODEL, World

PROFILE = canonical_json(Profile(rows=10, features=()).model_dump(mode="json"))
ESTIMATE = b"{an estimate}"


def _part(folder: Path, content: bytes) -> StoredPart:
    path = folder / digest_of_bytes(content)[:8]
    path.write_bytes(content)
    return StoredPart(path=path, digest=Digest(digest_of_bytes(content)), size_bytes=len(content))


def _check(*, workdir: Path, **_: object) -> Validation:
    verdict = Verdict(check="accuracy", outcome=Outcome.PASS, sentence="fine")
    return Validation(
        report=ValidationReport(outcome=Outcome.PASS, verdicts=(verdict,)),
        golden=None,
        profile=_part(workdir, PROFILE),
        performance=_part(workdir, ESTIMATE),
    )


def _validate(world: World, number: int) -> None:
    outbox = Outbox(world.documents, world.blobs, world.queues, world.clock)
    ValidationService(
        versions=Repository(ModelVersion, world.documents, outbox),
        registry=world.registry,
        blobs=world.blobs,
        clock=world.clock,
        limits=SandboxLimits(),
        check=_check,
    ).validate(ValidateVersion(model=MODEL, version=number))


def _route(world: World, number: int) -> Route:
    plan = RoutePlan.model_validate_json(world.blobs.held[BlobContainer.ROUTES, plan_blob_name(MODEL)].data)
    (route,) = (route for route in plan.routes if route.version == number)
    return route


def test_a_version_names_what_validation_left_and_the_plan_names_the_profile() -> None:
    world = World()
    register(world, "one")
    _validate(world, 1)
    digests = [digest_of_bytes(PROFILE), digest_of_bytes(ESTIMATE)]
    validated = version(world, 1)
    assert [validated.profile_digest, validated.performance_digest] == digests
    for digest, content in zip(digests, (PROFILE, ESTIMATE), strict=True):
        assert world.blobs.held[BlobContainer.ARTIFACTS, artifact_blob_name(digest)].data == content
    start(world, 1)
    finish(world)
    assert _route(world, 1).profile_digest == Profile.model_validate_json(PROFILE).id == digests[0]


def test_a_version_of_before_there_were_profiles_rolls_out_without() -> None:
    world = World()
    register(world, "one")
    world.validation.validate(ValidateVersion(model=MODEL, version=1))
    (key,) = (key for key in world.documents.held if key[2] == version(world, 1).id)
    for name in ("profile_digest", "performance_digest"):
        del world.documents.held[key].body[name]
    start(world, 1)
    finish(world)
    assert _route(world, 1).profile_digest is None
