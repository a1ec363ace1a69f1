# make demo   sets up .venv and finds the lesions of the embedded example (results in demo/)
# make app    sets up .venv-app and opens the review in the browser, with the embedded example
# make test   sets up both and runs every check
# make clean  removes what they made
PYTHON ?= python3
VENV := .venv
# Slicer's views in the browser need another version of Slicer's libraries than the tests: see
# pyproject.toml.
APP_VENV := .venv-app
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
APP_BIN := $(APP_VENV)/Scripts
else
BIN := $(VENV)/bin
APP_BIN := $(APP_VENV)/bin
endif
READY := $(VENV)/ready
APP_READY := $(APP_VENV)/ready

.PHONY: demo app test clean

demo: $(READY)
	$(BIN)/hideseekseg example --out demo/example
	$(BIN)/hideseekseg segment demo/example/ct.nii.gz demo/example/vertebrae.nii.gz --labels totalsegmentator --out demo/result
	@echo "To look at them and review them in a browser: make app"

app: $(APP_READY)
	$(APP_BIN)/hideseekseg app

# Where the second environment cannot be made, the tests in the browser are skipped and say so.
test: $(READY)
	-@$(MAKE) --no-print-directory $(APP_READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist loadgroup

$(READY): pyproject.toml constraints.txt .ci/set_up.py
	$(PYTHON) .ci/set_up.py $(VENV) $(READY)

$(APP_READY): pyproject.toml constraints.txt .ci/set_up.py
	$(PYTHON) .ci/set_up.py $(APP_VENV) $(APP_READY) app

clean:
	rm -rf $(VENV) $(APP_VENV) demo
