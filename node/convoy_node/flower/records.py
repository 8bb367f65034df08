"""A payload in Flower's records, as the coordinator's adapter packs them too.

One ``ConfigRecord`` named ``c``: ``json``, the blobs by name, and the arrays end to end as
little-endian 64-bit words (``a.names``, ``a.lengths``, ``a.words``). Why not an ``ArrayRecord``:
Flower moves every record, array and chunk as an HTTP object of its own at each of six hops; so
packed, a message is three objects instead of six or more.

``once`` is random. Flower keeps objects by the hash of their content; two nodes that say the same
at the same time would share one, and whoever confirms first takes it away from the other's upload.
What may never change: these names.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

import numpy as np
from flwr.app import ConfigRecord, RecordDict

from convoy_models import messages
from convoy_models.errors import MessageMalformed
from convoy_models.messages import Payload

_WORD = np.dtype("<u8")
_ONCE_BYTES = 8


def to_record(payload: Payload) -> RecordDict:
    """Return the records of a payload.

    Raises:
        MessageMalformed: a blob without an address, or a value that JSON cannot express.
    """
    plain = messages.to_record(payload)
    content = {"once": secrets.token_bytes(_ONCE_BYTES), **plain["c"]}
    if arrays := plain["a"]:
        content["a.names"] = list(arrays)
        content["a.lengths"] = [int(array.size) for array in arrays.values()]
        content["a.words"] = b"".join(array.astype(_WORD).tobytes() for array in arrays.values())
    return RecordDict({"c": ConfigRecord(content)})


def from_record(record: RecordDict) -> Payload:
    """Read a payload from records, trusting nothing in them; its arrays are read-only views.

    Raises:
        MessageMalformed: anything that ``to_record`` would not have written.
    """
    if set(record) != {"c"} or not isinstance(record["c"], ConfigRecord):
        raise MessageMalformed("a message has other records than c.")
    content = dict(record["c"])
    content.pop("once", None)
    packed = {key: content.pop(key) for key in list(content) if key.startswith("a.")}
    return messages.from_record({"c": content, "a": _unpack(packed) if packed else {}})


def _unpack(packed: Mapping[str, object]) -> dict[str, np.ndarray[tuple[int], np.dtype[np.uint64]]]:
    match packed:
        case {"a.names": list(names), "a.lengths": list(lengths), "a.words": bytes(words)}:
            pass
        case _:
            raise MessageMalformed("the arrays of a message lack their names, lengths or words.")
    if len(packed) != 3 or len(set(names)) != len(names) or len(names) != len(lengths):
        raise MessageMalformed("the arrays of a message have repeated or missing names.")
    if not all(isinstance(length, int) and length >= 0 for length in lengths):
        raise MessageMalformed("an array of a message has no length.")
    if len(words) != sum(lengths) * _WORD.itemsize:
        raise MessageMalformed("the arrays of a message are not as long as it says.")
    flat = np.frombuffer(words, dtype=_WORD).astype(np.uint64, copy=False)
    ends = np.cumsum(lengths, dtype=np.int64)
    return {str(name): flat[end - length : end] for name, length, end in zip(names, lengths, ends, strict=True)}
