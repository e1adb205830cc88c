#!/bin/sh
# Start a data node. Its configuration is written at the first start only: Sentinel changes it
# after a failover, and that has to outlive a restart. To change it by hand: CONFIG SET and
# CONFIG REWRITE, on each node.
set -eu
umask 077
conf=/data/node.conf
if [ ! -e "$conf" ]; then
    password=$(cat /run/secrets/redis_password)
    {
        cat /etc/bucketwatch/node.conf
        echo "requirepass $password"
        echo "masterauth $password"
        echo "replica-announce-ip $NODE"
        if [ "$NODE" != "$FIRST_MASTER" ]; then
            echo "replicaof $FIRST_MASTER 6379"
        fi
    } >"$conf.new"
    mv "$conf.new" "$conf"
fi
exec valkey-server "$conf"
