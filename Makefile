# `make demo` and `make test` do all the set-up on a fresh machine.

PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
DEMO = demo
# A trained and an untrained model that score words, and one that aligns with reference speech.
DEMO_MODELS = modeltok modelali modeltokzero
BACKBONE = assets/whisper-tiny.en
PHONES = assets/hama-phones
DEMO_FOLDERS = --data $(DEMO)/data --tts_data $(DEMO)/tts_data --store $(DEMO)/store
DEMO_TRAINING = --assets $(DEMO)/assets --runs $(DEMO)/runs --backbone $(BACKBONE) \
	--preset small --epochs 2 --n_folds 3 --device cpu

.PHONY: demo demo-songs test chromium lint bench check-sizes gpu-check gpu-files soak submission \
	test-submission melo demucs clean-demo clean

# First the shipped scorer, without any training; then the whole pipeline. check_models ends with 1 if
# a fold stands out, which may happen with so few clips.
demo: $(VENV)/installed $(BACKBONE)
	$(RUN) -m hearback.reading.corpora.sample $(DEMO)/data
	$(RUN) score.py $(DEMO)/data/test_metadata.csv --out $(DEMO)/scores.csv --device cpu
	$(RUN) preprocess.py $(DEMO_FOLDERS) --models $(DEMO_MODELS)
	$(RUN) train.py $(DEMO_FOLDERS) $(DEMO_TRAINING) --models $(DEMO_MODELS) --jobs 2
	$(RUN) check_models.py --data $(DEMO)/data --assets $(DEMO)/assets --page $(DEMO)/check_models.html \
		|| test $$? -eq 1
	$(RUN) get_config.py --data $(DEMO)/data --assets $(DEMO)/assets \
		--config $(DEMO)/model_configs.json
	$(RUN) infer.py $(DEMO_FOLDERS) --assets $(DEMO)/assets --config $(DEMO)/model_configs.json \
		--submission $(DEMO)/submission.csv --words --divergences --device cpu
	$(RUN) report.py $(DEMO_FOLDERS) --assets $(DEMO)/assets --config $(DEMO)/model_configs.json \
		--out $(DEMO)/report.html --device cpu

# The second competition, on synthetic singers.
SONGS = $(DEMO)/songs
SONGS_FOLDERS = --data $(SONGS)/data --store $(SONGS)/store
SONGS_TRAINING = --assets $(SONGS)/assets --runs $(SONGS)/runs --n_folds 2 --device cpu

demo-songs: $(VENV)/installed $(BACKBONE)
	$(RUN) -m hearback.songs sample $(SONGS)/data
	$(RUN) -m hearback.songs preprocess $(SONGS_FOLDERS) --separate none repet
	$(RUN) -m hearback.songs train $(SONGS_FOLDERS) $(SONGS_TRAINING) --jobs 2 --epochs 2
	$(RUN) -m hearback.songs train $(SONGS_FOLDERS) $(SONGS_TRAINING) --jobs 2 --epochs 2 \
		--models cnn4 --separations repet --seeds 1 2
	$(RUN) -m hearback.songs check_models --data $(SONGS)/data --assets $(SONGS)/assets \
		--page $(SONGS)/check_models.html || test $$? -eq 1
	$(RUN) -m hearback.songs get_config --data $(SONGS)/data --assets $(SONGS)/assets
	$(RUN) -m hearback.songs infer --data $(SONGS)/data/test --store $(SONGS)/store \
		--assets $(SONGS)/assets --submission $(SONGS)/submission.csv --device cpu
	$(RUN) -m hearback.songs report --data $(SONGS)/data --assets $(SONGS)/assets \
		--out $(SONGS)/report.html

test: $(VENV)/installed $(BACKBONE) chromium
	OMP_NUM_THREADS=1 $(RUN) -m pytest -m "not gpu" --numprocesses auto --maxprocesses 8 --dist worksteal \
		--cov --cov-report=term:skip-covered --cov-fail-under=90

# The browser that the page is tested in.
chromium:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || { \
		test "$$(id -u)" -eq 0 && command -v apt-get >/dev/null \
			&& { apt-get install -y chromium || { apt-get update && apt-get install -y chromium; }; }; } \
		|| { echo "the tests of the page need Chromium: apt-get install chromium"; exit 1; }

lint: $(VENV)/installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports

bench: $(VENV)/installed $(BACKBONE)
	$(RUN) -m benchmarks

# What only a GPU can show, in eight minutes and without a network: docs/results/performance.md.
# Where the repository's environment is missing, the machine's own Python runs it, with the wheels
# and weights that `make gpu-files` has put into gpu/. DEVICE=strict SMALL=1 needs no GPU.
DEVICE ?= cuda
# Two cores take longer than a GPU.
GPU_SECONDS ?= $(if $(filter cuda%,$(DEVICE)),,1200)
GPU_PYTHON ?= $(if $(wildcard $(RUN)),$(RUN),$(PYTHON))
GPU_PIP = -m pip --disable-pip-version-check

gpu-check:
	@test -x "$(RUN)" || ! ls gpu/wheels/*.whl >/dev/null 2>&1 || $(GPU_PYTHON) $(GPU_PIP) install \
		--quiet --no-index --no-deps --no-compile --upgrade --target gpu/site gpu/wheels/*.whl
	PYTHONPATH=$(CURDIR)/gpu/site:$$PYTHONPATH $(GPU_PYTHON) -m benchmarks.gpu_check --device $(DEVICE) \
		$(if $(SMALL),--small) $(if $(GPU_SECONDS),--seconds $(GPU_SECONDS))

# The folder that goes to a GPU machine beside the repository: 33 MB, with whisper-tiny.en 190 MB.
GPU_PLATFORMS = 2_28 2_27 2_17

gpu-files: $(VENV)/installed $(BACKBONE) $(PHONES)
	$(RUN) $(GPU_PIP) download --quiet --only-binary=:all: --no-deps --python-version 3.12 \
		--implementation cp $(GPU_PLATFORMS:%=--platform manylinux_%_x86_64) \
		--platform manylinux2014_x86_64 --dest gpu/wheels --requirement requirements/gpu.txt
	mkdir -p gpu/weights
	cp -r $(BACKBONE) $(PHONES) gpu/weights/

# Every recipe at its true size, with random weights: up to 9 GB of memory and 6 GB of disk. The
# table is in docs/results/sizes.md.
check-sizes: $(VENV)/installed $(BACKBONE) $(PHONES)
	$(RUN) -m benchmarks.check_sizes $(SIZES)

# Other Pythons and torches, PYTHON:TORCH:PACKAGES each; without a version, the newest torch. Prints
# the rows of the table in docs/guide/where_it_runs.md.
VERSIONS ?= python3.11:2.4.0:oldest python3.12:2.4.1:oldest python3.13::newest python3.14::newest
part = $(word $(2),$(subst :, ,$(subst ::,:newest:,$(1))))

check-versions: $(VENV)/installed
	@$(foreach each,$(VERSIONS),$(RUN) -m tests.check_versions --python $(call part,$(each),1) \
		--torch $(call part,$(each),2) --packages $(call part,$(each),3) || exit 1;)

# Takes an hour or two: see docs/results/reliability.md.
soak: $(VENV)/installed $(BACKBONE)
	$(RUN) -m tests.soak.soak_input
	$(RUN) -m tests.soak.soak_stall_detector
	$(RUN) -m tests.soak.soak_launch
	$(RUN) -m tests.soak.soak_kill

# What the competition's runtime gets, and a dry run in that runtime, for both competitions.
submission: $(VENV)/installed
	$(RUN) -m hearback.reading.submission.pack

test-submission: $(VENV)/installed .venv-runtime/installed $(DEMO)/model_configs.json \
		$(SONGS)/assets/model_configs.json
	$(RUN) -m hearback.reading.submission.pack --assets $(DEMO)/assets --tts_data $(DEMO)/tts_data \
		--config $(DEMO)/model_configs.json --submission $(DEMO)/submission.zip
	$(RUN) -m hearback.reading.submission.dry_run --zip $(DEMO)/submission.zip --data $(DEMO)/data \
		--python .venv-runtime/bin/python
	$(RUN) -m hearback.songs submission --assets $(SONGS)/assets --submission $(SONGS)/submission.zip
	$(RUN) -m hearback.songs dry_run --zip $(SONGS)/submission.zip --data $(SONGS)/data/test \
		--python .venv-runtime/bin/python

$(DEMO)/model_configs.json:
	$(MAKE) demo

$(SONGS)/assets/model_configs.json:
	$(MAKE) demo-songs

$(VENV)/installed: requirements.txt requirements/dev.txt requirements/ray.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements/dev.txt
	touch $@

$(BACKBONE): | $(VENV)/installed
	$(RUN) -m hearback.engine.whisper.pretrained whisper-tiny.en

$(PHONES): | $(VENV)/installed
	$(RUN) -m hearback.engine.phones.pretrained

# The first Python 3.12 that runs; a shim of pyenv may be there and not run.
RUNTIME_PYTHON ?= $(shell for python in python3.12 $(HOME)/.pyenv/versions/3.12.*/bin/python3.12 \
	"$$(uv python find 3.12 2>/dev/null)"; do \
	"$$python" -c "" 2>/dev/null && echo "$$python" && break; done; true)
# PyTorch's builds for CPUs; PyPI's brings gigabytes of CUDA, and is taken where these are out of
# reach.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
RUNTIME_PIP = .venv-runtime/bin/python -m pip install --quiet --disable-pip-version-check

.venv-runtime/installed: requirements/runtime.txt
	@test -n "$(RUNTIME_PYTHON)" || { echo "the competition's runtime has Python 3.12, and there is \
	none here: install it (uv python install 3.12, pyenv install 3.12, apt install python3.12-venv), \
	or say where it is: make $(MAKECMDGOALS) RUNTIME_PYTHON=PATH"; exit 1; }
	$(RUNTIME_PYTHON) -m venv --clear .venv-runtime
	-$(RUNTIME_PIP) --no-deps --retries 1 --timeout 20 --index-url $(TORCH_INDEX) \
		--constraint requirements/runtime.txt torch
	$(RUNTIME_PIP) --no-deps --requirement requirements/runtime.txt
	.venv-runtime/bin/python -c "import torch" 2>/dev/null \
		|| $(RUNTIME_PIP) --requirement requirements/runtime.txt
	touch $@

# MeloTTS's own environment: its packages conflict with ours. Its last release that can be built is
# a commit of its repository (PyPI's melotts 0.1.1 opens a file that it does not ship).
MELO_PYTHON ?= python3.11
MELO_COMMIT := 209145371cff8fc3bd60d7be902ea69cbdb7965a

melo: .venv-melo/.installed

.venv-melo/.installed: requirements/melo.txt
	$(MELO_PYTHON) -m venv --clear .venv-melo
	.venv-melo/bin/python -m pip install --quiet --requirement requirements/melo.txt
	.venv-melo/bin/python -m pip install --quiet --no-deps \
		"melotts @ git+https://github.com/myshell-ai/MeloTTS.git@$(MELO_COMMIT)"
	touch $@

# Demucs, which separates voices from music, in an environment of its own: see docs/guide/songs.md.
demucs: .venv-demucs/.installed

.venv-demucs/.installed: requirements/demucs.txt
	$(PYTHON) -m venv --clear .venv-demucs
	-.venv-demucs/bin/python -m pip install --quiet --no-deps --retries 1 --timeout 20 \
		--index-url $(TORCH_INDEX) --constraint requirements/demucs.txt torch
	.venv-demucs/bin/python -m pip install --quiet --requirement requirements/demucs.txt
	touch $@

clean-demo:
	rm -rf $(DEMO)

# Keeps data, assets, demo and the environments of the other voices and of the runtime.
clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis .coverage dist
	find benchmarks hearback tests -name __pycache__ -type d -prune -exec rm -rf {} +
