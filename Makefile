# make demo   sets up .venv and finds the lesions of the embedded example (results in demo/)
# make test   sets up .venv and runs every check
# make clean  removes what the two made
PYTHON ?= python3
VENV := .venv
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
READY := $(VENV)/ready

.PHONY: demo test clean

demo: $(READY)
	$(BIN)/hideseekseg example --out demo/example
	$(BIN)/hideseekseg segment demo/example/ct.nii.gz demo/example/vertebrae.nii.gz --labels totalsegmentator --out demo/result

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

$(READY): pyproject.toml constraints.txt .ci/set_up.py
	$(PYTHON) .ci/set_up.py $(VENV) $(READY)

clean:
	rm -rf $(VENV) demo
