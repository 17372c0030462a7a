"""Write Avro values of every type with fastavro, and say what each is, one JSON line a record.

    avro_matrix.py

A line is {"name", "schema", "record", "expected"}: the writer's schema, the record's body in
hexadecimal digits, and what Python reads back from these bytes, as a tagged value: {"int"} (also
days and microseconds since 1970), {"unscaled"}, {"text"}, {"hex"}, {"float"} (its bits), {"bool"} or null.
Nothing here knows of Tidemill.
"""

import datetime
import decimal
import io
import json
import struct
import uuid

import fastavro

UTC = datetime.timezone.utc
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=UTC)
D = decimal.Decimal


def micros(moment):
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - EPOCH) // datetime.timedelta(microseconds=1)


def bits(number):
    """Floating-point numbers by their 64 bits, which no text rounds."""
    return {"float": str(int.from_bytes(struct.pack(">d", number), "big"))}


def clock(time):
    """A time of day as PostgreSQL writes it."""
    whole = time.strftime("%H:%M:%S")
    return whole if not time.microsecond else f"{whole}.{time.microsecond:06d}".rstrip("0")


def logical(base, kind, **more):
    return {"type": base, "logicalType": kind, **more}


MOMENT = datetime.datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
FIRST = datetime.datetime(1, 1, 1, tzinfo=UTC)
LAST = datetime.datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
MONEY = logical("fixed", "decimal", name="Money", size=8, precision=18, scale=2)
STATE = {"type": "enum", "name": "State", "symbols": ["NEW", "PAID", "SENT"]}

# name, type, values, and how what Python reads back is told.
CASES = [
    ("boolean", "boolean", [True, False], lambda v: {"bool": v}),
    ("int", "int", [0, -1, 2**31 - 1, -(2**31)], lambda v: {"int": v}),
    ("long", "long", [0, 2**53 + 1, 2**63 - 1, -(2**63)], lambda v: {"int": v}),
    ("float", "float", [0.0, 0.1, -3.4028234663852886e38], bits),
    ("double", "double", [0.1, 5e-324, -1.7976931348623157e308], bits),
    ("string", "string", ["", "größe", "a\0b", "x" * 70000], lambda v: {"text": v}),
    ("bytes", "bytes", [b"", b"\0\xff", bytes(range(256))], lambda v: {"hex": v.hex()}),
    ("enum", STATE, ["NEW", "SENT"], lambda v: {"text": v}),
    ("fixed", {"type": "fixed", "name": "F", "size": 3}, [b"\0\1\xff"], lambda v: {"hex": v.hex()}),
    (
        "decimal",
        logical("bytes", "decimal", precision=38, scale=3),
        [D("0.000"), D("12.500"), D("-0.001"), D("9" * 35 + ".999")],
        lambda v: {"unscaled": str(int(v.scaleb(3, decimal.Context(prec=60))))},
    ),
    (
        "fixed decimal",
        MONEY,
        [D("0.00"), D("-3.00"), D("9999999999999999.99"), D("-0.01")],
        lambda v: {"unscaled": str(int(v.scaleb(2)))},
    ),
    (
        "date",
        logical("int", "date"),
        [datetime.date(1970, 1, 1), datetime.date(1, 1, 1), datetime.date(9999, 12, 31)],
        lambda v: {"int": (v - datetime.date(1970, 1, 1)).days},
    ),
    (
        "time-millis",
        logical("int", "time-millis"),
        [datetime.time(0), datetime.time(7, 8, 9, 500000), datetime.time(23, 59, 59, 999000)],
        lambda v: {"text": clock(v)},
    ),
    (
        "time-micros",
        logical("long", "time-micros"),
        [datetime.time(0, 0, 0, 1), datetime.time(23, 59, 59, 999999)],
        lambda v: {"text": clock(v)},
    ),
    (
        "timestamp-millis",
        logical("long", "timestamp-millis"),
        [EPOCH, MOMENT, FIRST, LAST],
        lambda v: {"int": micros(v)},
    ),
    (
        "timestamp-micros",
        logical("long", "timestamp-micros"),
        [EPOCH, MOMENT, FIRST, LAST],
        lambda v: {"int": micros(v)},
    ),
    ("timestamp-nanos", logical("long", "timestamp-nanos"), [1714979289123456789], None),
    (
        "local-timestamp-micros",
        logical("long", "local-timestamp-micros"),
        [MOMENT.replace(tzinfo=None), FIRST.replace(tzinfo=None)],
        lambda v: {"int": micros(v)},
    ),
    (
        "local-timestamp-millis",
        logical("long", "local-timestamp-millis"),
        [MOMENT.replace(tzinfo=None)],
        lambda v: {"int": micros(v)},
    ),
    ("local-timestamp-nanos", logical("long", "local-timestamp-nanos"), [-1500], None),
    (
        "uuid",
        logical("string", "uuid"),
        [uuid.UUID("f81d4fae-7dec-11d0-a765-00a0c91e6bf6")],
        lambda v: {"text": str(v)},
    ),
    ("uuid in bytes", logical("fixed", "uuid", name="U", size=16), [uuid.UUID(int=2**127 + 5).bytes],
     lambda v: {"text": str(v if isinstance(v, uuid.UUID) else uuid.UUID(bytes=v))}),
    ("unknown logical type", logical("int", "none-such"), [7], lambda v: {"int": v}),
    ("logical type on another base", logical("string", "date"), ["x"], lambda v: {"text": v}),
]


def connect(base, name, **parameters):
    """A type as Connect's Avro converter writes it."""
    kind = {"type": base, "connect.name": name}
    return {**kind, "connect.parameters": parameters} if parameters else kind


def debezium(base, name, **parameters):
    return connect(base, f"io.debezium.{name}", **parameters)


def kafka(base, name, **parameters):
    return connect(base, f"org.apache.kafka.connect.data.{name}", **parameters)


def of_day(count, unit):
    """A time of day from what Debezium counts since midnight, `unit` of which are a second."""
    whole, fraction = divmod(half_even(count) if unit == 10**9 else count * 10**6 // unit, 10**6)
    return {"text": clock((datetime.datetime.min + datetime.timedelta(0, whole, fraction)).time())}


def half_even(nanos):
    return int(D(nanos).scaleb(-3).quantize(D(1), rounding=decimal.ROUND_HALF_EVEN))


def plain_text(value):
    return {"text": value}


def plain_int(value):
    return {"int": value}


# The semantic types of Debezium and Connect, as their documentation gives them.
NAMED = [
    (debezium("int", "time.Date"), [0, -1, 19849], plain_int),
    (debezium("int", "time.Time"), [0, 25689500, 86399999], lambda v: of_day(v, 10**3)),
    (debezium("long", "time.MicroTime"), [1, 86399999999], lambda v: of_day(v, 10**6)),
    (debezium("long", "time.NanoTime"), [25689500000000], lambda v: of_day(v, 10**9)),
    (debezium("long", "time.Timestamp"), [0, -1, 1714979289123], lambda v: {"int": v * 1000}),
    (debezium("long", "time.MicroTimestamp"), [0, -1, 1714979289123456], plain_int),
    (debezium("long", "time.NanoTimestamp"), [1714979289123456789], lambda v: {"int": half_even(v)}),
    (debezium("string", "time.ZonedTimestamp"), ["2024-05-06T07:08:09.123456Z"],
     lambda v: {"int": micros(datetime.datetime.fromisoformat(v))}),
    (debezium("string", "time.ZonedTime"), ["07:08:09.5Z", "07:08:09Z"], plain_text),
    (debezium("string", "time.Interval"), ["P1M", "P30D"], plain_text),
    (debezium("int", "time.Year"), [2024], plain_int),
    (debezium("long", "time.MicroDuration"), [-1, 2629800000000], plain_int),
    (debezium("string", "data.Json"), ['{"a": 1.0}'], plain_text),
    (debezium("string", "data.Xml"), ["<a/>"], plain_text),
    (debezium("string", "data.Ltree"), ["a.b"], plain_text),
    (debezium("string", "data.Enum", allowed="sad,glad"), ["sad", "glad"], plain_text),
    (debezium("string", "data.EnumSet", allowed="a,b"), ["a,b", ""], plain_text),
    (debezium("string", "data.Uuid"), ["A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"],
     lambda v: {"text": str(uuid.UUID(v))}),
    (debezium("bytes", "data.Bits", length="10"), [b"\1\2", b"\xff\3", b"\0\0"],
     lambda v: {"text": f"{int.from_bytes(v, 'little'):010b}"}),
    (kafka("int", "Date"), [19849], plain_int),
    (kafka("int", "Time"), [25689500], lambda v: of_day(v, 10**3)),
    (kafka("long", "Timestamp"), [-1, 1714979289123], lambda v: {"int": v * 1000}),
    (kafka("bytes", "Decimal", scale="2"), [b"\4\xe2", b"\xff", b"\0"],
     lambda v: {"unscaled": str(int.from_bytes(v, "big", signed=True))}),
]


def line(name, kind, value, tell):
    """One record whose field is surrounded by what must be passed over."""
    schema = {
        "type": "record",
        "name": "shop.Row",
        "fields": [
            {"name": "tags", "type": {"type": "map", "values": {"type": "array", "items": "long"}}},
            {"name": "v", "type": kind},
            {"name": "again", "type": ["null", "shop.Row"], "default": None},
            {"name": "end", "type": "string"},
        ],
    }
    body = io.BytesIO()
    tags = {"a": [1, -1], "b": []}
    parsed = fastavro.parse_schema(json.loads(json.dumps(schema)))
    inner = {"tags": {}, "v": value, "again": None, "end": "in"}
    record = {"tags": tags, "v": value, "again": inner, "end": "z"}
    fastavro.schemaless_writer(body, parsed, record)
    back = fastavro.schemaless_reader(io.BytesIO(body.getvalue()), parsed, None)["v"]
    if back is None:
        expected = None
    elif tell is None:
        expected = {"int": half_even(value)}
    else:
        expected = tell(back)
    print(json.dumps({
        "name": name, "schema": schema, "record": body.getvalue().hex(), "expected": expected,
    }))


def main():
    named = [(kind["connect.name"], kind, values, tell) for kind, values, tell in NAMED]
    for name, kind, values, tell in CASES + named:
        for value in values:
            line(name, kind, value, tell)
        for value in [*values[:1], None]:
            line(f"{name} or null", ["null", kind], value, tell)
            line(f"null or {name}", [kind, "null"], value, tell)


if __name__ == "__main__":
    main()
