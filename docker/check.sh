#!/usr/bin/env bash
# Lints docker/, builds both images where no engine runs, and has each of them answer. As root, with
# hadolint, docker-compose, buildah, debootstrap and unshare. BASE: an image to build on, in place of
# a Debian made by debootstrap. The Jetson's image is built on it, too, with the runtime of the public
# index, which serves from the processor where there is no GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

hadolint docker/Dockerfile docker/jetson.Dockerfile
docker-compose -f docker/compose.yaml config -q
docker-compose -f docker/compose.yaml -f docker/compose.jetson.yaml config -q

if [ -z "${BASE:-}" ]; then
    BASE=localhost/delen-base
    debootstrap --variant=minbase bookworm "$work/root" > "$work/log"
    rm -rf "$work"/root/var/cache/apt/* "$work"/root/var/lib/apt/lists/*
    made=$(buildah from scratch)
    buildah add -q "$made" "$work/root" / > "$work/log"
    buildah commit -q "$made" "$BASE" > "$work/log"
fi

cat > "$work/answer.sh" << 'END'
delen-daemon &
until python3 -c "$1" 2> /dev/null; do kill -0 $! && sleep 0.2 || exit 1; done
delen infer /mnt/cat.png && kill $! && wait $!
END

check() { # IMAGE DOCKERFILE ARGUMENTS...: the image's own program and health check, as its own user
    local image=$1 file=$2 made health
    shift 2
    buildah build --isolation chroot --pull-never --format docker --build-arg "BASE=$BASE" "$@" \
        -t "$image" -f "$file" .
    health=$(buildah inspect --type image --format '{{index .Docker.Config.Healthcheck.Test 3}}' "$image")
    made=$(buildah from --pull-never --ulimit nofile=16384:16384 "$image")
    # a network of its own, in which port 8000 is free
    unshare --net sh -c 'ip link set lo up && exec buildah run --isolation chroot "$@"' sh \
        -v "$PWD/docs/cat.png:/mnt/cat.png:ro" -v "$work/answer.sh:/mnt/answer.sh:ro" \
        "$made" -- sh /mnt/answer.sh "$health"
    buildah rm "$made" > "$work/log"
    buildah images | grep -E "^REPOSITORY|^${image} |^${BASE%:*} "
}

check localhost/delen docker/Dockerfile
check localhost/delen-jetson docker/jetson.Dockerfile --build-arg INDEX=https://pypi.org/simple
