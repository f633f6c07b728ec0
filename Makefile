# Everything fragwall is built, shown and tested with. Needs Go; what else a
# target needs, it installs (Debian packages, as root).

GO      ?= go
FUZZTIME ?= 10s
BIN     := bin/fragwall

.PHONY: all build demo test unit integration race lint fuzz bench install-tools clean

all: build

build:
	$(GO) build -o $(BIN) ./cmd/fragwall

# The main job, shown: two hosts, the box between them, an exchange allowed by
# one rule and denied by another.
demo: build
	./$(BIN) demo

test: unit integration

# No rights needed.
unit:
	$(GO) test $$($(GO) list ./... | grep -v /integration)

# Real kernels at both ends, in network namespaces of its own.
integration: install-tools
	$(GO) test -count=1 ./integration/...

race:
	$(GO) test -race $$($(GO) list ./... | grep -v /integration)

lint:
	@out=$$(gofmt -l .); test -z "$$out" || { echo "not gofmt-clean:"; echo "$$out"; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	$(GO) mod verify
	$(GO) mod tidy -diff

# Every fuzz target for FUZZTIME.
fuzz:
	@for pkg in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
	    echo "$$pkg $$target"; \
	    $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x $$pkg || exit 1; \
	  done; \
	done

bench:
	$(GO) test -run '^$$' -bench . -benchmem ./...

# ping is what the integration tests need beside Go.
install-tools:
	@command -v ping >/dev/null || { \
	  test "$$(id -u)" = 0 && command -v apt-get >/dev/null || { echo "ping is missing: install iputils-ping"; exit 1; }; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq iputils-ping; }

clean:
	rm -rf bin
