#!/bin/sh
# Run the image as a sidecar in a network namespace like that of a pod: as podman runs
# it, as a separate user, and as Kubernetes and Docker do, as root with one capability.
# The workload's pings pass, traffic that no rule accepts does not, the manifests' probe
# succeeds, and everything is restored. Run as root, with podman. It makes its own
# namespaces.
set -eu

image=$1
if [ "${2:-}" != inside ]; then
	exec unshare --mount --net --propagation private -- "$0" "$image" inside
fi

dir=$(mktemp -d)
trap 'status=$?; podman rm --force fragwall-test >/dev/null 2>&1 || :; podman rm --force --time 0 fragwall-test-web >/dev/null 2>&1 || :; podman volume rm --force fragwall-test >/dev/null 2>&1 || :; umount "$dir/web" "$dir" || :; rmdir "$dir"; exit $status' EXIT
mount -t tmpfs none "$dir"
mkdir -p /run/netns
mount -t tmpfs none /run/netns
if [ ! -e /sys/fs/cgroup/cgroup.controllers ]; then # runtimes refuse the hybrid layout
	umount -R /sys/fs/cgroup
	mount -t cgroup2 none /sys/fs/cgroup
fi

ip netns add pod
ip netns add peer
ip -n pod link add eth0 type veth peer name eth0 netns peer
ip -n pod addr add 192.0.2.2/24 dev eth0
ip -n peer addr add 192.0.2.1/24 dev eth0
for ns in pod peer; do
	ip -n $ns link set lo up
	ip -n $ns link set eth0 up
done
while ip -n pod addr | grep -q tentative; do sleep 0.1; done
ip -n pod route add default via 192.0.2.1
ip netns exec pod ping -q -c 1 -W 5 192.0.2.1
ip -n pod addr show dev eth0 >"$dir/before"
ip -n pod route >>"$dir/before"

cat >"$dir/fragwall.toml" <<-TOML
	[inside]
	tap = "fw-in"
	[outside]
	tap = "fw-out"
	[[rule]]
	name = "small pings"
	action = "accept"
	protocol = "icmp"
	fragmented = false
TOML
mkdir "$dir/web"
mount --bind / "$dir/web" # a root with programs that a container can run
mknod -m 666 "$dir/tun" c 10 200 # as udev creates it

# as_user ARGUMENT...: run the image by podman with these arguments, and expect the
# fast path to be in state $fast.
fast='off (rights)'
as_user() {
	echo "podman run $*"
	podman run --detach "$@" --name fragwall-test --network container:fragwall-test-web --cgroups disabled \
		--ulimit nofile=1024:1024 --ulimit nproc=1024:1024 \
		--read-only --cap-drop ALL --cap-add NET_ADMIN --device "$dir/tun:/dev/net/tun" \
		--volume "$dir/fragwall.toml:/etc/fragwall/fragwall.toml:ro" \
		"$image" sidecar -c /etc/fragwall/fragwall.toml --nic eth0
	until podman logs fragwall-test 2>&1 | grep -w ready; do
		podman container inspect --format '{{.State.Running}}' fragwall-test | grep -q true || { podman logs fragwall-test; exit 1; }
		sleep 0.1
	done

	grep -E '^(Uid|CapEff|CapBnd|NoNewPrivs):' "/proc/$(podman container inspect --format '{{.State.Pid}}' fragwall-test)/status"
	podman exec fragwall-test /usr/bin/fragwall status >"$dir/status"
	head -n 1 "$dir/status" | grep -w ready
	grep "^fast path: $fast" "$dir/status" || { cat "$dir/status" >&2; exit 1; }
	podman exec fragwall-test /usr/bin/fragwall reload
	podman exec fragwall-test /usr/bin/fragwall reload -c /etc/fragwall/fragwall.toml
	podman exec --env XDG_RUNTIME_DIR=/elsewhere fragwall-test /usr/bin/fragwall status -c /etc/fragwall/fragwall.toml >/dev/null
	ip netns exec pod ping -q -c 3 -i 0.2 -W 5 192.0.2.1
	if ip netns exec pod ping -q -c 1 -W 1 -s 4000 192.0.2.1; then
		echo "a ping in fragments passed, against the rules" >&2
		exit 1
	fi
	ip -n pod -brief addr
	podman stop --time 10 fragwall-test >/dev/null
	ip -n pod addr show dev eth0 >"$dir/after"
	ip -n pod route >>"$dir/after"
	diff "$dir/before" "$dir/after"
	ip netns exec pod ping -q -c 1 -W 5 -s 4000 192.0.2.1
	podman rm fragwall-test >/dev/null
	podman volume rm fragwall-test >/dev/null
}
podman run --detach --name fragwall-test-web --network ns:/run/netns/pod --cgroups disabled \
	--ulimit nofile=1024:1024 --ulimit nproc=1024:1024 --read-only --read-only-tmpfs=false --rootfs "$dir/web" /bin/sleep 1000
# As docs/sidecar.md says.
as_user --volume fragwall-test:/run:U
as_user --volume fragwall-test:/run:U --read-only-tmpfs=false # nothing is mounted at /tmp
as_user --volume fragwall-test:/run --user 0:0 --security-opt no-new-privileges --read-only-tmpfs=false
# The fast path needs another capability, and a seccomp profile that permits bpf(2) with
# it. The profile of podman 4 does not.
fast=on
as_user --volume fragwall-test:/run:U --cap-add BPF --security-opt seccomp=unconfined
as_user --volume fragwall-test:/run --user 0:0 --security-opt no-new-privileges --read-only-tmpfs=false --cap-add BPF --security-opt seccomp=unconfined
echo "image $image: ok"
