"""Avro of every type: plain records, and Debezium's envelopes as Connect's converter writes them."""

import json
from decimal import Decimal

from avro_matrix import connect, debezium, kafka
from formats_case import (
    BEFORE, BEYOND, BYTES, Case, DAY, DECIMALS, DIGITS_38, DOUBLES, FLOATS, INFINITY,
    MINUS_INFINITY, MOMENTS, NOT_IN_YEARS, PLACEHOLDER, UUIDS, days, micros, moments, numbers,
    octets, of_day, plain, quoted, reals, since_epoch, texts, times, unscaled,
)
from confluent_kafka.schema_registry import Schema
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.schema_registry_client import SchemaReference
from confluent_kafka.serialization import MessageField, SerializationContext


def logical(base, kind, **more):
    return {"type": base, **more, "logicalType": kind} if base == "fixed" else {
        "type": base, "logicalType": kind, **more}


def typed(kind, column, values, dead=()):
    case = Case(json.dumps(kind, separators=(",", ":")), column, values, dead)
    case.avro = kind
    return case


INTS = plain([7, 0, -1, 2**31 - 1, -(2**31)])
LONGS = plain([2**53 + 1, 2**53, 2**63 - 1, -(2**63), 0])
FIXED = {"type": "fixed", "name": "F", "size": 8}
MONEY = {"type": "fixed", "name": "Money", "size": 16, "logicalType": "decimal", "precision": 38,
         "scale": 3}
STATE = {"type": "enum", "name": "E", "symbols": ["NEW", "PAID", "A"]}
OF_DECIMAL = "expected a decimal"
OUT = "expected a timestamp"


def out_of_years(unit):
    """Moments of the years 10000 and 1 BC, in microseconds times `unit`."""
    return [(int(it * DAY * unit), NOT_IN_YEARS) for it in (BEYOND, BEFORE)]


def plain_cases():
    decimals = logical("bytes", "decimal", precision=38, scale=3)
    small = logical("bytes", "decimal", precision=9, scale=3)
    wide = logical("bytes", "decimal", precision=64, scale=2)
    day = logical("int", "date")
    infinities = [(INFINITY, OUT), (MINUS_INFINITY, OUT)]
    nanos = [(it, text) for it, text in moments(lambda at: micros(at) * 1000, values=MOMENTS[:3])]
    nanos += [(1714979289123456500, "'2024-05-06 07:08:09.123456'"),
              (-1500, "'1969-12-31 23:59:59.999998'")]
    zoned_nanos = [(value, text[:-1] + "+00'") for value, text in nanos]
    return [
        typed("boolean", "boolean", [(True, "true"), (False, "false")]),
        typed("int", "int", INTS),
        typed("long", "bigint", LONGS),
        typed("float", "real", reals(FLOATS)),
        typed("double", "double precision", reals(DOUBLES)),
        typed("string", "text", texts()),
        typed("bytes", "bytea", octets()),
        typed(STATE, "text", [("PAID", "'PAID'"), ("NEW", "'NEW'"), ("A", "'A'")]),
        typed(FIXED, "bytea", octets([bytes(8), b"\xff" * 8, b"12345678"])),
        # Named types a second time, by their names.
        typed("E", "text", [("NEW", "'NEW'"), ("A", "'A'")]),
        typed("F", "bytea", octets([b"abcdefgh", bytes(8)])),
        typed(decimals, "numeric(38,3)", numbers([*DECIMALS, DIGITS_38, DIGITS_38.copy_negate()])),
        typed(small, "numeric(9,3)", numbers(DECIMALS)),
        typed(MONEY, "numeric(38,3)", numbers([*DECIMALS, DIGITS_38, DIGITS_38.copy_negate()])),
        typed(wide, "numeric(38,2)", numbers([Decimal("12.50"), Decimal("-0.01")]),
              [(Decimal(10**39), OF_DECIMAL)]),
        typed(day, "date", days(), [(BEYOND, NOT_IN_YEARS), (BEFORE, NOT_IN_YEARS)]),
        typed(logical("int", "time-millis"), "text", times(millis=True)),
        typed(logical("long", "time-micros"), "text", times(), [(DAY + 1, "expected a string")]),
        typed(logical("long", "timestamp-millis"), "timestamptz",
              moments(millis=True, zoned=True), out_of_years(0.001)),
        typed(logical("long", "timestamp-micros"), "timestamptz", moments(zoned=True),
              out_of_years(1) + infinities),
        typed(logical("long", "timestamp-nanos"), "timestamptz", zoned_nanos),
        typed(logical("long", "local-timestamp-millis"), "timestamp",
              moments(lambda at: micros(at) // 1000, millis=True), out_of_years(0.001)),
        typed(logical("long", "local-timestamp-micros"), "timestamp", moments(micros),
              out_of_years(1)),
        typed(logical("long", "local-timestamp-nanos"), "timestamp", nanos),
        typed(logical("string", "uuid"), "uuid", [(it, quoted(str(it))) for it in UUIDS]),
        typed(logical("fixed", "uuid", name="U", size=16), "uuid",
              [(it.bytes, quoted(str(it))) for it in UUIDS]),
        typed(logical("int", "none-such"), "int", INTS),
        typed(logical("string", "date"), "text", texts(["x", "y"])),
        typed("shop.Country", "text", [("DE", "'DE'"), ("CH", "'CH'")]),
        typed("shop.Price", "numeric(18,2)", numbers([Decimal("12.50"), Decimal("-0.01")])),
    ]


def ended(at):
    return at.replace(tzinfo=None).isoformat() + "Z"


def envelope_cases():
    text = [(PLACEHOLDER, "REPLICA IDENTITY FULL")]
    octet = [(PLACEHOLDER.encode(), "REPLICA IDENTITY FULL")]
    fine = moments(lambda at: micros(at) * 1000, values=MOMENTS[:3])
    offset = [("2024-05-06T09:08:09.5+02:00", "'2024-05-06 07:08:09.5+00'")]
    return [
        typed("string", "text", texts(), text),
        typed("bytes", "bytea", octets(), octet),
        typed(debezium("int", "time.Date"), "date", days(since_epoch), [(BEYOND, NOT_IN_YEARS)]),
        typed(debezium("int", "time.Time"), "text",
              times(lambda at: of_day(at) // 1000, millis=True)),
        typed(debezium("long", "time.MicroTime"), "text", times(of_day)),
        typed(debezium("long", "time.NanoTime"), "text", times(lambda at: of_day(at) * 1000)),
        typed(debezium("long", "time.Timestamp"), "timestamp",
              moments(lambda at: micros(at) // 1000, millis=True), out_of_years(0.001)),
        typed(debezium("long", "time.MicroTimestamp"), "timestamp", moments(micros),
              [(INFINITY, OUT), (MINUS_INFINITY, OUT)] + out_of_years(1)),
        typed(debezium("long", "time.NanoTimestamp"), "timestamp", fine),
        typed(debezium("string", "time.ZonedTimestamp"), "timestamptz",
              moments(ended, zoned=True) + offset,
              [("infinity", OUT), ("10000-01-01T00:00:00Z", OUT), *text]),
        typed(debezium("string", "time.ZonedTime"), "text", texts(["07:08:09.5Z", "07:08:09Z"])),
        typed(debezium("string", "time.Interval"), "text", texts(["P1M", "P30D"])),
        typed(debezium("int", "time.Year"), "int", plain([2024, 1901])),
        typed(debezium("long", "time.MicroDuration"), "bigint", plain([-1, 2629800000000])),
        typed(debezium("string", "data.Json"), "text", texts(['{"a": 1.0}', "null"]), text),
        typed(debezium("string", "data.Xml"), "text", texts(["<a/>", "<a></a>"])),
        typed(debezium("string", "data.Ltree"), "text", texts(["a.b", "a"])),
        typed(debezium("string", "data.Enum", allowed="sad,glad"), "text", texts(["sad", "glad"])),
        typed(debezium("string", "data.EnumSet", allowed="a,b"), "text", texts(["a,b", "b"])),
        typed(debezium("string", "data.Uuid"), "uuid",
              [(str(it).upper() if at else str(it), quoted(str(it)))
               for at, it in enumerate(UUIDS)]),
        typed(debezium("bytes", "data.Bits", length="10"), "text",
              [(it, f"'{int.from_bytes(it, 'little'):010b}'")
               for it in (b"\1\2", b"\xff\3", b"\0\0")]),
        typed(kafka("int", "Date"), "date", days(since_epoch), [(BEFORE, NOT_IN_YEARS)]),
        typed(kafka("int", "Time"), "text", times(lambda at: of_day(at) // 1000, millis=True)),
        typed(kafka("long", "Timestamp"), "timestamptz",
              moments(lambda at: micros(at) // 1000, millis=True, zoned=True), out_of_years(0.001)),
        typed(kafka("bytes", "Decimal", scale="3"), "numeric(38,3)",
              numbers([*DECIMALS, DIGITS_38, DIGITS_38.copy_negate()], lambda it: unscaled(it, 3)),
              [(unscaled(DIGITS_38 * 100, 3), OF_DECIMAL)]),
    ]


# What no column can be, in every record, and between the columns that can.
NESTED = [
    ("tags", {"type": "map", "values": {"type": "array", "items": "long"}}, {"a": [1, -1], "b": []}),
    ("one_of", ["null", "string", "long"], 7),
    ("list", {"type": "array", "items": ["null", "string"]}, [None, "x"]),
    ("nothing", "null", None),
    ("stay", {"type": "fixed", "name": "D", "size": 12, "logicalType": "duration"}, bytes(12)),
]
COUNTRY = {"type": "enum", "name": "Country", "namespace": "shop", "symbols": ["DE", "CH"]}
PRICE = {"type": "fixed", "name": "Price", "namespace": "shop", "size": 8,
         "logicalType": "decimal", "precision": 18, "scale": 2}


def fields_of(cases):
    """Each may be null, which stands before its type and behind it."""
    fields = [{"name": "id", "type": "long"}, {"name": "g", "type": "int"}]
    for at, case in enumerate(cases):
        null_first = at % 2 == 0
        kind = ["null", case.avro] if null_first else [case.avro, "null"]
        field = {"name": case.column, "type": kind}
        fields.append({**field, "default": None} if null_first else field)
        if at < len(NESTED):
            name, kind, _ = NESTED[at]
            fields.append({"name": name, "type": kind})
    return fields


class Plain:
    """Records of their own under a key with the row's id; a tombstone deletes."""

    def __init__(self, topic, producer, client):
        self.topic, self.producer, self.client = topic, producer, client

    def begin(self, cases):
        self.columns = [case.column for case in cases]
        references = []
        for name, kind in (("shop.Country", COUNTRY), ("shop.Price", PRICE)):
            subject = f"{self.topic}-{name}"
            self.client.register_schema(subject, Schema(json.dumps(kind), "AVRO"))
            version = self.client.get_latest_version(subject).version
            references.append(SchemaReference(name, subject, version))
        row = {"type": "record", "name": "Row", "fields": [
            *fields_of(cases), {"name": "again", "type": ["null", "Row"], "default": None}]}
        key = {"type": "record", "name": "Key", "fields": [{"name": "id", "type": "long"}]}
        self.value = AvroSerializer(
            self.client, Schema(json.dumps(self.schema(row)), "AVRO", references))
        self.key = AvroSerializer(self.client, json.dumps(key))
        self.base = {name: value for name, _, value in NESTED}
        self.base |= dict.fromkeys(self.columns)

    def second(self):
        """The second half begins."""

    def schema(self, row):
        return row

    def record(self, op, row):
        if op in ("d", "tombstone"):
            return None
        inner = {**self.base, **row, "again": None}
        return {**self.base, **row, "again": inner}

    def write(self, op, key, row):
        if op == "m" and not isinstance(self, Envelope):
            return
        record = self.record(op, row)
        value = None if record is None else self.value(
            record, SerializationContext(self.topic, MessageField.VALUE))
        key = self.key({"id": key}, SerializationContext(self.topic, MessageField.KEY))
        self.producer.produce(self.topic, value, key)
        if op == "d" and record is not None:
            self.producer.produce(self.topic, None, key)


class Envelope(Plain):
    """Debezium's envelope."""

    def schema(self, row):
        row = {**row, "name": "Value", "fields": row["fields"][:-1]}
        source = {"type": "record", "name": "Source", "namespace": "io.debezium.connector.mysql",
                  "fields": [{"name": "version", "type": "string"},
                             {"name": "connector", "type": "string"},
                             {"name": "snapshot", "default": "false", "type": [
                                 {"type": "string", "connect.default": "false",
                                  "connect.name": "io.debezium.data.Enum"}, "null"]},
                             {"name": "sequence", "type": ["null", "string"], "default": None}]}
        optional = {"type": ["null", "Value"], "default": None}
        return {"type": "record", "name": "Envelope", "namespace": "server.shop.t", "fields": [
            {"name": "before", "type": ["null", row], "default": None},
            {"name": "after", **optional},
            {"name": "source", "type": source},
            {"name": "op", "type": "string"},
            {"name": "ts_ms", "type": ["null", "long"], "default": None},
            {"name": "transaction", "default": None, "type": ["null", {
                "type": "record", "name": "block", "namespace": "event",
                "fields": [{"name": "id", "type": "string"}]}]}]}

    def record(self, op, row):
        if op == "tombstone":
            return None
        full = {**self.base, **row} if row else None
        before = full if op in ("u", "d") else None
        source = {"version": "3.0.0.Final", "connector": "mysql", "snapshot": "false",
                  "sequence": None}
        return {"before": before, "after": None if op in ("d", "m") else full, "source": source,
                "op": op, "ts_ms": 1714979289500, "transaction": None}


def renamed_and_widened():
    """Each with the type that the first half is written with; values of it stand at even places."""
    wider = typed("long", "bigint", plain([7, 2**40, -(2**31), 2**63 - 1]))
    double = typed("double", "double precision", reals([1.5, 0.1, -0.0, 5e-324]))
    whole = typed("double", "double precision", reals([7.0, 0.5, -1.0, 5e-324]))
    octet = typed("bytes", "bytea", octets([b"text", b"\0\xff", "größe".encode(), b""]))
    name = typed("string", "text", texts(["a", "ß", "", "o'brien"]))
    for case, was, told, old, new in (
        (name, "string", "string, by an alias", str, str),
        (wider, "int", "int, read as long", int, int),
        (double, "float", "float, read as double", float, float),
        (whole, "int", "int, read as double", int, float),
        (octet, "string", "string, read as bytes", bytes.decode, bytes),
    ):
        case.name, case.was, case.old, case.new = told, was, old, new
        yield case


class Evolved(Plain):
    """The first half is written with an older schema."""

    def begin(self, cases):
        self.cases, self.is_old = cases, True
        key = {"type": "record", "name": "Key", "fields": [{"name": "id", "type": "long"}]}
        self.key = AvroSerializer(self.client, json.dumps(key))
        start = [{"name": "id", "type": "long"}, {"name": "g", "type": "int"}]
        old = [{"name": f"was_{it.number}" if "alias" in it.name else it.column,
                "type": ["null", it.was]} for it in cases]
        new = [{"name": it.column, "type": ["null", it.avro], "aliases": [f"was_{it.number}"]}
               for it in cases]
        self.schemas = []
        for fields in (old, new):
            schema = json.dumps({"type": "record", "name": "Row", "fields": start + fields})
            self.client.register_schema(f"{self.topic}-value", Schema(schema, "AVRO"))
            self.schemas.append((AvroSerializer(self.client, schema), [it["name"] for it in fields]))

    def second(self):
        self.is_old = False

    def record(self, op, row):
        if op in ("d", "tombstone"):
            return None
        self.value, names = self.schemas[0 if self.is_old else 1]
        record = {"id": row["id"], "g": row["g"]}
        for name, case in zip(names, self.cases):
            value = row.get(case.column)
            write = case.old if self.is_old else case.new
            record[name] = None if value is None else write(value)
        return record


def tables():
    yield "ta", plain_cases(), Plain, {
        "with": "format = 'avro', envelope = 'upsert'", "format": "avro"}
    yield "td", envelope_cases(), Envelope, {
        "with": "format = 'avro', envelope = 'debezium'", "format": "avro"}
    yield "te", list(renamed_and_widened()), Evolved, {
        "with": "format = 'avro', envelope = 'upsert'", "format": "avro"}
