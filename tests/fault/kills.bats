# Signals at random moments to every tool of a live pipeline, and runs that are resumed after them.

setup() {
    bats_require_minimum_version 1.5.0
}

@test "kill, terminate, interrupt, stop: nothing hangs, nothing is left, the weights are those of a run left alone" {
    run tests/fault/kill_loop "${KILLS:-30}" "${KILL_SEED:-$RANDOM}"
    echo "$output"
    [ "$status" -eq 0 ]
}

# A tenth of the rounds: the emulated devices are slow.
@test "so it is where the rows go from device to device" {
    local plane
    for plane in cuda-ipc nccl; do
        run tests/fault/kill_loop $((${KILLS:-30} / 10)) "${KILL_SEED:-$RANDOM}" "$plane"
        echo "$output"
        [ "$status" -eq 0 ]
    done
}
