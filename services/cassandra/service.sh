# shellcheck shell=bash
# Cassandra, one node that does not wait for neighbours that will never come.

cassandra_ports() { echo storage; }

# By default, as Cassandra's own, acknowledged writes are on disk within ten seconds: a node that
# is killed forgets the last of them, and in a cluster the others have them. With
# TIDEMILL_CASSANDRA_SYNC=batch this one node keeps all that it acknowledged, and is slower.
cassandra_sync() {
    case "${TIDEMILL_CASSANDRA_SYNC:-periodic}" in
        periodic) echo 'commitlog_sync: periodic\ncommitlog_sync_period: 10000ms' ;;
        batch) echo 'commitlog_sync: batch' ;;
        *) fail cassandra "TIDEMILL_CASSANDRA_SYNC must be periodic or batch" ;;
    esac
}

# With TLS it takes both, plain and encrypted, and wants a password; at first there is the user
# cassandra with that password.
cassandra_tls() {
    [ -n "$TLS" ] || return 0
    cat "$TLS/server.key" "$TLS/server.pem" >"$STATE/cassandra/server.pem"
    cat <<-YAML
	authenticator: PasswordAuthenticator
	authorizer: CassandraAuthorizer
	client_encryption_options:
	  enabled: true
	  optional: true
	  keystore: $STATE/cassandra/server.pem
	  ssl_context_factory:
	    class_name: org.apache.cassandra.security.PEMBasedSslContextFactory
	YAML
}

cassandra_prepare() {
    local sync
    need_java cassandra
    need_jars cassandra 3.8.1:copy-dependencies
    sync="$(cassandra_sync)"
    sed -e "s|@PORT@|$(port_of cassandra)|g" -e "s|@STORAGE@|$(port_of cassandra storage)|g" \
        -e "s|@DATA@|$STATE/cassandra/data|g" -e "s|@SYNC@|$sync|" "$HERE/cassandra/cassandra.yaml" \
        >"$STATE/cassandra/cassandra.yaml"
    cassandra_tls >>"$STATE/cassandra/cassandra.yaml"
    if [ -f "${TIDEMILL_CASSANDRA_SETTINGS:-}" ]; then
        cat "$TIDEMILL_CASSANDRA_SETTINGS" >>"$STATE/cassandra/cassandra.yaml"
    fi
}

cassandra_launch() {
    setsid "$JAVA" "-Dtidemill.service=$STATE/cassandra " -Xms512m -Xmx1g -XX:+UseG1GC \
        -XX:MaxGCPauseMillis=50 -XX:+AlwaysActAsServerClassMachine -Xss512k \
        "-javaagent:$(ls "$JARS"/jamm-*.jar)" @"$HERE/cassandra/jvm17.options" \
        "-Dcassandra.config=file://$STATE/cassandra/cassandra.yaml" \
        "-Dcassandra.storagedir=$STATE/cassandra/data" \
        "-Dlogback.configurationFile=$HERE/logback.xml" \
        -Dcassandra-foreground=yes -Dcassandra.ring_delay_ms=1 \
        -Dcassandra.skip_wait_for_gossip_to_settle=0 -Dcassandra.superuser_setup_delay_ms=0 \
        -cp "$JARS/*" org.apache.cassandra.service.CassandraDaemon \
        >>"$STATE/cassandra/log" 2>&1 </dev/null 9>&- &
    launched cassandra $!
}

# OPTIONS (protocol 4, opcode 5) must be answered with SUPPORTED (opcode 6).
cassandra_ready() {
    local answer
    answer="$(
        exec 3<>"/dev/tcp/127.0.0.1/$(port_of cassandra)"
        printf '\4\0\0\0\5\0\0\0\0' >&3
        timeout 2 head -c 5 <&3 | od -An -tx1 | tr -d ' \n'
    )" || return 1
    [ "$answer" = 8400000006 ]
}
