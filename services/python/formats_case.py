"""A type that others' clients write, and the values of it that tell right from wrong.

A value is a pair: what is written, and the literal of PostgreSQL that it must be equal to.
"""

import datetime
import decimal
import uuid
from base64 import b64encode

UTC = datetime.timezone.utc
PLACEHOLDER = "__debezium_unavailable_value"
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=UTC)
FIRST = datetime.datetime(1, 1, 1, tzinfo=UTC)
LAST = datetime.datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
# Before 1970, with and without a part that is finer than a millisecond; the first and the last.
MOMENTS = [
    datetime.datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC),
    datetime.datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    datetime.datetime(1754, 8, 30, 22, 43, 41, 129000, tzinfo=UTC),
    FIRST,
    LAST,
    EPOCH,
]
DAYS = [datetime.date(2024, 2, 29), datetime.date(1969, 12, 31), datetime.date(1, 1, 1),
        datetime.date(9999, 12, 31), datetime.date(1970, 1, 1)]
TIMES = [datetime.time(7, 8, 9, 123456), datetime.time(0), datetime.time(23, 59, 59, 999999),
         datetime.time(0, 0, 0, 1000)]
# In whole days and microseconds since 1970: 10000-01-01, and the last day of the year 1 BC.
BEYOND, BEFORE = 2932897, -719163
DAY = 86_400_000_000
INFINITY, MINUS_INFINITY = 9_223_372_036_825_200_000, -9_223_372_036_832_400_000
TEXTS = ["a", "A", "", "größe 🌊", "a ", " ", "o'brien", "a\\n\"b", "\u00e9", "e\u0301",
         "\x01", "x" * 9000]
BYTES = [b"\0\xff", b"", b"\0", bytes(range(256)), b"__debezium"]
DIGITS_38 = decimal.Decimal("9" * 35 + ".999")
DECIMALS = [decimal.Decimal(it) for it in ("12.500", "-0.001", "0.000", "1.280", "-1.280")]
DOUBLES = [1.5, -0.0, 0.0, float("nan"), float("inf"), float("-inf"), 0.1, 5e-324,
           -1.7976931348623157e308]
FLOATS = [1.5, -0.0, 0.0, float("nan"), float("inf"), float("-inf"), -3.4028234663852886e38]
NOT_IN_YEARS = "of the years 1 to 9999"


class Case:
    """A type: its name, PostgreSQL's type for it, its values, and those that have no form."""

    def __init__(self, name, kind, values, dead=(), declared=None):
        self.name, self.kind, self.values, self.dead = name, kind, list(values), list(dead)
        self.declared = declared
        if len(self.values) == 1:
            self.values *= 2

    def literals(self):
        return [literal for _, literal in self.values[:2]]


def quoted(text):
    return "'" + text.replace("'", "''") + "'"


def plain(values):
    return [(value, str(value)) for value in values]


def texts(values=TEXTS):
    return [(value, quoted(value)) for value in values]


def octets(values=BYTES, write=lambda value: value):
    return [(write(value), f"'\\x{value.hex()}'") for value in values]


def reals(values, write=lambda value: value):
    return [(write(value), f"'{value!r}'") for value in values]


def days(write=lambda value: value):
    return [(write(value), f"'{value.isoformat()}'") for value in DAYS]


def moments(write=lambda value: value, *, millis=False, zoned=False, values=MOMENTS):
    pairs = []
    for at in values:
        if millis:
            at = at.replace(microsecond=at.microsecond // 1000 * 1000)
        zone = "+00" if zoned else ""
        text = at.replace(tzinfo=None).isoformat(" ")
        pairs.append((write(at), f"'{text}{zone}'"))
    return pairs


def clock(time):
    """A time of day as PostgreSQL writes it."""
    whole = time.strftime("%H:%M:%S")
    return whole if not time.microsecond else f"{whole}.{time.microsecond:06d}".rstrip("0")


def times(write=lambda value: value, *, millis=False):
    pairs = []
    for at in TIMES:
        if millis:
            at = at.replace(microsecond=at.microsecond // 1000 * 1000)
        pairs.append((write(at), quoted(clock(at))))
    return pairs


def numbers(values, write=lambda value: value):
    return [(write(value), str(value)) for value in values]


def micros(at):
    return (at - EPOCH) // datetime.timedelta(microseconds=1)


def of_day(at):
    return ((at.hour * 60 + at.minute) * 60 + at.second) * 10**6 + at.microsecond


def since_epoch(at):
    return (at - datetime.date(1970, 1, 1)).days


def unscaled(number, scale):
    """As Java's BigInteger writes the unscaled value."""
    whole = int(number.scaleb(scale, decimal.Context(prec=60)))
    return whole.to_bytes((whole + (whole < 0)).bit_length() // 8 + 1, "big", signed=True)


def base64(octets):
    return b64encode(octets).decode()


UUIDS = [uuid.UUID("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"), uuid.UUID(int=0),
         uuid.UUID(int=2**128 - 1)]
