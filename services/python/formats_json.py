"""Debezium's change events as Connect's JSON converter writes them, with its schema and without."""

import json

from formats_case import (
    BEYOND, Case, DAY, DECIMALS, DIGITS_38, INFINITY, MINUS_INFINITY, MOMENTS, NOT_IN_YEARS, UUIDS,
    DOUBLES, FLOATS, PLACEHOLDER, base64, days, micros, moments, numbers, octets, of_day, plain, quoted, reals,
    since_epoch, texts, times, unscaled,
)

GONE = (PLACEHOLDER, "REPLICA IDENTITY FULL")
GONE_BYTES = (base64(PLACEHOLDER.encode()), "REPLICA IDENTITY FULL")
OUT, OF_DECIMAL = "expected a timestamp", "expected a decimal"


class Digits(float):
    """A number that is written with these digits."""

    def __new__(cls, text):
        made = super().__new__(cls, text)
        made.text = str(text)
        return made

    def __repr__(self):
        return self.text


def typed(base, declared, values, dead=(), name=None, kind=None, **parameters):
    schema = {"type": base}
    if name:
        schema["name"] = name
    if parameters:
        schema["parameters"] = parameters
    said = name or base
    case = Case(said, kind or declared, values, dead, declared)
    case.schema = schema
    return case


def finite_or_text(value):
    """Connect's converter writes what JSON has no number for as a string."""
    if value != value:
        return "NaN"
    if abs(value) == float("inf"):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def time(name):
    return f"io.debezium.time.{name}"


def data(name):
    return f"io.debezium.data.{name}"


def connect(name):
    return f"org.apache.kafka.connect.data.{name}"


def plain_values():
    """What every mode writes alike."""
    return [
        typed("boolean", "boolean", [(True, "true"), (False, "false")]),
        typed("int16", "smallint", plain([7, -32768, 32767]), [(32768, "expected a whole number")]),
        typed("int32", "int", plain([7, -(2**31), 2**31 - 1]), [(2**31, "expected a whole number")]),
        typed("int64", "bigint", plain([2**53 + 1, 2**53, 2**63 - 1, -(2**63), 0])),
        typed("float", "real", reals(FLOATS, finite_or_text)),
        typed("double", "double precision", reals(DOUBLES, finite_or_text)),
        typed("string", "text", texts(), [GONE]),
        typed("string", "varchar(3)", texts(["a", "ab", "größe"[:3]]), [("abcd", "3 characters")]),
        typed("string", "json", texts(['{"a": 1.0}', "null"]), [GONE], name=data("Json"),
              kind="text"),
        typed("string", "uuid", [(str(it).upper() if at else str(it), quoted(str(it)))
                                 for at, it in enumerate(UUIDS)],
              [("nobody", "expected a UUID")], name=data("Uuid")),
    ]


def ended(at):
    return at.replace(tzinfo=None).isoformat() + "Z"


def zoned():
    return typed("string", "timestamptz", moments(ended, zoned=True) + [
        ("2024-05-06T09:08:09.5+02:00", "'2024-05-06 07:08:09.5+00'")],
        [("infinity", OUT), ("10000-01-01T00:00:00Z", OUT)], name=time("ZonedTimestamp"))


def beyond(per_day):
    return [(BEYOND * per_day, NOT_IN_YEARS)]


def numeric(values, write, declared="numeric(38,3)", dead=(), base="bytes", **about):
    return typed(base, declared, numbers(values, write), dead, **about)


ALL_DECIMALS = [*DECIMALS, DIGITS_38, DIGITS_38.copy_negate()]


def precise(**about):
    return numeric(ALL_DECIMALS, lambda it: base64(unscaled(it, 3)),
                   dead=[(base64(unscaled(DIGITS_38 * 100, 3)), OF_DECIMAL)],
                   name=connect("Decimal"), scale="3", **about)


def variable():
    return numeric(
        ALL_DECIMALS, lambda it: {"scale": 3, "value": base64(unscaled(it, 3))},
        dead=[({"scale": 4, "value": base64(unscaled(DECIMALS[1] / 10, 4))}, OF_DECIMAL)],
        base="struct", name=data("VariableScaleDecimal"))


def with_schema():
    """The schema says what each value is, whatever the connector's modes are."""
    infinities = [(INFINITY, OUT), (MINUS_INFINITY, OUT)]
    fine = MOMENTS[:3]
    return [
        *plain_values(),
        typed("bytes", "bytea", octets(write=base64), [GONE_BYTES]),
        typed("int32", "date", days(since_epoch), beyond(1), name=time("Date")),
        typed("int32", "date", days(since_epoch), name=connect("Date")),
        typed("string", "date", days(lambda it: f"{it.isoformat()}Z"), name=time("IsoDate")),
        typed("int32", "text", times(lambda at: of_day(at) // 1000, millis=True), name=time("Time")),
        typed("int64", "text", times(of_day), [(DAY + 1, "expected a string")],
              name=time("MicroTime")),
        typed("int64", "text", times(lambda at: of_day(at) * 1000), name=time("NanoTime")),
        typed("int32", "text", times(lambda at: of_day(at) // 1000, millis=True),
              name=connect("Time")),
        typed("int64", "timestamp", moments(lambda at: micros(at) // 1000, millis=True),
              beyond(DAY // 1000), name=time("Timestamp")),
        typed("int64", "timestamp", moments(micros), infinities + beyond(DAY),
              name=time("MicroTimestamp")),
        typed("int64", "timestamp", moments(lambda at: micros(at) * 1000, values=fine),
              name=time("NanoTimestamp")),
        typed("int64", "timestamp", moments(lambda at: micros(at) // 1000, millis=True),
              name=connect("Timestamp")),
        typed("string", "timestamp", moments(ended), name=time("IsoTimestamp")),
        zoned(),
        typed("string", "text", texts(["07:08:09.5Z", "07:08:09Z"]), name=time("ZonedTime")),
        typed("string", "text", texts(["07:08:09.123Z", "00:00:00Z"]), name=time("IsoTime")),
        typed("int32", "int", plain([2024, 1901]), name=time("Year")),
        typed("int64", "bigint", plain([-1, 2629800000000]), name=time("MicroDuration")),
        typed("string", "text", texts(["P1Y2M3DT4H5M6.78S", "P1M"]), name=time("Interval")),
        precise(),
        numeric(ALL_DECIMALS, str, base="string"),
        numeric(DECIMALS, lambda it: Digits(it.normalize()), base="double"),
        variable(),
        typed("bytes", "text", [(base64(it), f"'{int.from_bytes(it, 'little'):010b}'")
                                for it in (b"\1\2", b"\xff\3", b"\0\0")],
              name=data("Bits"), length="10"),
        typed("string", "text", texts(["<a/>", "<a></a>"]), name=data("Xml")),
        typed("string", "text", texts(["a.b", "a"]), name=data("Ltree")),
        typed("string", "text", texts(["sad", "glad"]), name=data("Enum")),
        typed("string", "text", texts(["a,b", "b"]), name=data("EnumSet")),
        typed("string", "text", texts(['{"a":"1","b":null}', "{}"]), name=data("Json")),
    ]


def defaults():
    """timestamps = 'micros', decimals = 'base64': time.precision.mode=adaptive_time_microseconds,
    decimal.handling.mode=precise, binary.handling.mode=bytes."""
    return [
        *plain_values(),
        typed("bytes", "bytea", octets(write=base64), [GONE_BYTES]),
        typed("int32", "date", days(since_epoch), beyond(1), name=time("Date")),
        typed("int64", "timestamp", moments(micros),
              [(INFINITY, OUT), (MINUS_INFINITY, OUT)] + beyond(DAY), name=time("MicroTimestamp")),
        typed("int64", "bigint", numbers([of_day(it) for it, _ in times()]), name=time("MicroTime")),
        zoned(),
        precise(),
        variable(),
    ]


def as_text():
    """timestamps = 'iso', decimals = 'string', binary = 'hex': the modes isostring, string, hex."""
    return [
        typed("string", "date", days(lambda it: f"{it.isoformat()}Z"), name=time("IsoDate")),
        typed("string", "timestamp", moments(ended), [(1714979289123, OUT)],
              name=time("IsoTimestamp")),
        zoned(),
        numeric(ALL_DECIMALS, str, base="string", dead=[("NaN", OF_DECIMAL)]),
        typed("string", "bytea", octets(write=bytes.hex),
              [("0xff", "expected a string of bytes")], name="hex"),
    ]


def nanoseconds():
    """timestamps = 'nanos', decimals = 'double', binary = 'base64': the modes nanoseconds, double,
    base64."""
    return [
        typed("int64", "timestamp", moments(lambda at: micros(at) * 1000, values=MOMENTS[:3]),
              name=time("NanoTimestamp")),
        numeric(DECIMALS, lambda it: Digits(it.normalize()), base="double"),
        typed("string", "bytea", octets(write=base64), [GONE_BYTES], name="base64"),
    ]


def milliseconds():
    """timestamps = 'millis': time.precision.mode=connect."""
    return [
        typed("int32", "date", days(since_epoch), name=connect("Date")),
        typed("int64", "timestamp", moments(lambda at: micros(at) // 1000, millis=True),
              beyond(DAY // 1000), name=connect("Timestamp")),
    ]


class Events:
    """Debezium's envelope; `schemas` is the converter's schemas.enable."""

    schemas = False

    def __init__(self, topic, producer, client):
        self.topic, self.producer = topic, producer

    def begin(self, cases):
        self.columns = [case.column for case in cases]
        fields = [{"type": "int64", "optional": False, "field": "id"},
                  {"type": "int32", "optional": False, "field": "g"}]
        fields += [{**case.schema, "optional": True, "field": case.column} for case in cases]

        def row(name):
            return {"type": "struct", "fields": fields, "optional": True, "name": "s.t.Value",
                    "field": name}

        self.schema = {"type": "struct", "optional": False, "name": "s.t.Envelope", "version": 2,
                       "fields": [row("before"), row("after"),
                                  {"type": "string", "optional": False, "field": "op"}]}
        self.key = {"type": "struct", "fields": fields[:1], "optional": False, "name": "s.t.Key"}

    def second(self):
        """The second half begins."""

    def wrapped(self, schema, payload):
        whole = {"schema": schema, "payload": payload} if self.schemas else payload
        return json.dumps(whole, ensure_ascii=False).encode()

    def write(self, op, key, row):
        key = self.wrapped(self.key, {"id": key})
        if op == "tombstone":
            self.producer.produce(self.topic, None, key)
            return
        full = {**dict.fromkeys(["id", "g", *self.columns]), **row} if row else None
        event = {"before": full if op in ("u", "d") else None,
                 "after": None if op in ("d", "m") else full,
                 "source": {"version": "3.0.0.Final", "connector": "mysql", "snapshot": "false"},
                 "transaction": None, "op": op, "ts_ms": 1714979289500}
        self.producer.produce(self.topic, self.wrapped(self.schema, event), key)
        if op == "d":
            self.producer.produce(self.topic, None, key)


class EventsWithSchemas(Events):
    schemas = True


def tables():
    json_of = "format = 'json', envelope = 'debezium'"
    for name, cases, make, options in (
        ("ts", with_schema(), EventsWithSchemas, ""),
        ("tm", defaults(), Events, "timestamps = 'micros', decimals = 'base64'"),
        ("tt", as_text(), Events, "timestamps = 'iso', decimals = 'string', binary = 'hex'"),
        ("tn", nanoseconds(), Events, "timestamps = 'nanos', decimals = 'double', binary = 'base64'"),
        ("tc", milliseconds(), Events, "timestamps = 'millis'"),
    ):
        said = f"{json_of}, {options}" if options else json_of
        yield name, cases, make, {"with": said, "options": options, "format": "json"}
