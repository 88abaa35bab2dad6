# ccpipe: `make demo` and `make test` install what is missing, build, and run.
#
#   make            the five tools and the backends in bin/
#   make deps       what is missing of the packages below (Debian names)
#   make test       every test; ends with "N passed, N failed, N skipped"
#   make check-deep sanitizer build, fuzzers, kill loops: minutes to hours
#   make demo       the pipeline on the bundled pair of models, demo/report.html
#   make bench      the speed of each operation beside its bound (BENCH_FLAGS=--quick)
#   make gpu-check  the CUDA backend on this machine's GPU: parity, training, speed (doc/GPU.md)
#   make gpu-bundle the same for another machine, build/ccpipe-gpu.tar.gz
#   make lint       format, headers, include direction, shellcheck
#   make man        doc/man/*.1 from the option tables
#   make install    to $(DESTDIR)$(PREFIX)
#   CUDA=0|1                without | with the CUDA backend (by itself: with, where nvcc is found)
#   SAN=address,undefined   builds with sanitizers into build-address-undefined/ and bin-address-undefined/
#   WERROR=1                warnings are errors
#   V=1                     print whole commands

PACKAGES := gcc libc6-dev libdnnl-dev libjansson-dev liblz4-dev libxxhash-dev libzstd-dev libsnappy-dev
TEST_PACKAGES := libcmocka-dev bats shellcheck lz4 zstd strace procps clang libclang-rt-dev clang-format g++
PREFIX ?= /usr/local
TOOLS := tokstream actgen shufbuf cctrain ccanalyze
CC := gcc
CXX := g++

comma := ,
say = $(if $(V),,@echo '  $(1) $@';)
SUFFIX := $(if $(SAN),-$(subst $(comma),-,$(SAN)))
B := build$(SUFFIX)
BIN := bin$(SUFFIX)

WARNINGS := -Wall -Wextra -Wshadow -Wmissing-prototypes -Wstrict-prototypes -Wvla -Wformat=2 \
	-Wconversion $(if $(WERROR),-Werror)
CFLAGS ?= -O2 -g
ALL_CFLAGS := -std=c11 -D_POSIX_C_SOURCE=200809L -D_FILE_OFFSET_BITS=64 -I. -pthread -fno-plt \
	$(WARNINGS) $(CFLAGS) $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer)
ALL_LDFLAGS := -pthread $(LDFLAGS) $(if $(SAN),-fsanitize=$(SAN))
LIBS := -ljansson -llz4 -lzstd -lxxhash -ldl -lm
LIBS_tokstream := -lsnappy

COMMON_OBJECTS := $(patsubst %.c,$(B)/%.o,$(wildcard common/*.c) kernels/load.c)
tool_sources = $(filter-out tools/$(1)/main.c,$(wildcard tools/$(1)/*.c))
tool_objects = $(patsubst %.c,$(B)/%.o,$(call tool_sources,$(1)))
TOOL_LIBRARIES := $(TOOLS:%=$(B)/lib%.a)

# The CPU backend is built once per level of the x86-64 instruction set; kernels/load.c takes the
# highest that the processor has, so that what is copied to another machine runs there.
CPU_LEVELS := v2 v3 v4
CPU_BACKENDS := $(CPU_LEVELS:%=$(BIN)/ccpipe-cpu-%.so)

# CUDA=1 builds the CUDA backend, CUDA=0 does not; without either it is built where nvcc is found.
NVCC := $(firstword $(wildcard $(CUDA_HOME)/bin/nvcc) $(shell command -v nvcc) $(wildcard /usr/local/cuda/bin/nvcc))
CUDA ?= $(if $(NVCC),1,0)
ifeq ($(CUDA)$(NVCC),1)
$(error CUDA=1 needs nvcc: put it on PATH, or name its toolkit by CUDA_HOME=FOLDER)
endif
CUDA_BACKEND := $(BIN)/ccpipe-cuda.so
BACKENDS := $(CPU_BACKENDS) $(if $(filter 1,$(CUDA)),$(CUDA_BACKEND))

UNIT_TESTS := $(patsubst %.c,$(B)/%,$(wildcard tests/unit/test_*.c tests/parity/test_*.c))
FUZZERS := $(patsubst tests/fuzz/%.c,$(B)/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))

.PHONY: all deps test test-programs check-deep demo lint man bench bench-forward gpu-check gpu-bundle install clean fuzzers
.DELETE_ON_ERROR:
.SECONDARY:

all: $(TOOLS:%=$(BIN)/%) $(BACKENDS)

$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC  )$(CC) $(ALL_CFLAGS) -MMD -MP -c $< -o $@

$(B)/libcommon.a: $(COMMON_OBJECTS)
	@rm -f $@
	$(call say,AR  )ar rcs $@ $^

define TOOL_RULES
$(B)/lib$(1).a: $(call tool_objects,$(1))
	@rm -f $$@
	$$(call say,AR  )ar rcs $$@ $$^

$(BIN)/$(1): $(B)/tools/$(1)/main.o $(B)/lib$(1).a $(B)/libcommon.a
	@mkdir -p $$(@D)
	$$(call say,LINK)$(CC) $(ALL_LDFLAGS) -o $$@ $$^ $$(LIBS_$(1)) $(LIBS)
endef
$(foreach tool,$(TOOLS),$(eval $(call TOOL_RULES,$(tool))))

define CPU_RULES
$(B)/kernels-$(1)/%.o: kernels/cpu/%.c
	@mkdir -p $$(@D)
	$$(call say,CC  )$(CC) $(ALL_CFLAGS) -O3 -march=x86-64-$(1) -fPIC -fopenmp -fno-math-errno -fno-trapping-math -ffp-contract=fast \
		-fvisibility=hidden -MMD -MP -c $$< -o $$@

$(BIN)/ccpipe-cpu-$(1).so: $(patsubst kernels/cpu/%.c,$(B)/kernels-$(1)/%.o,$(wildcard kernels/cpu/*.c))
	@mkdir -p $$(@D)
	$$(call say,LINK)$(CC) $(ALL_LDFLAGS) -shared -fopenmp -Wl,-z,defs -o $$@ $$^ -ldnnl -lm
endef
$(foreach level,$(CPU_LEVELS),$(eval $(call CPU_RULES,$(level))))

# The CUDA backend on the emulation of tests/emu: the sources that nvcc compiles, by the host's compiler.
EMU_TESTS := $(patsubst tests/emu/%.cc,$(B)/emu/%,$(wildcard tests/emu/test_*.cc))
EMU_RUNTIME := $(patsubst %,$(B)/emu/%.o,$(filter-out tests/emu/test_%,$(wildcard tests/emu/*.cc)))
EMU_OBJECTS := $(patsubst %,$(B)/emu/%.o,$(wildcard kernels/cuda/*.cu)) $(EMU_RUNTIME)
EMU_BACKEND := $(B)/emu/ccpipe-cuda.so
CXXFLAGS ?= $(CFLAGS)
# The thread sanitizer would have to be told of each fiber; one thread runs them all.
EMU_SAN := $(filter-out thread,$(SAN))
$(B)/emu/%.o: %
	@mkdir -p $(@D)
	$(call say,CXX )$(CXX) -x c++ -std=c++17 -D_POSIX_C_SOURCE=200809L -DCCPIPE_EMU -I. -isystem tests/emu/include \
		-Wall -Wextra -Wshadow -Wformat=2 -Wconversion -Wno-unknown-pragmas $(if $(WERROR),-Werror) $(CXXFLAGS) \
		$(if $(EMU_SAN),-fsanitize=$(EMU_SAN) -fno-omit-frame-pointer) -march=x86-64-v2 -fPIC -fvisibility=hidden \
		-MD -MP -c $< -o $@
$(EMU_BACKEND): $(EMU_OBJECTS) tests/emu/shared.ld
	$(call say,LINK)$(CXX) $(ALL_LDFLAGS) -shared -Wl,-z,defs -Wl,-T,tests/emu/shared.ld -o $@ $(EMU_OBJECTS)
$(B)/emu/test_%: $(B)/emu/tests/emu/test_%.cc.o $(EMU_RUNTIME) tests/emu/shared.ld
	$(call say,LINK)$(CXX) $(ALL_LDFLAGS) -Wl,-T,tests/emu/shared.ld -o $@ $< $(EMU_RUNTIME) -lcmocka

# A GPU faults where an access is not aligned; the host would not, so it is made to trap.
$(B)/emu/kernels/%.o: CXXFLAGS += $(if $(SAN),,-fsanitize=alignment -fsanitize-undefined-trap-on-error)

# The CUDA backend: code for Ampere and Hopper, and PTX from which the driver makes what is newer. The
# runtime is linked in, cuBLASLt is loaded from where it lies on this machine, else from where the system's
# linker looks.
CUDA_CODE := -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90,code=sm_90 \
	-gencode arch=compute_90,code=compute_90
CUDA_LIBRARIES := $(abspath $(dir $(NVCC))../lib64)
$(B)/cuda/%.o: kernels/cuda/%.cu
	@mkdir -p $(@D)
	$(call say,NVCC)$(NVCC) -std=c++17 -O3 -lineinfo $(CUDA_CODE) -I. $(if $(WERROR),-Werror all-warnings) \
		-Xcompiler -g,-fPIC,-fvisibility=hidden,-Wall,-Wextra,-Wshadow,-Wno-unused-function -MMD -MP -c $< -o $@
$(CUDA_BACKEND): $(patsubst kernels/cuda/%.cu,$(B)/cuda/%.o,$(wildcard kernels/cuda/*.cu))
	@mkdir -p $(@D)
	$(call say,LINK)$(NVCC) -shared -cudart static $(CUDA_CODE) -o $@ $^ -ldl \
		-Xlinker -z,defs,--exclude-libs,ALL,-rpath,$(CUDA_LIBRARIES)

# A unit test links with every module of every tool (not their main functions); the linker takes
# what it needs.
$(B)/tests/%: tests/%.c $(TOOL_LIBRARIES) $(B)/libcommon.a
	@mkdir -p $(@D)
	$(call say,CC  )$(CC) $(ALL_CFLAGS) -MMD -MP -MF $@.d $(ALL_LDFLAGS) -o $@ $< \
		-Wl,--start-group $(TOOL_LIBRARIES) $(B)/libcommon.a -Wl,--end-group -lcmocka -lsnappy $(LIBS)

# The speed of a backend beside its bounds; BENCH_FLAGS=--quick takes half a minute, --device cuda
# is for the other backend.
$(B)/bench_kernels: $(patsubst %.c,$(B)/%.o,$(wildcard tests/bench/*.c)) $(B)/libcommon.a
	$(call say,LINK)$(CC) $(ALL_LDFLAGS) -fopenmp -o $@ $^ -ldnnl $(LIBS)
$(B)/tests/bench/bench_products.o: ALL_CFLAGS += -fopenmp
bench: $(CPU_BACKENDS) $(B)/bench_kernels
	@CCPIPE_BACKENDS=$(BIN) $(B)/bench_kernels $(BENCH_FLAGS)

# Where the time of actgen's forward pass goes; half a minute per layer of --layers N.
bench-forward: $(CPU_BACKENDS) $(B)/tests/bench/actgen/bench_forward
	@CCPIPE_BACKENDS=$(BIN) $(B)/tests/bench/actgen/bench_forward $(BENCH_FLAGS)

# What tests/gpu/check runs, here or from a bundle on another machine.
GPU_PROGRAMS := $(B)/bench_kernels $(B)/tests/gpu/make_inputs $(filter $(B)/tests/parity/%,$(UNIT_TESTS))
GPU_BUNDLE := $(B)/ccpipe-gpu.tar.gz
gpu-check: all $(GPU_PROGRAMS)
	@tests/gpu/check $(GPU_FLAGS)
gpu-bundle: all $(CUDA_BACKEND) $(GPU_PROGRAMS)
	@BUILD=$(B) BIN=$(BIN) tests/gpu/bundle $(GPU_BUNDLE)

# Fuzzers are built from source by clang, all modules instrumented.
FUZZ_SOURCES := $(wildcard common/*.c) $(foreach tool,$(TOOLS),$(call tool_sources,$(tool)))
FUZZ_OBJECTS := $(patsubst %.c,$(B)/fuzz/obj/%.o,$(FUZZ_SOURCES))
FUZZ_FLAGS := -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined
$(B)/fuzz/obj/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC  )clang -std=c11 -D_POSIX_C_SOURCE=200809L -D_FILE_OFFSET_BITS=64 -I. $(FUZZ_FLAGS) -MMD -MP -c $< -o $@
$(B)/fuzz/libfuzzed.a: $(FUZZ_OBJECTS)
	@rm -f $@
	$(call say,AR  )ar rcs $@ $^
$(B)/fuzz/fuzz_%: tests/fuzz/fuzz_%.c $(B)/fuzz/libfuzzed.a
	$(call say,CC  )clang -std=c11 -D_POSIX_C_SOURCE=200809L -D_FILE_OFFSET_BITS=64 -I. $(FUZZ_FLAGS) -fsanitize=fuzzer \
		-MMD -MP -MF $@.d -pthread -o $@ $< $(B)/fuzz/libfuzzed.a -lsnappy $(LIBS)
fuzzers: $(FUZZERS)

deps:
	@tools/install-deps $(PACKAGES) $(TEST_PACKAGES)

test-programs: all $(UNIT_TESTS) $(EMU_BACKEND) $(EMU_TESTS) $(GPU_PROGRAMS) $(B)/tests/pipe/take_rows $(B)/tests/pipe/via_rows

test: deps
	@$(MAKE) --no-print-directory -j2 test-programs fuzzers
	@tests/run

check-deep: deps
	@tests/deep/run

demo: deps
	@$(MAKE) --no-print-directory -j2 all
	@pipelines/demo

lint:
	@tests/lint/run

# One page per program, and per verb of ccanalyze as git has it: ccanalyze-norms.1.
man: all
	@rm -rf doc/man && mkdir -p doc/man
	@set -e; for tool in $(TOOLS); do $(BIN)/$$tool --man > doc/man/$$tool.1; done; \
	for verb in $$($(BIN)/ccanalyze --help | sed -n '/^usage:/d; s/^\([a-z]*\): .*/\1/p'); do \
	    $(BIN)/ccanalyze $$verb --man > doc/man/ccanalyze-$$verb.1; \
	done

install: all man
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/ccpipe $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 755 $(TOOLS:%=$(BIN)/%) $(DESTDIR)$(PREFIX)/bin
	install -m 644 $(BACKENDS) $(DESTDIR)$(PREFIX)/lib/ccpipe
	install -m 644 doc/man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1

clean:
	rm -rf build bin build-* bin-* doc/man tests/out

-include $(shell find $(B) -name '*.d' 2>/dev/null)
