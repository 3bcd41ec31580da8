# The face of the project: each target installs what it needs (tools/setup), then does it.
MAKEFLAGS += --no-print-directory
FUZZ_SECONDS ?= 30
SIM_SECONDS ?= 60
SIM_SEED ?= $(shell date +%s)
BUILD := build
BINARIES = $(CURDIR)/$(BUILD)/src/lab:$(CURDIR)/$(BUILD)/src/hostd:$(CURDIR)/$(BUILD)/src/ctl:$(CURDIR)/$(BUILD)/src/pg:$(CURDIR)/$(BUILD)/src/sip
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo -E)

.PHONY: all demo test bench numbers bench-directory bench-failover bench-pg bench-takeover bench-sip compat pg-chaos tcp-chaos takeover-chaos sip-chaos chaos test-upgrade sim sim-large fuzz lint package test-package clean setup-%

all: setup-build $(BUILD)/build.ninja
	ninja -C $(BUILD)

# a set-up that was broken off is done again; ninja looks after changed options itself
$(BUILD)/build.ninja:
	meson setup $(BUILD)

setup-%:
	@tools/setup $*

demo: setup-demo $(BUILD)/build.ninja
	@ninja -C $(BUILD) --quiet
	@$(SUDO) HOLD="$(HOLD)" bench/demo/run

test: setup-test
	@tools/run-tests

# all of them with their peers, then the page: nearly two hours of a machine that does nothing else
bench: setup-bench
	@r=0; for b in directory failover pg takeover sip; do $(MAKE) bench-$$b || r=1; done; $(MAKE) numbers || r=1; exit $$r

# doc/numbers.md, with its plots, of what the benches last wrote
numbers: setup-bench
	@bench/numbers

bench-directory: setup-bench $(BUILD)/build.ninja
	@ninja -C $(BUILD) --quiet
	@$(SUDO) bench/directory

bench-failover: setup-bench $(BUILD)/build.ninja
	@ninja -C $(BUILD) --quiet
	@$(SUDO) bench/failover/run

bench-pg: setup-bench $(BUILD)/build.ninja
	@ninja -C $(BUILD) --quiet
	@r=0; $(SUDO) bench/pg/run || r=1; $(SUDO) bench/pg/move || r=1; exit $$r

bench-takeover: setup-bench $(BUILD)/build.ninja
	@ninja -C $(BUILD) --quiet
	@$(SUDO) HOLDFAST_BIN="$(BINARIES)" bench/pg/takeover

bench-sip: setup-bench $(BUILD)/build.ninja
	@ninja -C $(BUILD) --quiet
	@$(SUDO) bench/sip/run

# PostgreSQL's own suites through holdfast-pg, or PROXY=pgbouncer, against a direct run: some 4 minutes
compat: setup-compat $(BUILD)/build.ninja
	@ninja -C $(BUILD) --quiet
	@$(SUDO) HOLDFAST_BIN="$(CURDIR)/$(BUILD)/src/pg" tools/compat --proxy $(or $(PROXY),holdfast-pg)

# clients that count while their PostgreSQL server dies KILLS times, from SEED
KILLS ?= 500
pg-chaos: setup-compat $(BUILD)/build.ninja
	@ninja -C $(BUILD) --quiet
	@$(SUDO) HOLDFAST_BIN="$(CURDIR)/$(BUILD)/src/pg" tests/system/pg_chaos.py --kills $(KILLS) $(if $(SEED),--seed $(SEED))

# connections of unmodified clients move between hosts MOVES times, from SEED
MOVES ?= 400
tcp-chaos: setup-test $(BUILD)/build.ninja
	@ninja -C $(BUILD) --quiet
	@$(SUDO) /usr/bin/python3 -B tests/system/tcpmove.py --moves $(MOVES) $(if $(SEED),--seed $(SEED))

# clients of all kinds while the host that has their connections dies TAKEOVERS times in every way, from SEED; IPV6=1: over IPv6
TAKEOVERS ?= 200
takeover-chaos: setup-test $(BUILD)/build.ninja
	@ninja -C $(BUILD) --quiet
	@$(SUDO) HOLDFAST_BIN="$(BINARIES)" /usr/bin/python3 -B tests/system/takeover_chaos.py --takeovers $(TAKEOVERS) $(if $(SEED),--seed $(SEED)) $(if $(IPV6),--ipv6)

# SIP clients and watchers while the server dies that is their home, ROUNDS times, and comes back
CLIENTS ?= 10000
WATCHERS ?= 1000
ROUNDS ?= 2
sip-chaos: setup-test $(BUILD)/build.ninja
	@ninja -C $(BUILD) --quiet
	@$(SUDO) HOLDFAST_BIN="$(BINARIES)" /usr/bin/python3 -B tests/system/sip_chaos.py --clients $(CLIENTS) --watchers $(WATCHERS) --rounds $(ROUNDS) $(if $(SEED),--seed $(SEED))

# the whole system, while everything happens to it, for MINUTES, from SEED
MINUTES ?= 5
chaos: setup-test $(BUILD)/build.ninja
	@ninja -C $(BUILD) --quiet
	@$(SUDO) HOLDFAST_BIN="$(BINARIES)" /usr/bin/python3 -B tests/system/chaos.py --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

# the guide to operations, from the programs of the commit FROM to these, under clients that count
test-upgrade: setup-test $(BUILD)/build.ninja
	@ninja -C $(BUILD) --quiet
	@[ -n "$(FROM)" ] || { echo "usage: make test-upgrade FROM=COMMIT" >&2; exit 2; }
	@from=$$(tools/upgrade-from "$(FROM)") && $(SUDO) HOLDFAST_FROM="$$from" HOLDFAST_BIN="$(BINARIES)" \
		/usr/bin/python3 -B -m pytest -q -p no:cacheprovider tests/system/test_operations.py

# random small clusters with every fault, for SIM_SECONDS, from SIM_SEED on
sim: setup-build $(BUILD)/build.ninja
	@ninja -C $(BUILD) --quiet
	@$(BUILD)/tests/sim/sim-engine --seed $(SIM_SEED) --runs 3000
	@$(BUILD)/tests/sim/sim-directory --seed $(SIM_SEED) --seconds $(SIM_SECONDS)
	@$(BUILD)/tests/sim/sim-pg --seed $(SIM_SEED) --seconds $(SIM_SECONDS)
	@$(BUILD)/tests/sim/sim-pair --seed $(SIM_SEED) --seconds $(SIM_SECONDS)
	@$(BUILD)/tests/sim/sim-takeover --seed $(SIM_SEED) --seconds $(SIM_SECONDS)
	@$(BUILD)/tests/sim/sim-sip --seed $(SIM_SEED) --seconds $(SIM_SECONDS)
	@$(BUILD)/tests/sim/sim-sip --seed $(SIM_SEED) --balance
	@$(BUILD)/tests/sim/sim-sip-proxy --seed $(SIM_SEED) --seconds $(SIM_SECONDS)
	@$(BUILD)/tests/sim/sim-sip-element --seed $(SIM_SEED) --seconds $(SIM_SECONDS)
	@$(BUILD)/tests/sim/sim-group --seed $(SIM_SEED) --seconds $(SIM_SECONDS) --jobs $$(nproc)

# 10,000 hosts: some 20 minutes and 3.3 GiB
sim-large: setup-build $(BUILD)/build.ninja
	@ninja -C $(BUILD) --quiet
	@mkdir -p bench/out
	@$(BUILD)/tests/sim/sim-directory --hosts 10000 --services 5 --loss 5 --shared --verbose \
	    --json bench/out/simulation.json

fuzz: setup-fuzz
	@tools/run-fuzz $(FUZZ_SECONDS)

lint: setup-lint $(BUILD)/build.ninja
	@ninja -C $(BUILD) --quiet
	@tools/lint

package: setup-package
	@packaging/build

# the packages, installed on hosts of the lab: three-machines.md with them, and each daemon as its package configures it
test-package: setup-test-package package
	@$(SUDO) /usr/bin/python3 -B -m pytest -q -p no:cacheprovider tests/system/packages.py

clean:
	rm -rf build build-asan build-fuzz build-package bench/out
