#!/bin/sh
# Build all release files twice, in two clones of the last commit that differ in
# path, build cache, umask, time zone and language, and compare them. Run as root, with
# podman.
set -eu

commit=$(git rev-parse HEAD)
root=$(mktemp -d)
trap 'status=$?; chmod -R u+w "$root"; rm -rf "$root"; exit $status' EXIT

# build DIRECTORY UMASK TIMEZONE LANGUAGE
build() (
	git clone --quiet --no-checkout . "$root/$1"
	cd "$root/$1"
	git checkout --quiet --detach "$commit"
	umask "$2"
	export TZ="$3" LC_ALL="$4" GOCACHE="$root/$1.cache"
	# A separate store, so that no layer is shared.
	podman="podman --root $root/$1.store --runroot $root/$1.run"
	make --silent dist image PODMAN="$podman" IMAGE=fragwall
	$podman image inspect --format '{{.Digest}}' fragwall >dist/image
	$podman image rm --all --force >/dev/null
)

build here 022 UTC C
build another/place 077 Asia/Kathmandu C.UTF-8
diff -r "$root/here/dist" "$root/another/place/dist"
cat "$root/here/dist/SHA256SUMS"
echo "image $(cat "$root/here/dist/image"): both are the same"
