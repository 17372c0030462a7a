#!/bin/sh
# As the real image: an empty folder becomes a database whose user postgres has the password.
set -eu
data=/var/lib/postgresql/data
if [ ! -f "$data/PG_VERSION" ]; then
    chown postgres "$data" && chmod 700 "$data"
    echo "$POSTGRES_PASSWORD" >/tmp/password
    chmod 644 /tmp/password
    setpriv --reuid=postgres --regid=postgres --init-groups \
        initdb -D "$data" -U postgres --auth=scram-sha-256 --pwfile=/tmp/password -E UTF8 --locale=C.UTF-8
    rm /tmp/password
    echo 'host all,replication all all scram-sha-256' >>"$data/pg_hba.conf"
fi
exec setpriv --reuid=postgres --regid=postgres --init-groups "$@" -D "$data" -c 'listen_addresses=*'
