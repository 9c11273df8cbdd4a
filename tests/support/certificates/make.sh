#!/usr/bin/env bash
# Makes the certificates of this folder; needs OpenSSL 3.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
touch "$work/index.txt"
cat > "$work/ca.conf" <<END
[ca]
default_ca = here
[here]
database = $work/index.txt
new_certs_dir = $work
rand_serial = yes
default_md = sha256
policy = any
x509_extensions = server
unique_subject = no
[any]
commonName = supplied
[server]
subjectAltName = DNS:localhost,IP:127.0.0.1
END
curve=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
openssl req -x509 "${curve[@]}" -keyout "$work/ca.key" -out authority.pem -days 36500 -subj "/CN=streamlabel tests"
sign() {
  openssl req "${curve[@]}" -keyout "$work/$1.key" -out "$work/$1.csr" -subj "/CN=localhost"
  openssl ca -batch -notext -config "$work/ca.conf" -cert authority.pem -keyfile "$work/ca.key" \
    -in "$work/$1.csr" -out "$work/$1.crt" -startdate "$2" -enddate "$3"
  cat "$work/$1.crt" "$work/$1.key" > "$1.pem"
}
sign valid 20200101000000Z 21260101000000Z
sign expired 20200101000000Z 20210101000000Z
sign early 21000101000000Z 21260101000000Z
openssl pkcs8 -topk8 -in "$work/valid.key" -out encrypted.pem -passout pass:password
rm -r "$work"
