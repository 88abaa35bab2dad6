# The CPU backend at every level of the instruction set passes the same parity tests, and tools that
# do not compute do not load it.

setup() {
    cd "$BATS_TEST_DIRNAME/../.." || exit 1
    tools=${BIN:-bin}
    parity=${BUILD:-build}/tests/parity
}

# passes "VARIABLE=VALUE..." PROGRAM...: each of the parity programs passes with those settings.
passes() {
    local program settings
    read -ra settings <<<"$1"
    for program in "${@:2}"; do
        run env "${settings[@]}" CCPIPE_BACKENDS="$tools" "$parity/test_kernels_$program"
        [ "$status" -eq 0 ] || { echo "$1 $program: $output"; return 1; }
    done
}
programs=(gemm elements transformer attention crosscoder optimiser order)

@test "x86-64-v2 passes the parity tests" {
    passes CCPIPE_CPU_LEVEL=v2 "${programs[@]}"
}

@test "x86-64-v3 passes the parity tests" {
    grep -qw avx2 /proc/cpuinfo || skip "the processor has no AVX2"
    passes CCPIPE_CPU_LEVEL=v3 "${programs[@]}"
}

# Processors between the levels: AVX alone, AVX2 for the products, AVX-512 without bf16. The number of
# threads is that of the device, whatever OpenMP would take.
@test "products pass for what oneDNN may use of the processor" {
    for isa in AVX AVX2 AVX512_CORE; do
        passes "ONEDNN_MAX_CPU_ISA=$isa OMP_NUM_THREADS=3" gemm
    done
}

@test "tools that do not compute load neither a backend nor its libraries" {
    for tool in tokstream actgen shufbuf cctrain ccanalyze; do
        [ -x "$tools/$tool" ] || continue
        run env LD_DEBUG=files "$tools/$tool" --version
        [ "$status" -eq 0 ]
        [[ $output == *"file=libc.so.6"* ]] # the linker did say what it loads
        [[ $output != *libdnnl* && $output != *libgomp* && $output != *ccpipe-cpu* ]]
    done
    run env LD_DEBUG=files "$tools/shufbuf" -q tests/golden/stream/rows-f32.ccps
    [ "$status" -eq 0 ]
    [[ $output != *libdnnl* && $output != *libgomp* && $output != *ccpipe-cpu* ]]
}

@test "they start in milliseconds" {
    start=$EPOCHREALTIME
    for _ in {1..50}; do
        "$tools/shufbuf" --version >/dev/null
    done
    took=$(((${EPOCHREALTIME/./} - ${start/./}) / 50))
    echo "$took us"
    [ "$took" -lt 30000 ]
}
