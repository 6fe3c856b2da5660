#!/bin/sh
# Debian packages that the tests need besides Python. Root installs them; for other users their names are printed.
set -eu

missing=""
have() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ]; }
have mosquitto || missing="$missing mosquitto"
have mosquitto_sub || missing="$missing mosquitto-clients"
have chromium || missing="$missing chromium"
have sqlite3 || missing="$missing sqlite3"
have curl || missing="$missing curl"
have node || missing="$missing nodejs"
have npm || missing="$missing npm"
have promtool || missing="$missing prometheus"
have systemd-analyze || missing="$missing systemd"
have rabbitmq-server || missing="$missing rabbitmq-server"
have openssl || missing="$missing openssl"
have haproxy || missing="$missing haproxy"
have pgbouncer || missing="$missing pgbouncer"
[ -z "$missing" ] && exit 0

if [ "$(id -u)" = 0 ] && have apt-get; then
    echo "installing$missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update
    # The tests start what they need themselves: the packages' services are not to take the ports.
    # shellcheck disable=SC2086
    apt-get -qq install -y --no-install-recommends $missing >/dev/null
    if have service; then
        for each in mosquitto prometheus rabbitmq-server haproxy pgbouncer; do service $each stop >/dev/null 2>&1 || true; done
    fi
    # Erlang's port mapper came with RabbitMQ and outlives it; it stays if another program uses it.
    case "$missing" in *rabbitmq*) epmd -kill >/dev/null 2>&1 || true ;; esac
else
    echo "The tests need:$missing. Install them, for example: sudo apt-get install$missing" >&2
    exit 1
fi
