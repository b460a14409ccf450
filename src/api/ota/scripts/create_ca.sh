#!/bin/sh
# Makes the root of a Factory in this folder: a P-256 key and a certificate of 20 years.
#
#   ./create_ca
#
# writes   factory_ca.key   the root's key: keep it offline
#          factory_ca.pem   the root's certificate
# Files that are there are not overwritten.
set -eu

factory='@FACTORY@'

if [ -n "${HSM_MODULE:-}" ]; then
    echo "create_ca: it keeps the key in a file, not in an HSM; a newer fioctl uses the HSM itself" >&2
    exit 1
fi
for file in factory_ca.key factory_ca.pem; do
    if [ -e "$file" ]; then
        echo "create_ca: $file is there already" >&2
        exit 1
    fi
done

config=$(mktemp)
trap 'rm -f "$config"' EXIT
cat >"$config" <<END
[req]
prompt = no
string_mask = utf8only
distinguished_name = name
x509_extensions = root
[name]
OU = $factory
CN = Factory-CA
[root]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
extendedKeyUsage = serverAuth, clientAuth
subjectKeyIdentifier = hash
END

umask 077
openssl ecparam -name prime256v1 -genkey -noout -out factory_ca.key
umask 022
openssl req -new -x509 -sha256 -days 7300 -config "$config" -set_serial "0x$(openssl rand -hex 16)" \
    -key factory_ca.key -out factory_ca.pem
