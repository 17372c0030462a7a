"""Read N records of a topic with Confluent's own client and print one JSON line for each.

    read_topic.py BOOTSTRAP REGISTRY TOPIC N

Key and value go through Confluent's AvroDeserializer and the schema registry, so this says whether
a consumer that knows nothing of Tidemill understands what it publishes. A line is
{"partition", "offset", "key", "value"}; a null key or value (a tombstone) is null.
"""

import base64
import datetime
import decimal
import json
import sys
import time
import uuid

from confluent_kafka import Consumer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

PATIENCE = 60.0  # seconds without a record before giving up


def plain(value):
    """What Avro's logical types become and JSON has no word for."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (decimal.Decimal, uuid.UUID)):
        return str(value)
    raise TypeError(f"no JSON for {type(value).__name__}")


def main(bootstrap, registry, topic, wanted):
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap.removeprefix("kafka://"),
            "group.id": f"read-topic-{uuid.uuid4()}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    decode = AvroDeserializer(SchemaRegistryClient({"url": registry}))
    consumer.subscribe([topic])
    read, last = 0, time.monotonic()
    try:
        while read < wanted:
            message = consumer.poll(0.5)
            if message is None:
                if time.monotonic() - last > PATIENCE:
                    sys.exit(f"{topic}: {read} of {wanted} records after {PATIENCE:.0f} s of silence")
                continue
            if message.error():
                if time.monotonic() - last > PATIENCE or message.error().fatal():
                    sys.exit(f"{topic}: {message.error()}")
                continue
            key = decode(message.key(), SerializationContext(topic, MessageField.KEY))
            value = decode(message.value(), SerializationContext(topic, MessageField.VALUE))
            record = {
                "partition": message.partition(),
                "offset": message.offset(),
                "key": key,
                "value": value,
            }
            print(json.dumps(record, default=plain, ensure_ascii=False), flush=True)
            read, last = read + 1, time.monotonic()
    finally:
        consumer.close()


if __name__ == "__main__":
    if len(sys.argv) != 5 or not sys.argv[4].isdigit():
        sys.exit("usage: read_topic.py BOOTSTRAP REGISTRY TOPIC N")
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
