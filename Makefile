# Plain commands, the same on a desk and in CI. Everything runs from .venv, which scripts/install makes.
VENV := .venv
BIN := $(VENV)/bin
MINUTES ?= 1
PEER ?= ours
PEERS ?=
ROUNDS ?= 3
SECONDS ?= 2
SOAK_MINUTES ?= 30
DAYS ?= 20

.PHONY: install check test demo bench faults floods fuzz soak conformance audit wheel clean

install: $(VENV)/.installed

# What is compiled, in every package and in packages of packages.
SOURCES := $(foreach ending,pyx pxd,$(wildcard */*.$(ending) */*/*.$(ending) */*/*/*.$(ending)))

$(VENV)/.installed: pyproject.toml setup.py $(SOURCES) scripts/install $(wildcard requirements/*.txt)
	scripts/install $(VENV)

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Labs in one process, everything else beside it. Only for root: anybody else's lab needs a user namespace, which a
# process takes while it has one thread, and pytest-xdist's workers have two. WORKERS=0: all in one.
WORKERS ?= $(if $(filter 0,$(shell id -u)),2,0)

test: install
	$(BIN)/pytest $(if $(filter-out 0,$(WORKERS)),--numprocesses $(WORKERS) --dist loadscope --no-loadscope-reorder)

demo: install
	$(BIN)/bridgectl demo --peer $(PEER)

bench: install
	$(BIN)/python -m trials.bench --peers "$(PEERS)" --rounds $(ROUNDS) --seconds $(SECONDS)

floods: install
	$(BIN)/python -m trials.floods

faults: install
	$(BIN)/python -m trials.faults

fuzz: install
	$(BIN)/python -m trials.fuzz --minutes $(MINUTES)

soak: install
	$(BIN)/python -m trials.soak.live --minutes $(SOAK_MINUTES)
	$(BIN)/python -m trials.soak.days --days $(DAYS)

conformance: install
	$(BIN)/python -m trials.conformance

audit: install
	scripts/audit $(VENV)

wheel:
	scripts/wheel dist

clean:
	rm -f */*.so */*/*.so */*/*/*.so $(patsubst %.pyx,%.c,$(filter %.pyx,$(SOURCES)))
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
