#!/bin/sh
# Starts Grafana with a password for its user "admin": the one in the file that
# GRAFANA_ADMIN_PASSWORD_FILE names, or a random one that is made once and kept with Grafana's data.
set -eu

given=/run/secrets/grafana_admin_password
made=$GF_PATHS_DATA/admin-password
if [ ! -s "$given" ] && [ ! -s "$made" ]; then
  (umask 077 && head -c 18 /dev/urandom | base64 > "$made")
fi
[ -s "$given" ] && password=$given || password=$made
if [ ! -r "$password" ]; then
  echo "$password can't be read by user $(id -u): make the file readable for it" >&2
  exit 1
fi
export GF_SECURITY_ADMIN_PASSWORD__FILE="$password"
exec /run.sh
