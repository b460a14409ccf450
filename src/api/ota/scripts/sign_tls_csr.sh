#!/bin/sh
# Signs the request of a server by the root in this folder, for 10 years and the DNS names that it
# asks for.
#
#   ./sign_tls_csr REQUEST > CERTIFICATE
#
# reads    factory_ca.key, factory_ca.pem, and the file REQUEST
# prints   the certificate
set -eu

if [ $# -ne 1 ]; then
    echo "usage: ./sign_tls_csr REQUEST" >&2
    exit 2
fi

names=$(openssl req -in "$1" -noout -text |
    sed -n '/X509v3 Subject Alternative Name/ { n; s/^ *//; s/ *$//; p; }')
if [ -z "$names" ]; then
    echo "sign_tls_csr: $1 asks for no DNS name" >&2
    exit 1
fi

extensions=$(mktemp)
trap 'rm -f "$extensions"' EXIT
cat >"$extensions" <<END
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = $names
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
END

openssl x509 -req -sha256 -days 3650 -in "$1" -CA factory_ca.pem -CAkey factory_ca.key \
    -set_serial "0x$(openssl rand -hex 16)" -extfile "$extensions"
