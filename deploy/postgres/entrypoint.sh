#!/bin/sh
# Makes the cluster on an empty volume, runs /docker-entrypoint-initdb.d/*.sql, then serves.
set -eu
bin=$(dirname "$(ls /usr/lib/postgresql/*/bin/postgres | tail -n 1)")
PATH=$bin:$PATH
: "${POSTGRES_PASSWORD:?is not set}" "${POSTGRES_USER:=postgres}"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  work=$(mktemp -d)
  (umask 077 && printf '%s\n' "$POSTGRES_PASSWORD" > "$work/password")
  # Made beside its place and moved at the end: a start that was interrupted begins anew.
  rm -rf "$PGDATA.new"
  initdb -D "$PGDATA.new" -U "$POSTGRES_USER" --pwfile "$work/password" \
    --auth-local=trust --auth-host=scram-sha-256 -E UTF8 --locale=C.UTF-8
  rm -r "$work"
  echo "host all all all scram-sha-256" >> "$PGDATA.new/pg_hba.conf"
  pg_ctl -D "$PGDATA.new" -w -o "-c listen_addresses=''" start
  for file in /docker-entrypoint-initdb.d/*.sql; do
    psql -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d postgres -f "$file"
  done
  pg_ctl -D "$PGDATA.new" -m fast -w stop
  mv "$PGDATA.new" "$PGDATA"
fi
unset POSTGRES_PASSWORD
exec postgres -D "$PGDATA" -c listen_addresses='*' "$@"
