#!/bin/sh
# Starts Grafana with a password for its user "admin": the one in the file that
# GRAFANA_ADMIN_PASSWORD_FILE names, or a random one that is made once and kept with Grafana's data.
set -eu

given=/run/secrets/grafana_admin_password
made=$GF_PATHS_DATA/admin-password
if [ -s "$given" ]; then
  password=$given
elif [ -e "$GF_PATHS_DATA/grafana.db" ] && [ ! -s "$made" ]; then
  echo "the data is from an earlier start, with its own password for admin; to set another one:" \
    "grafana cli admin reset-admin-password" >&2
  exec /run.sh
else
  password=$made
  [ -s "$made" ] || (umask 077 && head -c 18 /dev/urandom | base64 > "$made")
fi
if [ ! -r "$password" ]; then
  echo "$password can't be read by user $(id -u): make the file readable for it" >&2
  exit 1
fi
export GF_SECURITY_ADMIN_PASSWORD__FILE="$password"
exec /run.sh
