# Targets to build, test and measure fragwall. They need Go. If run as root on Debian, the
# targets install the packages that tests need.

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
# The time stamp of all files in packages and images: the time of the last commit.
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
export SOURCE_DATE_EPOCH
ARCHITECTURES := amd64 arm64
STATIC := $(ARCHITECTURES:%=build/linux-%/fragwall)
PODMAN ?= podman
IMAGE  ?= fragwall:$(VERSION)

.PHONY: all help build demo test unit integration race cover lint fuzz fuzz-long attack bench bench-wire soak bpf test-bpf handover install install-clang install-emulator install-tools install-readers install-nft install-bench clean \
	image test-image share dist test-package test-arm64 test-systemd test-reproducible test-deploy test-cluster FORCE

all: build

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "%-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build the program, bin/fragwall
	$(GO) build -o $(BIN) ./cmd/fragwall

# Two hosts with the box between them. One rule accepts an exchange between the hosts, and
# another rule denies one.
demo: build ## show reassembly and filtering between two hosts in namespaces (root)
	./$(BIN) demo

test: unit integration ## run unit and integration tests

unit: install-readers ## run unit tests; no root needed
	$(GO) test $$($(GO) list ./... | grep -v /integration)

# The hosts are real kernels, in network namespaces that the tests create.
integration: install-tools install-nft ## run integration tests in network namespaces (root)
	$(GO) test -count=1 ./integration/...
	FAST_PATH=off $(GO) test -count=1 -run '^Test($(SLOW_PATH))$$' ./integration

# Tests that also run without the fast path, so that the process handles every frame.
SLOW_PATH = UDP|Ping|TCP|VLANs|Order|OrderInVLANs|FramesUnchanged|InterleavedFragments|DeniedPort|DeniedBetweenKernels|StatefulBetweenKernels|ReloadBetweenKernels|KernelAgrees|NICReturns|SidecarKilled|OrderInSidecar|Replace

# With -short, tests with many inputs use fewer inputs. The race detector makes these tests
# several times slower, and most of them run in one goroutine.
race: install-readers ## run unit tests with the race detector
	$(GO) test -race -short $$($(GO) list ./... | grep -v /integration)

# Prints the statements of COVERED that no unit test runs, as FILE:LINES, and the share of
# statements that are run. Statements that only integration tests run count as not run.
COVERED = $$($(GO) list ./... | grep -v /integration)
cover: install-readers ## list statements that no unit test runs
	@mkdir -p build
	$(GO) test -coverprofile=build/cover.out -coverpkg=./... $(COVERED)
	@awk 'NR > 1 { runs[$$1] += $$3 } END { for (b in runs) if (!runs[b]) { sub(/\.[0-9]+,/, "-", b); sub(/\.[0-9]+$$/, "", b); print b } }' build/cover.out | sort -V
	@$(GO) tool cover -func=build/cover.out | tail -1

lint: ## run gofmt, vet and staticcheck, and check go.mod
	@out=$$(gofmt -l .); test -z "$$out" || { echo "not gofmt-clean:"; echo "$$out"; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	$(GO) mod verify
	$(GO) mod tidy -diff

# FUZZTIME is a number of inputs, or a duration. Go before 1.27 may report the end of the
# duration as a failure without an input (golang/go#75804).
fuzz: ## run every fuzz target for FUZZTIME
	@grep -ro --include='*_test.go' '^func Fuzz[A-Za-z0-9]*' . | sort | while IFS=: read -r file function; do \
	  echo "$$file $$function"; \
	  $(GO) test -run '^$$' -fuzz "^$${function#func }$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x "$$(dirname "$$file")" </dev/null || exit 1; \
	done

fuzz-long: ## run every fuzz target for 20 minutes
	$(MAKE) fuzz FUZZTIME=20m

# Honest traffic under floods, through fragwall and through the kernel's bridge: see
# docs/attack.md. ATTACK holds the arguments of the program, such as -quick or -help.
attack: build install-nft ## measure honest traffic under floods (root)
	$(GO) build -o bin/attack ./integration/attack
	./bin/attack -fragwall $(BIN) $(ATTACK)

# Runs every benchmark COUNT times for BENCHTIME; benchstat summarizes the results. BASE=FILE
# compares them with the bin/bench.txt of an earlier run.
bench: ## run every Go benchmark; BASE=FILE compares
	@mkdir -p bin
	$(GO) test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) -count $(COUNT) ./... | tee bin/bench.txt
	$(GO) tool -modfile=tools/go.mod benchstat $(BASE) bin/bench.txt

# Throughput and latency of the box and of the kernel's bridge between two hosts, in
# ROUNDS rounds of about three minutes. BENCHFLAGS=-update=FILE also writes the tables
# to a file.
bench-wire: install-bench ## compare with the kernel's bridge (root)
	$(GO) run ./integration/bench -rounds $(ROUNDS) $(BENCHFLAGS)

install-bench:
	@test "$$(command -v nft iperf3 ethtool ping | wc -l)" = 4 || { \
	  test "$$(id -u)" = 0 && command -v apt-get >/dev/null || { echo "install nftables, iperf3, ethtool and iputils-ping"; exit 1; }; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq nftables iperf3 ethtool iputils-ping; }

# Whole packets, fragments and attacks for SOAKTIME. The test checks that memory does not grow,
# that the counters are consistent, and that every drop has a reason.
soak: install-tools install-nft ## run mixed traffic for SOAKTIME (root)
	$(GO) test -count=1 -timeout 0 -run '^TestSoak$$' -v ./integration -soak $(SOAKTIME)

# DESTDIR is prepended to all paths.
install: share ## install the program, manual pages, completions and unit to PREFIX
	install -D -m 755 $(BIN) $(DESTDIR)$(PREFIX)/bin/fragwall
	install -D -m 644 build/share/fragwall.8.gz $(DESTDIR)$(PREFIX)/share/man/man8/fragwall.8.gz
	install -D -m 644 build/share/fragwall.toml.5.gz $(DESTDIR)$(PREFIX)/share/man/man5/fragwall.toml.5.gz
	install -D -m 644 build/share/fragwall.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/fragwall
	install -D -m 644 build/share/_fragwall $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_fragwall
	install -D -m 644 build/share/fragwall.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/fragwall.fish
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	sed 's,@PREFIX@,$(PREFIX),' deploy/systemd/fragwall.service >$(DESTDIR)$(PREFIX)/lib/systemd/system/fragwall.service

# Programs that the integration tests use, as package:command.
install-tools:
	@for tool in iputils-ping:ping iproute2:ip tcpdump:tcpdump tshark:tshark chromium:chromium; do \
	  command -v $${tool#*:} >/dev/null && continue; \
	  test "$$(id -u)" = 0 && command -v apt-get >/dev/null || { echo "$${tool#*:} is missing: install $${tool%:*}"; exit 1; }; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $${tool%:*} || exit 1; \
	done

# Programs that the unit tests use, as package:command or package:file.
install-readers:
	@for tool in tcpdump:tcpdump wireshark-common:editcap iproute2:ip hunspell:hunspell hunspell-en-gb:/usr/share/hunspell/en_GB.dic; do \
	  command -v $${tool#*:} >/dev/null || test -e $${tool#*:} && continue; \
	  test "$$(id -u)" = 0 && command -v apt-get >/dev/null || { echo "$${tool#*:} is missing, and its test is skipped: install $${tool%:*}"; continue; }; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $${tool%:*} || exit 1; \
	done

# Run this after a change to the source of the eBPF programs.
bpf: install-clang ## compile the eBPF programs (fastpath/bpf, tun/tap/bpf)
	$(GO) generate ./fastpath ./tun/tap

install-clang:
	@test "$$(command -v clang llvm-strip | wc -l)" = 2 && test -e /usr/include/bpf/bpf_helpers.h || { \
	  test "$$(id -u)" = 0 && command -v apt-get >/dev/null || { echo "install clang, llvm and libbpf-dev"; exit 1; }; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq clang llvm libbpf-dev; }

test-bpf: bpf ## check that the eBPF programs match their source
	git diff --exit-code -- fastpath tun/tap

install-nft:
	@test "$$(command -v nft conntrack | wc -l)" = 2 || { \
	  test "$$(id -u)" = 0 && command -v apt-get >/dev/null || { echo "install nftables and conntrack"; exit 1; }; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq nftables conntrack; }

# The build is reproducible: the binary depends only on the source and on the Go version.
build/linux-%/fragwall: FORCE
	CGO_ENABLED=0 GOOS=linux GOARCH=$* $(GO) build -trimpath -buildvcs=false -ldflags '-s -w -buildid=' -o $@ ./cmd/fragwall

FORCE:

# The image contains only the binary and licences. The build needs no registry. PODMAN=docker
# builds the image with Docker, which has no flags for a reproducible image.
IMAGEFLAGS := $(if $(filter podman,$(notdir $(PODMAN))),--isolation chroot --timestamp $(SOURCE_DATE_EPOCH))
image: build/linux-$(shell $(GO) env GOARCH)/fragwall build/share/NOTICES ## build the container image, with podman or PODMAN=docker
	rm -rf build/image
	install -D -t build/image $<
	install -m 644 -t build/image LICENSE build/share/NOTICES
	$(PODMAN) build $(IMAGEFLAGS) --file deploy/Containerfile --tag $(IMAGE) build/image

# Needs root, iproute2, and Debian's podman and crun.
test-image: image ## test the image as a sidecar (root)
	deploy/test/image.sh $(IMAGE)

# For each architecture: a static binary, its bill of materials (SBOM), and packages for
# Debian, RPM and Alpine. SHA256SUMS has the checksums of all files.
dist: $(STATIC) share build/share/NOTICES ## build static binaries, packages for Debian, RPM and Alpine, checksums
	rm -rf dist
	mkdir -p dist
	sed 's,@PREFIX@,/usr,' deploy/systemd/fragwall.service >build/share/fragwall.service
	gzip -9n <deploy/debian/changelog >build/share/changelog.gz
	install -D -t build/share/alpine deploy/alpine/*
	touch -d @$(SOURCE_DATE_EPOCH) build/share/alpine/* # nfpm copies their time stamps
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

# The licences of the linked modules require that their texts are distributed with the binary.
build/share/NOTICES: FORCE
	mkdir -p $(@D)
	{ printf 'Go\n\n' && cat "$$($(GO) env GOROOT)/LICENSE" && \
	  GOOS=linux $(GO) list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}' ./cmd/fragwall | LC_ALL=C sort -u | \
	  while read -r module version dir; do \
	    texts=$$(find "$$dir" -maxdepth 1 -type f -iregex '.*/\(licen[cs]e\|copying\|notice\|patents\)[^/]*' | LC_ALL=C sort); \
	    printf '\n\n%s %s\n\n' "$$module" "$$version"; \
	    cat $${texts:?no licence of $$module} || exit; \
	  done; } >$@

share: build ## build manual pages and completions
	mkdir -p build/share
	$(GO) run -C tools ./manpage $(CURDIR)/$(BIN) | gzip -9n >build/share/fragwall.8.gz
	$(GO) run -C tools ./manpage -config $(CURDIR)/rules/testdata/reference.toml $(CURDIR)/examples/*.toml | gzip -9n >build/share/fragwall.toml.5.gz
	./$(BIN) completion bash >build/share/fragwall.bash
	./$(BIN) completion zsh >build/share/_fragwall
	./$(BIN) completion fish >build/share/fragwall.fish

# Checks the result of "make dist" with lintian, runs the binaries, and installs, upgrades and
# removes the packages in throw-away roots. Needs root, debootstrap, lintian, rpm,
# busybox-static, and qemu-user-static for the binaries of other architectures.
test-package: dist ## install, upgrade and remove the packages (root)
	deploy/test/package.sh dist
	deploy/test/rpm.sh dist
	deploy/test/apk.sh dist

# The unit tests under an arm64 emulator. Packages that are not in EMULATED need features that
# the emulator lacks: io_uring, BPF, devices, or running their own binary again.
EMULATED ?= ./packet/... ./filter/... ./rules ./stack/... ./tun/capture ./tun/ufo ./wire $$($(GO) list ./cmd/fragwall/internal/... | grep -vE "/(confine|sidecar)")
test-arm64: install-emulator ## run unit tests on an emulated arm64
	GOARCH=arm64 CGO_ENABLED=0 $(GO) test -exec qemu-aarch64-static -timeout 60m -skip '^TestPanicEndsTheProcess$$' $(EMULATED)

install-emulator:
	@command -v qemu-aarch64-static >/dev/null || { \
	  test "$$(id -u)" = 0 && command -v apt-get >/dev/null || { echo "install qemu-user-static"; exit 1; }; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq qemu-user-static; }

# Runs "make dist" and "make image" in two clones and compares the results. Needs root and
# podman, and takes a few minutes.
test-reproducible: ## build twice and compare (root)
	deploy/test/reproducible.sh

# Runs the package's unit under systemd in a throw-away root, and restarts it twenty times
# under load. HANDOVER is the load as a share of the full load (integration/meter). Needs root,
# debootstrap and iproute2.
test-systemd: dist ## test the unit under systemd (root)
	$(GO) build -o bin/handover ./integration/handover
	deploy/test/systemd.sh dist/fragwall_$(VERSION)*_$(shell $(GO) env GOARCH).deb bin/handover $(HANDOVER)

# The hand-overs that docs/upgrade.md describes. HANDOVER is the load as a share of the full
# load described there. "make integration" runs a few hand-overs under low load.
handover: install-tools install-nft ## test hand-overs under load, and kills at 200 moments (root)
	$(GO) test -count=1 -timeout 0 -run '^TestReplace' -v ./integration -handover $(HANDOVER)
	FAST_PATH=off $(GO) test -count=1 -timeout 0 -run '^TestReplace$$' -v ./integration -handover $(HANDOVER)

# Decodes the rendered manifests as the Kubernetes API does.
test-deploy: install-promtool ## render and check the manifests; test the alerts
	cd deploy && $(GO) vet ./... && $(GO) test ./...
	promtool test rules deploy/prometheus/fragwall.test.yml

install-promtool:
	@command -v promtool >/dev/null || { \
	  test "$$(id -u)" = 0 && command -v apt-get >/dev/null || { echo "install prometheus, which has promtool"; exit 1; }; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends prometheus; }

# Tests the injection into pods with a Kubernetes API server without nodes, on loopback, and
# runs one of these pods with podman. Needs root, iproute2, and Debian's podman and crun. The
# first run builds Kubernetes, which takes about 10 minutes.
test-cluster: image ## test the injection into pods with an API server (root)
	mkdir -p build/cluster
	cd deploy/cluster && $(GO) build -o ../../build/cluster/etcd go.etcd.io/etcd/server/v3
	cd deploy/cluster && $(GO) build -o ../../build/cluster/ -ldflags '-X k8s.io/component-base/version.gitVersion=v1.37.0' \
	  k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kube-controller-manager k8s.io/kubernetes/cmd/kubectl
	cd deploy/cluster && $(GO) vet . && CGO_ENABLED=0 $(GO) test -count=1 . -image $(IMAGE)

clean: ## remove build output
	rm -rf bin build dist
