# make demo   installs what the command line needs and finds the lesions of the example (in demo/)
# make app    adds the browser app and opens the review, with the example
# make test   adds the test tools and runs every check
# make clean  removes what they made
# All share one environment, .venv. Without make: python .ci/set_up.py demo (or app, or test).
PYTHON ?= python3
VENV := .venv
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif

.PHONY: demo app test clean

demo: $(VENV)/ready-demo
	$(BIN)/hideseekseg example --out demo/example
	$(BIN)/hideseekseg segment demo/example/ct.nii.gz demo/example/vertebrae.nii.gz --labels totalsegmentator --out demo/result
	@echo "To look at them and review them in a browser: make app"

app: $(VENV)/ready-app
	$(BIN)/hideseekseg app

# Two processes; the tests of a file stay together, as they share servers and results, and the
# files begin in the order of Testing/conftest.py.
# Beside another busy process, threads that spin while they wait for each other take the processor
# from it: five times the seconds.
test: export OMP_WAIT_POLICY ?= PASSIVE
test: $(VENV)/ready-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

$(VENV)/ready-%: pyproject.toml constraints.txt .ci/set_up.py
	$(PYTHON) .ci/set_up.py $* $(VENV)

clean:
	rm -rf $(VENV) demo
