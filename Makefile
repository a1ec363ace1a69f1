# make demo   installs what the command line needs and finds the lesions of the example (in demo/)
# make app    adds the browser app and opens the review, with the example
# make test   adds the test tools and runs every check
# make test-slicer-5.12   adds the libraries of Slicer 5.12 and runs once more what they can change
# make clean  removes what they made
# All share one environment, .venv. Without make: python .ci/set_up.py demo (or app, test, slicer-5.12).
PYTHON ?= python3
VENV := .venv
ifeq ($(OS),Windows_NT)
PROGRAMS := Scripts
else
PROGRAMS := bin
endif
BIN := $(VENV)/$(PROGRAMS)

.PHONY: demo app test test-slicer-5.12 clean

demo: $(VENV)/ready-demo
	$(BIN)/hideseekseg example --out demo/example
	$(BIN)/hideseekseg segment demo/example/ct.nii.gz demo/example/vertebrae.nii.gz --labels totalsegmentator --out demo/result
	@echo "To look at them and review them in a browser: make app"

app: $(VENV)/ready-app
	$(BIN)/hideseekseg app

# Three processes for two cores, as browsers and children are often waited for.  The tests of a file
# stay together, as they share servers and results, and the files begin in the order of
# Testing/conftest.py.
# Beside another busy process, threads that spin while they wait for each other take the processor
# from it: five times the seconds.
test test-slicer-5.12: export OMP_WAIT_POLICY ?= PASSIVE
test test-slicer-5.12: export OPENBLAS_NUM_THREADS ?= 1
# Tests start hundreds of processes: each would compile the library anew where this is set.
test test-slicer-5.12: export PYTHONDONTWRITEBYTECODE =
test: $(VENV)/ready-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

# The app has slicer-core 5.11, Slicer's users 5.12. What that can change: the scene, how module and
# review use it, and reading what the app has saved.
test-slicer-5.12: $(VENV)/ready-slicer-5.12
	PYTHONPATH=HideSeekSeg $(VENV)/slicer-5.12/$(PROGRAMS)/python -m pytest -m "not slow" \
		Testing/scene Testing/panel/test_module.py Testing/panel/test_panel_review.py
	$(BIN)/pytest Testing/web/test_app.py -k 5.12

$(VENV)/ready-slicer-5.12: $(VENV)/ready-test

$(VENV)/ready-%: pyproject.toml constraints.txt .ci/set_up.py
	$(PYTHON) .ci/set_up.py $* $(VENV)

clean:
	rm -rf $(VENV) demo
