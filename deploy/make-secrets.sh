#!/bin/sh
# Make the secrets of compose.yaml in ./secrets. Those that are there already stay as they are.
set -eu
cd "$(dirname "$0")"
mkdir -p secrets
# The directory keeps other users of this host out. The files are readable, as containers get each
# of them by itself, and run as other users.
chmod 0700 secrets
umask 022

random() { head -c 36 /dev/urandom | base64 | tr '+/' '-_' | tr -d '\n'; }

make() {
    if [ ! -e "secrets/$1" ]; then
        printf '%s\n' "$2" >"secrets/$1"
        echo "made secrets/$1"
    fi
}

make secret_key "$(random)$(random)"
# A Fernet key: 32 bytes in URL-safe base64.
make vault_key "$(head -c 32 /dev/urandom | base64 | tr '+/' '-_')"
make redis_password "$(random)"
make postgres_password "$(random)"
make database_url "postgres://bucketwatch:$(cat secrets/postgres_password)@postgres/bucketwatch"
echo "Back up secrets/vault_key, and not together with the volume 'data'."
