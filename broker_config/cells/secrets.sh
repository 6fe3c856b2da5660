#!/bin/sh
# Makes the secrets of a trial: passwords, the key that encrypts what signs, and certificates of a trial authority.
# What is there already stays. In production put your own certificates into the same files.
#
# usage: sh secrets.sh NAME [FOLDER]      NAME: by which devices and clients reach the load balancer
set -eu
umask 077
name=${1:?"usage: sh secrets.sh NAME [FOLDER]"}
folder=${2:-secrets}
mkdir -p "$folder/authority" "$folder/gateway" "$folder/haproxy" "$folder/database"
cd "$folder"

random() { [ -s "$1" ] || openssl rand -hex 32 >"$1"; }
random gateway/encryption.key
random gateway/database-password
random database/replication-password
cp gateway/database-password database/gateway-password

if [ ! -s authority/ca.pem ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj "/CN=Trial authority of $name" \
        -addext basicConstraints=critical,CA:TRUE,pathlen:0 -addext keyUsage=critical,keyCertSign,cRLSign \
        -keyout authority/ca.key -out authority/ca.pem 2>/dev/null
fi
certificate() { # FILE NAMES: a certificate for these names, its key in FILE.key
    [ -s "$1" ] && return
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" -keyout "$1.key" -out "$1.request" \
        2>/dev/null
    printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth\nbasicConstraints=critical,CA:FALSE\n' "$2" >"$1.extensions"
    printf 'authorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\nkeyUsage=critical,digitalSignature\n' >>"$1.extensions"
    openssl x509 -req -days 365 -in "$1.request" -CA authority/ca.pem -CAkey authority/ca.key -set_serial "0x$(openssl rand -hex 16)" \
        -extfile "$1.extensions" -out "$1" 2>/dev/null
    rm "$1.request" "$1.extensions"
}
# The second name is for cells with their own names: cell-0.NAME.
certificate gateway/tls.pem "DNS:$name,DNS:*.$name,DNS:localhost"
certificate database/tls.pem DNS:db1,DNS:db2,DNS:localhost
cp gateway/tls.pem gateway/tls.pem.key haproxy/
for each in gateway haproxy database; do cp authority/ca.pem "$each/"; done

# The users of the three images. Each reads its own folder alone, so only root can give it away.
if [ "$(id -u)" = 0 ]; then
    chown -R 10001:10001 gateway
    chown -R 99:99 haproxy
    chown -R 999:999 database
else
    echo "Not root: give gateway/ to user 10001, haproxy/ to 99 and database/ to 999." >&2
fi
