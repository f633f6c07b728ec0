#!/bin/sh
# Test a directory that "make dist" made: the checksums are correct, the binaries
# run, lintian finds nothing, and the Debian package can be installed, upgraded,
# removed and purged in a throw-away root, and leaves nothing. Run as root, with
# debootstrap, lintian, and qemu-user-static for foreign binaries. The packages of the
# root come from the machine's own apt sources.
set -eu

cd "$1"
root=$(mktemp -d)
trap 'status=$?; rm -rf "$root" "$root.before" "$root.after" "$root.good" "$root.said"; exit $status' EXIT

sha256sum --check SHA256SUMS
lintian --fail-on error,warning -- *.deb

for binary in fragwall-*-linux-*[!n]; do # [!n]: not .json
	case ${binary##*-}-$(uname -m) in
	amd64-x86_64 | arm64-aarch64) emulator= ;;
	amd64-*) emulator=qemu-x86_64-static ;;
	arm64-*) emulator=qemu-aarch64-static ;;
	esac
	$emulator "./$binary" version
	for example in ../examples/*.toml; do
		$emulator "./$binary" check -c "$example"
	done
done

mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -n 1)
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
debootstrap --variant=minbase "$release" "$root" "$mirror" >/dev/null

# A systemctl that records the package's requests.
mkdir "$root/run/systemd" "$root/run/systemd/system"
cat >"$root/usr/bin/systemctl" <<'SH'
#!/bin/sh
echo "$*" >>/run/asked
SH
chmod +x "$root/usr/bin/systemctl"
asked() {
	printf '%s\n' "$@" | diff - "$root/run/asked"
	rm "$root/run/asked"
}

list() { (cd "$root" && find . -xdev ! -path './proc/*' ! -path './var/lib/dpkg/*' ! -path './var/log/*' ! -path './var/cache/*' | sort); }
list >"$root.before"
package=$(ls fragwall_*_"$(dpkg --print-architecture)".deb)
cp "$package" "$root/fragwall.deb"
chroot "$root" dpkg --install /fragwall.deb
asked daemon-reload 'try-restart fragwall.service' # the installation starts nothing
chroot "$root" fragwall version
chroot "$root" fragwall check -c /etc/fragwall/fragwall.toml
for example in "$root"/usr/share/doc/fragwall/examples/*.toml; do
	chroot "$root" fragwall check -c "${example#"$root"}"
done
for expect in "$root"/usr/share/doc/fragwall/examples/expect/*.toml; do
	chroot "$root" fragwall check -c "/usr/share/doc/fragwall/examples/${expect##*/}" --expect "${expect#"$root"}"
done
zcat "$root/usr/share/man/man8/fragwall.8.gz" | grep -q sidecar
zcat "$root/usr/share/man/man5/fragwall.toml.5.gz" | grep -q max_datagrams
chroot "$root" bash -n /usr/share/bash-completion/completions/fragwall
test -f "$root/usr/lib/systemd/system/fragwall.service"
zcat "$root/usr/share/doc/fragwall/changelog.gz" | head -n 1 | grep -F "($(dpkg-deb --field "$package" Version))"

echo '# ours' >>"$root/etc/fragwall/fragwall.toml"
chroot "$root" dpkg --install /fragwall.deb
asked daemon-reload daemon-reload 'try-restart fragwall.service'
grep -q '^# ours' "$root/etc/fragwall/fragwall.toml"

printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d" # the administrator forbids restarts
chmod +x "$root/usr/sbin/policy-rc.d"
chroot "$root" dpkg --install /fragwall.deb
asked daemon-reload daemon-reload
rm "$root/usr/sbin/policy-rc.d"

cp "$root/etc/fragwall/fragwall.toml" "$root.good"
echo 'nonsense' >>"$root/etc/fragwall/fragwall.toml"
chroot "$root" dpkg --install /fragwall.deb 2>&1 | tee "$root.said"
grep -q 'fragwall was not restarted: correct' "$root.said"
asked daemon-reload daemon-reload
cp "$root.good" "$root/etc/fragwall/fragwall.toml"
mkdir -m 700 "$root/var/lib/fragwall" # as the unit creates it

chroot "$root" dpkg --remove fragwall
asked 'disable --now fragwall.service' daemon-reload
test -f "$root/etc/fragwall/fragwall.toml" # remove keeps the configuration
chroot "$root" dpkg --purge fragwall
asked daemon-reload
rm "$root/fragwall.deb"
list >"$root.after"
diff "$root.before" "$root.after"
echo "$package: ok"
