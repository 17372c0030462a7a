#!/bin/sh
# As the real image: it listens on the container's own address.
set -eu
address=$(hostname -i | cut -d' ' -f1)
data=/var/lib/cassandra
sed -e 's|@PORT@|9042|g' -e 's|@STORAGE@|7000|g' -e "s|@DATA@|$data|g" \
    -e 's|@SYNC@|commitlog_sync: periodic\ncommitlog_sync_period: 10000ms|' \
    -e "s|^listen_address:.*|listen_address: $address|" -e 's|^rpc_address:.*|rpc_address: 0.0.0.0|' \
    -e "s|127.0.0.1:7000|$address:7000|" /opt/cassandra/conf/cassandra.yaml >/tmp/cassandra.yaml
echo "broadcast_rpc_address: $address" >>/tmp/cassandra.yaml
exec java "-Xms$MAX_HEAP_SIZE" "-Xmx$MAX_HEAP_SIZE" -Xss512k \
    "-javaagent:$(ls /opt/cassandra/lib/jamm-*.jar)" @/opt/cassandra/conf/jvm17.options \
    -Dcassandra.config=file:///tmp/cassandra.yaml "-Dcassandra.storagedir=$data" \
    -Dlogback.configurationFile=/opt/cassandra/conf/logback.xml -Dcassandra-foreground=yes \
    -Dcassandra.ring_delay_ms=1 -Dcassandra.skip_wait_for_gossip_to_settle=0 \
    -Dcassandra.superuser_setup_delay_ms=0 -cp '/opt/cassandra/lib/*' \
    org.apache.cassandra.service.CassandraDaemon
