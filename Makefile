# `make demo` runs the main job and `make test` the tests; each does all its own set-up in .venv.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test quick lint clean system-packages

demo: $(READY)
	$(BIN)/edgekd fit --profile rpi4
	$(BIN)/edgekd deploy runs/latest --board local --profile host --plan quick

test: $(READY) system-packages
	$(BIN)/python -m pytest -n 2 --dist loadfile

quick: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

lint: $(READY)
	bash scripts/lint

# What tests need from the distribution: a real OpenSSH server, and Fashion-MNIST. Where they cannot be installed
# the tests that need them are skipped by name.
system-packages:
	bash scripts/system-packages

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[fit,tune,dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) runs
