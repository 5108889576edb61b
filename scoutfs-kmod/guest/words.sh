# SPDX-License-Identifier: GPL-2.0-only
# Words that the scripts of guests have in common.

fail() {
    echo "FAILED: $*"
    exit 1
}
# same FOUND WANTED WHAT
same() {
    [ "$1" = "$2" ] || fail "$3: '$1' where '$2' should be"
}
# ended PID: whether a process is gone, or would be if somebody asked.
ended() {
    state=$(awk '$1 == "State:" { print $2 }' "/proc/$1/status" 2> /dev/null) || return 0
    [ "$state" = Z ] || [ -z "$state" ]
}
# Waits for a thing to be true, and fails after two minutes, or more on a slow machine.
until_true() {
    tries=0
    until "$@"; do
        tries=$((tries + 1))
        [ $tries -lt $((1200 * ${PATIENCE:-1})) ] || fail "waited too long: $*"
        sleep 0.1
    done
}
