#!/bin/sh
# Start a sentinel. It keeps what it learns in its configuration, so that is written only once.
set -eu
umask 077
conf=/data/sentinel.conf
if [ ! -e "$conf" ]; then
    password=$(cat /run/secrets/redis_password)
    cat >"$conf.new" <<END
port 26379
dir /data
requirepass $password
sentinel sentinel-pass $password
sentinel resolve-hostnames yes
sentinel announce-hostnames yes
sentinel announce-ip $NODE
sentinel monitor mymaster $FIRST_MASTER 6379 2
sentinel auth-pass mymaster $password
sentinel down-after-milliseconds mymaster 5000
sentinel failover-timeout mymaster 30000
END
    mv "$conf.new" "$conf"
fi
exec valkey-sentinel "$conf"
