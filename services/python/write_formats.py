"""Write every type of Avro and of Debezium's JSON to Kafka with Confluent's client and fastavro.

    write_formats.py BOOTSTRAP REGISTRY PREFIX

The first line that is printed is {"tables", "sql"}: the tables with their columns, and what a table
of PostgreSQL holds after the first half of the records. A line on stdin starts the second half: inserts,
updates, deletes, nulls, and values that have no form. Then {"sql", "dead"} is printed. The values in
`sql` are made here from the same Python values that were written. Nothing here knows of Tidemill.
"""

import json
import sys

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

import formats_avro
import formats_json

PARTITIONS = 2
ROWS = 100  # A type's rows: ids from its number times this


class Table:
    """One topic and the rows that it stands for."""

    def __init__(self, name, first, cases, writer, **about):
        self.name, self.cases, self.writer, self.about = name, cases, writer, about
        for number, case in enumerate(cases, first):
            case.number, case.column = number, f"c_{number}"

    def told(self):
        columns = [
            {
                "number": case.number, "column": case.column, "name": case.name,
                "kind": case.kind, "declared": case.declared, "literals": case.literals(),
                "dead": [reason for _, reason in case.dead],
            }
            for case in self.cases
        ]
        return {"name": self.name, "topic": self.writer.topic, "columns": columns, **self.about}


class Rows:
    """What is written, and the same as SQL."""

    def __init__(self, table):
        self.table, self.sql, self.dead = table, [], []

    def put(self, op, case, at, value, literal):
        key = case.number * ROWS + at
        row = {"id": key, "g": case.number, case.column: value}
        self.table.writer.write(op, key, row)
        name = self.table.name
        self.sql.append(
            f"INSERT INTO {name} (id, g, {case.column}) VALUES ({key}, {case.number}, {literal}) "
            f"ON CONFLICT (id) DO UPDATE SET {case.column} = excluded.{case.column};"
        )

    def gone(self, op, case, at):
        key = case.number * ROWS + at
        self.table.writer.write(op, key, {"id": key, "g": case.number})
        self.sql.append(f"DELETE FROM {self.table.name} WHERE id = {key};")

    def has_no_form(self, op, case, at, value, reason):
        """The row of before leaves the views."""
        key = case.number * ROWS + at
        self.table.writer.write(op, key, {"id": key, "g": case.number, case.column: value})
        self.sql.append(f"DELETE FROM {self.table.name} WHERE id = {key};")
        self.dead.append({"topic": self.table.writer.topic, "column": case.column, "says": reason})


def first_half(rows):
    for case in rows.table.cases:
        for at, (value, literal) in enumerate(case.values):
            if at % 2 == 0:
                rows.put("r", case, at, value, literal)
        value, literal = case.values[0]
        rows.put("r", case, 90, None, "NULL")
        for at in (91, 92, 93, 94, 95):
            rows.put("c", case, at, value, literal)


def second_half(rows):
    writer = rows.table.writer
    for case in rows.table.cases:
        for at, (value, literal) in enumerate(case.values):
            if at % 2 == 1:
                rows.put("c", case, at, value, literal)
            elif at % 6 == 0:
                rows.put("u", case, at, *case.values[(at + 1) % len(case.values)])
        rows.put("u", case, 90, *case.values[0])
        rows.gone("d", case, 91)
        rows.gone("tombstone", case, 94)
        rows.put("u", case, 93, None, "NULL")
        for at, (value, reason) in enumerate(case.dead):
            rows.has_no_form("u" if at == 0 else "c", case, 95 if at == 0 else 60 + at, value, reason)
    writer.write("m", 0, {})


def main(bootstrap, registry, prefix):
    producer = Producer({"bootstrap.servers": bootstrap.removeprefix("kafka://"), "linger.ms": 5})
    client = SchemaRegistryClient({"url": registry})
    tables, first = [], 1
    for module in (formats_avro, formats_json):
        for name, cases, make, about in module.tables():
            writer = make(f"{prefix}.{name}", producer, client)
            tables.append(Table(name, first, cases, writer, **about))
            first += len(cases)
    admin = AdminClient({"bootstrap.servers": bootstrap.removeprefix("kafka://")})
    topics = [NewTopic(table.writer.topic, PARTITIONS, 1) for table in tables]
    for made in admin.create_topics(topics).values():
        made.result()
    for table in tables:
        table.writer.begin(table.cases)
    # What is no Avro, as other serializers register it.
    for name, kind, schema in (
        ("json", "JSON", '{"type": "object", "properties": {"id": {"type": "integer"}}}'),
        ("protobuf", "PROTOBUF", 'syntax = "proto3"; message Row { int64 id = 1; }'),
    ):
        client.register_schema(f"{prefix}.{name}-value", Schema(schema, kind))
    for half in (first_half, second_half):
        sql, dead = [], []
        for table in tables:
            rows = Rows(table)
            half(rows)
            sql += rows.sql
            dead += rows.dead
        if producer.flush(30):
            sys.exit("Kafka did not take all records")
        told = {"sql": "\n".join(sql), "dead": dead}
        if half is first_half:
            told["tables"] = [table.told() for table in tables]
        print(json.dumps(told), flush=True)
        if half is first_half:
            sys.stdin.readline()
            for table in tables:
                table.writer.second()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: write_formats.py BOOTSTRAP REGISTRY PREFIX")
    main(*sys.argv[1:])
