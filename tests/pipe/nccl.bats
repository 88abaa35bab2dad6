# Rows by NCCL, from one emulated device to another: what a taker receives are actgen's rows, a run has the bytes of
# the same rows through shufbuf, and whoever is lost ends the other.

# shellcheck disable=SC2154  # planes.bash sets dir and pair
export PLANE=nccl FROM=cuda:0 TO=cuda:1 TAKE=${BUILD:-build}/tests/pipe/take_rows
load planes

setup_file() {
    make_rows
}

setup() {
    bats_require_minimum_version 1.5.0
}

take() {
    CCPIPE_BACKENDS=$EMULATED timeout 100 "$TAKE" cuda:1
}

@test "rows that are sent are those that go by the pipe, whatever the device does first" {
    local order
    actgen --batch 1 -o "$BATS_TEST_TMPDIR/want" --codec none
    for order in random:1 random:2 random:3; do
        EMU_ORDER=$order actgen --batch 1 --via nccl | EMU_ORDER=$order take >"$BATS_TEST_TMPDIR/rows"
        cmp "$BATS_TEST_TMPDIR/rows" "$BATS_TEST_TMPDIR/want"
    done
}

@test "a pass that gives no row, and int8" {
    actgen --skip-first 96 --via nccl | take >"$BATS_TEST_TMPDIR/rows"
    [ "$("$BIN/ccanalyze" dump "$BATS_TEST_TMPDIR/rows" | wc -l)" -le 1 ]
    actgen --row-dtype int8 -o "$BATS_TEST_TMPDIR/want" --codec none
    actgen --row-dtype int8 --via nccl | take >"$BATS_TEST_TMPDIR/rows"
    cmp "$BATS_TEST_TMPDIR/rows" "$BATS_TEST_TMPDIR/want"
}

@test "actgen --via nccl into cctrain gives the bytes of actgen, shufbuf, cctrain" {
    actgen --batch 1 | "$BIN/shufbuf" -q --rows 50 --seed 3 | train cuda:1 "$BATS_TEST_TMPDIR/inline"
    actgen --batch 1 --via nccl | train cuda:1 "$BATS_TEST_TMPDIR/via" --shuffle-rows 50 --shuffle-seed 3 \
        2>"$BATS_TEST_TMPDIR/err"
    same_weights "$BATS_TEST_TMPDIR/inline" "$BATS_TEST_TMPDIR/via"
    run ! grep -q -e error -e warning "$BATS_TEST_TMPDIR/err"
}

@test "so do passes of all sizes, with a buffer smaller than a batch, and one that holds all" {
    same_at 50:20 1:64 33:1 1000:7
}

@test "a row that arrives otherwise than it was sent, or lies in another pass, is 65" {
    run -65 via 20 50 "$BATS_TEST_TMPDIR/run" flip 200
    [[ "$output" == *"row 200: what arrived on the device is not what was sent"* ]]
    generator_status 0
    via 20 50 "$BATS_TEST_TMPDIR/run" -- --resume
    same_weights "$dir/run" "$BATS_TEST_TMPDIR/run"
    run -65 via 20 50 "$BATS_TEST_TMPDIR/place" place 100
    [[ "$output" == *"row 100: it lies outside of its pass"* ]]
}

# killed_mid_way WHO OUT: a pipeline of actgen and cctrain, one of which is killed once there is a checkpoint. The
# statuses are in $generator and $trainer.
killed_mid_way() {
    generator=0 trainer=0
    local pipe="$2.pipe" pids
    mkfifo "$pipe"
    # Not by the functions, whose number is not the program's.
    CCPIPE_BACKENDS=$EMULATED "$BIN/actgen" -q --device cuda:0 --dtype f32 --norm "$dir/norm.json" --batch 1 \
        --model "base=$pair/base" --model "chat=$pair/chat" --hook blocks.2.hook_resid_pre --via nccl "$dir/many" \
        >"$pipe" 2>"$2.actgen" 3>&- &
    pids=($!)
    CCPIPE_BACKENDS=$EMULATED "$BIN/cctrain" -q --device cuda:1 --dtype f32 --out "$2" --latents 64 --batch 32 \
        --steps 100 --save-every 4 --lr 1e-3 --shuffle-rows 50 --shuffle-seed 3 <"$pipe" 2>"$2.cctrain" 3>&- &
    pids+=($!)
    until [ -e "$2/step-4" ]; do
        kill -0 "${pids[@]}"
        sleep 0.05
    done
    kill -KILL "${pids[$1]}"
    wait "${pids[0]}" || generator=$?
    wait "${pids[1]}" || trainer=$?
    cat "$2.actgen" "$2.cctrain"
    echo "actgen $generator, cctrain $trainer"
}

@test "whichever end is killed, the other ends with 75" {
    "$BIN/tokstream" -q --limit 40 --seq-len 96 "$pair/tokens/validation.parquet" >"$dir/many"
    killed_mid_way 0 "$BATS_TEST_TMPDIR/a"
    [ $generator -eq 137 ]
    [ $trainer -eq 75 ]
    [ "$(grep -c error: "$BATS_TEST_TMPDIR/a.cctrain")" -eq 1 ]
    killed_mid_way 1 "$BATS_TEST_TMPDIR/b"
    [ $generator -eq 75 ]
    [ $trainer -eq 137 ]
    [ "$(grep -c error: "$BATS_TEST_TMPDIR/b.actgen")" -eq 1 ]
}

@test "a trainer that has all its steps leaves, and actgen ends" {
    actgen --batch 1 --via nccl | train cuda:1 "$BATS_TEST_TMPDIR/run" --shuffle-rows 50 --steps 3
    [ "${PIPESTATUS[*]}" = "0 0" ]
}

# one_device WANT [NAME=VALUE...]: the statuses of both ends on one device, where those are set.
one_device() {
    local statuses
    export "${@:2}" none=
    rm -rf "$BATS_TEST_TMPDIR/run"
    set +e
    actgen --via nccl 2>"$BATS_TEST_TMPDIR/err.a" |
        train "$FROM" "$BATS_TEST_TMPDIR/run" -q --shuffle-rows 50 --shuffle-seed 3 2>"$BATS_TEST_TMPDIR/err.b"
    statuses="${PIPESTATUS[*]}"
    set -e
    unset "${@%%=*}" none
    cat "$BATS_TEST_TMPDIR"/err.?
    [ "$statuses" = "$1 $1" ] || { echo "exit $statuses"; return 1; }
}

@test "one device is refused by both ends, but where NCCL allows it" {
    one_device 64
    grep -q 'work on two devices, and this is one; use --via cuda-ipc' "$BATS_TEST_TMPDIR/err.a"
    grep -q 'generator refuses: .* work on two devices, and this is one' "$BATS_TEST_TMPDIR/err.b"
    one_device 64 NCCL_MULTI_RANK_GPU_ENABLE=1
    one_device 64 EMU_NCCL=23000
    [ ! -e "$BATS_TEST_TMPDIR/run" ]
    one_device 0 EMU_NCCL=23000 NCCL_MULTI_RANK_GPU_ENABLE=1
    actgen | "$BIN/shufbuf" -q --rows 50 --seed 3 | train "$FROM" "$BATS_TEST_TMPDIR/inline" -q
    same_weights "$BATS_TEST_TMPDIR/inline" "$BATS_TEST_TMPDIR/run"
}

@test "an NCCL that is too old and a device without NCCL are 64" {
    local status=0
    EMU_NCCL=21799 actgen --via nccl 2>"$BATS_TEST_TMPDIR/err" | cat || status=$?
    grep -q 'NCCL is version 21799, at least 21800 is needed' "$BATS_TEST_TMPDIR/err"
    run bash -c "'$BIN/actgen' -q --device cpu --model base=$pair/base --hook blocks.0.hook_resid_pre --via nccl \
        '$dir/tokens' | cat; exit \${PIPESTATUS[0]}"
    [ "$status" -eq 64 ]
    [[ "$output" == *"--via nccl needs a CUDA device"* ]]
    source_of cuda:0 20 2>/dev/null |
        "$BIN/cctrain" --device cpu --out "$BATS_TEST_TMPDIR/run" --batch 32 2>"$BATS_TEST_TMPDIR/err" || status=$?
    [ "$status" -eq 64 ]
    grep -q 'come by nccl, and device cpu cannot take them' "$BATS_TEST_TMPDIR/err"
}
