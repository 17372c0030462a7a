#!/bin/sh
# As the real image: KAFKA_A_B=c is a.b=c of server.properties, and an empty folder is formatted.
set -eu
env | sed -n 's/^KAFKA_//p' | grep -v '^HEAP_OPTS=' | while IFS='=' read -r name value; do
    echo "$(echo "$name" | tr 'A-Z_' 'a-z.')=$value"
done >/tmp/server.properties
if [ ! -f "$KAFKA_LOG_DIRS/meta.properties" ]; then
    java -cp '/opt/kafka/libs/*' kafka.tools.StorageTool format -t "$CLUSTER_ID" \
        -c /tmp/server.properties
fi
exec java $KAFKA_HEAP_OPTS -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp '/opt/kafka/libs/*' \
    kafka.Kafka /tmp/server.properties
