"""Searches that find little: each answers after a bounded number of pages, and says where to go on."""

from shared.core.ids import ModelName
from shared.registry.documents import ModelVersion, version_id
from shared.store.ports import Container, Stored
from tests.world.world import MODEL, World


def with_versions(count: int) -> World:
    """A world whose model has this many versions, all but the first copies of that."""
    world = World()
    world.event(world.drop("one"))
    world.run(seconds=2)
    template = world.registry.versions(MODEL).items[0].to_body()
    for number in range(2, count + 1):
        body = template | {"id": version_id(number), "version": number}
        world.documents.held[Container.MODELS, MODEL, version_id(number)] = Stored(body=body, etag="1")
    return world


def test_a_search_that_finds_nothing_for_long_says_where_to_go_on() -> None:
    world = with_versions(2_109)
    looked_at = []

    def is_last(version: ModelVersion) -> bool:
        looked_at.append(version.version)
        return version.version == 2_109

    first = world.registry.versions(MODEL, matches=is_last)
    assert (first.items, looked_at) == ([], list(range(1, 2_001)))
    second = world.registry.versions(MODEL, first.continuation, matches=is_last)
    assert [version.version for version in second.items] == [2_109]
    assert second.continuation is None


def test_each_match_is_found_once_over_all_pages() -> None:
    world = with_versions(305)
    found, continuation = [], None
    while True:
        page = world.registry.versions(MODEL, continuation, matches=lambda version: version.version % 40 == 0)
        found += [version.version for version in page.items]
        continuation = page.continuation
        if continuation is None:
            break
    assert found == [40, 80, 120, 160, 200, 240, 280]


def test_a_model_without_a_document_has_no_versions() -> None:
    assert World().registry.versions(ModelName("none"), matches=lambda _: True).items == []
