# shellcheck shell=bash
# Apicurio Registry, which speaks Confluent's API at /apis/ccompat/v7; schemas in an H2 file.

registry_ports() { echo management; }

registry_prepare() {
    need_java registry
    local version="$REGISTRY_VERSION"
    case "$version" in 2.*) version="${version%.Final}.Final" ;; esac
    need_jars registry 2.10:copy "$version"
    [ -d "$JARS/app" ] && return
    (
        flock 9
        [ -d "$JARS/app" ] && exit 0
        rm -rf "$JARS/app.part"
        mkdir "$JARS/app.part"
        tar -xzf "$JARS"/apicurio-registry-app-*-all.tar.gz -C "$JARS/app.part"
        mv "$JARS/app.part" "$JARS/app"
    ) 9>"$CACHE/jars/lock"
}

registry_launch() {
    setsid "$JAVA" "-Dtidemill.service=$STATE/registry " -Xmx384m -XX:+UseSerialGC \
        -XX:TieredStopAtLevel=1 \
        -Dquarkus.http.host=127.0.0.1 "-Dquarkus.http.port=$(port_of registry)" \
        -Dquarkus.management.host=127.0.0.1 \
        "-Dquarkus.management.port=$(port_of registry management)" \
        -Dapicurio.storage.kind=sql -Dapicurio.storage.sql.kind=h2 \
        "-Dapicurio.datasource.url=jdbc:h2:file:$STATE/registry/data/registry;WRITE_DELAY=0" \
        -Dquarkus.log.level=WARN \
        -jar "$(ls "$JARS"/app/*-runner.jar)" \
        >>"$STATE/registry/log" 2>&1 </dev/null 9>&- &
    launched registry $!
}

registry_ready() {
    local status
    status="$(
        exec 3<>"/dev/tcp/127.0.0.1/$(port_of registry)"
        printf 'GET /apis/ccompat/v7/subjects HTTP/1.0\r\n\r\n' >&3
        timeout 5 head -n 1 <&3
    )" || return 1
    [[ "$status" == *" 200 "* ]]
}
