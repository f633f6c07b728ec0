#!/bin/sh
# Install a Debian package in a throw-away root, use it, purge it, and see that
# nothing is left. As root, with debootstrap; the packages come from where apt
# gets its own.
set -eu

package=$1
root=$(mktemp -d)
trap 'status=$?; rm -rf "$root" "$root.before" "$root.after"; exit $status' EXIT
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -n 1)
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
debootstrap --variant=minbase "$release" "$root" "$mirror" >/dev/null

list() { (cd "$root" && find . -xdev ! -path './proc/*' ! -path './var/lib/dpkg/*' ! -path './var/log/*' ! -path './var/cache/*' | sort); }
list >"$root.before"
cp "$package" "$root/fragwall.deb"
chroot "$root" dpkg --install /fragwall.deb
chroot "$root" fragwall version
chroot "$root" fragwall check -c /etc/fragwall/fragwall.toml
for example in "$root"/usr/share/doc/fragwall/examples/*.toml; do
	chroot "$root" fragwall check -c "${example#"$root"}"
done
zcat "$root/usr/share/man/man8/fragwall.8.gz" | grep -q sidecar
chroot "$root" sh -n /usr/share/bash-completion/completions/fragwall 2>/dev/null || chroot "$root" bash -n /usr/share/bash-completion/completions/fragwall
test -f "$root/usr/lib/systemd/system/fragwall.service"

chroot "$root" dpkg --remove fragwall
test -f "$root/etc/fragwall/fragwall.toml" # a configuration outlives its program
chroot "$root" dpkg --purge fragwall
rm "$root/fragwall.deb"
list >"$root.after"
diff "$root.before" "$root.after"
echo "package $package: ok"
