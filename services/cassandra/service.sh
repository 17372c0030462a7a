# shellcheck shell=bash
# Cassandra: one node that does not wait for neighbours that will never come, or three of one data
# center, each with an address of its own.

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
    local name="$1"
    [ -n "$TLS" ] || return 0
    cat "$TLS/server.key" "$TLS/server.pem" >"$STATE/$name/server.pem"
    cat <<-YAML
	authenticator: PasswordAuthenticator
	authorizer: CassandraAuthorizer
	client_encryption_options:
	  enabled: true
	  optional: true
	  keystore: $STATE/$name/server.pem
	  ssl_context_factory:
	    class_name: org.apache.cassandra.security.PEMBasedSslContextFactory
	YAML
}

cassandra_prepare() {
    local name="$1" sync
    need_java "$name"
    need_jars cassandra 3.8.1:copy-dependencies "$CASSANDRA_VERSION"
    sync="$(cassandra_sync)"
    sed -e "s|@PORT@|$(port_of "$name")|g" -e "s|@STORAGE@|$(port_of "$name" storage)|g" \
        -e "s|@HOST@|$(host_of "$name")|g" \
        -e "s|@DATA@|$STATE/$name/data|g" -e "s|@SYNC@|$sync|" "$HERE/cassandra/cassandra.yaml" \
        >"$STATE/$name/cassandra.yaml"
    {
        # A cluster that begins has nothing that its further nodes would have to fetch.
        if [ "$CASSANDRA_NODES" -gt 1 ]; then echo "auto_bootstrap: false"; fi
        cassandra_tls "$name"
        if [ -f "${TIDEMILL_CASSANDRA_SETTINGS:-}" ]; then cat "$TIDEMILL_CASSANDRA_SETTINGS"; fi
    } >>"$STATE/$name/cassandra.yaml"
    [ "$name" = cassandra ] || [ -d "$STATE/$name/data" ] || cassandra_turn "$name"
}

# Nodes join one after the other.
cassandra_turn() {
    local name="$1" before=cassandra deadline=$((SECONDS + WAIT_SECONDS))
    if [ "$(number_of "$name")" -gt 2 ]; then before="cassandra-$(($(number_of "$name") - 1))"; fi
    until cassandra_ready "$before" 2>/dev/null; do
        [ $SECONDS -lt $deadline ] || fail "$name" "$before did not answer"
        sleep 0.2
    done
}

cassandra_launch() {
    local name="$1" heap=(-Xms512m -Xmx1g) delay=1
    if [ "$CASSANDRA_NODES" -gt 1 ]; then
        heap=(-Xms256m -Xmx512m -Dcassandra.consistent.rangemovement=false)
        delay=2000 # how long a node looks for the others
    fi
    setsid "$JAVA" "-Dtidemill.service=$STATE/$name " "${heap[@]}" -XX:+UseG1GC \
        -XX:MaxGCPauseMillis=50 -XX:+AlwaysActAsServerClassMachine -Xss512k \
        "-javaagent:$(ls "$JARS"/jamm-*.jar)" @"$HERE/cassandra/jvm17.options" \
        "-Dcassandra.config=file://$STATE/$name/cassandra.yaml" \
        "-Dcassandra.storagedir=$STATE/$name/data" \
        "-Dlogback.configurationFile=$HERE/logback.xml" \
        -Dcassandra-foreground=yes "-Dcassandra.ring_delay_ms=$delay" \
        -Dcassandra.skip_wait_for_gossip_to_settle=0 -Dcassandra.superuser_setup_delay_ms=0 \
        -cp "$JARS/*" org.apache.cassandra.service.CassandraDaemon \
        >>"$STATE/$name/log" 2>&1 </dev/null 9>&- &
    launched "$name" $!
}

# OPTIONS (protocol 4, opcode 5) must be answered with SUPPORTED (opcode 6).
cassandra_ready() {
    local answer
    answer="$(
        exec 3<>"/dev/tcp/$(host_of "$1")/$(port_of "$1")"
        printf '\4\0\0\0\5\0\0\0\0' >&3
        timeout 2 head -c 5 <&3 | od -An -tx1 | tr -d ' \n'
    )" || return 1
    [ "$answer" = 8400000006 ]
}
