# shellcheck shell=bash
# PostgreSQL from the system's packages, never run as root, trusting loopback only.

postgres_ports() { :; }

postgres_bin() { # the newest installed server, 14 or later
    local bin
    bin="$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -t/ -k5 -n | tail -n 1)"
    if [ -z "$bin" ]; then bin="$(dirname "$(command -v postgres || true)")"; fi
    [ -x "$bin/postgres" ] && echo "$bin"
}

# Another user must be able to reach the folder; below a closed home it cannot.
postgres_data() {
    if [ "$(id -u)" = 0 ] && ! runuser -u postgres -- test -x "$STATE" 2>/dev/null; then
        echo "/var/tmp/tidemill-postgres-$(sha256sum <<<"$STATE" | cut -c1-12)"
    else
        echo "$STATE/postgres/data"
    fi
}

as_postgres() { if [ "$(id -u)" = 0 ]; then (cd / && runuser -u postgres -- "$@"); else "$@"; fi; }

# With TLS every user but postgres needs TLS and a password, and the user `certified` a certificate.
postgres_tls() {
    local data="$1" name
    [ -n "$TLS" ] || return 0
    for name in server.pem server.key ca.pem; do
        install -m 600 "$TLS/$name" "$data/$name"
        if [ "$(id -u)" = 0 ]; then chown postgres "$data/$name"; fi
    done
    cat >"$data/pg_hba.conf" <<-HBA
	host    all,replication postgres  127.0.0.1/32 trust
	hostssl all,replication certified 127.0.0.1/32 cert
	hostssl all,replication all       127.0.0.1/32 scram-sha-256
	HBA
}

postgres_prepare() {
    local data bin
    if ! postgres_bin >/dev/null; then
        if [ "$(id -u)" = 0 ]; then # the package would start a server of its own on 5432
            mkdir -p /etc/postgresql-common/createcluster.d
            echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.d/tidemill.conf
        fi
        apt_install postgres postgresql
    fi
    bin="$(postgres_bin)" || fail postgres "its server is not in /usr/lib/postgresql nor on the PATH"
    data="$(postgres_data)"
    if [ -f "$data/PG_VERSION" ]; then
        postgres_tls "$data"
        return
    fi
    rm -rf "$data"
    mkdir -p "$data"
    if [ "$(id -u)" = 0 ]; then chown postgres "$data"; fi
    as_postgres "$bin/initdb" -D "$data" -U postgres --auth=trust -E UTF8 --locale=C.UTF-8 \
        --no-sync >"$STATE/postgres/log" 2>&1 ||
        fail postgres "initdb failed: $(tail -n 3 "$STATE/postgres/log")"
    postgres_tls "$data"
}

postgres_launch() {
    local run=() tls=() data
    data="$(postgres_data)"
    if [ -n "$TLS" ]; then
        tls=(-c ssl=on -c ssl_cert_file=server.pem -c ssl_key_file=server.key -c ssl_ca_file=ca.pem)
    fi
    if [ "$(id -u)" = 0 ]; then
        run=(setpriv --reuid=postgres --regid=postgres --init-groups)
    fi
    cd / # its own folder may be closed to that user
    setsid "${run[@]}" "$(postgres_bin)/postgres" -D "$data" -p "$(port_of postgres)" \
        -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
        -c wal_level=logical -c max_replication_slots=64 -c max_wal_senders=64 \
        -c max_connections=300 -c shared_buffers=128MB -c wal_sender_timeout=60s \
        "${tls[@]}" \
        >>"$STATE/postgres/log" 2>&1 </dev/null 9>&- &
    launched postgres $!
}

postgres_ready() {
    local bin
    bin="$(postgres_bin)"
    PGCONNECT_TIMEOUT=2 "$(command -v "$bin/psql" || command -v psql)" -XAtq \
        -h 127.0.0.1 -p "$(port_of postgres)" -U postgres -c 'SELECT 1' >/dev/null
}
