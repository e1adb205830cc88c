#!/bin/sh
# Whether the server on port $1 answers.
VALKEYCLI_AUTH=$(cat /run/secrets/redis_password) || exit 1
export VALKEYCLI_AUTH
[ "$(valkey-cli -p "$1" ping)" = PONG ]
