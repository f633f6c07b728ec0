#!/bin/sh
# Test the RPM in a directory that "make dist" made: it can be installed, upgraded and
# erased in a throw-away root, with and without systemd, and leaves only a changed
# configuration. Run as root, with rpm and busybox-static. Argument: the directory.
set -eu

cd "$1"
root=$(mktemp -d)
trap 'status=$?; rm -rf "$root" "$root".*; exit $status' EXIT

package=$(ls "$PWD"/fragwall-*."$(uname -m)".rpm)
rpm --checksig --nosignature "$package"
test -z "$(rpm --query --requires --package "$package" | grep -v '^rpmlib(')" # no dependencies
test "$(rpm --query --configfiles --package "$package")" = /etc/fragwall/fragwall.toml
test "$(rpm --query --licensefiles --package "$package")" = /usr/share/licenses/fragwall/LICENSE

# A newer version, for the upgrade.
case $(uname -m) in
x86_64) arch=amd64 ;;
aarch64) arch=arm64 ;;
esac
mkdir "$root.next"
(cd .. && VERSION=99.0.0 ARCH=$arch go tool -modfile=tools/go.mod nfpm package --config deploy/nfpm.yaml --packager rpm --target "$root.next/" >/dev/null)

mkdir -p "$root/bin" "$root/dev" "$root/etc" "$root/run" "$root/tmp"
cp /bin/busybox "$root/bin/busybox"
chroot "$root" /bin/busybox --install -s /bin
mknod -m 666 "$root/dev/null" c 1 3
# A systemctl that records the package's requests.
cat >"$root/bin/systemctl" <<'SH'
#!/bin/sh
echo "$*" >>/run/asked
SH
chmod +x "$root/bin/systemctl"
asked() {
	printf '%s\n' "$@" | diff - "$root/run/asked"
	rm "$root/run/asked"
}
list() { (cd "$root" && find . -xdev ! -path './var/lib/rpm/*' | sort); }

rpm --root "$root" --initdb
# Directories that belong to other packages.
(cd "$root" && mkdir -p var/tmp usr/bin usr/lib/systemd/system usr/share/bash-completion/completions usr/share/doc \
	usr/share/fish/vendor_completions.d usr/share/licenses usr/share/man/man5 usr/share/man/man8 usr/share/zsh/site-functions)
list >"$root.before"
rpm --root "$root" --install "$package"
test ! -e "$root/run/asked" # without systemd
rpm --root "$root" --erase fragwall
list | diff "$root.before" -

mkdir -p "$root/run/systemd/system"
rpm --root "$root" --install "$package"
asked daemon-reload # the installation starts nothing
rpm --root "$root" --verify fragwall
chroot "$root" fragwall check -c /etc/fragwall/fragwall.toml
for example in "$root"/usr/share/doc/fragwall/examples/*.toml; do
	chroot "$root" fragwall check -c "${example#"$root"}"
done
test -f "$root/usr/lib/systemd/system/fragwall.service"
zcat "$root/usr/share/man/man8/fragwall.8.gz" | grep -q sidecar

echo '# ours' >>"$root/etc/fragwall/fragwall.toml"
rpm --root "$root" --upgrade "$root.next"/*.rpm
asked daemon-reload 'try-restart fragwall.service' daemon-reload
tail -n 1 "$root/etc/fragwall/fragwall.toml" | grep -q '^# ours'

echo nonsense >>"$root/etc/fragwall/fragwall.toml"
rpm --root "$root" --upgrade --oldpackage "$package" 2>&1 | tee "$root.said"
grep -q 'fragwall was not restarted: correct' "$root.said"
asked daemon-reload daemon-reload

rpm --root "$root" --erase fragwall 2>&1 | tee "$root.said"
asked 'disable --now fragwall.service' daemon-reload
grep -q '^nonsense' "$root/etc/fragwall/fragwall.toml.rpmsave" # a changed configuration is kept
rm -r "$root/etc/fragwall" "$root/run/systemd"
list | diff "$root.before" -
echo "${package##*/}: ok"
