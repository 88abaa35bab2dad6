# actgen --via cuda-ipc on the emulated device of tests/emu: the rows that a taker of its window finds are those of
# actgen without it, and a trainer that is lost, slow or content ends it as it should.
# shellcheck disable=SC2154  # run sets stderr

setup_file() {
    export BIN=${BIN:-bin} EMULATED=${BUILD:-build}/emu TAKE=${BUILD:-build}/tests/pipe/take_rows
    export pair=demo/tiny-gemma2 dir=$BATS_FILE_TMPDIR
    "$BIN/tokstream" -q --limit 9 --seq-len 40 "$pair/tokens/validation.parquet" >"$dir/tokens"
    actgen -o "$dir/rows" --codec none "$dir/tokens"
}

setup() {
    bats_require_minimum_version 1.5.0
}

# actgen ARG...: on the emulated device; 9 passes of 39 rows.
actgen() {
    CCPIPE_BACKENDS=$EMULATED timeout 100 "$BIN/actgen" -q --device cuda --batch 1 --norm-sequences 3 \
        --model "base=$pair/base" --model "chat=$pair/chat" --hook blocks.1.hook_resid_pre "$@"
}

take() {
    CCPIPE_BACKENDS=$EMULATED timeout 100 "$TAKE" cuda "$@"
}

@test "rows that stay on the device are those that go by the pipe, whatever the device does first" {
    local order
    for order in random:1 random:2 random:3; do
        EMU_ORDER=$order actgen --via cuda-ipc "$dir/tokens" | take >"$BATS_TEST_TMPDIR/rows"
        cmp "$BATS_TEST_TMPDIR/rows" "$dir/rows"
    done
}

@test "several sequences a pass, and int8, too" {
    actgen --batch 4 --row-dtype int8 -o "$BATS_TEST_TMPDIR/want" --codec none "$dir/tokens"
    actgen --batch 4 --row-dtype int8 --via cuda-ipc "$dir/tokens" | take >"$BATS_TEST_TMPDIR/rows"
    cmp "$BATS_TEST_TMPDIR/rows" "$BATS_TEST_TMPDIR/want"
}

@test "a pass that gives no row is a pass all the same" {
    actgen --skip-first 40 --norm none --via cuda-ipc "$dir/tokens" | take >"$BATS_TEST_TMPDIR/rows"
    [ "$("$BIN/ccanalyze" dump "$BATS_TEST_TMPDIR/rows" | wc -l)" -le 1 ]
}

# ended WANT FAULT: actgen's exit status where the taker has the fault before row 100.
ended() {
    local want=$1 status
    set +e # the taker's own status is not what is looked at
    (
        actgen --via cuda-ipc "$dir/tokens" 2>"$BATS_TEST_TMPDIR/err"
        echo $? >"$BATS_TEST_TMPDIR/status"
    ) | take "$2" 100 >"$BATS_TEST_TMPDIR/rows"
    set -e
    cat "$BATS_TEST_TMPDIR/err"
    status=$(cat "$BATS_TEST_TMPDIR/status")
    [ "$status" -eq "$want" ] || { echo "exit $status"; return 1; }
}

@test "a trainer that is killed is 75" {
    ended 75 die
    grep -q 'error: .*lost' "$BATS_TEST_TMPDIR/err"
}

@test "a trainer that has enough ends actgen as a reader that goes away does" {
    ended 0 bye
}

@test "a reader that goes without having attached is no error" {
    CCPIPE_BACKENDS=$EMULATED run -0 bash -c "'$BIN/actgen' -q --device cuda --norm none --model base=$pair/base \
        --hook blocks.0.hook_resid_pre --via cuda-ipc '$dir/tokens' | head -c 100 >'$BATS_TEST_TMPDIR/some'"
}

@test "whoever cannot follow a row to the device refuses the stream, and says what can" {
    run bash -c "CCPIPE_BACKENDS=$EMULATED '$BIN/actgen' -q --device cuda --norm none --model base=$pair/base \
        --hook blocks.0.hook_resid_pre --via cuda-ipc '$dir/tokens' | '$BIN/ccanalyze' dump"
    echo "$output"
    [ "$status" -eq 64 ]
}

@test "a file, a device without a window and a sequence that the buffers have no room for are 64" {
    run --separate-stderr actgen --via cuda-ipc -o "$BATS_TEST_TMPDIR/file" "$dir/tokens"
    [ "$status" -eq 64 ]
    [[ "$stderr" == *"is a file: pipe into cctrain, or use --via inline"* ]]
    [ ! -e "$BATS_TEST_TMPDIR/file" ]
    actgen --via cuda-ipc "$dir/tokens" >"$BATS_TEST_TMPDIR/file" 2>"$BATS_TEST_TMPDIR/err" && return 1
    grep -q 'standard output is a file' "$BATS_TEST_TMPDIR/err"
    [ ! -s "$BATS_TEST_TMPDIR/file" ]
    run bash -c "'$BIN/actgen' -q --device cpu --model base=$pair/base --hook blocks.0.hook_resid_pre --via cuda-ipc \
        '$dir/tokens' | cat; exit \${PIPESTATUS[0]}"
    [ "$status" -eq 64 ]
    [[ "$output" == *"needs a CUDA device"* ]]
}
