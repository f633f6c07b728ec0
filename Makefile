# Targets to build, test and measure fragwall. They need Go. A target installs
# whatever else it needs (Debian packages, as root).

GO      ?= go
FUZZTIME ?= 100000x
ATTACK  ?=
BENCHTIME ?= 200ms
COUNT   ?= 6
ROUNDS  ?= 5
BIN     := bin/fragwall
SOAKTIME ?= 10m
HANDOVER ?= 1
PREFIX  ?= /usr/local

VERSION := $(shell sed -n 's/^const version = "\(.*\)"/\1/p' cmd/fragwall/version.go)
# The time stamp of everything in a package: the time of the last commit.
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
export SOURCE_DATE_EPOCH
ARCHITECTURES := amd64 arm64
STATIC := $(ARCHITECTURES:%=build/linux-%/fragwall)
PODMAN ?= podman
IMAGE  ?= fragwall:$(VERSION)

.PHONY: all help build demo test unit integration race cover lint fuzz fuzz-long attack bench bench-wire soak bpf test-bpf handover install install-clang install-emulator install-tools install-readers install-nft install-bench clean \
	image test-image share dist test-package test-arm64 test-systemd test-reproducible test-deploy test-cluster FORCE

all: build

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "%-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## the program, bin/fragwall
	$(GO) build -o $(BIN) ./cmd/fragwall

# Two hosts, the box between them, an exchange that one rule accepts, and one that
# another rule denies.
demo: build ## show the main job between two hosts in namespaces (root)
	./$(BIN) demo

test: unit integration ## unit and integration tests

# These tests need no rights.
unit: install-readers ## unit tests; no rights needed
	$(GO) test $$($(GO) list ./... | grep -v /integration)

# Real kernels at both ends, in network namespaces that the tests create.
integration: install-tools install-nft ## integration tests in network namespaces (root)
	$(GO) test -count=1 ./integration/...
	FAST_PATH=off $(GO) test -count=1 -run '^Test($(SLOW_PATH))$$' ./integration

# Tests that also run without the fast path, so that every frame uses the process.
SLOW_PATH = UDP|Ping|TCP|VLANs|Order|OrderInVLANs|BytesOfFrames|FragmentsOfMany|DeniedPort|DeniedBetweenKernels|StatefulBetweenKernels|ReloadBetweenKernels|KernelAgrees|NICRemovedAndBack|SidecarKilled|OrderInSidecar|Replace

race: install-readers ## unit tests with the race detector
	$(GO) test -race $$($(GO) list ./... | grep -v /integration)

# The statements of COVERED that no unit test runs, as FILE:LINES, and the share that
# is run. Statements that only integration tests run count as not run.
COVERED = $$($(GO) list ./... | grep -v /integration)
cover: install-readers ## statements that no unit test runs
	@mkdir -p build
	$(GO) test -coverprofile=build/cover.out -coverpkg=./... $(COVERED)
	@awk 'NR > 1 { runs[$$1] += $$3 } END { for (b in runs) if (!runs[b]) { sub(/\.[0-9]+,/, "-", b); sub(/\.[0-9]+$$/, "", b); print b } }' build/cover.out | sort -V
	@$(GO) tool cover -func=build/cover.out | tail -1

lint: ## gofmt, vet, staticcheck, go.mod
	@out=$$(gofmt -l .); test -z "$$out" || { echo "not gofmt-clean:"; echo "$$out"; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	$(GO) mod verify
	$(GO) mod tidy -diff

# Every fuzz target for FUZZTIME: a number of inputs, or a time. Before Go 1.27 the end
# of a time may be reported as a failure (golang/go#75804) without an input.
fuzz: ## every fuzz target for FUZZTIME
	@for pkg in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
	    echo "$$pkg $$target"; \
	    $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x $$pkg || exit 1; \
	  done; \
	done

# The same, for 20 minutes each.
fuzz-long: ## every fuzz target for 20 minutes
	$(MAKE) fuzz FUZZTIME=20m

# Honest traffic under floods, through fragwall and through the kernel's bridge: see
# docs/attack.md. ATTACK has the arguments of the program, such as -quick or -help.
attack: build install-nft ## honest traffic under floods (root)
	$(GO) build -o bin/attack ./integration/attack
	./bin/attack -fragwall $(BIN) $(ATTACK)

# Every Go benchmark, COUNT times for BENCHTIME, summarized by benchstat. BASE=FILE
# compares with the bin/bench.txt of an earlier run.
bench: ## every Go benchmark; BASE=FILE compares
	@mkdir -p bin
	$(GO) test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) -count $(COUNT) ./... | tee bin/bench.txt
	$(GO) tool -modfile=tools/go.mod benchstat $(BASE) bin/bench.txt

# Throughput and latency of the box and of the kernel's bridge between two hosts, for
# ROUNDS rounds of about three minutes. BENCHFLAGS=-update=FILE also writes the tables
# to a file. Needs root.
bench-wire: install-bench ## compare with the kernel's bridge (root)
	$(GO) run ./integration/bench -rounds $(ROUNDS) $(BENCHFLAGS)

install-bench:
	@test "$$(command -v nft iperf3 ethtool ping | wc -l)" = 4 || { \
	  test "$$(id -u)" = 0 && command -v apt-get >/dev/null || { echo "install nftables, iperf3, ethtool and iputils-ping"; exit 1; }; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq nftables iperf3 ethtool iputils-ping; }

# Whole packets, fragments and attacks for SOAKTIME: nothing may grow, all counters must
# agree, and every drop must have a reason.
soak: install-tools install-nft ## mixed traffic for SOAKTIME (root)
	$(GO) test -count=1 -timeout 0 -run '^TestSoak$$' -v ./integration -soak $(SOAKTIME)

# The program with its manual pages, completions and unit, below DESTDIR.
install: share ## the program with manual pages, completions and unit, to PREFIX
	install -D -m 755 $(BIN) $(DESTDIR)$(PREFIX)/bin/fragwall
	install -D -m 644 build/share/fragwall.8.gz $(DESTDIR)$(PREFIX)/share/man/man8/fragwall.8.gz
	install -D -m 644 build/share/fragwall.toml.5.gz $(DESTDIR)$(PREFIX)/share/man/man5/fragwall.toml.5.gz
	install -D -m 644 build/share/fragwall.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/fragwall
	install -D -m 644 build/share/_fragwall $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_fragwall
	install -D -m 644 build/share/fragwall.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/fragwall.fish
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	sed 's,@PREFIX@,$(PREFIX),' deploy/systemd/fragwall.service >$(DESTDIR)$(PREFIX)/lib/systemd/system/fragwall.service

# What the integration tests need besides Go, as package:command.
install-tools:
	@for tool in iputils-ping:ping iproute2:ip tcpdump:tcpdump tshark:tshark chromium:chromium; do \
	  command -v $${tool#*:} >/dev/null && continue; \
	  test "$$(id -u)" = 0 && command -v apt-get >/dev/null || { echo "$${tool#*:} is missing: install $${tool%:*}"; exit 1; }; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $${tool%:*} || exit 1; \
	done

# What the unit tests compare captures, network devices and spelling with.
install-readers:
	@for tool in tcpdump:tcpdump wireshark-common:editcap iproute2:ip hunspell:hunspell hunspell-en-gb:/usr/share/hunspell/en_GB.dic; do \
	  command -v $${tool#*:} >/dev/null || test -e $${tool#*:} && continue; \
	  test "$$(id -u)" = 0 && command -v apt-get >/dev/null || { echo "$${tool#*:} is missing, and its test is skipped: install $${tool%:*}"; continue; }; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $${tool%:*} || exit 1; \
	done

# The eBPF programs, after a change of their source.
bpf: install-clang ## compile the kernel's programs (fastpath/bpf, tun/tap/bpf)
	$(GO) generate ./fastpath ./tun/tap

# Clang, with which test-bpf checks that the programs match their source.
install-clang:
	@test "$$(command -v clang llvm-strip | wc -l)" = 2 && test -e /usr/include/bpf/bpf_helpers.h || { \
	  test "$$(id -u)" = 0 && command -v apt-get >/dev/null || { echo "install clang, llvm and libbpf-dev"; exit 1; }; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq clang llvm libbpf-dev; }

test-bpf: bpf ## check that the kernel's programs match their source
	git diff --exit-code -- fastpath tun/tap

install-nft:
	@test "$$(command -v nft conntrack | wc -l)" = 2 || { \
	  test "$$(id -u)" = 0 && command -v apt-get >/dev/null || { echo "install nftables and conntrack"; exit 1; }; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq nftables conntrack; }

# The same source gives the same binary, wherever it is built.
build/linux-%/fragwall: FORCE
	CGO_ENABLED=0 GOOS=linux GOARCH=$* $(GO) build -trimpath -buildvcs=false -ldflags '-s -w -buildid=' -o $@ ./cmd/fragwall

FORCE:

# The image: the binary alone, built without a registry. PODMAN=docker builds it with
# Docker, which has no flags for a reproducible image.
IMAGEFLAGS := $(if $(filter podman,$(notdir $(PODMAN))),--isolation chroot --timestamp $(SOURCE_DATE_EPOCH))
image: build/linux-$(shell $(GO) env GOARCH)/fragwall build/share/NOTICES ## the container image, by podman or PODMAN=docker
	rm -rf build/image
	install -D -t build/image $<
	install -m 644 -t build/image LICENSE build/share/NOTICES
	$(PODMAN) build $(IMAGEFLAGS) --file deploy/Containerfile --tag $(IMAGE) build/image

# The image as a sidecar, in namespaces. Needs root, iproute2, and Debian's podman and
# crun.
test-image: image ## the image as a sidecar (root)
	deploy/test/image.sh $(IMAGE)

# For each architecture a static binary, its bill of materials and packages for
# Debian, RPM and Alpine, and the checksums of all.
dist: $(STATIC) share build/share/NOTICES ## static binaries, packages for Debian, RPM and Alpine, checksums
	rm -rf dist
	mkdir -p dist
	sed 's,@PREFIX@,/usr,' deploy/systemd/fragwall.service >build/share/fragwall.service
	gzip -9n <deploy/debian/changelog >build/share/changelog.gz
	install -D -t build/share/alpine deploy/alpine/*
	touch -d @$(SOURCE_DATE_EPOCH) build/share/alpine/* # nfpm keeps their times
	set -e; for arch in $(ARCHITECTURES); do \
	  binary=fragwall-$(VERSION)-linux-$$arch; \
	  cp build/linux-$$arch/fragwall dist/$$binary; \
	  for packager in deb rpm apk; do \
	    VERSION=$(VERSION) ARCH=$$arch \
	      $(GO) tool -modfile=tools/go.mod nfpm package --config deploy/nfpm.yaml --packager $$packager --target dist/; \
	  done; \
	  $(GO) tool -modfile=tools/go.mod cyclonedx-gomod bin -json -licenses -std -noserial -version v$(VERSION) -output dist/$$binary.cdx.json dist/$$binary; \
	done
	sed -i 's/"timestamp": "[^"]*"/"timestamp": "'"$$(date -u -d @$(SOURCE_DATE_EPOCH) +%Y-%m-%dT%H:%M:%SZ)"'"/' dist/*.cdx.json
	cd dist && ls | LC_ALL=C sort | xargs sha256sum >../build/SHA256SUMS
	cp build/SHA256SUMS dist/

# The licences of linked modules require that their texts are distributed, too.
build/share/NOTICES: FORCE
	mkdir -p $(@D)
	{ printf 'Go\n\n' && cat "$$($(GO) env GOROOT)/LICENSE" && \
	  GOOS=linux $(GO) list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}' ./cmd/fragwall | LC_ALL=C sort -u | \
	  while read -r module version dir; do \
	    texts=$$(find "$$dir" -maxdepth 1 -type f -iregex '.*/\(licen[cs]e\|copying\|notice\|patents\)[^/]*' | LC_ALL=C sort); \
	    printf '\n\n%s %s\n\n' "$$module" "$$version"; \
	    cat $${texts:?no licence of $$module} || exit; \
	  done; } >$@

# The manual pages and completions.
share: build ## manual pages and completions
	mkdir -p build/share
	$(GO) run -C tools ./manpage $(CURDIR)/$(BIN) | gzip -9n >build/share/fragwall.8.gz
	$(GO) run -C tools ./manpage -config $(CURDIR)/rules/testdata/reference.toml $(CURDIR)/examples/*.toml | gzip -9n >build/share/fragwall.toml.5.gz
	./$(BIN) completion bash >build/share/fragwall.bash
	./$(BIN) completion zsh >build/share/_fragwall
	./$(BIN) completion fish >build/share/fragwall.fish

# The result of "make dist": read by lintian, run, and installed, upgraded and removed
# in throw-away roots. Needs root, debootstrap, lintian, rpm, busybox-static, and
# qemu-user-static for the binaries of other architectures.
test-package: dist ## install, upgrade and remove the packages (root)
	deploy/test/package.sh dist
	deploy/test/rpm.sh dist
	deploy/test/apk.sh dist

# The unit tests as an arm64 machine runs them. The others need what the emulator lacks:
# io_uring, BPF, devices, and the right to run their own binary again.
EMULATED ?= ./packet/... ./filter/... ./rules ./stack/... ./tun/capture ./tun/ufo ./wire $$($(GO) list ./cmd/fragwall/internal/... | grep -vE "/(confine|sidecar)")
test-arm64: install-emulator ## unit tests on an emulated arm64
	GOARCH=arm64 CGO_ENABLED=0 $(GO) test -exec qemu-aarch64-static -timeout 60m -skip '^TestPanicEndsTheProcess$$' $(EMULATED)

install-emulator:
	@command -v qemu-aarch64-static >/dev/null || { \
	  test "$$(id -u)" = 0 && command -v apt-get >/dev/null || { echo "install qemu-user-static"; exit 1; }; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq qemu-user-static; }

# "make dist" and "make image" twice, from two clones: the results must be identical.
# Needs root and podman, and takes a few minutes.
test-reproducible: ## build twice and compare (root)
	deploy/test/reproducible.sh

# The package's unit under systemd in a throw-away root, restarted twenty times under so
# much of the full load (integration/meter) as HANDOVER says. Needs root, debootstrap and
# iproute2.
test-systemd: dist ## the unit under systemd (root)
	$(GO) build -o bin/handover ./integration/handover
	deploy/test/systemd.sh dist/fragwall_$(VERSION)*_$(shell $(GO) env GOARCH).deb bin/handover $(HANDOVER)

# Hand-overs from one process to the next, as often as docs/upgrade.md says, and under
# so much of the load there as HANDOVER says; make integration has a few under little.
handover: install-tools install-nft ## hand-overs under load, kills at 200 moments (root)
	$(GO) test -count=1 -timeout 0 -run '^TestReplace' -v ./integration -handover $(HANDOVER)
	FAST_PATH=off $(GO) test -count=1 -timeout 0 -run '^TestReplace$$' -v ./integration -handover $(HANDOVER)

# The manifests, rendered and read as the Kubernetes API reads them, and the alerts.
test-deploy: install-promtool ## render and check the manifests; test the alerts
	cd deploy && $(GO) vet ./... && $(GO) test ./...
	promtool test rules deploy/prometheus/fragwall.test.yml

install-promtool:
	@command -v promtool >/dev/null || { \
	  test "$$(id -u)" = 0 && command -v apt-get >/dev/null || { echo "install prometheus, which has promtool"; exit 1; }; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends prometheus; }

# The injection into pods, by a Kubernetes API server without nodes, on loopback, and
# one of these pods by podman. Needs root, iproute2, and podman and crun as Debian has
# them; the first time it builds Kubernetes, in about 10 minutes.
test-cluster: image ## the injection into pods, by an API server (root)
	mkdir -p build/cluster
	cd deploy/cluster && $(GO) build -o ../../build/cluster/etcd go.etcd.io/etcd/server/v3
	cd deploy/cluster && $(GO) build -o ../../build/cluster/ -ldflags '-X k8s.io/component-base/version.gitVersion=v1.37.0' \
	  k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kube-controller-manager k8s.io/kubernetes/cmd/kubectl
	cd deploy/cluster && $(GO) vet . && CGO_ENABLED=0 $(GO) test -count=1 . -image $(IMAGE)

clean: ## remove what was built
	rm -rf bin build dist
