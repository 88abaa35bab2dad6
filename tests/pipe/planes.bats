# Rows by cuda-ipc into cctrain, on an emulated device: the bytes that a run has of the same rows through shufbuf,
# whatever becomes of either end.

# shellcheck disable=SC2154  # planes.bash sets dir and pair
export PLANE=cuda-ipc FROM=cuda TO=cuda
load planes

setup_file() {
    make_rows
}

setup() {
    bats_require_minimum_version 1.5.0
}

@test "rows by cuda-ipc train to the bytes of the same rows through shufbuf" {
    via 20 50 "$BATS_TEST_TMPDIR/run"
    generator_status 0
    same_weights "$dir/run" "$BATS_TEST_TMPDIR/run"
}

@test "so they do where the buffer is smaller than a batch, or holds all, and where passes have one row" {
    same_at 1:64 8:1 33:64 1000:1
}

@test "actgen --via cuda-ipc into cctrain gives the bytes of actgen, shufbuf, cctrain" {
    actgen | "$BIN/shufbuf" -q --rows 50 --seed 3 | train cuda "$BATS_TEST_TMPDIR/inline"
    actgen --via cuda-ipc | train cuda "$BATS_TEST_TMPDIR/via" --shuffle-rows 50 --shuffle-seed 3
    same_weights "$BATS_TEST_TMPDIR/inline" "$BATS_TEST_TMPDIR/via"
}

@test "a run is gone on with over a plane or inline, however it began" {
    local run=$BATS_TEST_TMPDIR/run
    run -75 via 20 50 "$run.a" cut 200
    inline 50 "$run.a" --resume
    same_weights "$dir/run" "$run.a"
    "$BIN/shufbuf" -q --rows 50 --seed 3 "$dir/rows" | head -c 60000 | (run -75 train cuda "$run.b")
    [ ! -e "$run.b/step-8" ]
    via 20 50 "$run.b" -- --resume
    generator_status 0
    same_weights "$dir/run" "$run.b"
    run -75 via 20 50 "$run.c" cut 150
    via 7 50 "$run.c" -- --resume
    same_weights "$dir/run" "$run.c"
}

@test "another seed or another N is another run" {
    run -75 via 20 50 "$BATS_TEST_TMPDIR/run" cut 200
    run -64 via 20 51 "$BATS_TEST_TMPDIR/run" -- --resume
    [[ "$output" == *"not the stream that the run was trained on"* ]]
    generator_status 0
}

@test "a row that arrives otherwise than it was sent is 65, after a checkpoint of what was good" {
    run -65 via 20 50 "$BATS_TEST_TMPDIR/run" flip 200
    [[ "$output" == *"row 200: what arrived on the device is not what was sent"* ]]
    generator_status 0
    [ -e "$BATS_TEST_TMPDIR/run"/step-4 ]
    via 20 50 "$BATS_TEST_TMPDIR/run" -- --resume
    same_weights "$dir/run" "$BATS_TEST_TMPDIR/run"
}

@test "a row that is announced before it is there, or lies in another pass, is 65" {
    run -65 via 20 50 "$BATS_TEST_TMPDIR/early" early 100
    [[ "$output" == *"what arrived on the device is not what was sent"* ]]
    run -65 via 20 50 "$BATS_TEST_TMPDIR/place" place 100
    [[ "$output" == *"row 100: it lies outside of its pass"* ]]
}

@test "a generator that is killed is 75, with a checkpoint" {
    local trainer status=0
    mkfifo "$BATS_TEST_TMPDIR/pipe"
    CCPIPE_BACKENDS=$EMULATED "$VIA" "$PLANE" cuda 20 "$dir/rows" hang 200 >"$BATS_TEST_TMPDIR/pipe" &
    local generator=$!
    train cuda "$BATS_TEST_TMPDIR/run" --shuffle-rows 50 --shuffle-seed 3 <"$BATS_TEST_TMPDIR/pipe" &
    trainer=$!
    until [ -e "$BATS_TEST_TMPDIR/run/step-4" ]; do sleep 0.05; done
    kill -9 $generator
    wait $trainer || status=$?
    [ "$status" -eq 75 ]
    wait $generator || true
    via 20 50 "$BATS_TEST_TMPDIR/run" -- --resume
    same_weights "$dir/run" "$BATS_TEST_TMPDIR/run"
}

@test "a trainer that is killed is 75 for the generator, which waits for nothing" {
    local trainer status=0
    mkfifo "$BATS_TEST_TMPDIR/pipe"
    CCPIPE_BACKENDS=$EMULATED timeout 20 "$VIA" "$PLANE" cuda 20 "$dir/rows" hang 200 >"$BATS_TEST_TMPDIR/pipe" &
    local generator=$!
    CCPIPE_BACKENDS=$EMULATED "$BIN/cctrain" --device cuda --out "$BATS_TEST_TMPDIR/run" --latents 64 --batch 32 \
        --steps 8 --save-every 4 --shuffle-rows 50 <"$BATS_TEST_TMPDIR/pipe" &
    trainer=$!
    until [ -e "$BATS_TEST_TMPDIR/run/step-4" ]; do sleep 0.05; done
    kill -9 $trainer
    wait $generator || status=$?
    [ "$status" -eq 75 ]
    wait $trainer || true
}

@test "a trainer that has all its steps leaves, and the generator ends" {
    via 20 50 "$BATS_TEST_TMPDIR/run" -- --steps 3
    generator_status 0
}

@test "two devices are refused by both ends, which say what to do" {
    local status=0
    EMU_DEVICES=2 source_of cuda:0 20 2>"$BATS_TEST_TMPDIR/err.a" |
        EMU_DEVICES=2 train cuda:1 "$BATS_TEST_TMPDIR/run" 2>"$BATS_TEST_TMPDIR/err.b" || status=$?
    [ "$status" -eq 64 ]
    generator_status 64
    grep -q 'give both the same --device' "$BATS_TEST_TMPDIR/err.a"
    grep -q 'give both the same --device' "$BATS_TEST_TMPDIR/err.b"
    [ ! -e "$BATS_TEST_TMPDIR/run" ]
}

@test "a trainer on the CPU cannot reach the rows, and says so" {
    local status=0
    source_of cuda 20 2>/dev/null |
        "$BIN/cctrain" --device cpu --out "$BATS_TEST_TMPDIR/run" --batch 32 2>"$BATS_TEST_TMPDIR/err" || status=$?
    [ "$status" -eq 64 ]
    grep -q 'come by cuda-ipc, and device cpu cannot take them' "$BATS_TEST_TMPDIR/err"
    generator_status 0
}

@test "who wants the rows themselves is told that they are elsewhere" {
    local program status
    for program in shufbuf 'ccanalyze verify' 'ccanalyze dump'; do
        status=0
        # shellcheck disable=SC2086
        source_of cuda 20 2>/dev/null | "$BIN"/$program >/dev/null 2>"$BATS_TEST_TMPDIR/err" || status=$?
        cat "$BATS_TEST_TMPDIR/err"
        [ "$status" -eq 64 ]
        grep -q 'holds no rows: they travel by cuda-ipc' "$BATS_TEST_TMPDIR/err"
    done
    # BEGIN alone, in one read: whoever waits for more waits for as long as the generator does for a trainer.
    source_of cuda 20 2>/dev/null | dd bs=64K count=1 status=none >"$BATS_TEST_TMPDIR/file"
    run -64 train cuda "$BATS_TEST_TMPDIR/run" "$BATS_TEST_TMPDIR/file"
    [[ "$output" == *"is a file, and its rows went by cuda-ipc"* ]]
}

@test "a shuffle of rows that are inline is shufbuf's" {
    local option
    for option in --shuffle-rows --shuffle-seed; do
        run -64 train cuda "$BATS_TEST_TMPDIR/run" $option 50 "$dir/rows"
        [[ "$output" == *"shuffle these with shufbuf"* ]]
    done
}

@test "a buffer that the device has no memory for is 71, before the first row" {
    local status=0
    source_of cuda 20 2>/dev/null |
        EMU_MEMORY=500000 train cuda "$BATS_TEST_TMPDIR/run" 2>"$BATS_TEST_TMPDIR/err" || status=$?
    cat "$BATS_TEST_TMPDIR/err"
    [ "$status" -eq 71 ]
    grep -q -- '--shuffle-rows) needs' "$BATS_TEST_TMPDIR/err"
    [ ! -e "$BATS_TEST_TMPDIR/run" ]
}

@test "nothing of all this is left in shared memory" {
    [ -z "$(find /dev/shm -mindepth 1 -newer "$dir/tokens" -user "$(id -u)")" ]
}
