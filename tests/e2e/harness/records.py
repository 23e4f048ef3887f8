"""Record batches of magic 2, made and taken apart by hand; every batch read has its CRC checked.

  base_offset 8 | batch_length 4 | leader_epoch 4 | magic 1 | crc 4 | attributes 2 | last_offset_delta 4
  | base_timestamp 8 | max_timestamp 8 | producer_id 8 | producer_epoch 2 | base_sequence 4 | count 4 | records
"""

import gzip
import struct
from collections import namedtuple

Record = namedtuple("Record", "offset timestamp key value headers")
Batch = namedtuple("Batch", "base_offset leader_epoch attributes max_timestamp producer_id producer_epoch base_sequence records")

_TABLE = []
for _n in range(256):
    for _ in range(8):
        _n = _n >> 1 ^ (0x82F63B78 if _n & 1 else 0)
    _TABLE.append(_n)


def _crc32c_slow(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


try:  # A megabyte takes the loop above a good second.
    from crc32c import crc32c
except ImportError:
    crc32c = _crc32c_slow


def varint(value):
    value = (value << 1) ^ (value >> 63)
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _sized(data):
    return varint(-1) if data is None else varint(len(data)) + data


def record(delta, time_delta, key, value, headers=()):
    body = b"\x00" + varint(time_delta) + varint(delta) + _sized(key) + _sized(value) + varint(len(headers))
    for name, content in headers:
        body += _sized(name.encode()) + _sized(content)
    return varint(len(body)) + body


def batch(values, base_timestamp=1_700_000_000_000, attributes=0, producer=(-1, -1, -1), key=None, step=1, **override):
    """One batch. `values` are bytes, None, or whole `(key, value, headers)`; `override` breaks single fields on purpose."""
    body = b""
    for i, value in enumerate(values):
        entry = value if isinstance(value, tuple) else (key, value, ())
        body += record(i, i * step, *entry)
    if attributes & 7 == 1:
        body = gzip.compress(body)
    body = override.get("payload", body)
    count = len(values)
    inner = struct.pack(
        ">hiqqqhii",
        attributes,
        override.get("last_offset_delta", count - 1),
        base_timestamp,
        override.get("max_timestamp", base_timestamp + (count - 1) * step),
        *producer,
        override.get("count", count),
    )
    inner += body
    crc = override.get("crc", crc32c(inner))
    head = struct.pack(">iBI", override.get("leader_epoch", -1), override.get("magic", 2), crc)
    length = override.get("length", len(head) + len(inner))
    return struct.pack(">qi", override.get("base_offset", 0), length) + head + inner


class _Cursor:
    def __init__(self, data):
        self.data, self.at = data, 0

    def varint(self):
        value = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value >> 1 ^ -(value & 1)
            shift += 7

    def sized(self):
        size = self.varint()
        if size < 0:
            return None
        self.at += size
        return bytes(self.data[self.at - size : self.at])


def batches(data):
    """All whole batches of a Fetch answer. Raises on a wrong CRC; a cut last batch is left out, as clients do."""
    out, at = [], 0
    while at + 61 <= len(data):
        base, length, epoch, magic, crc = struct.unpack_from(">qiiBI", data, at)
        end = at + 12 + length
        if end > len(data):
            break
        assert magic == 2, f"magic {magic} at offset {base}"
        assert crc32c(data[at + 21 : end]) == crc, f"the batch at offset {base} has a wrong CRC"
        attributes, _, first, last, pid, pepoch, sequence, count = struct.unpack_from(">hiqqqhii", data, at + 21)
        body = data[at + 61 : end]
        codec = attributes & 7
        assert codec in (0, 1), "this reader knows no other codec than gzip"
        cursor = _Cursor(gzip.decompress(body) if codec == 1 else body)
        records = []
        for _ in range(count):
            cursor.varint()
            cursor.at += 1
            time_delta, delta = cursor.varint(), cursor.varint()
            key, value = cursor.sized(), cursor.sized()
            headers = [(cursor.sized().decode(), cursor.sized()) for _ in range(cursor.varint())]
            stamp = last if attributes & 8 else first + time_delta
            records.append(Record(base + delta, stamp, key, value, headers))
        out.append(Batch(base, epoch, attributes, last, pid, pepoch, sequence, records))
        at = end
    return out
