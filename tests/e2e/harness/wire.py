"""Kafka's protocol over one raw socket, driven by Kafka's own schemas.

The schemas are the JSON files that lie in Apache Kafka's client jar, so nothing here shares a line or a mistake with the
broker under test. Values are plain dicts with the schemas' field names; what a dict leaves out takes the schema's default.
Record batches are in `records.py`.
"""

import json
import re
import socket
import struct
import uuid
import zipfile


class Closed(Exception):
    """The broker closed the connection, or reset it."""


class Schemas:
    """The message schemas of one jar, parsed on first use."""

    def __init__(self, jar):
        self._zip = zipfile.ZipFile(jar)
        self._parsed = {}
        self.keys = {}
        for name in self._zip.namelist():
            found = re.fullmatch(r"common/message/(\w+)Request\.json", name)
            if found:
                schema = self._load(found[1] + "Request")
                self.keys[found[1]] = schema.get("apiKey")

    def _load(self, name):
        if name not in self._parsed:
            text = self._zip.read(f"common/message/{name}.json").decode()
            # Comments stand on lines of their own, or behind a field.
            text = re.sub(r'(?m)^\s*//.*$|(?<=[,\[{}\]"])\s*//.*$', "", text)
            self._parsed[name] = json.loads(text)
        return self._parsed[name]

    def request(self, api):
        return self._load(api + "Request")

    def response(self, api):
        return self._load(api + "Response")

    def versions(self, api):
        low, high = _range(self.request(api)["validVersions"])
        return low, high


def _range(text):
    """`"3+"`, `"0-4"`, `"7"` or `"none"` as an inclusive pair."""
    if text == "none":
        return 1, 0
    if text.endswith("+"):
        return int(text[:-1]), 32767
    low, _, high = text.partition("-")
    return int(low), int(high or low)


def _within(version, text):
    low, high = _range(text)
    return low <= version <= high


def flexible(schema, version):
    return _within(version, schema.get("flexibleVersions", "none"))


def uvarint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_FIXED = {"int8": ">b", "int16": ">h", "uint16": ">H", "int32": ">i", "uint32": ">I", "int64": ">q", "float64": ">d"}


class _Codec:
    """Shared walk over a schema's fields; commonStructs are looked up by name."""

    def __init__(self, schema, version):
        self.version = version
        self.flexible = flexible(schema, version)
        self.structs = {s["name"]: s["fields"] for s in schema.get("commonStructs", [])}

    def fields(self, field):
        return field.get("fields") or self.structs[field["type"].removeprefix("[]")]

    def parts(self, fields):
        """Fields of this version: those in line, then those behind tags."""
        here = [f for f in fields if _within(self.version, f["versions"])]
        tagged = [f for f in here if self.flexible and _within(self.version, f.get("taggedVersions", "none"))]
        return [f for f in here if f not in tagged], sorted(tagged, key=lambda f: f["tag"])

    def nullable(self, field):
        return _within(self.version, field.get("nullableVersions", "none"))


def _default(field):
    kind, default = field["type"], field.get("default")
    if default == "null":
        return None
    if kind.startswith("[]"):
        return []
    if kind == "string":
        return default or ""
    if kind in ("bytes", "records"):
        return None if kind == "records" else b""
    if kind == "bool":
        return default in ("true", True)
    if kind == "uuid":
        return uuid.UUID(int=0)
    if kind == "float64":
        return float(default or 0)
    if kind in _FIXED:
        return int(str(default or 0), 0)
    return {}


class _Encoder(_Codec):
    def encode(self, fields, value):
        known = {f["name"] for f in fields}
        unknown = set(value) - known
        if unknown:
            raise KeyError(f"no fields {sorted(unknown)} among {sorted(known)}")
        inline, tagged = self.parts(fields)
        out = b"".join(self.field(f, value.get(f["name"], _default(f))) for f in inline)
        if self.flexible:
            present = [(f["tag"], self.field(f, value[f["name"]])) for f in tagged if f["name"] in value]
            out += uvarint(len(present))
            out += b"".join(uvarint(tag) + uvarint(len(body)) + body for tag, body in present)
        return out

    def length(self, count, narrow):
        if self.flexible:
            return uvarint(0 if count is None else count + 1)
        return struct.pack(">h" if narrow else ">i", -1 if count is None else count)

    def field(self, field, value):
        kind = field["type"]
        if kind.startswith("[]"):
            if value is None:
                return self.length(None, False)
            inner = {"name": field["name"], "type": kind[2:], "versions": "0+"}
            if "fields" in field:
                inner["fields"] = field["fields"]
            return self.length(len(value), False) + b"".join(self.field(inner, v) for v in value)
        if kind in _FIXED:
            return struct.pack(_FIXED[kind], value)
        if kind == "bool":
            return b"\x01" if value else b"\x00"
        if kind == "uuid":
            return value.bytes
        if kind in ("string", "bytes", "records"):
            body = value.encode() if isinstance(value, str) else value
            return self.length(None if body is None else len(body), kind == "string") + (body or b"")
        if self.nullable(field):
            return b"\xff" if value is None else b"\x01" + self.encode(self.fields(field), value)
        return self.encode(self.fields(field), value)


class _Decoder(_Codec):
    def __init__(self, schema, version, data):
        super().__init__(schema, version)
        self.data, self.at = data, 0

    def take(self, count):
        if count < 0 or self.at + count > len(self.data):
            raise ValueError(f"answer ends at byte {len(self.data)}, {count} more were due at {self.at}")
        self.at += count
        return self.data[self.at - count : self.at]

    def unpack(self, form):
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def uvarint(self):
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def decode(self, fields):
        inline, tagged = self.parts(fields)
        out = {f["name"]: self.field(f) for f in inline}
        if self.flexible:
            by_tag = {f["tag"]: f for f in tagged}
            for _ in range(self.uvarint()):
                tag, size = self.uvarint(), self.uvarint()
                end = self.at + size
                if tag in by_tag:
                    out[by_tag[tag]["name"]] = self.field(by_tag[tag])
                else:
                    self.take(size)
                if self.at != end:
                    raise ValueError(f"tag {tag} says {size} bytes and holds {self.at - end + size}")
        return out

    def length(self, narrow):
        return self.uvarint() - 1 if self.flexible else self.unpack(">h" if narrow else ">i")

    def field(self, field):
        kind = field["type"]
        if kind.startswith("[]"):
            count = self.length(False)
            if count < 0:
                return None
            inner = {"name": field["name"], "type": kind[2:], "versions": "0+"}
            if "fields" in field:
                inner["fields"] = field["fields"]
            return [self.field(inner) for _ in range(count)]
        if kind in _FIXED:
            return self.unpack(_FIXED[kind])
        if kind == "bool":
            return self.take(1) != b"\x00"
        if kind == "uuid":
            return uuid.UUID(bytes=bytes(self.take(16)))
        if kind in ("string", "bytes", "records"):
            size = self.length(kind == "string")
            if size < 0:
                return None
            body = bytes(self.take(size))
            return body.decode() if kind == "string" else body
        if self.nullable(field) and self.unpack(">b") < 0:
            return None
        return self.decode(self.fields(field))


class Connection:
    """One socket. `ask` sends and waits; `send` and `receive` apart let a test pipeline or break things in between."""

    def __init__(self, address, schemas, timeout=20, client="e2e"):
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.schemas, self.client = schemas, client
        self.correlation = 0
        self.sent = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def frame(self, api, version, body, client=...):
        """A whole request with its length in front, and what is needed to read the answer."""
        schema = self.schemas.request(api)
        self.correlation += 1
        client = self.client if client is ... else client
        header = struct.pack(">hhi", schema["apiKey"], version, self.correlation)
        name = None if client is None else client.encode()
        header += struct.pack(">h", -1) if name is None else struct.pack(">h", len(name)) + name
        if flexible(schema, version):
            header += b"\x00"
        payload = header + _Encoder(schema, version).encode(schema["fields"], body)
        return struct.pack(">i", len(payload)) + payload

    def send(self, api, version, body, **extra):
        self.raw(self.frame(api, version, body, **extra))
        self.sent.append((self.correlation, api, version))

    def raw(self, data):
        try:
            self.socket.sendall(data)
        except (ConnectionError, BrokenPipeError) as error:
            raise Closed(str(error)) from error

    def read_frame(self):
        size = struct.unpack(">i", self._exactly(4))[0]
        return self._exactly(size)

    def _exactly(self, count):
        out = bytearray()
        while len(out) < count:
            try:
                part = self.socket.recv(min(1 << 20, count - len(out)))
            except ConnectionError as error:
                raise Closed(str(error)) from error
            if not part:
                raise Closed(f"closed with {count - len(out)} bytes due")
            out += part
        return bytes(out)

    def receive(self):
        """The answer to the oldest request without one. Its correlation id must be that request's."""
        correlation, api, version = self.sent.pop(0)
        data = self.read_frame()
        got = struct.unpack(">i", data[:4])[0]
        assert got == correlation, f"answer {got} where {correlation} was due: out of order"
        schema = self.schemas.response(api)
        start = 4
        # The answer to ApiVersions keeps the header of version 0 for ever, so that any client can read it.
        if api != "ApiVersions" and flexible(schema, version):
            assert data[4] == 0, "tagged fields in an answer's header"
            start = 5
        decoder = _Decoder(schema, version, data[start:])
        out = decoder.decode(schema["fields"])
        assert decoder.at == len(data) - start, f"{len(data) - start - decoder.at} bytes behind the answer of {api} v{version}"
        return out

    def ask(self, api, version, body=None, **extra):
        self.send(api, version, body or {}, **extra)
        return self.receive()


def decode_response(schemas, api, version, payload):
    """Reads an answer's body at a version of the caller's choice, as a client does after an unknown version."""
    schema = schemas.response(api)
    decoder = _Decoder(schema, version, payload)
    out = decoder.decode(schema["fields"])
    assert decoder.at == len(payload), "bytes behind the answer"
    return out
