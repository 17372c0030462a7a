# shellcheck shell=bash
# What every command of this folder shares: where things are kept, ports, jars, processes.
# Sourced, not run. The services describe themselves in <service>/service.sh, each with
#   <service>_prepare  fetch or install what it needs
#   <service>_launch   start it in the background and call `launched NAME PID`
#   <service>_ready    succeed when it really answers
#   <service>_ports    the names of the ports it uses beside the public one
# A service is one process, or several: a cluster's further nodes (`kafka-2`), Kafka's ZooKeeper,
# PostgreSQL's standby. Each function is told by its first argument which of them is meant.
# Kept between runs under $STATE/<name>: data, log, pid, and the ports it was last started on; under
# $STATE/options what services/up was told.
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
ALL="postgres kafka registry cassandra s3"
EVERY="postgres standby zookeeper kafka kafka-2 kafka-3 registry cassandra cassandra-2 cassandra-3 s3"
STATE="$(realpath -m "${TIDEMILL_SERVICES:-$HERE/../target/services}")"
CACHE="$(realpath -m "${TIDEMILL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tidemill}")"
TLS="${TIDEMILL_SERVICES_TLS:-}"
WAIT_SECONDS="${TIDEMILL_SERVICES_WAIT:-300}"

say() { printf '%-9s  %s\n' "$1" "$2" >&2; }
fail() { say "$1" "error: $2"; exit 1; }

known() { # known NAME...: the names, or an error that lists the right ones
    local name
    for name in "$@"; do
        case " $EVERY " in
            *" $name "*) ;;
            *) fail services "no service is called '$name'; there are: $ALL" ;;
        esac
    done
}

# --- what services/up was told ---------------------------------------------------------------
# Versions are empty where each service's own file pins them.
POSTGRES_VERSION="" POSTGRES_STANDBY="" KAFKA_NODES=1 KAFKA_ON=kraft
CASSANDRA_VERSION="" CASSANDRA_NODES=1 REGISTRY_VERSION="" S3_ENGINE=s3proxy
OPTIONS="POSTGRES_VERSION POSTGRES_STANDBY KAFKA_NODES KAFKA_ON CASSANDRA_VERSION CASSANDRA_NODES
         REGISTRY_VERSION S3_ENGINE"
# shellcheck source=/dev/null
if [ -f "$STATE/options" ]; then . "$STATE/options"; fi

options() {
    local name
    for name in $OPTIONS; do echo "$name='${!name}'"; done
}

service_of() { # service_of NAME: the service that this process is one of
    case "$1" in
        standby) echo postgres ;;
        zookeeper) echo kafka ;;
        *) echo "${1%-?}" ;;
    esac
}

members_of() { # members_of SERVICE: the names of its processes, in the order of their start
    local number nodes=1
    case "$1" in
        kafka)
            if [ "$KAFKA_ON" = zookeeper ]; then echo zookeeper; fi
            nodes=$KAFKA_NODES ;;
        cassandra) nodes=$CASSANDRA_NODES ;;
    esac
    echo "$1"
    for number in $(seq 2 "$nodes"); do echo "$1-$number"; done
    if [ "$1" = postgres ] && [ -n "$POSTGRES_STANDBY" ]; then echo standby; fi
}

number_of() { case "$1" in *-?) echo "${1##*-}" ;; *) echo 1 ;; esac; } # of a node, from 1

host_of() { # Cassandra's nodes have one port, and an address each
    case "$1" in cassandra*) echo "127.0.0.$(number_of "$1")" ;; *) echo 127.0.0.1 ;; esac
}

# --- ports -----------------------------------------------------------------------------------
listening() { (exec 3<>"/dev/tcp/${2:-127.0.0.1}/$1") 2>/dev/null; } # listening PORT [HOST]

RESERVED="${TMPDIR:-/tmp}/tidemill-ports-$(id -u)" # a file for each port: the folder that uses it

# A port is free when nobody listens on it and no other folder reserved it. The reservation lasts as
# long as the folder of the services, since a service binds its port long after the port was chosen,
# and frees it for a moment at each restart.
free_port() { # below the range that the kernel gives to outgoing connections
    local port owner
    mkdir -p "$RESERVED"
    (
        flock 9
        for _ in $(seq 200); do
            port=$((RANDOM % 12000 + 20000))
            owner="$(cat "$RESERVED/$port" 2>/dev/null || true)"
            if [ -d "${owner:-/nowhere}" ] || listening "$port"; then continue; fi
            echo "$STATE" >"$RESERVED/$port"
            echo "$port"
            exit 0
        done
        fail services "no free port found between 20000 and 32000"
    ) 9>"$RESERVED/lock"
}

default_port() {
    case "$1" in
        postgres) echo 5432 ;;
        kafka) echo 9092 ;;
        registry) echo 8081 ;;
        cassandra) echo 9042 ;;
        s3) echo 9000 ;;
    esac
}

port_variable() { echo "TIDEMILL_$(tr '[:lower:]-' '[:upper:]_' <<<"$1")_PORT"; }

port_of() { cat "$STATE/$1/ports/${2:-public}"; } # port_of NAME [WHICH]

choose_ports() { # choose_ports NAME ANY: decides once per start, before anything is launched
    local name="$1" any="$2" variable wanted which last=""
    variable="$(port_variable "$name")"
    mkdir -p "$STATE/$name/ports"
    case "$name" in
        cassandra-*) # a node's clients find the others at the port that they were told
            cp "$STATE/cassandra/ports/"* "$STATE/$name/ports/"
            if listening "$(port_of "$name")" "$(host_of "$name")"; then
                fail "$name" "$(host_of "$name"):$(port_of "$name") is taken by another process"
            fi
            return 0 ;;
    esac
    [ -f "$STATE/$name/ports/public" ] && last="$(port_of "$name")"
    if [ -n "${!variable:-}" ]; then
        wanted="${!variable}"
    elif [ "$any" = keep ] && [ -n "$last" ]; then
        wanted="$last"
    elif [ "$any" = any ]; then
        wanted="$last"
        if [ -z "$wanted" ] || listening "$wanted"; then wanted="$(free_port)"; fi
    else
        wanted="$(default_port "$name")"
        if [ -z "$wanted" ]; then wanted="${last:-$(free_port)}"; fi
    fi
    if listening "$wanted"; then
        fail "$name" "port $wanted is taken by another process: set $variable to a free one, or use services/up --any-port"
    fi
    echo "$wanted" >"$STATE/$name/ports/public"
    for which in $("$(service_of "$name")_ports" "$name"); do
        last="$(cat "$STATE/$name/ports/$which" 2>/dev/null)" || true
        if [ "$any" = keep ] && [ -n "$last" ] && ! listening "$last"; then continue; fi
        free_port >"$STATE/$name/ports/$which"
    done
}

# --- what is installed -----------------------------------------------------------------------
apt_install() { # apt_install NAME PACKAGE...: as root installs, else says what to run
    local name="$1"
    shift
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        fail "$name" "not installed; run: sudo apt-get install $*"
    fi
    say "$name" "installing $*"
    mkdir -p "$CACHE"
    (
        flock 9
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -q && apt-get install -y -q --no-install-recommends "$@"
    ) 9>"$CACHE/apt.lock" >"$CACHE/apt-$name.log" 2>&1 ||
        fail "$name" "apt-get install $* failed: $(tail -n 3 "$CACHE/apt-$name.log")"
}

is_java_17() { [ -x "$1" ] && "$1" -version 2>&1 | grep -q 'version "17\.'; }

find_java() { # Cassandra 5 runs on Java 17 and not on anything newer
    local java
    for java in "${TIDEMILL_JAVA:-}" "${JAVA_HOME:-/nowhere}/bin/java" \
        /usr/lib/jvm/*17*/bin/java "$(command -v java || true)"; do
        if is_java_17 "$java"; then
            echo "$java"
            return
        fi
    done
    return 1
}

need_java() { # need_java NAME: sets JAVA
    JAVA="$(find_java)" && return
    apt_install "$1" openjdk-17-jdk-headless
    JAVA="$(find_java)" || fail "$1" "no Java 17 found; set TIDEMILL_JAVA to its java"
}

# Fetches what <name>/pom.xml pins, or its VERSION, once per version of that file, into the cache;
# sets JARS.
need_jars() { # need_jars NAME PLUGIN-VERSION:GOAL [VERSION]
    local name="$1" goal="$2" version="${3:-}" pom="$HERE/$1/pom.xml" part
    JARS="$CACHE/jars/$name-${version:+$version-}$(sha256sum <"$pom" | cut -c1-12)"
    [ -d "$JARS" ] && return
    command -v mvn >/dev/null || apt_install "$name" maven
    mkdir -p "$CACHE/jars"
    (
        flock 9 # one Maven at a time: they would write the same local repository
        [ -d "$JARS" ] && exit 0
        say "$name" "fetching its jars from Maven Central"
        part="$JARS.part"
        rm -rf "$part"
        mkdir "$part"
        mvn -B -q -f "$pom" \
            org.apache.maven.plugins:maven-dependency-plugin:"$goal" \
            -DincludeScope=runtime -DoutputDirectory="$part" ${version:+-Dpinned="$version"} \
            >"$CACHE/jars/$name.log" 2>&1 ||
            fail "$name" "mvn failed, see $CACHE/jars/$name.log: $(grep -m1 ERROR "$CACHE/jars/$name.log")"
        mv "$part" "$JARS"
    ) 9>"$CACHE/jars/lock"
}

# --- processes -------------------------------------------------------------------------------
launched() { echo "$2" >"$STATE/$1/pid"; } # launched NAME PID

# The pid, when it is alive and is ours: a number from before a reboot may belong to anybody.
pid_of() {
    local pid
    pid="$(cat "$STATE/$1/pid" 2>/dev/null)" || return 1
    ps -ww -o args= -p "$pid" 2>/dev/null | grep -qF -- "$(own_mark "$1")" || return 1
    echo "$pid"
}

own_mark() { if [ "$(service_of "$1")" = postgres ]; then echo "-D $(postgres_data "$1") "; else echo "-Dtidemill.service=$STATE/$1 "; fi; }

seconds_since() { awk -v a="$1" -v b="$(date +%s.%N)" 'BEGIN { printf "%.1f s", b - a }'; }

wait_ready() { # wait_ready NAME BEGAN
    local name="$1" began="$2" deadline=$((SECONDS + WAIT_SECONDS)) told=$SECONDS
    until "$(service_of "$name")_ready" "$name" 2>/dev/null; do
        if ! kill -0 "$(cat "$STATE/$name/pid")" 2>/dev/null; then
            tail -n 15 "$STATE/$name/log" >&2
            fail "$name" "stopped while starting; its log is $STATE/$name/log"
        fi
        if [ $SECONDS -ge $deadline ]; then
            fail "$name" "did not answer within $WAIT_SECONDS s; its log is $STATE/$name/log"
        fi
        if [ $((SECONDS - told)) -ge 5 ]; then
            told=$SECONDS
            say "$name" "still starting after $(seconds_since "$began")"
        fi
        sleep 0.1
    done
}

start_one() { # start_one NAME: on the ports that were chosen; idempotent
    local name="$1" began pid
    began="$(date +%s.%N)"
    if pid="$(pid_of "$name")"; then
        wait_ready "$name" "$began"
        say "$name" "already runs on port $(port_of "$name") (pid $pid)"
        return
    fi
    mkdir -p "$STATE/$name"
    "$(service_of "$name")_prepare" "$name"
    began="$(date +%s.%N)"
    say "$name" "starting on port $(port_of "$name")"
    "$(service_of "$name")_launch" "$name"
    wait_ready "$name" "$began"
    say "$name" "ready in $(seconds_since "$began")"
}

stop_one() { # asks, and after 20 seconds insists; the data stays
    local name="$1" pid deadline=$((SECONDS + 20))
    if ! pid="$(pid_of "$name")"; then
        say "$name" "does not run"
        rm -f "$STATE/$name/pid"
        return
    fi
    if [ "$(service_of "$name")" = postgres ]; then kill -INT "$pid"; else kill -TERM "$pid"; fi
    while kill -0 "$pid" 2>/dev/null; do
        if [ $SECONDS -ge $deadline ]; then kill -KILL "$pid" 2>/dev/null || true; fi
        sleep 0.05
    done
    rm -f "$STATE/$name/pid"
    say "$name" "stopped"
}

# --- where they answer -----------------------------------------------------------------------
url_of() {
    local at="" name
    for name in $(members_of "$1"); do
        [ "$name" = zookeeper ] || at="$at,$(host_of "$name"):$(port_of "$name")"
    done
    at="${at#,}"
    case "$1" in
        postgres) echo "postgres://postgres@$at/postgres${POSTGRES_STANDBY:+?target_session_attrs=read-write}" ;;
        kafka) echo "kafka://$at" ;;
        registry) echo "http://$at/apis/ccompat/v7" ;;
        cassandra) echo "cassandra://$at" ;;
        s3) echo "s3://tidemill" ;;
    esac
}

runs() { # runs SERVICE: whether one of its processes does
    local name
    for name in $(members_of "$1"); do
        if pid_of "$name" >/dev/null; then return; fi
    done
    return 1
}

write_env() { # services.env: for tests (TIDEMILL_TEST_…) and for users (TIDEMILL_…)
    ( # Services may be started by several commands at once; the last one sees all of them.
        flock 9
        services_env >"$STATE/services.env.new"
        mv "$STATE/services.env.new" "$STATE/services.env"
    ) 9>"$STATE/services.lock"
}

services_env() {
    local name upper
    for name in $ALL; do
        runs "$name" || continue
        upper="$(tr '[:lower:]' '[:upper:]' <<<"$name")"
        echo "export TIDEMILL_TEST_$upper='$(url_of "$name")'"
        if [ "$name" = s3 ]; then # where it is and who may write is not in its URL
            echo "export AWS_ENDPOINT_URL='http://127.0.0.1:$(port_of s3)'"
            echo "export AWS_ACCESS_KEY_ID=tidemill AWS_SECRET_ACCESS_KEY=tidemill-secret"
            continue
        fi
        echo "export TIDEMILL_$upper='$(url_of "$name")'"
    done
}

for service in $ALL; do
    # shellcheck source=/dev/null
    . "$HERE/$service/service.sh"
done
