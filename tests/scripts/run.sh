#!/usr/bin/env bash
# Builds Cairn and runs it: encrypted data in ./data, a first backup in ./backups. Ctrl-C ends it.
# PORT=6380 takes another port; further arguments are directives for cairn-server.
set -euo pipefail
# shellcheck source=tests/scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

PORT=${PORT:-6379}
DATA=$ROOT/data
BACKUPS=$ROOT/backups
KEYRING=$ROOT/keyring
BIN=$TARGET/release

empty() { [ -z "$(ls -A "$1" 2>/dev/null)" ]; }

# Whether something on 127.0.0.1:PORT answers PING. Speaks the protocol itself: a client need not be installed.
answers() {
    local reply
    { exec 3<>"/dev/tcp/127.0.0.1/$PORT"; } 2>/dev/null || return 1
    printf 'PING\r\n' >&3
    IFS= read -r -t 5 reply <&3 || reply=
    exec 3>&-
    [[ $reply == +PONG* ]]
}

tests/scripts/setup.sh --run
! answers || fail "something already listens on 127.0.0.1:$PORT; try: make run PORT=6380"
say "building (the first time takes some minutes)"
cargo build --release --locked -p cairn-server -p cairn-backup -p cairn-restore

if [ ! -e "$KEYRING" ]; then
    # A new key opens nothing that an old one has sealed.
    if ! empty "$DATA" || ! empty "$BACKUPS"; then
        fail "$KEYRING is missing, but $DATA or $BACKUPS holds data sealed with it: put the keyring back"
    fi
    "$BIN/cairn-backup" key generate --out "$KEYRING"
fi
mkdir -p -m 700 "$DATA" "$BACKUPS"

server=
# shellcheck disable=SC2317 # reached by the trap
stop() {
    trap '' INT TERM HUP
    if [ -n "$server" ]; then
        kill -TERM "$server" 2>/dev/null || true
        code=0
        wait "$server" || code=$?
        say "the server has ended with code $code"
        exit "$code"
    fi
    exit 130
}
trap stop INT TERM HUP

# In a session of its own the server does not see the terminal's Ctrl-C, so it is told to end exactly once, by stop.
setsid "$BIN/cairn-server" --port "$PORT" --bind 127.0.0.1 --dir "$DATA" --appendonly yes --appendfsync everysec \
    --encryption-key-file "$KEYRING" "$@" &
server=$!
until answers; do
    kill -0 "$server" 2>/dev/null || { wait "$server" || exit $?; exit 1; }
    sleep 0.1
done

if empty "$BACKUPS"; then
    say "first backup"
    "$BIN/cairn-backup" --repo "file://$BACKUPS" --dir "$DATA" --server "127.0.0.1:$PORT" \
        --encryption-key-file "$KEYRING" create || say "the first backup failed; the server goes on"
fi

cat <<TEXT

Cairn is running on 127.0.0.1:$PORT
  connect   redis-cli -p $PORT        or any Redis client
  data      $DATA (journal synced every second, snapshots, encrypted)
  keyring   $KEYRING — keep a copy elsewhere: without it neither data nor backups can be read
  backups   $BACKUPS
  back up   $BIN/cairn-backup --repo file://$BACKUPS --dir $DATA --server 127.0.0.1:$PORT --encryption-key-file $KEYRING create
  restore   $BIN/cairn-restore --repo file://$BACKUPS --encryption-key-file $KEYRING --dir NEW_DIRECTORY
  end       Ctrl-C

TEXT
code=0
wait "$server" || code=$?
exit "$code"
