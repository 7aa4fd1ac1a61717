"""What every document store holds: the port's promises, and the limits that the stores share."""

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from shared.core.errors import (
    AlreadyExistsError,
    ChangedMeanwhileError,
    InvalidInputError,
    NotFoundError,
)
from shared.store.ports import Container, DocumentStore, Stored
from tests.contract.conftest import OpenDocuments

MODELS = Container.MODELS


def body(document_id: str = "a", partition: str = "m", **fields: Any) -> dict[str, Any]:
    return {"id": document_id, "model": partition, **fields}


def everything(
    documents: DocumentStore,
    *,
    partition: str | None = None,
    where: Mapping[str, str | int | bool] | None = None,
    page_size: int = 100,
) -> list[Stored]:
    found: list[Stored] = []
    continuation = None
    while True:
        page = documents.query(MODELS, partition=partition, where=where, page_size=page_size, continuation=continuation)
        assert len(page.items) <= page_size
        found += page.items
        continuation = page.continuation
        if continuation is None:
            return found
        assert page.items, "a page with a continuation holds something"


def ids(stored: list[Stored]) -> list[str]:
    return [each.body["id"] for each in stored]


def test_an_absent_document_is_none(documents: DocumentStore) -> None:
    assert documents.get(MODELS, "m", "a") is None


def test_what_was_created_reads_back_equal_with_the_same_etag(documents: DocumentStore) -> None:
    written = body(text="x", n=3, flag=True, nothing=None, ratio=0.25, items=[1, {"deep": [[]]}], empty={})
    created = documents.create(MODELS, written)
    assert created.body == written
    assert documents.get(MODELS, "m", "a") == created


def test_another_client_sees_a_write_as_soon_as_it_returned(open_documents: OpenDocuments) -> None:
    one, other = open_documents(), open_documents()
    created = one.create(MODELS, body(n=1))
    assert other.get(MODELS, "m", "a") == created
    replaced = other.replace(MODELS, body(n=2), etag=created.etag)
    assert one.get(MODELS, "m", "a") == replaced


def test_a_taken_id_is_refused_and_nothing_changes(documents: DocumentStore) -> None:
    created = documents.create(MODELS, body(n=1))
    with pytest.raises(AlreadyExistsError, match="'a' in models/m exists already"):
        documents.create(MODELS, body(n=2))
    assert documents.get(MODELS, "m", "a") == created


def test_one_id_in_two_partitions_is_two_documents(documents: DocumentStore) -> None:
    one = documents.create(MODELS, body(partition="m", n=1))
    other = documents.create(MODELS, body(partition="n", n=2))
    replaced = documents.replace(MODELS, body(partition="n", n=3), etag=other.etag)
    assert documents.get(MODELS, "m", "a") == one
    assert documents.get(MODELS, "n", "a") == replaced
    assert documents.query(MODELS, partition="m").items == [one]


def test_one_key_in_two_containers_is_two_documents(documents: DocumentStore) -> None:
    created = documents.create(MODELS, body(n=1))
    report = documents.create(Container.REPORTS, body(n=2))
    assert documents.get(MODELS, "m", "a") == created
    assert documents.get(Container.REPORTS, "m", "a") == report
    assert documents.query(Container.REPORTS).items == [report]


def test_each_container_has_a_partition_key_of_its_own(documents: DocumentStore) -> None:
    event = documents.create(Container.AUDIT, {"id": "1", "stream": "model/m"})
    assert documents.get(Container.AUDIT, "model/m", "1") == event
    with pytest.raises(InvalidInputError, match="'stream'"):
        documents.create(Container.AUDIT, {"id": "2", "model": "m"})


def test_a_replace_changes_the_body_and_the_etag(documents: DocumentStore) -> None:
    created = documents.create(MODELS, body(n=1, gone="soon"))
    replaced = documents.replace(MODELS, body(n=2), etag=created.etag)
    assert replaced.body == body(n=2)
    assert replaced.etag != created.etag
    assert documents.get(MODELS, "m", "a") == replaced


def test_a_replace_under_a_stale_etag_changes_nothing(documents: DocumentStore) -> None:
    created = documents.create(MODELS, body(n=1))
    replaced = documents.replace(MODELS, body(n=2), etag=created.etag)
    with pytest.raises(ChangedMeanwhileError, match="'a' in models/m was changed"):
        documents.replace(MODELS, body(n=3), etag=created.etag)
    assert documents.get(MODELS, "m", "a") == replaced


def test_an_etag_never_comes_back_with_a_body_that_does(documents: DocumentStore) -> None:
    first = documents.create(MODELS, body(n="A"))
    second = documents.replace(MODELS, body(n="B"), etag=first.etag)
    third = documents.replace(MODELS, body(n="A"), etag=second.etag)
    fourth = documents.replace(MODELS, body(n="A"), etag=third.etag)
    assert len({first.etag, second.etag, third.etag, fourth.etag}) == 4
    with pytest.raises(ChangedMeanwhileError):
        documents.replace(MODELS, body(n="C"), etag=first.etag)


def test_a_replace_of_an_absent_document_is_refused(documents: DocumentStore) -> None:
    etag = documents.create(MODELS, body()).etag
    with pytest.raises(NotFoundError, match="'b' in models/m does not exist"):
        documents.replace(MODELS, body("b"), etag=etag)
    assert documents.get(MODELS, "m", "b") is None


def test_a_deleted_document_is_gone_and_its_id_is_free(documents: DocumentStore) -> None:
    first, other = documents.create(MODELS, body("a")), documents.create(MODELS, body("b"))
    assert documents.delete(MODELS, "m", "a", etag=first.etag)
    assert documents.get(MODELS, "m", "a") is None
    assert not documents.delete(MODELS, "m", "a", etag=first.etag)
    assert everything(documents, partition="m") == [other]
    assert documents.create(MODELS, body("a")).etag != first.etag


def test_a_delete_under_a_stale_etag_deletes_nothing(documents: DocumentStore) -> None:
    first = documents.create(MODELS, body(n=1))
    second = documents.replace(MODELS, body(n=2), etag=first.etag)
    with pytest.raises(ChangedMeanwhileError, match="'a' in models/m was changed"):
        documents.delete(MODELS, "m", "a", etag=first.etag)
    assert documents.get(MODELS, "m", "a") == second


def test_of_sixteen_who_create_one_wins(open_documents: OpenDocuments) -> None:
    documents, threads = open_documents(), 16
    together = Barrier(threads)

    def create(document_id: str, writer: int) -> Stored | None:
        together.wait(timeout=60)
        try:
            return documents.create(MODELS, body(document_id, writer=writer))
        except AlreadyExistsError:
            return None

    with ThreadPoolExecutor(threads) as pool:
        for document_id in ("a", "b", "c"):
            outcomes = list(pool.map(create, [document_id] * threads, range(threads)))
            winners = [outcome for outcome in outcomes if outcome is not None]
            assert len(winners) == 1
            assert documents.get(MODELS, "m", document_id) == winners[0]


def test_a_hundred_concurrent_increments_sum_to_a_hundred(documents: DocumentStore) -> None:
    documents.create(MODELS, body(n=0))
    together = Barrier(10)

    def increment_ten_times(_: int) -> int:
        done = conflicts = 0
        while done < 10:
            found = documents.get(MODELS, "m", "a")
            assert found is not None
            if done == conflicts == 0:
                together.wait(timeout=60)  # all ten have read the same state
            try:
                documents.replace(MODELS, body(n=found.body["n"] + 1), etag=found.etag)
            except ChangedMeanwhileError:
                conflicts += 1
            else:
                done += 1
        return conflicts

    with ThreadPoolExecutor(10) as pool:
        conflicts = sum(pool.map(increment_ten_times, range(10)))
    found = documents.get(MODELS, "m", "a")
    assert found is not None
    assert found.body["n"] == 100
    assert conflicts >= 9


def test_a_query_of_a_partition_is_ordered_by_id_and_holds_no_other(documents: DocumentStore) -> None:
    for name in ("c", "a", "b", "B", "é", "a1", "10", "9"):
        documents.create(MODELS, body(name))
    documents.create(MODELS, body("z", partition="n"))
    assert ids(documents.query(MODELS, partition="m").items) == ["10", "9", "B", "a", "a1", "b", "c", "é"]
    assert documents.query(MODELS, partition="nobody").items == []


@pytest.mark.parametrize("where", [None, {}])
def test_an_empty_filter_lets_everything_through(documents: DocumentStore, where: dict[str, str] | None) -> None:
    created = [documents.create(MODELS, body(name)) for name in "ab"]
    assert documents.query(MODELS, partition="m", where=where).items == created
    assert documents.query(MODELS, where=where).items == created


VALUES: Mapping[str, Any] = {
    "true": True,
    "false": False,
    "one": 1,
    "zero": 0,
    "text-1": "1",
    "text-true": "true",
    "empty": "",
    "float": 1.5,
    "null": None,
    "list": [1],
    "list-text": "[1]",
    "object": {},
    "object-text": "{}",
    "negative": -7,
    "largest": 2**53 - 1,
}


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (True, ["true"]),
        (False, ["false"]),
        (1, ["one"]),
        (0, ["zero"]),
        ("1", ["text-1"]),
        ("true", ["text-true"]),
        ("", ["empty"]),
        ("[1]", ["list-text"]),
        ("{}", ["object-text"]),
        (-7, ["negative"]),
        (2**53 - 1, ["largest"]),
        (2, []),
        ("x", []),
    ],
)
@pytest.mark.parametrize("partition", ["m", None])
def test_a_filter_tells_true_from_1_from_text(
    documents: DocumentStore,
    partition: str | None,
    value: str | int | bool,  # noqa: FBT001 - a filter's value
    names: list[str],
) -> None:
    for name, stored in VALUES.items():
        documents.create(MODELS, body(name, field=stored))
    documents.create(MODELS, body("without"))
    assert ids(documents.query(MODELS, partition=partition, where={"field": value}).items) == names


def test_a_whole_float_is_found_as_the_int_that_it_equals(documents: DocumentStore) -> None:
    documents.create(MODELS, body(n=2.0))
    assert ids(documents.query(MODELS, where={"n": 2}).items) == ["a"]


def test_filters_join_by_and(documents: DocumentStore) -> None:
    for name, kind, pending in (("a", "x", True), ("b", "x", False), ("c", "y", True)):
        documents.create(MODELS, body(name, kind=kind, outbox_pending=pending))
    assert ids(documents.query(MODELS, where={"kind": "x", "outbox_pending": True}).items) == ["a"]


@pytest.mark.parametrize("name", ["value", "order", "select", "from", "_private", "Group"])
def test_a_filter_may_name_any_field_even_a_keyword(documents: DocumentStore, name: str) -> None:
    documents.create(MODELS, body("a") | {name: 1})
    documents.create(MODELS, body("b") | {name: 2})
    assert ids(documents.query(MODELS, where={name: 2}).items) == ["b"]


def test_a_filter_follows_a_replace(documents: DocumentStore) -> None:
    created = documents.create(MODELS, body(outbox_pending=True, kind="k"))
    documents.replace(MODELS, body(outbox_pending=False, kind="k"), etag=created.etag)
    assert documents.query(MODELS, where={"kind": "k", "outbox_pending": True}).items == []
    assert ids(documents.query(MODELS, where={"kind": "k", "outbox_pending": False}).items) == ["a"]


@pytest.mark.parametrize("partition", ["m", None])
@pytest.mark.parametrize("count", [0, 1, 3, 4, 6, 7])
def test_pages_hold_everything_once(documents: DocumentStore, partition: str | None, count: int) -> None:
    for number in range(count):
        documents.create(MODELS, body(f"{number:02d}", n=number, kind="k"))
        documents.create(MODELS, body(f"other-{number:02d}", kind="other"))
    found = everything(documents, partition=partition, where={"kind": "k"}, page_size=3)
    assert sorted(ids(found)) == [f"{number:02d}" for number in range(count)]


@pytest.mark.parametrize("partition", ["m", None])
def test_what_stands_unchanged_is_seen_once_while_others_write(documents: DocumentStore, partition: str | None) -> None:
    for number in range(20):
        documents.create(MODELS, body(f"{number:02d}", stands=number % 3 != 0))
    for number in range(18, -1, -3):
        _change(documents, f"{number:02d}")  # the order of the last writes is another than that of creation
    seen: list[str] = []
    continuation = None
    for turn in range(100):
        page = documents.query(MODELS, partition=partition, page_size=4, continuation=continuation)
        seen += [each.body["id"] for each in page.items if each.body.get("stands")]
        continuation = page.continuation
        if continuation is None:
            break
        _change(documents, f"{(turn * 6) % 20 // 3 * 3:02d}")
        documents.create(MODELS, body(f"{turn:02d}-new"))
        documents.create(MODELS, body(f"new-{turn:02d}", partition="n"))
    assert sorted(seen) == [f"{number:02d}" for number in range(20) if number % 3 != 0]


def _change(documents: DocumentStore, document_id: str) -> None:
    found = documents.get(MODELS, "m", document_id)
    assert found is not None
    documents.replace(MODELS, {**found.body, "changes": found.body.get("changes", 0) + 1}, etag=found.etag)


@pytest.mark.parametrize("bad", ["", "x", "!!!", "WyJ4Il0=", "bnVsbA==", "[" * 50, "é", "WyJ4IiwgMV0="])
@pytest.mark.parametrize("partition", ["m", None])
def test_a_made_up_continuation_is_refused(documents: DocumentStore, partition: str | None, bad: str) -> None:
    with pytest.raises(InvalidInputError, match="is not a continuation"):
        documents.query(MODELS, partition=partition, continuation=bad)


def test_a_continuation_fits_its_own_query_alone(documents: DocumentStore) -> None:
    for name in "abc":
        documents.create(MODELS, body(name, n=1))
    continuation = documents.query(MODELS, partition="m", where={"n": 1}, page_size=1).continuation
    assert continuation is not None
    for other in (
        {"partition": "m", "where": {"n": 2}},
        {"partition": "m", "where": {"n": True}},
        {"partition": "m", "where": {"n": "1"}},
        {"partition": "n", "where": {"n": 1}},
        {"partition": "m"},
    ):
        with pytest.raises(InvalidInputError, match="belongs to another query"):
            documents.query(MODELS, continuation=continuation, **other)


@pytest.mark.parametrize("page_size", [0, -1, 1001])
def test_a_page_size_out_of_range_is_refused(documents: DocumentStore, page_size: int) -> None:
    with pytest.raises(InvalidInputError, match=f"page size is {page_size}"):
        documents.query(MODELS, page_size=page_size)


@pytest.mark.parametrize("name", ["", "a.b", "a b", "a'", 'a"]', "$", "1a", "x" * 101, "é"])
def test_a_filter_on_what_is_no_field_name_is_refused(documents: DocumentStore, name: str) -> None:
    with pytest.raises(InvalidInputError, match="is not a field to filter by"):
        documents.query(MODELS, where={name: 1})


@pytest.mark.parametrize("value", [1.5, None, [1], 2**53])
def test_a_filter_value_of_another_type_is_refused(documents: DocumentStore, value: Any) -> None:
    with pytest.raises(InvalidInputError):
        documents.query(MODELS, where={"n": value})


@pytest.mark.parametrize(
    "document_id",
    ["a b", "%2F", "a%", "é", "日本", "😀", "a'b", 'a"b', "a:b", "v1.2-x_y", "...", ".a", "a&b=c+d", "x" * 1023],
)
def test_an_id_of_any_other_text_works_throughout(documents: DocumentStore, document_id: str) -> None:
    created = documents.create(MODELS, body(document_id, partition=document_id, n=1))
    replaced = documents.replace(MODELS, body(document_id, partition=document_id, n=2), etag=created.etag)
    assert documents.get(MODELS, document_id, document_id) == replaced
    assert documents.query(MODELS, partition=document_id).items == [replaced]


@pytest.mark.parametrize(
    "document_id", ["", ".", "..", "a/b", "a\\b", "a?b", "a#b", "a\n", "a\0", "a ", "x" * 1024, "\ud800", 7, None]
)
def test_an_id_that_cosmos_db_refuses_is_refused_by_all(documents: DocumentStore, document_id: Any) -> None:
    with pytest.raises(InvalidInputError):
        documents.create(MODELS, body(document_id))
    with pytest.raises(InvalidInputError):
        documents.replace(MODELS, body(document_id), etag="x")
    with pytest.raises(InvalidInputError):
        documents.get(MODELS, "m", document_id)


@pytest.mark.parametrize("partition", ["", "a\n", "x" * 1024, 7, None])
def test_a_partition_that_is_no_text_is_refused(documents: DocumentStore, partition: Any) -> None:
    with pytest.raises(InvalidInputError, match="'model'"):
        documents.create(MODELS, body(partition=partition))


@pytest.mark.parametrize("text", ["é", "日本語", "😀", "\u2028", "a\0b", "\x1f", '"\\', "\ufeff", "e\u0301", "\u202e"])
def test_text_comes_back_as_it_was(documents: DocumentStore, text: str) -> None:
    documents.create(MODELS, body(**{"field": text, text: "as a name"}))
    found = documents.get(MODELS, "m", "a")
    assert found is not None
    assert found.body == body(**{"field": text, text: "as a name"})


@pytest.mark.parametrize(
    "number", [0, -1, 2**53 - 1, -(2**53) + 1, 0.1, -0.5, 1e-300, 1e300, 5e-324, 1e20, 2.0**66, 1 / 3]
)
def test_a_number_comes_back_equal_and_can_be_written_again(documents: DocumentStore, number: float) -> None:
    documents.create(MODELS, body(n=number))
    found = documents.get(MODELS, "m", "a")
    assert found is not None
    assert found.body["n"] == number
    assert documents.replace(MODELS, found.body, etag=found.etag).body == found.body


def test_a_whole_float_comes_back_as_an_int(documents: DocumentStore) -> None:
    created = documents.create(MODELS, body(n=[2.0, -0.0, 1e15], nested={"n": 3.0}))
    found = documents.get(MODELS, "m", "a")
    assert found == created
    assert [type(number) for number in [*created.body["n"], created.body["nested"]["n"]]] == [int] * 4


@pytest.mark.parametrize(
    "value", [2**53, -(2**53), 10**400, math.nan, math.inf, -math.inf, b"x", {1}, {1: "x"}, {"x": object()}, "\ud800"]
)
def test_a_value_that_json_cannot_carry_is_refused(documents: DocumentStore, value: Any) -> None:
    with pytest.raises(InvalidInputError):
        documents.create(MODELS, body(field=[value]))
    assert documents.get(MODELS, "m", "a") is None


@pytest.mark.parametrize("name", ["_etag", "_rid", "_self", "_ts", "_attachments"])
def test_a_field_of_the_databases_own_is_refused(documents: DocumentStore, name: str) -> None:
    with pytest.raises(InvalidInputError, match=name):
        documents.create(MODELS, body(**{name: "x"}))


def test_a_document_up_to_the_limit_is_kept_and_one_above_it_refused(documents: DocumentStore) -> None:
    frame = len('{"id":"a","model":"m","text":""}')
    largest = body(text="é" * ((2_000_000 - frame) // 2))
    created = documents.create(MODELS, largest)
    assert documents.get(MODELS, "m", "a") == created
    with pytest.raises(InvalidInputError, match=r"has 2000\d\d\d bytes as JSON, and the limit is 2000000"):
        documents.replace(MODELS, body(text=largest["text"] + "é"), etag=created.etag)
    assert documents.get(MODELS, "m", "a") == created


def test_a_deep_document_is_kept_and_a_deeper_one_refused(documents: DocumentStore) -> None:
    created = documents.create(MODELS, body(deep=_nested(99)))
    assert documents.get(MODELS, "m", "a") == created
    for depth in (101, 100_000):
        with pytest.raises(InvalidInputError, match="nested more than 100 levels"):
            documents.create(MODELS, body("b", deep=_nested(depth)))


def _nested(levels: int) -> Any:
    value: Any = "the bottom"
    for level in range(levels):
        value = [value] if level % 2 else {"in": value}
    return value


def test_a_stored_body_is_a_copy(documents: DocumentStore) -> None:
    written = body(items=[1])
    created = documents.create(MODELS, written)
    written["items"].append(2)
    assert created.body["items"] == [1]
