# `make demo` and `make test` do all the set-up on a fresh machine.

PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
DEMO = demo
DEMO_MODELS = modeltok modelali model2ds
BACKBONE = assets/whisper-tiny.en
DEMO_FOLDERS = --data $(DEMO)/data --tts_data $(DEMO)/tts_data --store $(DEMO)/store
DEMO_TRAINING = --assets $(DEMO)/assets --runs $(DEMO)/runs --backbone $(BACKBONE) \
	--preset small --epochs 3 --n_folds 3 --device cpu

.PHONY: demo test lint bench melo clean-demo

demo: $(VENV)/installed $(BACKBONE)
	$(RUN) -m hearback.corpora.sample $(DEMO)/data
	$(RUN) preprocess.py $(DEMO_FOLDERS)
	$(RUN) train.py $(DEMO_FOLDERS) $(DEMO_TRAINING) --models $(DEMO_MODELS) --jobs 2
	$(RUN) check_models.py --data $(DEMO)/data --assets $(DEMO)/assets
	$(RUN) get_config.py --data $(DEMO)/data --assets $(DEMO)/assets \
		--config $(DEMO)/model_configs.json
	$(RUN) infer.py $(DEMO_FOLDERS) --assets $(DEMO)/assets --config $(DEMO)/model_configs.json \
		--submission $(DEMO)/submission.csv --words --partings --device cpu

test: $(VENV)/installed $(BACKBONE)
	$(RUN) -m pytest -m "not gpu" --cov --cov-report=term:skip-covered --cov-fail-under=85

lint: $(VENV)/installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

bench: $(VENV)/installed $(BACKBONE)
	$(RUN) -m benchmarks

$(VENV)/installed: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

$(BACKBONE): | $(VENV)/installed
	$(RUN) -m hearback.backbones whisper-tiny.en

# MeloTTS's own environment: its packages conflict with ours. Its last release that can be built is
# a commit of its repository (PyPI's melotts 0.1.1 opens a file that it does not ship).
MELO_PYTHON ?= python3.11
MELO_COMMIT := 209145371cff8fc3bd60d7be902ea69cbdb7965a

melo: .venv-melo/.installed

.venv-melo/.installed: requirements-melo.txt
	$(MELO_PYTHON) -m venv --clear .venv-melo
	.venv-melo/bin/python -m pip install --quiet --requirement requirements-melo.txt
	.venv-melo/bin/python -m pip install --quiet --no-deps \
		"melotts @ git+https://github.com/myshell-ai/MeloTTS.git@$(MELO_COMMIT)"
	touch $@

clean-demo:
	rm -rf $(DEMO)
