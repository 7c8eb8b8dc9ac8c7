# make demo | test | check | bench | fonts.  Each sets up .venv by itself; the second time that takes no time.
# Needed beforehand: Python 3.11 or newer with pip, and make.

PYTHON ?= python3
VENV := .venv
KERNELS := CMakeLists.txt $(wildcard csrc/*)
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# Faces for rendering training lines and benchmark clips, by package; see data/subtitles/fonts.txt for their coverage.
FONTS := fonts-arphic-bkai00mp fonts-arphic-bsmi00lp fonts-arphic-gbsn00lp fonts-arphic-gkai00mp \
  fonts-arphic-ukai fonts-arphic-uming fonts-baekmuk fonts-cns11643-kai fonts-cns11643-sung fonts-cwtex-fs \
  fonts-cwtex-heib fonts-cwtex-kai fonts-cwtex-ming fonts-cwtex-yen fonts-droid-fallback fonts-hanazono \
  fonts-ipaexfont-gothic fonts-lexi-gulim fonts-lxgw-wenkai fonts-morisawa-bizud-gothic fonts-motoya-l-cedar \
  fonts-horai-umefont fonts-motoya-l-maruberi \
  fonts-nanum fonts-noto-cjk fonts-noto-cjk-extra fonts-sawarabi-gothic fonts-smiley-sans fonts-unfonts-core \
  fonts-vlgothic fonts-woowa-bm fonts-wqy-microhei fonts-wqy-zenhei

.PHONY: demo test check sanitize bench llama fonts clean

demo: $(VENV)/.user ## All four capabilities on bundled samples; their results on one page, work/demo/index.html
	$(BIN)/tamis demo -o work/demo

test: $(VENV)/.dev ## Every test
	$(BIN)/python -m pytest

check: $(VENV)/.dev ## Format, lint, types, import rules; the native kernels under sanitizers, where cmake and g++ are
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py
	@$(MAKE) --no-print-directory sanitize

sanitize: $(VENV)/.dev ## The native kernels under the address and undefined-behaviour sanitizers
	@if ! command -v cmake >/dev/null || ! command -v g++ >/dev/null; then \
	  echo "Skipped: the sanitizers need cmake and g++."; \
	else \
	  cmake -S . -B build/sanitize -DTAMIS_SANITIZE=ON >/dev/null && cmake --build build/sanitize >/dev/null && \
	  LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so)" \
	  ASAN_OPTIONS=detect_leaks=0:verify_asan_link_order=0 TAMIS_LIBRARY=build/sanitize/libtamis_native.so \
	  $(BIN)/python -m pytest -q tests/spark/test_kernels.py tests/spark/test_topk_kernels.py \
	    tests/spark/test_decoder.py && \
	  LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so)" \
	  ASAN_OPTIONS=detect_leaks=0:verify_asan_link_order=0 TAMIS_LIBRARY=build/sanitize/libtamis_native.so \
	  $(BIN)/python -m pytest -q tests/spark/test_engine.py \
	    -k "definition or odd_shapes or ties or sliding or jumped or threads or damaged or fewer or several or closed" && \
	  LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so)" \
	  ASAN_OPTIONS=detect_leaks=0:verify_asan_link_order=0 TAMIS_LIBRARY=build/sanitize/libtamis_native.so \
	  $(BIN)/python -m pytest -q tests/subtitles/test_raster.py -k "not none-"; \
	fi

bench: $(VENV)/.dev work/peers-venv/.made work/toolbox-venv/.made llama fonts ## The numbers of README.md that need no training; hours
	$(BIN)/python benchmarks/subtitles_clips.py dev
	$(BIN)/python benchmarks/subtitles_clips.py test
	$(BIN)/python benchmarks/subtitles_accuracy.py test --real
	$(BIN)/python benchmarks/subtitles_calibration.py test --every 4
	$(BIN)/python benchmarks/subtitles_clips.py former
	$(BIN)/python benchmarks/subtitles_speed.py
	$(BIN)/python benchmarks/subtitles_speed.py --joined --repeats 1
	$(BIN)/python benchmarks/subtitles_clips.py third --only ko-03
	$(BIN)/python benchmarks/subtitles_speed.py --hour work/clips/third/ko-03-fade.mp4 --skip-decoding
	$(BIN)/python benchmarks/subtitles_peers.py test
	$(BIN)/python benchmarks/subtitles_ablation.py test
	$(BIN)/python benchmarks/spark_topk.py --step tiny
	$(BIN)/python benchmarks/spark_decode.py --against llama.cpp
	work/toolbox-venv/bin/python benchmarks/slides_readers.py
	$(BIN)/python benchmarks/slides_memory.py
	$(BIN)/python benchmarks/slides_memory.py --side 20000 --regions 1
	work/toolbox-venv/bin/python benchmarks/slides_toolbox.py work/score/repeated-20000-0.6-4.tif
	$(BIN)/python benchmarks/weakseg_speed.py
	$(BIN)/python benchmarks/proliferation_coverage.py
	$(BIN)/python benchmarks/proliferation_hot_spot.py
	$(BIN)/python benchmarks/proliferation_fields.py --cases test --stains 1
	$(BIN)/python benchmarks/proliferation_pam50.py "$${TAMIS_DATA:-../shared/data}"
	$(BIN)/python benchmarks/proliferation_detect.py --count 6 --size 6144 --seed 1000
	$(BIN)/python benchmarks/proliferation_composed.py --count 60 --seed 2100

fonts: work/.fonts ## Debian packages for training and benchmarks: fonts, and ffmpeg with libass

work/.fonts: Makefile
	@command -v apt-get >/dev/null || { \
	  echo "The fonts and ffmpeg come from Debian packages, and this machine has no apt-get: install these by hand,"; \
	  echo "then touch $@:  ffmpeg tesseract-ocr $(FONTS)"; exit 1; }
	$$([ "$$(id -u)" = 0 ] || echo sudo) apt-get update -q
	$$([ "$$(id -u)" = 0 ] || echo sudo) apt-get install -qy --no-install-recommends ffmpeg tesseract-ocr \
	  tesseract-ocr-chi-sim tesseract-ocr-chi-tra tesseract-ocr-jpn tesseract-ocr-kor $(FONTS)
	mkdir -p work && touch $@

clean: ## Everything that a target made
	rm -rf $(VENV) work build

# Debian splits ensurepip off into python3-venv. Without it, the pip that is there can fill the environment.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Tamis needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Name another: make PYTHON=..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || { \
	  $(PYTHON) -m venv --clear --without-pip $(VENV) && \
	  $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; } || { \
	  echo "$(PYTHON) cannot make a virtual environment: run  apt-get install python3-venv  and try again."; exit 1; }
	@touch $@

$(VENV)/.user: $(VENV)/.made pyproject.toml constraints.txt $(KERNELS)
	$(INSTALL) --editable '.[subtitles,slides,spark]'
	@touch $@

$(VENV)/.dev: $(VENV)/.made pyproject.toml constraints.txt $(KERNELS)
	$(INSTALL) --editable '.[dev]'
	@touch $@ $(VENV)/.user

# llama.cpp for `tamis spark bench --against llama.cpp`, from the source in llama-cpp-python and for this very processor: some ten
# minutes of one core, only the library itself.
llama: work/llama/.made ## llama.cpp compiled for this processor, the peer of the decoding engine

work/llama/.made: $(VENV)/.made
	mkdir -p work/llama
	CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF -DLLAMA_BUILD_COMMON=OFF -DLLAMA_BUILD_TOOLS=OFF \
	  -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF" \
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --target work/llama/site \
	  --no-binary llama-cpp-python llama-cpp-python==0.3.36
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --target work/llama/site gguf==0.19.0 diskcache==5.6.3
	@touch $@

# The peers bring their own OpenCV, which must not lie over ours.
work/peers-venv/.made:
	mkdir -p work && $(PYTHON) -m venv work/peers-venv
	work/peers-venv/bin/python -m pip install --quiet --disable-pip-version-check rapidocr==3.10.0 onnxruntime==1.31.1
	@touch $@

# Slide toolboxes beside Tamis: hs2p's own OpenCV is left out, what .venv has is used.
work/toolbox-venv/.made: $(VENV)/.dev
	mkdir -p work && $(PYTHON) -m venv work/toolbox-venv
	work/toolbox-venv/bin/python -c "import glob, site; open(site.getsitepackages()[0] + '/tamis.pth', 'w').write( \
	  '\n'.join(glob.glob('$(CURDIR)/$(VENV)/lib/python3.*/site-packages') + ['$(CURDIR)/src']))"
	work/toolbox-venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
	  hs2p==6.1.0 pandas==3.1.1 rich==15.0.0 wandb==0.31.0 omegaconf==2.4.0 markdown-it-py==4.3.0 \
	  mdurl==0.1.2 antlr4-python3-runtime==4.13.2 pyvips==3.2.0 pyvips-binary==8.18.7 cffi==2.1.1 pycparser==3.12 fastslide==0.8.1
	@touch $@
