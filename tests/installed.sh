#!/bin/sh
# Does what is installed answer? usage: installed.sh FOLDER-OF-PROGRAMS IMAGE
# A daemon without settings of its own starts from FOLDER, and `delen infer` has it name the IMAGE.
set -eu
programs=$1 image=$2
work=$(mktemp -d)
daemon=
trap 'test -z "$daemon" || kill "$daemon"; wait; rm -rf "$work"' EXIT
export DELEN_URL="unix://$work/delen.sock" DELEN_STATE__PATH="$work/state" \
    DELEN_SERVER__SOCKET="$work/delen.sock" DELEN_SERVER__PORT=0
cd "$work"
"$programs/delen-daemon" 2> log &
daemon=$!
until grep -q 'ready on' log; do
    if ! kill -0 "$daemon" 2> /dev/null; then cat log >&2; daemon=; exit 1; fi
    sleep 0.2
done
"$programs/delen" infer "$image"
