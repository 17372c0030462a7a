#!/usr/bin/env bash
# Starts a cluster of Tidemill, on this machine or over ssh, and gives it a pipeline to keep running.
# All that it starts and knows is in one run folder; --stop ends those processes and no other.
set -euo pipefail

usage() {
    cat <<'USAGE'
Usage: cluster/launch.sh -n PROCESSES -w WORKERS [OPTION…] PIPELINE [FLAG OF tidemill submit…]
       cluster/launch.sh --status [--dir DIR]
       cluster/launch.sh --stop [--dir DIR]

Starts a master and PROCESSES workers with WORKERS slots each, waits until they are there, and
submits PIPELINE with PROCESSES * WORKERS workers. A master or worker that is killed is started
again. --stop drains the job, then ends them all.

  -n PROCESSES   worker processes [2, with --hosts as many as there are hosts]
  -w WORKERS     worker threads in each [2]
  --hosts FILE   one host a line: worker i runs on host i, over ssh (BatchMode)
  --binary PATH  tidemill, on each host too [target/release/tidemill, else of the PATH]
  --port PORT    the master's; 0 takes a free one [7070]
  --listen ADDR  this machine as the hosts reach it [its first address; without --hosts 127.0.0.1]
  --dir DIR      the run folder, on each host too [./tidemill-cluster]

Examples:
  cluster/launch.sh -n 2 -w 2 examples/users
  cluster/launch.sh -n 2 -w 2 examples/users --kafka 127.0.0.1:9092 --cassandra 127.0.0.1 …
  cluster/launch.sh -w 4 --hosts hosts.txt examples/users --state s3://bucket/tidemill …
USAGE
}

fail() {
    echo "error: $1" >&2
    [ $# -lt 2 ] || echo "  what to do: $2" >&2
    exit "${3:-1}"
}

action=start processes='' workers=2 hosts_file='' binary='' port=7070 listen='' dir=./tidemill-cluster
pipeline='' flags=()
while [ $# -gt 0 ]; do
    case $1 in
        -n | -w | --hosts | --binary | --port | --listen | --dir)
            [ $# -gt 1 ] || fail "$1 needs a value" "see cluster/launch.sh --help" 2
            case $1 in
                -n) processes=$2 ;;
                -w) workers=$2 ;;
                --hosts) hosts_file=$2 ;;
                --binary) binary=$2 ;;
                --port) port=$2 ;;
                --listen) listen=$2 ;;
                --dir) dir=$2 ;;
            esac
            shift
            ;;
        --status) action=status ;;
        --stop) action=stop ;;
        -h | --help) usage && exit 0 ;;
        -*) [ -n "$pipeline" ] || fail "unknown flag $1 before the pipeline" \
            "see cluster/launch.sh --help" 2
            flags+=("$1") ;;
        *) if [ -z "$pipeline" ]; then pipeline=$1; else flags+=("$1"); fi ;;
    esac
    shift
done

find_binary() {
    local built
    built=$(dirname "${BASH_SOURCE[0]}")/../target/release/tidemill
    if [ -z "$binary" ] && [ -x "$built" ]; then
        binary=$(realpath "$built")
    elif [ -z "$binary" ]; then
        binary=$(command -v tidemill || true)
    fi
    if [ -z "$binary" ] || [ ! -x "$binary" ]; then
        fail "there is no tidemill${binary:+ at $binary}" \
            "build it with \`cargo build --release\`, or say where it is with --binary PATH"
    fi
}

# A command on a host; of this machine when the host is `-`.
on() {
    local host=$1
    shift
    if [ "$host" = - ]; then
        bash -c "$1"
    else
        ssh -o BatchMode=yes -o ConnectTimeout=10 "$host" "$1"
    fi
}

# Whether the process HOST PID is one of this run folder, and not another one of that number.
runs() {
    local words
    words=$(printf %q "--log-dir $dir/logs ")
    on "$1" "ps -ww -o args= -p $2 2>/dev/null | grep -qF -- $words" </dev/null
}

# Runs `tidemill ARGUMENT…` and starts it again when a signal ended it; what it is told to end with
# goes to it. The master comes back to the port that it had. (Sent to the host, run by its bash.)
# shellcheck disable=SC2016 # It is the other shell that expands it.
readonly KEEP='out=$1 err=$2; shift 2
trap "kill -TERM \$child 2>/dev/null; stopping=1" TERM
while :; do
    "$@" >>"$out" 2>>"$err" </dev/null & child=$!
    code=; while [ -z "$code" ]; do
        wait "$child" && code=0 || code=$?
        kill -0 "$child" 2>/dev/null && code=
    done
    [ "$code" -gt 128 ] && [ -z "${stopping:-}" ] || exit "$code"
    echo "a signal ended it ($code); it is started again" >>"$err"
    at=$(sed -n "s/^tidemill master answers at [a-z]*:\/\///p" "$out" | head -n 1)
    [ -z "$at" ] || set -- "$1" "$2" --listen "$at" "${@:5}"
    sleep 1
done'

# Starts `tidemill ARGUMENT…` on a host, and writes down what it is; stdin is the token.
start() {
    local host=$1 name=$2 folder words pid
    shift 2
    folder=$(printf %q "$dir")
    words=$(printf '%q ' "$binary" "$@" --log-dir "$dir/logs" --log-files-only)
    # Two files: the master says on stdout where it answers, and both say why they ended.
    pid=$(on "$host" "mkdir -p $folder; (umask 077; cat >$folder/token); token=
        rm -f $folder/$name.out $folder/$name.err
        [ ! -s $folder/token ] || token=$folder/token
        TIDEMILL_TOKEN_FILE=\${token:-\${TIDEMILL_TOKEN_FILE:-}} setsid bash -c $(printf %q "$KEEP") \
        keep $folder/$name.out $folder/$name.err $words >/dev/null 2>&1 </dev/null & echo \$!" \
        <"$dir/given")
    echo "$host $pid $name" >>"$dir/processes"
}

# What a process that ended said last.
words_of() {
    on "$1" "tail -n 20 $(printf %q "$dir/$2.err")" </dev/null | sed 's/^/  /' >&2
}

wait_for() {
    local what=$1 seconds=$2 host pid name
    shift 2
    for ((try = 0; try < seconds * 5; try++)); do
        if "$@"; then return 0; fi
        if ((try % 5 == 4)); then
            while read -r host pid name; do
                runs "$host" "$pid" && continue
                echo "error: $name ended" >&2
                words_of "$host" "$name"
                stop_processes
                exit 1
            done <"$dir/processes"
        fi
        sleep 0.2
    done
    stop_processes
    fail "$what not within $seconds s" "see the logs in $dir/logs"
}

master_answers() {
    url=$(sed -n 's/^tidemill master answers at //p' "$dir/master.out" 2>/dev/null)
    [ -n "$url" ]
}

workers_are_there() {
    local there
    there=$(ask status --json 2>/dev/null | grep -o '"slots_used"' | wc -l) || return 1
    [ "$there" -ge "$processes" ]
}

ask() {
    local command=$1
    shift
    if [ -s "$dir/token" ]; then
        TIDEMILL_TOKEN='' TIDEMILL_TOKEN_FILE=$dir/token "$binary" "$command" --master "$url" "$@"
    else
        "$binary" "$command" --master "$url" "$@"
    fi
}

stop_processes() {
    local host pid name
    [ -f "$dir/processes" ] || return 0
    # The master is the first line, and the last to go.
    tac "$dir/processes" >"$dir/ending"
    while read -r host pid name; do
        runs "$host" "$pid" || continue
        on "$host" "kill -TERM $pid" </dev/null || true
        for ((try = 0; try < 300; try++)); do
            runs "$host" "$pid" || continue 2
            sleep 0.2
        done
        echo "$name did not end within 60 s: killed" >&2
        on "$host" "kill -KILL $pid" </dev/null || true
    done <"$dir/ending"
    rm -f "$dir/processes" "$dir/ending" "$dir/given" "$dir/url"
}

known_cluster() {
    [ -f "$dir/processes" ] || fail "no cluster runs in $dir" "name its run folder with --dir"
    url=$(cat "$dir/url") binary=$(cat "$dir/binary")
}

status() {
    known_cluster
    local host pid name
    while read -r host pid name; do
        if runs "$host" "$pid"; then
            echo "$name runs, process $pid${host:+ on ${host/#-/this machine}}"
        else
            echo "$name ended"
            words_of "$host" "$name"
        fi
    done <"$dir/processes"
    echo
    ask status
}

stop() {
    known_cluster
    if [ -s "$dir/job" ]; then
        ask stop "$(cat "$dir/job")" || echo "the job was not drained; what it did is replayed" >&2
    fi
    stop_processes
    echo "stopped; the same command starts it again, and the job goes on where it is"
}

launch() {
    local hosts=() state='' host number total
    [ -n "$pipeline" ] || fail "which pipeline?" "see cluster/launch.sh --help" 2
    [ -d "$pipeline" ] || fail "there is no pipeline at $pipeline" "name its folder" 1
    if [ -n "$hosts_file" ]; then
        [ -r "$hosts_file" ] || fail "cannot read the host file $hosts_file"
        mapfile -t hosts < <(sed 's/#.*//; s/[[:space:]]//g; /^$/d' "$hosts_file")
        processes=${processes:-${#hosts[@]}}
    fi
    processes=${processes:-2}
    for number in "$processes" "$workers"; do
        [[ $number =~ ^[1-9][0-9]{0,3}$ ]] || fail "-n, -w: $number: expected a number from 1" "" 2
    done
    [ -z "$hosts_file" ] || [ "${#hosts[@]}" -ge "$processes" ] ||
        fail "-n $processes: the host file has only ${#hosts[@]} hosts" "" 2
    find_binary
    mkdir -p "$dir"
    # On hosts the run folder is where it is here.
    dir=$(realpath "$dir")
    if [ -f "$dir/processes" ]; then
        while read -r host pid _; do
            ! runs "$host" "$pid" || fail "a cluster runs in $dir already" \
                "cluster/launch.sh --stop --dir $dir, or take another --dir"
        done <"$dir/processes"
    fi
    for ((number = 0; number < ${#flags[@]}; number++)); do
        case ${flags[number]} in
            --state) state=${flags[number + 1]:-} ;;
            --state=*) state=${flags[number]#--state=} ;;
        esac
    done
    state=${state:-${TIDEMILL_STATE:-}}
    # The job's state is where `tidemill run` keeps it here, so that either goes on where the other
    # stopped. A job of an earlier version has its state beside the master's.
    if [ -z "$hosts_file" ] && ! ls "$dir/state" 2>/dev/null | grep -qvx cluster; then
        flags+=(--state-of-run)
    fi
    [ -z "$hosts_file" ] || [ -n "$state" ] || fail "hosts need a place that all of them reach" \
        "give --state s3://BUCKET/PREFIX, or file://DIRECTORY of a shared disk" 2
    : >"$dir/processes"
    : >"$dir/given"
    rm -f "$dir/token"
    if [ -n "$hosts_file" ]; then
        # Of this shell's environment it would win over the file.
        unset TIDEMILL_TOKEN
        (umask 077 && head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$dir/given")
        [ -n "$listen" ] || listen=$(hostname -I | cut -d' ' -f1)
    fi
    start - master master --listen "${listen:-127.0.0.1}:$port" --state "${state:-file://$dir/state}"
    wait_for "the master answers" 30 master_answers
    echo "$url" >"$dir/url"
    echo "$binary" >"$dir/binary"
    for ((number = 1; number <= processes; number++)); do
        host=${hosts[number - 1]:--}
        start "$host" "worker$number" worker --master "$url" --slots "$workers" \
            --name "worker$number" --dir "$dir/workers"
    done
    : >"$dir/given"
    wait_for "$processes workers register" 60 workers_are_there
    total=$((processes * workers))
    ask submit "$pipeline" --workers "$total" "${flags[@]}" | tee "$dir/submitted" || {
        echo "the job does not run; ending what was started" >&2
        stop_processes
        exit 1
    }
    # shellcheck disable=SC2016 # The name stands between backticks.
    sed -n 's/^job `\([^`]*\)`.*/\1/p' "$dir/submitted" | head -n 1 >"$dir/job"
    explain "$(cat "$dir/job")"
}

explain() {
    local to="--master $url" token=''
    [ ! -s "$dir/token" ] || token="TIDEMILL_TOKEN_FILE=$dir/token "
    cat <<END

The cluster is up: a master and $processes workers with $workers slots each.
  page      $url
  status    $token$binary status $to --watch
  logs      $token$binary logs -f $to      (files: $dir/logs)
  rescale   $token$binary rescale $1 --workers N $to
  stop      cluster/launch.sh --stop --dir $dir
END
}

dir=$(realpath -m "$dir")
url=''
case $action in
    start) launch ;;
    status) status ;;
    stop) stop ;;
esac
