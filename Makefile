# The face of the project: each target installs what it needs (tools/setup), then does it.
MAKEFLAGS += --no-print-directory
FUZZ_SECONDS ?= 30
BUILD := build
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo -E)

.PHONY: all demo test bench bench-directory sim fuzz lint package clean setup-%

all: setup-build $(BUILD)/build.ninja
	ninja -C $(BUILD)

# a set-up that was broken off is done again; ninja looks after changed options itself
$(BUILD)/build.ninja:
	meson setup $(BUILD)

setup-%:
	@tools/setup $*

demo: setup-demo $(BUILD)/build.ninja
	@ninja -C $(BUILD) --quiet
	@$(SUDO) bench/demo

test: setup-test
	@tools/run-tests

bench: bench-directory

bench-directory: setup-bench $(BUILD)/build.ninja
	@ninja -C $(BUILD) --quiet
	@$(SUDO) bench/directory

sim: setup-build $(BUILD)/build.ninja
	@ninja -C $(BUILD) --quiet
	@meson test -C $(BUILD) --no-rebuild --suite sim --verbose

fuzz: setup-fuzz
	@tools/run-fuzz $(FUZZ_SECONDS)

lint: setup-lint $(BUILD)/build.ninja
	@ninja -C $(BUILD) --quiet
	@tools/lint

package: setup-package
	@packaging/build

clean:
	rm -rf build build-asan build-fuzz build-package bench/out
