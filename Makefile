# Plain commands, the same on a desk and in CI. Everything runs from .venv, which scripts/install makes.
VENV := .venv
BIN := $(VENV)/bin
MINUTES ?= 1
PEER ?= ours
PEERS ?=
ROUNDS ?= 3
SECONDS ?= 2

.PHONY: install check test demo bench faults fuzz conformance wheel clean

install: $(VENV)/.installed

# What is compiled, in every package and in packages of packages.
SOURCES := $(foreach ending,pyx pxd,$(wildcard */*.$(ending) */*/*.$(ending)))

$(VENV)/.installed: pyproject.toml setup.py $(SOURCES) scripts/install
	scripts/install $(VENV)

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: install
	$(BIN)/pytest

demo: install
	$(BIN)/bridgectl demo --peer $(PEER)

bench: install
	$(BIN)/python -m bench --peers "$(PEERS)" --rounds $(ROUNDS) --seconds $(SECONDS)

faults: install
	$(BIN)/python -m lab.faults

fuzz: install
	$(BIN)/python -m bench.fuzz --minutes $(MINUTES)

conformance: install
	$(BIN)/python -m bench.conformance

wheel:
	scripts/wheel dist

clean:
	rm -f */*.so */*/*.so $(patsubst %.pyx,%.c,$(filter %.pyx,$(SOURCES)))
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
