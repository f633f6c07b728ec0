#!/bin/sh
# Boot systemd in a throw-away root with the Debian package installed, and run the unit
# between two hosts: start, reload, restart, crash, a watchdog timeout, a wrong
# configuration with and without a last good one, a NIC that appears late, stop, and
# restarts under traffic, which must not lose a frame. Run as root, with debootstrap and
# iproute2. It makes its own namespaces.
#
#	systemd.sh PACKAGE HANDOVER SHARE
#
# HANDOVER is the program integration/handover. SHARE is the part of its load that it
# sends.
set -eu

package=$1
handover=$2
share=$3
if [ "${4:-}" != inside ]; then
	root=$(mktemp -d)
	group=/sys/fs/cgroup
	[ -e "$group/cgroup.controllers" ] || group=$group/unified # the hybrid layout
	group=$group/fragwall-test-$$
	trap 'status=$?; until grep -q "populated 0" "$group/cgroup.events"; do sleep 0.1; done; find "$group" -depth -type d -exec rmdir {} +; rm -rf "$root"; exit $status' EXIT
	mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -n 1)
	release=$(. /etc/os-release && echo "$VERSION_CODENAME")
	debootstrap --variant=minbase --include=systemd-sysv "$release" "$root" "$mirror" >/dev/null
	cp "$package" "$root/fragwall.deb"
	chroot "$root" dpkg --install /fragwall.deb
	mkdir "$group"
	sh -c 'echo $$ >"$1/cgroup.procs"; shift; exec "$@"' - "$group" \
		unshare --mount --net --uts --ipc --cgroup --propagation private -- "$0" "$package" "$handover" "$share" inside "$root"
	exit
fi
root=$5

# The hosts, and between them the interfaces of the package's configuration.
mkdir -p /run/netns
mount -t tmpfs none /run/netns
ip link set lo up
ip netns add inside
ip netns add outside
ip link add eth1 type veth peer name eth0 netns inside
ip link add eth0 type veth peer name eth0 netns outside
ip -n inside addr add 192.0.2.1/24 dev eth0
ip -n outside addr add 192.0.2.2/24 dev eth0
ip -n inside addr add 2001:db8::1/64 dev eth0 nodad
ip -n outside addr add 2001:db8::2/64 dev eth0 nodad
for host in inside outside; do ip -n $host link set eth0 up; done
for nic in eth0 eth1; do ip link set $nic up; done
while ip link | grep -q NO-CARRIER; do sleep 0.1; done

# What systemd expects in a container.
mount --bind "$root" "$root"
mount -t sysfs none "$root/sys"
mount -t cgroup2 none "$root/sys/fs/cgroup"
mount -t tmpfs none "$root/run"
mount -t tmpfs none "$root/dev"
mkdir "$root/dev/net" "$root/dev/shm"
for device in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0 net/tun:10:200; do
	number=${device#*:}
	mknod -m 666 "$root/dev/${device%%:*}" c "${number%:*}" "${number#*:}"
done
unshare --mount --pid --fork --kill-child sh -c 'mount -t proc none "$1/proc"; exec chroot "$1" env container=other /sbin/init' - "$root" >/dev/null 2>&1 &
manager=$!
trap 'status=$?; [ $status = 0 ] || systemctl status --no-pager --lines 50 fragwall || :; kill -KILL $manager; wait $manager || :; exit $status' EXIT

# await TRIES COMMAND: run COMMAND up to TRIES times, ten times a second, until it
# succeeds.
await() {
	tries=$1
	shift
	until "$@"; do
		[ "$tries" -gt 0 ] || { echo "did not succeed: $*" >&2; exit 1; }
		tries=$((tries - 1))
		sleep 0.1
	done
}
fails() { ! "$@"; }
is() { [ "$(systemctl show --property "$1" --value fragwall)" = "$2" ]; }
systemctl() { booted systemctl "$@"; }
booted() { nsenter --target "$(tr -d ' ' <"/proc/$manager/task/$manager/children")" --mount --pid --root --wd "$@" </dev/null; }
# active: the process has reported that it is ready.
active() { is ActiveState active; }
passes() { ip netns exec inside ping -q -c 1 -W 1 -s 4000 192.0.2.2 >/dev/null; }
links() { ip -d link; tc qdisc; }

await 300 systemctl is-system-running --quiet
booted systemd-analyze verify --man=no fragwall.service
booted systemd-analyze security --no-pager fragwall.service | tail -n 1
config=$root/etc/fragwall/fragwall.toml
cp "$config" "$root/none.toml" # accepts nothing
printf '[[rule]]\nname = "pings"\naction = "accept"\nprotocol = "icmp"\n' >>"$config"
cp "$config" "$root/pings.toml"
links >"$root/before"

systemctl start fragwall
passes

cp "$root/none.toml" "$config"
systemctl reload fragwall
fails passes
cp "$root/pings.toml" "$config"
systemctl reload fragwall
passes
echo 'nonsense' >>"$config"
fails systemctl reload fragwall
active
passes
cp "$root/pings.toml" "$config"

# Restarts while 100 fragmented pings are sent per second: none is lost, the process
# is a new one each time, and no standby remains.
ip netns exec inside ping -q -i 0.01 -c 1000 -s 4000 192.0.2.2 >"$root/pings" &
pings=$!
for _ in 1 2 3; do
	before=$(systemctl show --property MainPID --value fragwall)
	systemctl restart fragwall
	fails is MainPID "$before"
done
wait $pings
grep ' 0% packet loss' "$root/pings" || { cat "$root/pings" >&2; exit 1; }
is NRestarts 0
standbys() { systemctl list-units --all --plain --no-legend 'fragwall-standby-*' | grep -q .; }
await 50 fails standbys

systemctl kill --signal KILL fragwall
await 50 is NRestarts 1
await 300 active
passes
systemctl kill --signal ABRT fragwall # like a panic
await 50 is NRestarts 2
await 300 active
passes
systemctl kill --signal STOP fragwall # until the watchdog fires
await 300 is NRestarts 3
await 300 active
passes
systemctl status --no-pager --lines 50 fragwall >"$root/status"
fails grep -e 'keeps rights' -e io_uring -e 'one queue' -e 'fast path is off' "$root/status"

systemctl stop fragwall
fails passes
links | diff "$root/before" -

# With a broken configuration, the unit starts with the last good one, which accepts
# pings.
echo 'nonsense' >>"$config"
systemctl start fragwall
passes
kept() { booted fragwall status | grep -q 'ready, with the last good configuration'; }
kept
systemctl restart fragwall
passes
kept
fails systemctl reload fragwall
passes
cp "$root/pings.toml" "$config"
systemctl reload fragwall
fails kept
[ "$(stat -c '%a %n' "$root"/var/lib/fragwall "$root"/var/lib/fragwall/* | cut -d ' ' -f 1 | tr '\n' ' ')" = '700 600 ' ]
systemctl stop fragwall

echo 'nonsense' >>"$config"
rm "$root"/var/lib/fragwall/*
fails systemctl start fragwall
is ActiveState failed
cp "$root/pings.toml" "$config"
systemctl reset-failed fragwall

ip link set eth1 name late
fails systemctl start fragwall
await 100 is NRestarts 7 # it does not give up
ip link set late name eth1
await 50 passes
systemctl stop fragwall

# Restarts under numbered traffic. The answers pass only because the box knows the flows.
{
	sed '/^\[\[rule\]\]/,$d' "$root/none.toml"
	printf '[policy]\nstateful = true\n[[rule]]\nname = "out"\naction = "accept"\nfrom = "inside"\n'
} >"$config"
systemctl start fragwall
"$handover" -inside inside -outside outside -metrics http://127.0.0.1:9477/metrics -share "$share" >"$root/traffic" 2>&1 &
traffic=$!
await 300 grep -q ready "$root/traffic"
for _ in $(seq 20); do
	systemctl restart fragwall
	sleep 0.5 # flows return to the fast path
done
kill -TERM $traffic
wait $traffic || { cat "$root/traffic"; exit 1; }
cat "$root/traffic"
systemctl stop fragwall
links | diff "$root/before" -
echo "unit of $package: ok"
