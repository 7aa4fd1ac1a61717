"""Registering a drop costs memory that does not grow with it. benchmarks/large_drop.py measures it on gigabytes."""

from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.large_drop import measure, put_drop, write_drop
from local.system import create_storage
from shared.store.blobs import AzureBlobs
from shared.store.ports import BlobContainer

pytestmark = pytest.mark.azurite

DROP_BYTES = 64_000_000
GROWTH_BYTES = 40_000_000
"""The blob client holds several blocks of 4 MiB at a moment; a drop that was held once would not fit."""


@pytest.mark.parametrize("form", ["folder", pytest.param("zip", marks=pytest.mark.long)])
def test_a_process_that_registers_a_drop_does_not_grow_by_its_size(
    azurite_connection: str, tmp_path: Path, form: str
) -> None:
    create_storage(azurite_connection)
    folder = tmp_path / "drop"
    folder.mkdir()
    write_drop(folder, DROP_BYTES, seed=len(form))
    with closing(AzureBlobs.from_connection_string(azurite_connection)) as blobs:
        blob = put_drop(blobs, form, folder)
        found = measure(azurite_connection, blob, tmp_path)
        assert (found.state, found.version, found.reason) == ("registered", 1, "")
        assert found.peak_bytes - found.before_bytes < GROWTH_BYTES
        if form == "folder":
            assert (found.copies, found.sent_bytes) == (2, 0)
        else:
            assert found.copies == 0
            assert found.sent_bytes >= DROP_BYTES
        assert DROP_BYTES in [info.size_bytes for info in blobs.list(BlobContainer.ARTIFACTS)]
