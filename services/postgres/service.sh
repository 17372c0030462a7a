# shellcheck shell=bash
# PostgreSQL from the system's packages, or another version from Maven Central, never run as root,
# trusting loopback only; and a hot standby of it where one is asked for.

postgres_ports() { :; }

postgres_bin() { # the version that was asked for, else the newest installed server, 14 or later
    local bin
    if [ -n "$POSTGRES_VERSION" ]; then
        bin="$(postgres_unpacked)/bin"
        [ -x "$bin/postgres" ] && echo "$bin"
        return
    fi
    bin="$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -t/ -k5 -n | tail -n 1)"
    if [ -z "$bin" ]; then bin="$(dirname "$(command -v postgres || true)")"; fi
    [ -x "$bin/postgres" ] && echo "$bin"
}

# Another user must be able to reach a folder; below a closed home it cannot.
closed_to_postgres() {
    [ "$(id -u)" = 0 ] && ! runuser -u postgres -- test -x "$1" 2>/dev/null
}

postgres_data() { # postgres_data [NAME]
    local name="${1:-postgres}"
    if closed_to_postgres "$STATE"; then
        echo "/var/tmp/tidemill-$name-$(sha256sum <<<"$STATE" | cut -c1-12)"
    else
        echo "$STATE/$name/data"
    fi
}

postgres_unpacked() { # where another version's programs are
    local folder="$CACHE"
    if closed_to_postgres "$CACHE"; then folder=/var/tmp; fi
    echo "$folder/tidemill-postgres-$POSTGRES_VERSION"
}

# Of another version there are the server and initdb: the jar holds an archive of them.
postgres_fetch() {
    local folder jar
    folder="$(postgres_unpacked)"
    [ -x "$folder/bin/postgres" ] && return
    need_java postgres
    need_jars postgres 3.8.1:copy-dependencies "$POSTGRES_VERSION"
    (
        flock 9
        [ -x "$folder/bin/postgres" ] && exit 0
        rm -rf "$folder.part"
        mkdir -p "$folder.part"
        jar="$(ls "$JARS"/embedded-postgres-binaries-*.jar)"
        python3 -m zipfile -e "$jar" "$folder.part/jar"
        tar -xJf "$folder.part"/jar/*.txz -C "$folder.part"
        rm -r "$folder.part/jar"
        chmod -R a+rX "$folder.part"
        mv "$folder.part" "$folder"
    ) 9>"$CACHE/jars/lock"
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

# Failover slots, and standbys that logical replication waits for, are there from 17 on.
postgres_major() { "$(postgres_bin)/postgres" -V | sed 's/[^0-9]*\([0-9]*\).*/\1/'; }

# The standby is a copy of what initdb made, from before the primary's first start.
postgres_copy() {
    local from="$1" to major
    to="$(postgres_data standby)"
    major="$(postgres_major)"
    rm -rf "$to"
    mkdir -p "$(dirname "$to")"
    cp -a "$from" "$to"
    {
        echo "wal_keep_size = 256MB"
        [ "$major" -lt 17 ] || echo "synchronized_standby_slots = 'standby'"
    } >>"$from/postgresql.conf"
    {
        echo "primary_conninfo = 'host=127.0.0.1 port=$(port_of postgres) user=postgres dbname=postgres application_name=standby'"
        echo "primary_slot_name = 'standby'"
        echo "hot_standby_feedback = on"
        echo "wal_receiver_status_interval = 1s"
        echo "wal_retrieve_retry_interval = 500ms"
        [ "$major" -lt 17 ] || echo "sync_replication_slots = on"
    } >>"$to/postgresql.conf"
    as_postgres touch "$to/standby.signal"
}

# The slot by which the standby follows is made once, when the primary answers.
standby_prepare() {
    [ -f "$STATE/standby/follows" ] && return
    local deadline=$((SECONDS + WAIT_SECONDS))
    until postgres_ready postgres 2>/dev/null; do
        [ $SECONDS -lt $deadline ] || fail standby "its primary did not answer"
        sleep 0.1
    done
    postgres_sql postgres "SELECT pg_create_physical_replication_slot('standby', true)" ||
        fail standby "the primary makes no slot for it"
    touch "$STATE/standby/follows"
}

postgres_prepare() {
    local data bin
    if [ "$1" = standby ]; then
        standby_prepare
        return
    fi
    if [ -n "$POSTGRES_VERSION" ]; then postgres_fetch; fi
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
    if [ -n "$POSTGRES_STANDBY" ]; then postgres_copy "$data"; fi
    postgres_tls "$data"
}

postgres_launch() {
    local name="$1" run=() tls=() data
    data="$(postgres_data "$name")"
    if [ -n "$TLS" ]; then
        tls=(-c ssl=on -c ssl_cert_file=server.pem -c ssl_key_file=server.key -c ssl_ca_file=ca.pem)
    fi
    if [ "$(id -u)" = 0 ]; then
        run=(setpriv --reuid=postgres --regid=postgres --init-groups)
    fi
    cd / # its own folder may be closed to that user
    setsid "${run[@]}" "$(postgres_bin)/postgres" -D "$data" -p "$(port_of "$name")" \
        -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
        -c wal_level=logical -c max_replication_slots=64 -c max_wal_senders=64 \
        -c max_connections=300 -c shared_buffers=128MB -c wal_sender_timeout=60s \
        "${tls[@]}" \
        >>"$STATE/$name/log" 2>&1 </dev/null 9>&- &
    launched "$name" $!
}

postgres_sql() { # postgres_sql NAME STATEMENT; the system's psql speaks to all versions
    local bin
    bin="$(postgres_bin)"
    PGCONNECT_TIMEOUT=2 "$(command -v "$bin/psql" || command -v psql)" -XAtq \
        -h 127.0.0.1 -p "$(port_of "$1")" -U postgres -c "$2" >/dev/null
}

postgres_ready() { postgres_sql "$1" 'SELECT 1'; }
