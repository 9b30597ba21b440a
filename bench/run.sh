#!/usr/bin/env bash
# The grid of figures: ceiling, ack memory and ack durable, at 128 B and 1 KiB, plain and transactional, 4 connections
# with 32 in flight, each server fresh for each run, the order turned from repeat to repeat. Medians become a Markdown
# table in bench/results/, with the machine and the commit it was measured on.
#
#   bench/run.sh                         everything, 5 repeats of 10 s (about 15 minutes)
#   REPEATS=1 DURATION=3 bench/run.sh    a quick look
#   RATE=5000 bench/run.sh               the same at a fixed rate: latencies without coordinated omission
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

repeats=${REPEATS:-5}
duration=${DURATION:-10}
warmup=${WARMUP:-3}
connections=${CONNECTIONS:-4}
in_flight=${IN_FLIGHT:-32}
sizes=${SIZES:-128 1024}
modes=${MODES:-plain transactional}
servers=${SERVERS:-ceiling memory durable}
broker_port=${PORT:-20911}
name_server_port=$((broker_port + 1))

cargo build --release --quiet -p mezzo-broker -p mezzo-bench
programs=${CARGO_TARGET_DIR:-target}/release

# On the disk that builds happen on: a temporary folder is often kept in memory, which would flatter every figure.
scratch=$(mktemp -d -p "${CARGO_TARGET_DIR:-target}" bench.XXXXXX)
server=
stop_server() {
  [[ -z $server ]] || { kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; server=; }
}
trap 'stop_server; rm -rf "$scratch"' EXIT

start_server() { # start_server NAME: leaves its process id in $server, returns when it accepts
  rm -rf "$scratch/data"
  case $1 in
    ceiling) "$programs/mezzo-ceiling" --listen "127.0.0.1:$broker_port" & ;;
    memory | durable)
      "$programs/mezzo" serve --data-dir "$scratch/data" --listen "127.0.0.1:$broker_port" \
        --name-server-listen "127.0.0.1:$name_server_port" --set "store.ack=$1" > "$scratch/server.log" 2>&1 & ;;
    *) echo "no such server: $1" >&2; exit 2 ;;
  esac
  server=$!
  for _ in $(seq 100); do
    (exec 3<> "/dev/tcp/127.0.0.1/$broker_port") 2> /dev/null && return
    kill -0 "$server" 2> /dev/null || break
    sleep 0.05
  done
  echo "$1 did not start:" >&2
  cat "$scratch/server.log" >&2 || true
  exit 1
}

lines=$scratch/results.jsonl
turn=($servers)
for repeat in $(seq "$repeats"); do
  for size in $sizes; do
    for mode in $modes; do
      for name in "${turn[@]}"; do
        start_server "$name"
        echo "repeat $repeat/$repeats: $size B, $mode, $name" >&2
        "$programs/mezzo-bench" --address "127.0.0.1:$broker_port" --label "$name" --mode "$mode" --size "$size" \
          --connections "$connections" --in-flight "$in_flight" --duration "$duration" --warmup "$warmup" \
          ${RATE:+--rate "$RATE"} --broker-pid "$server" >> "$lines" || echo "the run had errors, see its line" >&2
        stop_server
      done
    done
  done
  turn=("${turn[@]:1}" "${turn[0]}")
done

commit=$(git rev-parse --short HEAD)
git diff --quiet HEAD -- protocol storage broker bench Cargo.toml Cargo.lock || commit="$commit with uncommitted changes"
processor=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | sort -u | head -1)
memory=$(awk '/^MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo)
disk=$(df --output=fstype "$scratch" | tail -1)
mkdir -p bench/results
result=bench/results/$(date -u +%Y-%m-%d)-$(git rev-parse --short HEAD)${RATE:+-rate-$RATE}.md
{
  echo "# Figures of $(date -u +%Y-%m-%d), commit $commit"
  echo
  echo "Machine: ${processor:-unknown processor}, $(nproc) cores shared by load generator and server, $memory, Linux $(uname -r), $disk."
  echo "Load: $connections connections$([[ -n ${RATE:-} ]] && echo ", $RATE a second" || echo " x $in_flight in flight"), $duration s after $warmup s of warm-up, medians of $repeats runs; a transaction is a half message, its END and both answers."
  echo "Errors counts refused requests and check-backs; both must be 0."
  echo
  "$programs/mezzo-bench" table < "$lines"
  echo
  echo "<details><summary>Every run</summary>"
  echo
  echo '```json'
  cat "$lines"
  echo '```'
  echo
  echo "</details>"
} > "$result"
echo "$result"
