# tests/gpu/check where there is no GPU: the script itself, and the bundle that takes it to another machine.
# shellcheck disable=SC2154  # run sets output and status

setup_file() {
    export bundle=$BATS_FILE_TMPDIR/ccpipe-gpu
    tests/gpu/bundle --cpu-only "$bundle"
}

# Nothing of the checkout is opened, and nothing of the user's environment is needed.
@test "a bundle without a device tests the CPU's part, says so, and ends with 76" {
    cd /
    run env -i "$(command -v strace)" -f --seccomp-bpf -qq -e trace=open,openat,execve -o "$BATS_TEST_TMPDIR/opened" \
        "$bundle/tests/gpu/check"
    echo "$output"
    [ "$status" -eq 76 ]
    [[ $output == *"passed   cpu: elements against f64: "* ]]
    [[ $output == *"passed   cpu: forward pass against transformers: "* ]]
    [[ $output == *"passed   cpu: training on them"* ]]
    [[ $output == *"bench_kernels: error: there is no CUDA backend: "* ]]
    [[ $output == *"There is no device 'cuda'"*"not verified on a GPU"* ]]
    [ "${lines[-1]}" = "13 passed, 0 failed, 0 skipped" ]
    [ ! -e "$bundle/tests/bench/results" ]
    grep -q "\"$bundle/lib/libdnnl.so.2\"" "$BATS_TEST_TMPDIR/opened" # what is opened was seen
    run grep -F "\"$OLDPWD/" "$BATS_TEST_TMPDIR/opened"
    [ "$status" -eq 1 ]
}

# A program in the place of a test: what it prints, and its exit status.
pretend() {
    printf '#!/bin/sh\nprintf "%s"\nexit %s\n' "$2" "$3" >"$bundle/build/tests/parity/$1"
}

@test "a test that fails, is missing, crashes or says nothing is a failure: 1, not 76" {
    pretend test_kernels_elements '1..2\nok 1 - a\nok 2 - b\n' 0
    pretend test_kernels_optimiser '1..2\nok 1 - a\nnot ok 2 - b\n' 1
    pretend test_kernels_crosscoder '1..2\nok 1 - a\n' 0
    pretend test_kernels_order '1..1\nok 1 - a\n' 139
    pretend test_cctrain_steps '' 0
    pretend test_actgen_expected '1..2\nok 1 - a\nok 2 # SKIP\n' 0
    run env -u BUILD -u BIN "$bundle/tests/gpu/check"
    echo "$output"
    [ "$status" -eq 1 ]
    [[ $output == *"passed   cpu: elements against f64: 2 tests"* ]]
    [[ $output == *"failed   cpu: optimiser against f64: exit status 1, 1 of 2 tests"* ]]
    [[ $output == *"failed   cpu: crosscoder against f64: exit status 0, 1 of 2 tests"* ]]
    [[ $output == *"failed   cpu: order against f64: exit status 139"* ]]
    [[ $output == *"failed   cpu: training against torch's run: exit status 0, 0 of 0 tests"* ]]
    [[ $output == *"passed   cpu: forward pass against transformers: 1 tests, 1 skipped"* ]]
    [ "${lines[-1]}" = "9 passed, 4 failed, 0 skipped" ]
}

@test "on the emulated device: what must be right, and no tables" {
    run tests/gpu/check --emulated --only right --out "$BATS_TEST_TMPDIR/out" --work "$BATS_TEST_TMPDIR/work"
    echo "$output"
    [ "$status" -eq 0 ]
    [[ $output == *"passed   sharing: 2 tests"* ]]
    [[ $output == *"passed   they are the CPU's: a row is off by at most "* ]]
    [[ $output == *"passed   its losses are the CPU's: a loss of 7 steps "* ]]
    [[ $output == *"skipped  memcheck and racecheck: not run: the device is emulated"* ]]
    [[ $output == *"passed   by cuda-ipc: weights and moments are those of the pipe's run, byte for byte"* ]]
    [[ $output == *"passed   by nccl, cuda to cuda:1: weights and moments are those of the pipe's run, byte for byte"* ]]
    [[ ${lines[-1]} == *" passed, 0 failed, "* ]]
    [ ! -e "$BATS_TEST_TMPDIR/out" ]
    [ -z "$(ls "$BATS_TEST_TMPDIR/work")" ]
}

@test "on the emulated device: speeds, and their tables" {
    local out=$BATS_TEST_TMPDIR/out
    run tests/gpu/check --emulated --only speed --out "$out" --work "$BATS_TEST_TMPDIR/work"
    echo "$output"
    [ "$status" -eq 0 ]
    [[ $output != *"by cuda-ipc:"* ]]
    [[ ${lines[-1]} == *" passed, 0 failed, "* ]]
    cat "$out"/*
    local what
    for what in 'actgen, 2 layers' 'cctrain, F 64' 'both on one GPU, inline' 'both on one GPU, cuda-ipc'; do
        grep -qE "^\| ${what}[^|]*\| [1-9][0-9.]* [a-z/]* \| [0-9.]* \|" "$out"/gpu-emulated-device-*.md
        grep -qE "\"what\": \"${what}[^\"]*\", \"rate\": [0-9.]*, " "$out"/gpu-emulated-device-*.json
    done
    grep -q "Not verified on a GPU" "$out"/*.md
    [ -z "$(ls "$BATS_TEST_TMPDIR/work")" ]
    local operation
    for operation in adam 'move_rows to slots' 'move_rows from slots' 'hash_rows of slots'; do
        [ "$(grep -c "\"operation\":\"$operation\"" "$out"/*.json)" -eq 2 ]
    done
}

@test "what it does not know is refused" {
    run tests/gpu/check --sizes
    [ "$status" -eq 64 ]
    run tests/gpu/check --out
    [ "$status" -eq 64 ]
    run tests/gpu/check --only fast
    [ "$status" -eq 64 ]
    [[ $output == *"--only knows 'right', 'speed' and 'loss', not 'fast'"* ]]
    run tests/gpu/bundle "$bundle"
    [ "$status" -eq 64 ]
    [[ $output == *"is there already"* ]]
}
