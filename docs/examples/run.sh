#!/usr/bin/env bash
# Runs the examples of this folder against a running Mezzo, and checks what they print. One is received in Rust: cargo
# builds that example.
#
#   docs/examples/run.sh NAME_SERVER          for example 127.0.0.1:9876
#
# The clients (from PyPI and npm) are installed once, into EXAMPLES_CACHE, by default
# ${XDG_CACHE_HOME:-$HOME/.cache}/mezzo-examples.
# Prints PASS or FAIL per example and a closing "N passed, N failed"; exits 0 only when all passed.
set -euo pipefail

name_server=${1:?usage: run.sh NAME_SERVER (host:port)}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${EXAMPLES_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mezzo-examples}
limit_s=40 # the examples give up by themselves after about 30 s
passed=0
failed=0
mkdir -p "$cache"

report() { # report NAME [WHY]: no reason means that it passed
  if [[ -z ${2:-} ]]; then
    echo "PASS $1"
    passed=$((passed + 1))
  else
    echo "FAIL $1: $2"
    failed=$((failed + 1))
  fi
}

# The two packages overlap: the first brings the native library, the second the binding that has transactions.
install_python() {
  [[ -e $cache/python/ready-2.0.0 ]] && return
  rm -rf "$cache/python"
  python3 -m venv "$cache/python" &&
    "$cache/python/bin/pip" install --quiet rocketmq-python-cvs==2.1.0.3 &&
    "$cache/python/bin/pip" install --quiet --no-deps --ignore-installed rocketmq-client-python==2.0.0 &&
    touch "$cache/python/ready-2.0.0"
}

# Node looks for packages from the script's own folder upwards, so the script is copied beside them.
install_node() {
  if [[ ! -e $cache/node/ready-3.12.0 ]]; then
    rm -rf "$cache/node"
    mkdir -p "$cache/node" && echo '{ "private": true }' >"$cache/node/package.json" &&
      (cd "$cache/node" && npm install --silent --no-audit --no-fund ali-ons@3.12.0 libsql@0.5.29) &&
      touch "$cache/node/ready-3.12.0" || return
  fi
  cp "$here"/*.mjs "$cache/node/"
}

complaint() { # complaint LOG: the line that says what went wrong, or the last one
  grep -m 1 -E '^([^ ].*)?([Ee]rror|[Ee]xception)' "$1" || tail -n 1 "$1"
}

# Both print the same: order 1 is committed at once, at no fixed moment; order 2 only after Mezzo has asked.
example() { # example NAME INSTALLER COMMAND...; the command is given the name server as its last argument
  local name=$1 installer=$2 output status=0
  local log=$cache/$name.log
  shift 2
  if ! "$installer" >"$log" 2>&1; then
    report "$name" "its client could not be installed: $(complaint "$log")"
    return
  fi
  output=$(timeout --kill-after=5 "$limit_s" "$@" "$name_server" 2>"$log") || status=$?
  if ((status != 0)); then
    report "$name" "exit code $status after printing '${output//$'\n'/, }'; $(complaint "$log")"
  elif [[ $(grep -c '^received order 1$' <<<"$output") != 1 ]]; then
    report "$name" "order 1 was not received once: '${output//$'\n'/, }'"
  elif [[ $(grep -v '^received order 1$' <<<"$output") != $'asked about order 2\nreceived order 2' ]]; then
    report "$name" "order 2 was not asked about and then received: '${output//$'\n'/, }'"
  else
    report "$name"
  fi
}

# Three orders with key, property and tag, sent by the one and received by the other.
from_python_to_rust() {
  local name=from_python_to_rust sent received
  local log=$cache/$name.log
  if ! install_python >"$log" 2>&1; then
    report "$name" "its client could not be installed: $(complaint "$log")"
  elif ! sent=$(timeout "$limit_s" "$cache/python/bin/python" "$here/orders_from_python.py" "$name_server" 2>"$log"); then
    report "$name" "the Python program failed after printing '${sent//$'\n'/, }'; $(complaint "$log")"
  elif ! received=$(cd "$here" && cargo run --quiet -p mezzo-client --example from_python -- "$name_server" 2>"$log"); then
    report "$name" "the Rust program failed after printing '${received//$'\n'/, }'; $(complaint "$log")"
  elif [[ $(grep -c '^received order-' <<<"$received") != 3 ]] ||
    ! grep -qx 'received order-2: two croissants for table 12 (food)' <<<"$received"; then
    report "$name" "other orders were received: '${received//$'\n'/, }'"
  else
    report "$name"
  fi
}

example first_transaction.py install_python "$cache/python/bin/python" "$here/first_transaction.py"
example first_transaction.mjs install_node node "$cache/node/first_transaction.mjs"
from_python_to_rust
echo "$passed passed, $failed failed"
((failed == 0))
