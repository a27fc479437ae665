# Two commands: `make serve` and `make test`. Both set up what they need.

PYTHON ?= python3
CARGO ?= cargo
# Flags for `make serve`, such as ARGS="--grpc-address 127.0.0.1:50052".
ARGS ?=
# Where the corpora lie, for `make model` and the tests that use them.
UNDERTONE_CORPORA ?=
export UNDERTONE_CORPORA

.PHONY: help setup serve test test-servers test-rust test-python test-clients-python test-typescript test-integrations console-tests test-console screenshots python typescript node crash rolling soak test-image test-training test-finetune lint doc deny sbom fuzz fuzz-minimise sanitize model bench docs docs-reference clean

help: ## Show this list.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: ## Check for Rust and Python, fetch ONNX Runtime.
	@command -v $(CARGO) >/dev/null || { echo "Rust is missing: install it with rustup (rust-version stands in Cargo.toml)" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "A C linker is missing: apt-get install gcc libc6-dev" >&2; exit 1; }
	@command -v $(PYTHON) >/dev/null || { echo "Python is missing: apt-get install python3 python3-pip python3-venv" >&2; exit 1; }
	@PYTHON=$(PYTHON) sh deploy/get-onnxruntime.sh

serve: setup ## Serve on loopback with the embedded model.
	$(CARGO) run --release --bin undertone -- serve $(ARGS)

test: test-rust test-python test-clients-python test-integrations test-typescript test-console ## Run every test but training's.

# Where tools are installed that cargo does not bring. They have little to do: to build them quickly matters more.
TOOLS ?= .tools
TOOLS_BIN = $(abspath $(TOOLS))/bin
INSTALL = CARGO_PROFILE_DEV_DEBUG=false $(CARGO) install --debug --locked

# The servers that tests start themselves, and the tool that reads alerts.
test-servers:
	@test -x "$$(ls /usr/lib/postgresql/*/bin/initdb 2>/dev/null | tail -1)" || command -v initdb >/dev/null || \
		{ echo "PostgreSQL is missing: apt-get install postgresql" >&2; exit 1; }
	@PATH="$$PATH:/usr/sbin" command -v nats-server >/dev/null || \
		{ echo "nats-server is missing: apt-get install nats-server" >&2; exit 1; }
	@PATH="$$PATH:/usr/sbin" command -v haproxy >/dev/null || \
		{ echo "haproxy is missing: apt-get install haproxy" >&2; exit 1; }
	@command -v promtool >/dev/null || \
		{ echo "promtool is missing: apt-get install prometheus" >&2; exit 1; }
	@test -n "$$(find -L /usr/lib /opt/homebrew/lib -name 'libfaketimeMT*' 2>/dev/null | head -1)" || \
		{ echo "libfaketime is missing: apt-get install faketime" >&2; exit 1; }

# The S3-compatible server of the tests is on the path then.
test-rust: setup test-servers $(TOOLS)/bin/s3s-fs
	PATH="$(TOOLS_BIN):$$PATH" $(CARGO) test
ifeq ($(UNDERTONE_CORPORA),)
	@echo "NOT RUN: the tests on real corpora; set UNDERTONE_CORPORA to a folder with them"
endif

# Of cloudcoil only the schemas are wanted, not its plugin, which starts clusters.
# The binary that the Rust tests have built: alone it would be built, with what it needs, for other features.
BINARY = $$($(CARGO) metadata --format-version 1 --no-deps | $(PYTHON) -c 'import json,sys; print(json.load(sys.stdin)["target_directory"])')
test-python: setup .venv-test/ready $(TOOLS)/bin/mdbook $(TOOLS)/bin/s3s-fs
	$(CARGO) test --no-run --test it
	PATH="$(TOOLS_BIN):$$PATH" UNDERTONE_BIN="$(BINARY)/debug/undertone" \
		.venv-test/bin/python -m pytest -q -p no:cacheprovider -p no:cloudcoil tests/python

python: .venv-clients/ready ## Build the Python client: a wheel and a source distribution in target/python.
	.venv-clients/bin/python -m build --quiet --no-isolation --outdir target/python clients/python

test-clients-python: setup .venv-clients/ready ## Check and test the Python client against a real server.
	$(CARGO) test --no-run --test it
	cd clients/python && ../../.venv-clients/bin/ruff check . && ../../.venv-clients/bin/ruff format --check . && ../../.venv-clients/bin/mypy
	UNDERTONE_BIN="$(BINARY)/debug/undertone" && export UNDERTONE_BIN && cd clients/python && \
		../../.venv-clients/bin/python -m pytest -q -p no:cacheprovider

# The package is installed anew when the protocol or what makes code of it changes.
.venv-clients/ready: clients/python/requirements-test.txt clients/python/pyproject.toml clients/python/generate.py clients/python/hatch_build.py $(wildcard proto/undertone/v1/*.proto)
	$(PYTHON) -m venv .venv-clients || { echo "venv is missing: apt-get install python3-venv" >&2; exit 1; }
	.venv-clients/bin/python -m pip install --quiet --disable-pip-version-check --requirement clients/python/requirements-test.txt
	.venv-clients/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable clients/python
	touch $@

INTEGRATIONS = pipecat-undertone livekit-plugins-undertone langchain-undertone

test-integrations: setup .venv-integrations/ready ## Check and test the plug-ins for agent frameworks, with the frameworks themselves.
	$(CARGO) test --no-run --test it
	cd integrations && ../.venv-integrations/bin/ruff check . && ../.venv-integrations/bin/ruff format --check .
	for package in $(INTEGRATIONS); do (cd integrations/$$package && ../../.venv-integrations/bin/mypy) || exit 1; done
	UNDERTONE_BIN="$(BINARY)/debug/undertone" \
		.venv-integrations/bin/python -m pytest -q -p no:cacheprovider integrations

# Byte code is not made beforehand: of what the frameworks bring, most is never loaded.
.venv-integrations/ready: integrations/requirements-test.txt $(wildcard integrations/*/pyproject.toml) clients/python/pyproject.toml clients/python/generate.py clients/python/hatch_build.py $(wildcard proto/undertone/v1/*.proto)
	$(PYTHON) -m venv .venv-integrations || { echo "venv is missing: apt-get install python3-venv" >&2; exit 1; }
	.venv-integrations/bin/python -m pip install --quiet --disable-pip-version-check --no-compile \
		--requirement integrations/requirements-test.txt --editable clients/python $(INTEGRATIONS:%=--editable integrations/%)
	touch $@

# What the TypeScript client and its tests in a browser need.
node:
	@command -v node >/dev/null && command -v npm >/dev/null || \
		{ echo "Node.js is missing: install version 20 or later (Debian 13: apt-get install nodejs npm)" >&2; exit 1; }
	@node -e 'process.exit(Number(process.versions.node.split(".")[0]) < 20 ? 1 : 0)' || \
		{ echo "Node.js is too old: version 20 or later is needed, this is $$(node --version)" >&2; exit 1; }

typescript: node ## Build the TypeScript client: an npm package in target/typescript.
	mkdir -p target/typescript
	cd clients/typescript && npm ci --no-fund --no-audit --loglevel error && npm run build && npm pack --silent --pack-destination ../../target/typescript

test-typescript: setup node ## Check and test the TypeScript client against a real server and in a browser.
	@command -v chromium >/dev/null || test -n "$$CHROMIUM" || \
		{ echo "Chromium is missing: apt-get install chromium, or set CHROMIUM to a browser like it" >&2; exit 1; }
	$(CARGO) test --no-run --test it
	UNDERTONE_BIN="$(BINARY)/debug/undertone" && export UNDERTONE_BIN && cd clients/typescript && \
		npm ci --no-fund --no-audit --loglevel error && npm run build && npm test

# The program, and what the console's tests need of npm.
console-tests: setup node
	@command -v chromium >/dev/null || test -n "$$CHROMIUM" || \
		{ echo "Chromium is missing: apt-get install chromium, or set CHROMIUM to a browser like it" >&2; exit 1; }
	$(CARGO) test --no-run --test it
	cd tests/console && npm ci --no-fund --no-audit --loglevel error

test-console: console-tests ## Check and test the web console in a browser, against a real server.
	UNDERTONE_BIN="$(BINARY)/debug/undertone" && export UNDERTONE_BIN && cd tests/console && npm test

screenshots: console-tests ## Take pictures of the web console's pages into target/console.
	UNDERTONE_BIN="$(BINARY)/debug/undertone" && export UNDERTONE_BIN && cd tests/console && npm run --silent screenshots

# How often servers are killed under load, on each of the databases.
CRASHES ?= 100

crash: setup test-servers ## Kill servers CRASHES times; check that every escalation arrives.
	UNDERTONE_CRASHES=$(CRASHES) $(CARGO) test --test it crash:: -- --nocapture

# Streams that are live while three replicas are restarted in turn.
ROLLING ?= 300

rolling: setup test-servers ## Restart three replicas in turn under ROLLING live streams behind HAProxy.
	UNDERTONE_ROLLING=$(ROLLING) $(CARGO) test --test it crash::rolling -- --nocapture

test-image: ## Build the container image with Buildah and try it out (root; downloads, 4 GB in .image).
	sh deploy/test-image.sh

# Streams at once, for how long, and where to put the figures and the picture.
STREAMS ?= 500
SECONDS ?= 1200
SOAK_OUT ?= target/soak

soak: setup .venv-soak/ready ## Load a server with STREAMS for SECONDS, some of whom misbehave; nothing may grow or be left.
	$(CARGO) build --release
	UNDERTONE_BIN="$(BINARY)/release/undertone" \
		.venv-soak/bin/python benches/soak --streams $(STREAMS) --seconds $(SECONDS) --out $(SOAK_OUT)

.venv-soak/ready: benches/soak/requirements.txt
	$(PYTHON) -m venv .venv-soak || { echo "venv is missing: apt-get install python3-venv" >&2; exit 1; }
	.venv-soak/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

.venv-test/ready: tests/python/requirements.txt
	$(PYTHON) -m venv .venv-test || { echo "venv is missing: apt-get install python3-venv" >&2; exit 1; }
	.venv-test/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

lint: ## Formatting and clippy, as errors.
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings

docs: $(TOOLS)/bin/mdbook ## Build the site into target/book (installs mdbook).
	$(TOOLS)/bin/mdbook build docs

docs-reference: setup .venv-test/ready ## Make docs/reference anew, from the protocol and the program's help.
	$(CARGO) test --no-run --test it
	UNDERTONE_BIN="$(BINARY)/debug/undertone" .venv-test/bin/python docs/reference.py

# A minute on two cores, once. It neither serves nor watches here.
$(TOOLS)/bin/mdbook:
	$(INSTALL) mdbook --version 0.5.4 --no-default-features --features search --root $(TOOLS)

doc: ## The API documentation, warnings as errors.
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --document-private-items

.venv-training/ready: training/requirements.txt
	$(PYTHON) -m venv .venv-training || { echo "venv is missing: apt-get install python3-venv" >&2; exit 1; }
	.venv-training/bin/python -m pip install --disable-pip-version-check --quiet --no-deps --no-compile --requirement $<
	touch $@

test-training: setup .venv-training/ready ## Run training's tests (fetches PyTorch: gigabytes).
	.venv-training/bin/python -m pytest -q -p no:cacheprovider training/tests

# On top of training's environment: a second one would be another 4 GB.
.venv-training/finetune: training/requirements-finetune.txt .venv-training/ready
	.venv-training/bin/python -m pip install --disable-pip-version-check --quiet --no-deps --no-compile --requirement $<
	touch $@

test-finetune: setup .venv-training/finetune ## Run the tests of tuning and importing other encoders.
	$(CARGO) test --no-run --test it
	UNDERTONE_BIN="$(BINARY)/debug/undertone" \
		.venv-training/bin/python -m pytest -q -p no:cacheprovider training/tests_finetune

deny: $(TOOLS)/bin/cargo-deny ## Check the dependencies' licences, sources and advisories (installs cargo-deny).
	CARGO_DENY="$(TOOLS_BIN)/cargo-deny" sh deploy/deny.sh

$(TOOLS)/bin/cargo-deny:
	$(INSTALL) cargo-deny --version 0.20.2 --root $(TOOLS)

# Three minutes on two cores, once: a dependency would cost every build of the tests that.
$(TOOLS)/bin/s3s-fs:
	$(INSTALL) s3s-fs --version 0.14.1 --features binary --root $(TOOLS)

sbom: $(TOOLS)/bin/cargo-cyclonedx .venv-sbom/ready ## List what is shipped, as CycloneDX (installs cargo-cyclonedx).
	mkdir -p target
	PATH="$(TOOLS_BIN):$$PATH" $(CARGO) cyclonedx -q --format json --spec-version 1.5 --no-build-deps --override-filename sbom-crates
	.venv-sbom/bin/python deploy/sbom.py sbom-crates.json target/undertone.cdx.json
	rm sbom-crates.json

$(TOOLS)/bin/cargo-cyclonedx:
	$(INSTALL) cargo-cyclonedx --version 0.5.9 --root $(TOOLS)

.venv-sbom/ready: deploy/sbom-requirements.txt
	$(PYTHON) -m venv .venv-sbom || { echo "venv is missing: apt-get install python3-venv" >&2; exit 1; }
	.venv-sbom/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

# Which targets, how long each runs, and where cargo-fuzz is installed and found inputs are kept.
FUZZ_TARGETS ?= $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))
FUZZ_SECONDS ?= 60
FUZZ_HOME ?= .fuzz
CARGO_FUZZ = $(FUZZ_HOME)/bin/cargo-fuzz
# On stable Rust there is no sanitizer; see `make sanitize`.
FUZZ_FLAGS ?= --sanitizer none
FUZZ = PATH="$(abspath $(FUZZ_HOME))/bin:$$PATH" $(CARGO) fuzz
# Longest input of a target, in bytes; beyond it nothing new is found.
MAX_LEN_container_decode = 40000
MAX_LEN_audio_decode = 8192
MAX_LEN_session = 4096
MAX_LEN_resume_state = 65536
MAX_LEN = $(or $(MAX_LEN_$(1)),8192)

# What is reached only from real inputs: files behind one byte that chooses the hint, a state behind three.
.PHONY: fuzz-seeds
fuzz-seeds:
	mkdir -p $(FUZZ_HOME)/corpus/container_decode
	for file in tests/data/tone_* tests/data/*.mkv; do \
		{ printf '\000'; cat "$$file"; } > $(FUZZ_HOME)/corpus/container_decode/$$(basename "$$file"); \
	done
	mkdir -p $(FUZZ_HOME)/corpus/identities_parse $(FUZZ_HOME)/corpus/policy_parse $(FUZZ_HOME)/corpus/resume_state
	cp examples/identities.yaml $(FUZZ_HOME)/corpus/identities_parse
	cp policies/*.yaml $(FUZZ_HOME)/corpus/policy_parse
	{ printf '\000\000\000'; cat tests/data/states/version-2.bin; } > $(FUZZ_HOME)/corpus/resume_state/version-2

fuzz: setup fuzz-seeds $(CARGO_FUZZ) ## Run FUZZ_TARGETS (all) for FUZZ_SECONDS each (installs cargo-fuzz).
	@command -v c++ >/dev/null || { echo "A C++ compiler is missing: apt-get install g++" >&2; exit 1; }
	$(foreach target,$(FUZZ_TARGETS),mkdir -p $(FUZZ_HOME)/corpus/$(target) fuzz/corpus/$(target) && \
		$(FUZZ) run $(FUZZ_FLAGS) -D $(target) $(FUZZ_HOME)/corpus/$(target) fuzz/corpus/$(target) -- \
		-max_total_time=$(FUZZ_SECONDS) -max_len=$(call MAX_LEN,$(target)) -rss_limit_mb=2048 &&) true

fuzz-minimise: $(CARGO_FUZZ) ## Keep in fuzz/corpus the fewest inputs that reach all that was reached.
	$(foreach target,$(FUZZ_TARGETS),mkdir -p $(FUZZ_HOME)/corpus/$(target) fuzz/corpus/$(target) && \
		cp -n $(FUZZ_HOME)/corpus/$(target)/* fuzz/corpus/$(target)/ 2>/dev/null || true; \
		$(FUZZ) cmin $(FUZZ_FLAGS) -D $(target) fuzz/corpus/$(target) -- -max_len=$(call MAX_LEN,$(target)) -use_counters=0 &&) true

$(CARGO_FUZZ):
	$(INSTALL) cargo-fuzz --version 0.13.2 --root $(FUZZ_HOME)

# The service itself has no unsafe code; what it calls has. AddressSanitizer wants a nightly compiler.
sanitize: setup fuzz-seeds $(CARGO_FUZZ) ## Run every input that is kept under AddressSanitizer (nightly Rust).
	@rustup toolchain list | grep -q ^nightly || { echo "A nightly toolchain is missing: rustup toolchain install nightly" >&2; exit 1; }
	$(foreach target,$(FUZZ_TARGETS),mkdir -p $(FUZZ_HOME)/corpus/$(target) fuzz/corpus/$(target) && \
		RUSTUP_TOOLCHAIN=nightly $(FUZZ) run --sanitizer address -D $(target) fuzz/corpus/$(target) $(FUZZ_HOME)/corpus/$(target) -- \
		-runs=0 -max_len=$(call MAX_LEN,$(target)) -rss_limit_mb=4096 &&) true

# Which model to make: undertone-four (all corpora, embedded) or another folder of models/ with MODEL_FLAGS for
# training/train.py, such as MODEL=undertone-open MODEL_FLAGS="--corpora crema-d --members 1 --set epochs=16".
MODEL ?= undertone-four
MODEL_FLAGS ?=

# The binary that extracts embeds the model that is made, so it is built before and judges the packages by path.
model: setup .venv-training/ready ## Extract features, train, judge and describe the default model (hours on 2 cores).
	@test -n "$(UNDERTONE_CORPORA)" || { echo "set UNDERTONE_CORPORA to the folder with the corpora" >&2; exit 1; }
	$(CARGO) run --release --bin undertone -- features "$(UNDERTONE_CORPORA)" --out training/data
	@test ! -f "$(UNDERTONE_CORPORA)/crema-d/voice_votes.csv" || cp "$(UNDERTONE_CORPORA)/crema-d/voice_votes.csv" training/data/votes.csv
	.venv-training/bin/python training/train.py --features training/data/features.npz --out models/$(MODEL) $(MODEL_FLAGS)
	$(CARGO) run --release --bin undertone -- evaluate "$(UNDERTONE_CORPORA)" --protocol training/runs/$(MODEL) --out training/runs/$(MODEL)
	.venv-training/bin/python training/card.py --model models/$(MODEL)

clean: ## Remove what was built and fetched; inputs that fuzzing found (FUZZ_HOME/corpus) stay.
	rm -rf target fuzz/target fuzz/artifacts generated .image .onnxruntime .tools .venv .venv-test .venv-soak .venv-training .venv-sbom .venv-clients .venv-integrations .venv-docs
	rm -rf tests/console/node_modules clients/typescript/node_modules clients/typescript/dist clients/typescript/src/gen clients/python/src/undertone/_generated
	rm -rf $(FUZZ_HOME)/bin $(FUZZ_HOME)/.crates.toml $(FUZZ_HOME)/.crates2.json sbom-crates.json
