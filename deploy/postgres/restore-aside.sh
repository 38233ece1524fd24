#!/bin/sh
# For BACKUP_DRILL_COMMAND: restores the newest state that pgBackRest has into a server of its own, which only listens on
# a socket in a private folder; prints that folder; waits until its input ends; removes everything.
#
# Runs as an ordinary user, not as root, who may read pgBackRest's configuration. From the environment: STANZA,
# PGBACKREST_CONFIG, and FOLDER, whose disk has to have room for the whole cluster.
set -eu
umask 077

# Debian keeps the server's programs where no PATH looks.
programs=$(dirname "$(readlink -f "$(command -v pg_ctl || ls /usr/lib/postgresql/*/bin/pg_ctl | sort -V | tail -n 1)")")
folder=$(mktemp -d "${FOLDER:-/var/tmp}/yral-drill-XXXXXX")

control() { "$programs/pg_ctl" --pgdata="$folder/data" "$@" >/dev/null; }
remove() {
    if control status; then control --mode=immediate stop || true; fi
    rm -rf "$folder"
}
trap remove EXIT
trap 'exit 1' INT TERM HUP

mkdir "$folder/data"
pgbackrest --stanza="${STANZA:-chat}" --pg1-path="$folder/data" --lock-path="$folder/lock" --archive-mode=off \
    --log-level-file=off --log-level-console=error --log-level-stderr=error restore >&2

# Whoever can reach the socket may come in, and only the owner of the folder can. Nothing of the original's
# configuration counts, which may name files and addresses that are not here.
echo "local all all trust" >"$folder/hba.conf"
: >"$folder/ident.conf"
cat >"$folder/server.conf" <<END
data_directory = '$folder/data'
hba_file = '$folder/hba.conf'
ident_file = '$folder/ident.conf'
listen_addresses = ''
port = 5432
unix_socket_directories = '$folder'
hot_standby = off
fsync = off
shared_buffers = 64MB
max_connections = 20
autovacuum = off
jit = off
END
fail() {
    grep -E "FATAL|ERROR|PANIC" "$folder/log" | tail -n 1 >&2
    exit 1
}
# Compiled queries need memory that can be written and run, which the units of deploy/systemd refuse: jit=off.
# Also what somebody has said by ALTER SYSTEM goes before the file, and not before these.
overrides="-c listen_addresses= -c port=5432 -c unix_socket_directories='$folder' -c shared_buffers=64MB"
overrides="$overrides -c shared_preload_libraries= -c ssl=off -c archive_mode=off -c jit=off"
control --log="$folder/log" --options="-c config_file=$folder/server.conf $overrides" start || fail
# It takes connections once all of the log has been replayed.
until "$programs/pg_isready" --host="$folder" --port=5432 --quiet; do
    control status || fail
    sleep 0.2
done
echo "$folder"
cat >/dev/null
