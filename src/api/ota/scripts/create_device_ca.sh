#!/bin/sh
# Makes a local Device CA under the root in this folder: a P-256 key and a certificate of 10 years.
#
#   ./create_device_ca [KEY CERTIFICATE]
#
# reads    factory_ca.key, factory_ca.pem
# writes   KEY           the Device CA's key (local-ca.key unless named)
#          CERTIFICATE   its certificate (local-ca.pem unless named)
# Files that are there are not overwritten.
set -eu

factory='@FACTORY@'
key=${1:-local-ca.key}
certificate=${2:-local-ca.pem}

for file in "$key" "$certificate"; do
    if [ -e "$file" ]; then
        echo "create_device_ca: $file is there already" >&2
        exit 1
    fi
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/config" <<END
[req]
prompt = no
string_mask = utf8only
distinguished_name = name
[name]
OU = $factory
CN = local-ca
[device_ca]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
END

umask 077
openssl ecparam -name prime256v1 -genkey -noout -out "$key"
umask 022
openssl req -new -sha256 -config "$work/config" -key "$key" -out "$work/csr"
openssl x509 -req -sha256 -days 3650 -in "$work/csr" -CA factory_ca.pem -CAkey factory_ca.key \
    -set_serial "0x$(openssl rand -hex 16)" -extfile "$work/config" -extensions device_ca \
    -out "$certificate"
