# shufbuf when something before, behind or inside it ends early.
# shellcheck disable=SC2002,SC2154  # a pipe where a file would do is the point; run sets stderr_lines

load shufbuf

setup() {
    in="$BATS_TEST_TMPDIR/in" out="$BATS_TEST_TMPDIR/out" err="$BATS_TEST_TMPDIR/err"
    bats_require_minimum_version 1.5.0
}

# wide FILE: 20 MB of rows, more than the pipes and a small buffer hold. 65536 rows of 80 f32.
wide() {
    {
        printf '\x93NUMPY\x01\x00\x76\x00'
        printf '%-117s\n' "{'descr': '<f4', 'fortran_order': False, 'shape': (65536, 80), }"
        seq -f '%07.0f' 0 2621439
    } >"$BATS_TEST_TMPDIR/wide.npy"
    "$BIN/ccanalyze" pack "$BATS_TEST_TMPDIR/wide.npy" --source a.x:80 --codec none -o "$1"
    rm "$BATS_TEST_TMPDIR/wide.npy"
}

# Waits up to 10 s for a condition; no fixed sleeps.
eventually() {
    for _ in $(seq 100); do
        if "$@"; then return 0; fi
        sleep 0.1
    done
    return 1
}

has_memory() {
    find "/proc/$1/fd" -lname '/memfd:ccpipe-ring*' | grep -q .
}

is_written() {
    [ -s "$1" ]
}

@test "input that is cut: 66, and the reader behind learns it" {
    wide "$in"
    head -c 9000000 "$in" >"$in.cut"
    run bash -c "cat '$in.cut' | '$BIN/shufbuf' --rows 1000 2>'$err' >'$out'"
    [ "$status" -eq 66 ]
    run "$BIN/shufbuf" -o /dev/null "$out"
    [ "$status" -eq 66 ]
    [[ "$output" == *"stopped after row"* ]]
}

@test "input that is damaged: 65, and the reader behind learns it" {
    wide "$in"
    printf 'damage' | dd of="$in" bs=1 seek=9000000 conv=notrunc status=none
    run bash -c "'$BIN/shufbuf' --rows 1000 '$in' 2>'$err' >'$out'"
    [ "$status" -eq 65 ]
    run "$BIN/shufbuf" -o /dev/null "$out"
    [ "$status" -eq 66 ]
}

@test "of several faults the first in the input is told, and no other" {
    rows 200000 "$in.narrow"
    wide "$in.wide"
    for _ in $(seq 10); do
        run bash -c "cat '$in.narrow' '$in.wide' | '$BIN/shufbuf' --threads 4 >/dev/null"
        [ "$status" -eq 64 ]
        [ "${#lines[@]}" -eq 1 ]
        [[ "$output" == *"two parts of 'standard input' do not belong together"* ]]
    done
    cp "$in.wide" "$in"
    for at in 9000000 15000000; do
        printf 'damage' | dd of="$in" bs=1 seek="$at" conv=notrunc status=none
    done
    run "$BIN/shufbuf" --threads 4 -o /dev/null "$in"
    [ "$status" -eq 65 ]
    [ "${#lines[@]}" -eq 1 ]
}

@test "a reader that goes away: exit 0 and one note, also while input stands still" {
    wide "$in"
    mkfifo "$in.fifo"
    { head -c 2200000 "$in"; exec sleep 60; } >"$in.fifo" 2>/dev/null 3>&- &
    feeder=$!
    run --separate-stderr bash -c "'$BIN/shufbuf' --rows 100 <'$in.fifo' | head -c 100 >/dev/null; exit \${PIPESTATUS[0]}"
    kill $feeder
    [ "$status" -eq 0 ]
    [ "${#stderr_lines[@]}" -eq 1 ]
}

@test "SIGTERM, SIGINT and SIGUSR1: 143, 130, 75, and ABORT at once" {
    wide "$in"
    for signal in TERM:143 INT:130 USR1:75; do
        rm -f "$out" # what the one before wrote would be taken for this one's
        mkfifo "$in.fifo"
        { cat "$in" || true; exec sleep 60; } >"$in.fifo" 2>/dev/null 3>&- &
        feeder=$!
        "$BIN/shufbuf" --rows 1000 <"$in.fifo" >"$out" 2>"$err" 3>&- &
        shuffler=$!
        eventually is_written "$out"
        kill -"${signal%:*}" $shuffler
        code=0
        wait $shuffler || code=$?
        kill $feeder
        rm "$in.fifo"
        [ "$code" -eq "${signal#*:}" ]
        run "$BIN/shufbuf" -o /dev/null "$out"
        [ "$status" -eq 66 ]
        [[ "$output" == *"stopped by signal"* ]]
    done
}

@test "SIGKILL: the reader behind ends with 66, and no shared memory is left" {
    wide "$in"
    find /dev/shm | sort >"$BATS_TEST_TMPDIR/before"
    mkfifo "$in.fifo" "$out.fifo"
    { cat "$in" || true; exec sleep 60; } >"$in.fifo" 2>/dev/null 3>&- &
    feeder=$!
    "$BIN/shufbuf" --rows 1000 <"$in.fifo" >"$out.fifo" 2>"$err" 3>&- &
    shuffler=$!
    "$BIN/shufbuf" --rows 1000 <"$out.fifo" >"$out" 2>"$err.2" 3>&- &
    reader=$!
    eventually is_written "$out"
    has_memory $shuffler
    kill -KILL $shuffler
    code=0
    wait $reader || code=$?
    kill $feeder
    [ "$code" -eq 66 ]
    find /dev/shm | sort | cmp - "$BATS_TEST_TMPDIR/before"
}

@test "memory that is not there: 71 before a row is read or an output made" {
    # A sparse file that announces 10^10 rows; the stream is cut soon after BEGIN.
    {
        printf '\x93NUMPY\x01\x00\x76\x00'
        printf '%-117s\n' "{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000, 2), }"
    } >"$BATS_TEST_TMPDIR/huge.npy"
    truncate -s 80000000128 "$BATS_TEST_TMPDIR/huge.npy"
    "$BIN/ccanalyze" pack "$BATS_TEST_TMPDIR/huge.npy" --source a.x:2 | head -c 100000 >"$in"
    run "$BIN/shufbuf" --rows 10G -o "$out" "$in"
    [ "$status" -eq 71 ]
    [[ "$output" == *"needs"*"memory"*"free"* ]]
    [ ! -e "$out" ]
    run bash -c "'$BIN/shufbuf' --rows 10G <'$in' | wc -c"
    [[ "$output" == *$'\n0' ]]
}

@test "a stopped and continued shufbuf goes on" {
    wide "$in"
    mkfifo "$in.fifo"
    cat "$in" >"$in.fifo" 3>&- &
    "$BIN/shufbuf" --rows 1000 <"$in.fifo" >"$out" 2>"$err" 3>&- &
    shuffler=$!
    for _ in 1 2 3 4 5; do
        kill -STOP $shuffler 2>/dev/null || break
        kill -CONT $shuffler 2>/dev/null || break
    done
    wait $shuffler
    "$BIN/shufbuf" --rows 1000 "$in" >"$in.straight"
    cat "$in" | "$BIN/shufbuf" --rows 1000 --codec lz4 | cmp - "$in.straight"
    cmp <("$BIN/ccanalyze" dump "$out") <("$BIN/ccanalyze" dump "$in.straight")
}

@test "writes that fail, one or all, are 74 and no hang" {
    rows 2000 "$in"
    for which in 1+ 2; do
        # Leaks are not found under strace.
        ASAN_OPTIONS="${ASAN_OPTIONS:-}:detect_leaks=0" run timeout 20 strace -f -qq -o /dev/null -e inject=write:error=EIO:when=$which \
            "$BIN/shufbuf" --rows 100 "$in" -o "$out"
        [ "$status" -eq 74 ]
    done
}
