#!/bin/sh
# Signs the request of an online Device CA by the root in this folder, for 10 years.
#
#   ./sign_ca_csr REQUEST > CERTIFICATE
#
# reads    factory_ca.key, factory_ca.pem, and the file REQUEST
# prints   the certificate
set -eu

if [ $# -ne 1 ]; then
    echo "usage: ./sign_ca_csr REQUEST" >&2
    exit 2
fi

extensions=$(mktemp)
trap 'rm -f "$extensions"' EXIT
cat >"$extensions" <<END
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
END

openssl x509 -req -sha256 -days 3650 -in "$1" -CA factory_ca.pem -CAkey factory_ca.key \
    -set_serial "0x$(openssl rand -hex 16)" -extfile "$extensions"
