# shellcheck shell=bash
# Kafka: one process that is broker and controller (KRaft), everything replicated once; or three of
# them, everything three times; or a broker of the last line that keeps its metadata in a ZooKeeper.

ZOOKEEPER_LINE=3.9.2

kafka_ports() {
    if [ "$1" = zookeeper ]; then return; fi
    echo controller
    if [ -n "$TLS" ]; then echo sasl tls sasltls; fi
}

# With TLS three more listeners: SASL/PLAIN without TLS, TLS, and both. They know the user `secure`,
# whose password is in the folder's file `password`.
kafka_tls() {
    [ -n "$TLS" ] || return 0
    local name="$1" password listener
    password="$(cat "$TLS/password")"
    cat "$TLS/server.key" "$TLS/server.pem" >"$STATE/$name/server.pem"
    cat <<-PROPERTIES
	listeners=PLAINTEXT://127.0.0.1:$(port_of "$name"),CONTROLLER://127.0.0.1:$(port_of "$name" controller),SASL://127.0.0.1:$(port_of "$name" sasl),TLS://127.0.0.1:$(port_of "$name" tls),SASLTLS://127.0.0.1:$(port_of "$name" sasltls)
	advertised.listeners=PLAINTEXT://127.0.0.1:$(port_of "$name"),SASL://127.0.0.1:$(port_of "$name" sasl),TLS://localhost:$(port_of "$name" tls),SASLTLS://localhost:$(port_of "$name" sasltls)
	listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_PLAINTEXT,TLS:SSL,SASLTLS:SASL_SSL
	inter.broker.listener.name=PLAINTEXT
	ssl.keystore.type=PEM
	ssl.keystore.location=$STATE/$name/server.pem
	PROPERTIES
    for listener in sasl sasltls; do
        echo "listener.name.$listener.sasl.enabled.mechanisms=PLAIN"
        echo "listener.name.$listener.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_secure=\"$password\";"
    done
}

# Who a broker is, and where its metadata are.
kafka_identity() {
    local name="$1" number node voters=""
    number="$(number_of "$name")"
    if [ "$KAFKA_ON" = zookeeper ]; then
        cat <<-PROPERTIES
	broker.id=$number
	zookeeper.connect=127.0.0.1:$(port_of zookeeper)
	zookeeper.connection.timeout.ms=18000
	listeners=PLAINTEXT://127.0.0.1:$(port_of "$name")
	PROPERTIES
        return
    fi
    for node in $(members_of kafka); do
        voters="$voters,$(number_of "$node")@127.0.0.1:$(port_of "$node" controller)"
    done
    cat <<-PROPERTIES
	process.roles=broker,controller
	node.id=$number
	controller.quorum.voters=${voters#,}
	controller.listener.names=CONTROLLER
	listeners=PLAINTEXT://127.0.0.1:$(port_of "$name"),CONTROLLER://127.0.0.1:$(port_of "$name" controller)
	listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
	PROPERTIES
}

kafka_prepare() {
    local name="$1" replicas="$KAFKA_NODES" version=""
    if [ "$KAFKA_ON" = zookeeper ]; then version="$ZOOKEEPER_LINE"; fi
    need_java "$name"
    need_jars kafka 3.8.1:copy-dependencies "$version"
    if [ "$name" = zookeeper ]; then
        sed -e "s|@PORT@|$(port_of zookeeper)|g" -e "s|@DATA@|$STATE/zookeeper/data|g" \
            "$HERE/kafka/zookeeper.properties" >"$STATE/zookeeper/zookeeper.properties"
        return
    fi
    {
        kafka_identity "$name"
        sed -e "s|@PORT@|$(port_of "$name")|g" -e "s|@DATA@|$STATE/$name/data|g" \
            -e "s|@REPLICAS@|$replicas|g" -e "s|@INSYNC@|$(((replicas + 1) / 2))|g" \
            "$HERE/kafka/server.properties"
        kafka_tls "$name" # what is said last counts
    } >"$STATE/$name/server.properties"
    if [ "$KAFKA_ON" = zookeeper ] || [ -f "$STATE/$name/data/meta.properties" ]; then return; fi
    kafka_format "$name"
}

# All nodes of a cluster are formatted with one name for it.
kafka_format() {
    local name="$1"
    (
        flock 8
        [ -s "$STATE/kafka.cluster" ] ||
            head -c 16 /dev/urandom | base64 | tr '+/' 'AB' | cut -c1-22 >"$STATE/kafka.cluster"
    ) 8>"$STATE/kafka.lock"
    "$JAVA" -XX:TieredStopAtLevel=1 -XX:+UseSerialGC \
        -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$JARS/*" kafka.tools.StorageTool format \
        -t "$(cat "$STATE/kafka.cluster")" \
        -c "$STATE/$name/server.properties" >"$STATE/$name/log" 2>&1 ||
        fail "$name" "formatting its storage failed: $(tail -n 3 "$STATE/$name/log")"
}

kafka_launch() {
    local name="$1" heap="-Xmx512m" main=(kafka.Kafka "$STATE/$1/server.properties")
    if [ "$KAFKA_NODES" -gt 1 ]; then heap="-Xmx320m"; fi
    if [ "$name" = zookeeper ]; then
        heap="-Xmx128m"
        main=(org.apache.zookeeper.server.quorum.QuorumPeerMain
            "$STATE/zookeeper/zookeeper.properties")
    fi
    setsid "$JAVA" "-Dtidemill.service=$STATE/$name " -Xms64m "$heap" -XX:+UseG1GC \
        -XX:MaxGCPauseMillis=20 -Dorg.slf4j.simpleLogger.defaultLogLevel=warn \
        -Dorg.slf4j.simpleLogger.showDateTime=true \
        -cp "$JARS/*" "${main[@]}" \
        >>"$STATE/$name/log" 2>&1 </dev/null 9>&- &
    launched "$name" $!
}

# A Metadata request (key 3, version 1, client "up", no topics) must name all brokers that run.
# ZooKeeper must say that it is well.
kafka_ready() {
    local name="$1" answer node runs=0
    if [ "$name" = zookeeper ]; then
        answer="$(
            exec 3<>"/dev/tcp/127.0.0.1/$(port_of zookeeper)"
            printf 'ruok' >&3
            timeout 2 head -c 4 <&3
        )" || return 1
        [ "$answer" = imok ]
        return
    fi
    answer="$(
        exec 3<>"/dev/tcp/127.0.0.1/$(port_of "$name")"
        printf '\0\0\0\020\0\3\0\1\0\0\0\7\0\2up\0\0\0\0' >&3
        timeout 2 head -c 12 <&3 | od -An -tx1 | tr -d ' \n'
    )" || return 1
    for node in $(members_of kafka); do
        if [ "$node" != zookeeper ] && pid_of "$node" >/dev/null; then runs=$((runs + 1)); fi
    done
    [ "${answer:8:8}" = 00000007 ] && [ $((16#${answer:16:8})) -ge $runs ]
}
