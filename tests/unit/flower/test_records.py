"""Both ends pack a payload alike, and neither trusts what it unpacks."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from convoy_coordinator.federation.flower import records as coordinator
from convoy_models.errors import MessageMalformed
from convoy_models.messages import Payload
from convoy_node.flower import records as node

FULL = Payload(
    {"a": 1},
    {"to|x|t": b"sealed"},
    {"q": np.arange(3, dtype=np.uint64), "r": np.ones(1, np.uint64)},
)


@pytest.mark.parametrize(("write", "read"), [(node, coordinator), (coordinator, node)])
def test_what_one_end_packs_the_other_reads(write: type[node], read: type[node]) -> None:
    """The node and the coordinator share no code here, so the agreement itself is tested."""
    received = read.from_record(write.to_record(FULL))
    assert (received.data, received.blobs) == (FULL.data, FULL.blobs)
    assert {name: list(array) for name, array in received.arrays.items()} == {
        "q": [0, 1, 2],
        "r": [1],
    }
    assert all(array.dtype == np.uint64 for array in received.arrays.values())


@pytest.mark.parametrize("write", [node, coordinator])
def test_the_same_payload_is_never_the_same_object_twice(write: type[node]) -> None:
    """Flower stores by content hash: equal answers of two nodes must not share an object."""
    assert write.to_record(FULL).object_id != write.to_record(FULL).object_id


GOOD = {"json": "{}", "a.names": ["q"], "a.lengths": [1], "a.words": bytes(8)}


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"json": 3},
        {"json": "[]"},
        {"json": "{}", "stray": b""},
        {"json": "{}", "to|x|t": "text"},
        {**GOOD, "a.more": b""},
        {**GOOD, "a.words": bytes(7)},
        {**GOOD, "a.words": bytes(16)},
        {**GOOD, "a.lengths": [-1]},
        {**GOOD, "a.lengths": [1, 0]},
        {**GOOD, "a.lengths": [1.0]},
        {**GOOD, "a.names": ["q", "q"], "a.lengths": [1, 0]},
        {"json": "{}", "a.names": ["q"]},
    ],
)
@pytest.mark.parametrize("read", [node, coordinator])
def test_a_malformed_message_raises_only_the_known_error(read: type[node], content: dict[str, object]) -> None:
    """Untrusted records cannot raise anything else."""
    with pytest.raises(MessageMalformed):
        read.from_record(RecordDict({"c": ConfigRecord(content)}))


@pytest.mark.parametrize("read", [node, coordinator])
def test_other_records_are_refused(read: type[node]) -> None:
    """A message has one record and no other."""
    for record in (
        RecordDict(),
        RecordDict({"c": ArrayRecord()}),
        RecordDict({"c": ConfigRecord({"json": "{}"}), "a": ArrayRecord()}),
    ):
        with pytest.raises(MessageMalformed):
            read.from_record(record)
