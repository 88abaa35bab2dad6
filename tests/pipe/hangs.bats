# One end of a data plane is stopped, with its pipe open: after 30 wake-ups of a second without a word the other ends
# with 75. All wait at the same time, before the tests, which look at what came of it.

# shellcheck disable=SC2154  # planes.bash sets dir and pair
export TAKE=${BUILD:-build}/tests/pipe/take_rows
load planes

# on PLANE: with FROM and TO.
on() {
    export PLANE=$1 FROM=cuda:0 TO=cuda:0
    [ "$1" = cuda-ipc ] || TO=cuda:1
}

# The taker stops before row 100. Statuses and messages are in $dir/trainer.PLANE.*. DATA of the rows that it has not
# read, 285 by cuda-ipc, fits into the pipe; by nccl, 3,800 of them, it does not, and actgen waits for room.
hang_trainer() {
    on "$1"
    local taker status=0 name=$dir/trainer.$1
    mkfifo "$name.pipe"
    CCPIPE_BACKENDS=$EMULATED "$TAKE" "$TO" stop 100 <"$name.pipe" >"$name.rows" &
    taker=$!
    CCPIPE_BACKENDS=$EMULATED timeout 100 "$BIN/actgen" --device "$FROM" --norm none --batch "$2" --via "$1" \
        --model "base=$pair/base" --hook blocks.0.hook_resid_pre "$3" >"$name.pipe" 2>"$name.err" || status=$?
    echo $status >"$name.status"
    kill -KILL $taker
}

# The generator stops before row 250, having sent 246. The draws of four blocks of 50 are known, which make 6 batches,
# and some of the fifth.
hang_generator() {
    on "$1"
    local generator status=0 name=$dir/generator.$1
    mkfifo "$name.pipe"
    CCPIPE_BACKENDS=$EMULATED "$VIA" "$1" "$FROM" 20 "$dir/rows" stop 250 >"$name.pipe" &
    generator=$!
    train "$TO" "$name.run" --shuffle-rows 50 --shuffle-seed 3 <"$name.pipe" 2>"$name.err" || status=$?
    echo $status >"$name.status"
    kill -KILL $generator
}

setup_file() {
    local plane
    on cuda-ipc
    make_rows
    "$BIN/tokstream" -q --limit 40 --seq-len 96 "$pair/tokens/validation.parquet" >"$dir/many"
    exec 3>&-
    hang_trainer cuda-ipc 1 "$dir/tokens" &
    hang_trainer nccl 40 "$dir/many" &
    for plane in cuda-ipc nccl; do
        hang_generator $plane &
    done
    wait
}

setup() {
    bats_require_minimum_version 1.5.0
}

# ended END: it is said once that the other is lost, and the status is 75.
ended() {
    cat "$dir/$1.err"
    [ "$(<"$dir/$1.status")" -eq 75 ]
    [ "$(grep -c 'error: .*lost: it has not been heard of for too long' "$dir/$1.err")" -eq 1 ]
}

@test "actgen by cuda-ipc ends with 75 where its trainer hangs" {
    ended trainer.cuda-ipc
}

@test "actgen by nccl does so behind a full pipe, too" {
    ended trainer.nccl
    [ "$(stat -c %s "$dir/trainer.nccl.rows")" -lt 10000 ] # the taker had taken nothing
}

@test "cctrain ends with 75 where its generator hangs, with a checkpoint of all that came" {
    local plane
    for plane in cuda-ipc nccl; do
        ended generator.$plane
        [ -e "$dir/generator.$plane.run/step-6" ] || [ -e "$dir/generator.$plane.run/step-7" ]
        on $plane
        via 20 50 "$dir/generator.$plane.run" -- --resume
        same_weights "$dir/run" "$dir/generator.$plane.run"
    done
}
