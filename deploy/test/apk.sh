#!/bin/sh
# Test the Alpine package in a directory that "make dist" made, as far as possible
# without apk: its checksums are correct, and its files, scripts and service work with
# OpenRC in a throw-away root. Run as root, with debootstrap and iproute2. It makes its
# own namespaces. Argument: the directory.
set -eu

cd "$1"
package=$PWD/$(ls fragwall_*_"$(uname -m)".apk)
if [ "${2:-}" != inside ]; then
	root=$(mktemp -d)
	trap 'status=$?; rm -rf "$root"; exit $status' EXIT
	mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -n 1)
	release=$(. /etc/os-release && echo "$VERSION_CODENAME")
	debootstrap --variant=minbase --include=openrc "$release" "$root" "$mirror" >/dev/null
	unshare --mount --net --pid --fork --kill-child --mount-proc --propagation private -- "$OLDPWD/$0" . inside "$root"
	exit
fi
root=$3

# .PKGINFO has the checksum of the last gzip member of the archive, which has the files.
tar --warning=no-unknown-keyword -xzf "$package" -C "$root" .PKGINFO .post-upgrade .pre-deinstall
value() { sed -n "s/^$1 = //p" "$root/.PKGINFO"; }
test "$(value pkgname) $(value arch)" = "fragwall $(uname -m)"
found=
for at in $(LC_ALL=C grep -abo "$(printf '\037\213\010')" "$package" | cut -d : -f 1); do
	[ "$(tail -c +$((at + 1)) "$package" | sha256sum | cut -d ' ' -f 1)" != "$(value datahash)" ] || found=$at
done
test -n "$found"

# Two hosts, and between them the interfaces of the package's configuration.
mkdir -p /run/netns
mount -t tmpfs none /run/netns
ip link set lo up
ip netns add inside
ip netns add outside
ip link add eth1 type veth peer name eth0 netns inside
ip link add eth0 type veth peer name eth0 netns outside
ip -n inside addr add 192.0.2.1/24 dev eth0
ip -n outside addr add 192.0.2.2/24 dev eth0
for host in inside outside; do ip -n $host link set eth0 up; done
for nic in eth0 eth1; do ip link set $nic up; done
while ip link | grep -q NO-CARRIER; do sleep 0.1; done

mount --bind "$root" "$root"
mount -t proc none "$root/proc"
mount -t sysfs none "$root/sys"
mount -t tmpfs none "$root/run"
mount -t tmpfs none "$root/dev"
mkdir "$root/dev/net" "$root/run/openrc"
for state in exclusive starting started stopping inactive wasinactive failed daemons options scheduled; do mkdir "$root/run/openrc/$state"; done # as "openrc sysinit" does
for device in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0 net/tun:10:200; do
	number=${device#*:}
	mknod -m 666 "$root/dev/${device%%:*}" c "${number%:*}" "${number#*:}"
done
touch "$root/run/openrc/softlevel"
service() { chroot "$root" rc-service --nocolor fragwall "$@"; }

tail -c +$((found + 1)) "$package" | tar --warning=no-unknown-keyword -xz -C "$root"
chroot "$root" fragwall check -c /etc/fragwall/fragwall.toml
chroot "$root" rc-update add fragwall default
service checkconfig

# The package's configuration accepts nothing.
cat >"$root/etc/fragwall/fragwall.toml" <<-TOML
	[inside]
	tap = "fw-in"
	nic = "eth1"
	[outside]
	tap = "fw-out"
	nic = "eth0"
	[[rule]]
	name = "pings"
	action = "accept"
	protocol = "icmp"
TOML
service start
service status
ip netns exec inside ping -q -c 2 -i 0.2 -W 5 -s 4000 192.0.2.2
sed -i 's/accept/drop/' "$root/etc/fragwall/fragwall.toml"
service reload
if ip netns exec inside ping -q -c 1 -W 1 192.0.2.2; then exit 1; fi

# After a crash, the service restarts within a second.
sed -i 's/drop/accept/' "$root/etc/fragwall/fragwall.toml"
pkill -KILL -x fragwall
tries=100
until ip netns exec inside ping -q -c 1 -W 1 192.0.2.2 >/dev/null; do
	tries=$((tries - 1))
	[ $tries != 0 ]
done

# An upgrade restarts the service, but not if the configuration is wrong.
mkdir "$root/lib/apk" "$root/lib/apk/exec"
cp "$root/.post-upgrade" "$root/.pre-deinstall" "$root/lib/apk/exec"
was=$(pgrep -x fragwall)
chroot "$root" /lib/apk/exec/.post-upgrade 99.0.0 0.1.0
test "$was" != "$(pgrep -x fragwall)"
was=$(pgrep -x fragwall)
cp "$root/etc/fragwall/fragwall.toml" "$root/etc/good.toml"
echo nonsense >>"$root/etc/fragwall/fragwall.toml"
chroot "$root" /lib/apk/exec/.post-upgrade 99.0.0 0.1.0 2>&1 | grep 'fragwall was not restarted: correct'
test "$was" = "$(pgrep -x fragwall)"

# With a broken configuration, the service starts with the last good one.
service restart
ip netns exec inside ping -q -c 1 -W 5 192.0.2.2

chroot "$root" /lib/apk/exec/.pre-deinstall 0.1.0
if pgrep -x fragwall; then exit 1; fi
if chroot "$root" rc-update show | grep fragwall; then exit 1; fi
if ip link show fw-in; then exit 1; fi
echo "${package##*/}: ok"
