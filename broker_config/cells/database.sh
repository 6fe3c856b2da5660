#!/bin/sh
# One node of a pair of PostgreSQL servers. 'gateway docs scaling' has the guide.
#
# Environment: NODE and PEER, the names of this node and the other one; FIRST, the node that begins as the primary;
# PGDATA; and where they differ SECRETS, SETTINGS, PGPORT, PEER_PORT.
#
# It promotes nothing by itself. 'pg_ctl promote' does, on the standby; the former primary joins as the standby at its
# next start.
set -eu
umask 077
secrets=${SECRETS:-/run/secrets}
settings=${SETTINGS:-/etc/cell/postgresql.conf}
peer="host=$PEER port=${PEER_PORT:-5432} user=replicator sslmode=verify-full sslrootcert=$secrets/ca.pem"
peer="$peer application_name=$NODE target_session_attrs=primary connect_timeout=5"
PGPASSWORD=$(cat "$secrets/replication-password")
export PGPASSWORD

create() {
    initdb --pgdata "$1" --auth-local peer --auth-host reject --encoding UTF8 --locale C --data-checksums
    echo "include '$settings'" >>"$1/postgresql.conf"
    cat >"$1/pg_hba.conf" <<-END
	# Administrators come by the socket, as the user of the server.
	local    all          all         peer
	hostssl  registry     gateway     all  scram-sha-256
	hostssl  replication  replicator  all  scram-sha-256
	END
    pg_ctl --pgdata "$1" --wait -o "-c listen_addresses='' -c ssl=off -c synchronous_standby_names=''" start
    psql --dbname postgres --no-psqlrc --set ON_ERROR_STOP=1 --quiet \
        --set gateway="$(cat "$secrets/gateway-password")" --set replicator="$PGPASSWORD" <<-END
	CREATE ROLE gateway LOGIN PASSWORD :'gateway';
	CREATE ROLE replicator LOGIN REPLICATION PASSWORD :'replicator';
	CREATE DATABASE registry OWNER gateway;
	END
    pg_ctl --pgdata "$1" --wait --mode fast stop
}

copy() {
    until pg_basebackup --pgdata "$1" --dbname "$peer" --wal-method stream --checkpoint fast --write-recovery-conf; do
        rm -rf "$1"
        echo "$NODE waits for a primary at $PEER" >&2
        sleep 2
    done
}

begin() { # a start that is interrupted leaves nothing that looks complete
    rm -rf "$PGDATA.new"
    "$1" "$PGDATA.new"
    mv "$PGDATA.new" "$PGDATA"
}

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    if [ "$NODE" = "$FIRST" ]; then begin create; else begin copy; fi
elif [ ! -e "$PGDATA/standby.signal" ] && psql --dbname "$peer replication=true" --command IDENTIFY_SYSTEM; then
    echo "$PEER has been promoted: $NODE keeps its data beside the new ones, and joins as the standby" >&2
    mv "$PGDATA" "$PGDATA.former.$(date +%s)"
    begin copy
fi
exec postgres -D "$PGDATA" -c cluster_name="$NODE" -c ssl_cert_file="$secrets/tls.pem" \
    -c ssl_key_file="$secrets/tls.pem.key" -c ssl_ca_file="$secrets/ca.pem"
