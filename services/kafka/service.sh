# shellcheck shell=bash
# Kafka in KRaft mode: one process that is broker and controller, everything replicated once.

kafka_ports() { echo controller; if [ -n "$TLS" ]; then echo sasl tls sasltls; fi; }

# With TLS three more listeners: SASL/PLAIN without TLS, TLS, and both. They know the user `secure`,
# whose password is in the folder's file `password`.
kafka_tls() {
    [ -n "$TLS" ] || return 0
    local password listener
    password="$(cat "$TLS/password")"
    cat "$TLS/server.key" "$TLS/server.pem" >"$STATE/kafka/server.pem"
    cat <<-PROPERTIES
	listeners=PLAINTEXT://127.0.0.1:$(port_of kafka),CONTROLLER://127.0.0.1:$(port_of kafka controller),SASL://127.0.0.1:$(port_of kafka sasl),TLS://127.0.0.1:$(port_of kafka tls),SASLTLS://127.0.0.1:$(port_of kafka sasltls)
	advertised.listeners=PLAINTEXT://127.0.0.1:$(port_of kafka),SASL://127.0.0.1:$(port_of kafka sasl),TLS://localhost:$(port_of kafka tls),SASLTLS://localhost:$(port_of kafka sasltls)
	listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_PLAINTEXT,TLS:SSL,SASLTLS:SASL_SSL
	inter.broker.listener.name=PLAINTEXT
	ssl.keystore.type=PEM
	ssl.keystore.location=$STATE/kafka/server.pem
	PROPERTIES
    for listener in sasl sasltls; do
        echo "listener.name.$listener.sasl.enabled.mechanisms=PLAIN"
        echo "listener.name.$listener.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_secure=\"$password\";"
    done
}

kafka_prepare() {
    need_java kafka
    need_jars kafka 3.8.1:copy-dependencies
    sed -e "s|@PORT@|$(port_of kafka)|g" -e "s|@CONTROLLER@|$(port_of kafka controller)|g" \
        -e "s|@DATA@|$STATE/kafka/data|g" "$HERE/kafka/server.properties" \
        >"$STATE/kafka/server.properties"
    kafka_tls >>"$STATE/kafka/server.properties" # what is said last counts
    [ -f "$STATE/kafka/data/meta.properties" ] && return
    "$JAVA" -XX:TieredStopAtLevel=1 -XX:+UseSerialGC \
        -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$JARS/*" kafka.tools.StorageTool format \
        -t "$(head -c 16 /dev/urandom | base64 | tr '+/' 'AB' | cut -c1-22)" \
        -c "$STATE/kafka/server.properties" >"$STATE/kafka/log" 2>&1 ||
        fail kafka "formatting its storage failed: $(tail -n 3 "$STATE/kafka/log")"
}

kafka_launch() {
    setsid "$JAVA" "-Dtidemill.service=$STATE/kafka " -Xms256m -Xmx512m -XX:+UseG1GC \
        -XX:MaxGCPauseMillis=20 -Dorg.slf4j.simpleLogger.defaultLogLevel=warn \
        -Dorg.slf4j.simpleLogger.showDateTime=true \
        -cp "$JARS/*" kafka.Kafka "$STATE/kafka/server.properties" \
        >>"$STATE/kafka/log" 2>&1 </dev/null 9>&- &
    launched kafka $!
}

# A Metadata request (key 3, version 1, client "up", no topics) must name one broker.
kafka_ready() {
    local answer
    answer="$(
        exec 3<>"/dev/tcp/127.0.0.1/$(port_of kafka)"
        printf '\0\0\0\020\0\3\0\1\0\0\0\7\0\2up\0\0\0\0' >&3
        timeout 2 head -c 12 <&3 | od -An -tx1 | tr -d ' \n'
    )" || return 1
    [ "${answer:8}" = 0000000700000001 ]
}
