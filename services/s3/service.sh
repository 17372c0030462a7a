# shellcheck shell=bash
# S3Proxy, which speaks S3's API (signatures and conditional puts included) over a directory.
# Buckets are folders; there is one, `tidemill`. Or moto's server, which keeps all in memory.

s3_ports() { :; }

s3_prepare() {
    if [ "$S3_ENGINE" = moto ]; then
        S3_PYTHON="$("$HERE/python/venv" "$HERE/s3/requirements.txt")" || fail s3 "no Python environment"
        return
    fi
    need_java s3
    need_jars s3 3.8.1:copy-dependencies
    mkdir -p "$STATE/s3/data/tidemill"
    sed -e "s|@PORT@|$(port_of s3)|g" -e "s|@DATA@|$STATE/s3/data|g" \
        "$HERE/s3/s3proxy.properties" >"$STATE/s3/s3proxy.properties"
}

s3_launch() {
    if [ "$S3_ENGINE" = moto ]; then
        setsid "$S3_PYTHON" "$HERE/s3/moto_server.py" "-Dtidemill.service=$STATE/s3 " \
            "$(port_of s3)" tidemill >>"$STATE/s3/log" 2>&1 </dev/null 9>&- &
        launched s3 $!
        return
    fi
    setsid "$JAVA" "-Dtidemill.service=$STATE/s3 " -Xmx256m -XX:+UseSerialGC \
        -XX:TieredStopAtLevel=1 "-Dlogback.configurationFile=$HERE/logback.xml" \
        -cp "$JARS/*" org.gaul.s3proxy.Main --properties "$STATE/s3/s3proxy.properties" \
        >>"$STATE/s3/log" 2>&1 </dev/null 9>&- &
    launched s3 $!
}

s3_ready() {
    local status path=/healthz
    if [ "$S3_ENGINE" = moto ]; then path=/tidemill; fi # the bucket, which is made last
    status="$(
        exec 3<>"/dev/tcp/127.0.0.1/$(port_of s3)"
        printf 'GET %s HTTP/1.0\r\n\r\n' "$path" >&3
        timeout 5 head -n 1 <&3
    )" || return 1
    [[ "$status" == *" 200 "* ]]
}
