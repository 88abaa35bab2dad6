# cctrain when its input, the disk or the process itself fails: what is kept, and how it goes on.
# shellcheck disable=SC2017,SC2030,SC2031,SC2154  # whole records; each test is a subshell; run sets stderr

load cctrain

setup() {
    bats_require_minimum_version 1.5.0
    rows="$BATS_FILE_TMPDIR/rows.ccps" whole="$BATS_FILE_TMPDIR/whole" run="$BATS_TEST_TMPDIR/run"
    save=("${RECIPE[@]}" --save-every 10)
}

setup_file() {
    pack_rows 2000 1 "$BATS_FILE_TMPDIR/rows.ccps" --codec none
    cctrain --out "$BATS_FILE_TMPDIR/whole" "${RECIPE[@]}" "$BATS_FILE_TMPDIR/rows.ccps"
}

# goes_on: the run, taken up, ends as the one that was never stopped.
goes_on() {
    cctrain --out "$run" "${save[@]}" --resume "$rows" && same_weights "$run" "$whole"
}

# stops STATUS STEPS WORDS FILE: training on that input ends so, and goes on.
stops() {
    run --separate-stderr cctrain --out "$run" "${save[@]}" "$4"
    [ "$status" -eq "$1" ]
    [ "$(steps "$run")" = "$2" ]
    [[ "$stderr" == *"$3"* ]]
    "$BIN/ccanalyze" verify "$run"
}

@test "input that is cut: what came is saved, 75, and the run goes on" {
    record=$((341 * (16 + 3072))) # bytes, and a header
    for bytes in 1100000 2500000 5000000; do
        head -c $bytes "$rows" >"$BATS_TEST_TMPDIR/cut"
        run --separate-stderr cctrain --out "$run" "${save[@]}" "$BATS_TEST_TMPDIR/cut"
        [ "$status" -eq 75 ]
        [[ "$stderr" == *"with --resume goes on"* ]]
        [ "$(basename "$(newest "$run")")" = "step-$((bytes / record * 341 / 32))" ]
        goes_on
        rm -r "$run"
    done
}

@test "input that is cut before its first rows leaves a step 0 to resume" {
    head -c 3000 "$rows" >"$BATS_TEST_TMPDIR/cut"
    stops 75 "0 " "--resume" "$BATS_TEST_TMPDIR/cut"
    goes_on
}

@test "no input at all is 66, and leaves nothing" {
    run cctrain --out "$run" "${save[@]}" /dev/null
    [ "$status" -eq 66 ]
    [ ! -e "$run" ]
}

@test "a stage before that gives up: 75" {
    head -c 2500000 "$rows" | {
        run bash -c "'$BIN/shufbuf' --rows 50 2>/dev/null | '$BIN/cctrain' --out '$run' ${save[*]}"
        [ "$status" -eq 75 ]
    }
    # 682 rows came: block 12 of 50 is whole, and of block 13 the first draws may be there
    [ "$(steps "$run")" = "10 20 " ]
    "$BIN/shufbuf" --rows 50 "$rows" | cctrain --out "$run" "${save[@]}" --resume
    "$BIN/shufbuf" --rows 50 "$rows" | cctrain --out "$run.whole" "${RECIPE[@]}"
    same_weights "$run" "$run.whole"
}

@test "damaged input: what was good is saved, 65, and the run goes on" {
    cp "$rows" "$BATS_TEST_TMPDIR/bad"
    printf 'damage' | dd of="$BATS_TEST_TMPDIR/bad" bs=1 seek=2500000 conv=notrunc status=none
    stops 65 "10 20 21 " "--resume goes on from there, once its input is sound" "$BATS_TEST_TMPDIR/bad"
    goes_on
}

@test "damage behind the last step: the run is finished and saved, and the status tells" {
    size=$(stat -c %s "$rows")
    head -c $((size - 100)) "$rows" >"$BATS_TEST_TMPDIR/cut"
    run --separate-stderr cctrain --out "$run" "${save[@]}" --steps 62 <"$BATS_TEST_TMPDIR/cut"
    [ "$status" -eq 75 ]
    [[ "$stderr" == *"lies behind the rows that were trained on"* ]]
    same_weights "$run" "$whole"
    cctrain --out "$run" "${save[@]}" --resume /nowhere
}

@test "values that overflow end the run with 65 and no checkpoint of it" {
    {
        printf '\x93NUMPY\x01\x00\x76\x00'
        printf '%-117s\n' "{'descr': '<f4', 'fortran_order': False, 'shape': (800, 4), }"
        for ((i = 0; i < 800 * 4; i++)); do
            if [ $i -lt 1600 ]; then printf '0p=>'; else printf 'zzzz'; fi # 0.18, then 3.2e35
        done
    } >"$BATS_TEST_TMPDIR/rows.npy"
    "$BIN/ccanalyze" pack "$BATS_TEST_TMPDIR/rows.npy" --source a.x:4 -o "$BATS_TEST_TMPDIR/huge"
    run --separate-stderr cctrain --out "$run" "${save[@]}" --batch 16 "$BATS_TEST_TMPDIR/huge"
    [ "$status" -eq 65 ]
    [[ "$stderr" == *"step 25: the loss is"* ]]
    [ "$(steps "$run")" = "10 20 " ]
    run ! grep -qiE 'nan|inf' "$run/metrics.jsonl"
}

# fed: the trainer runs on a FIFO that has given it two records and stands still; its process is in $pid.
fed() {
    mkfifo "$BATS_TEST_TMPDIR/fifo"
    "$BIN/cctrain" --out "$run" "${save[@]}" --log-every 1 "$BATS_TEST_TMPDIR/fifo" 2>"$BATS_TEST_TMPDIR/err" 3>&- &
    pid=$!
    exec 4>"$BATS_TEST_TMPDIR/fifo"
    head -c 2500000 "$rows" >&4
    eventually test -e "$run/step-20"
    eventually grep -q '"step":19' "$run/metrics.jsonl"
}

@test "signals: the step is finished and saved, then 130, 143, or 75" {
    for signal in INT:130 TERM:143 USR1:75; do
        fed
        kill -s "${signal%:*}" "$pid"
        wait "$pid" || status=$?
        exec 4>&-
        rm "$BATS_TEST_TMPDIR/fifo"
        [ "$status" -eq "${signal#*:}" ]
        [ "$(steps "$run")" = "10 20 21 " ]
        grep -q -- "with --resume goes on" "$BATS_TEST_TMPDIR/err"
        goes_on
        rm -r "$run"
    done
}

@test "killed at random moments, ten times, and resumed: the same bytes" {
    kills=0
    for _ in $(seq $((${KILLS:-10} * 30))); do
        [ "$kills" -lt "${KILLS:-10}" ] || break
        run timeout -s KILL "0.$(printf '%03d' $((RANDOM % 250)))" \
            "$BIN/cctrain" --out "$run" "${RECIPE[@]}" --save-every 2 --log-every 1 --resume "$rows"
        [ "$status" -eq 0 ] || [ "$status" -eq 137 ]
        [ "$status" -eq 0 ] || kills=$((kills + 1))
        # a run that came to its end begins anew, and must have ended well
        if [ "$status" -eq 0 ]; then
            same_weights "$run" "$whole"
            rm -r "$run"
        fi
    done
    [ "$kills" -eq "${KILLS:-10}" ]
    cctrain --out "$run" "${RECIPE[@]}" --save-every 2 --log-every 1 --resume "$rows"
    same_weights "$run" "$whole"
    run ! compgen -G "$run/*.tmp"
    [ "$(figures step "$run/metrics.jsonl" | tr '\n' ' ')" = "$(seq 0 61 | tr '\n' ' ')" ]
}

# half: the run up to step 21.
half() {
    head -c 2500000 "$rows" >"$BATS_TEST_TMPDIR/half"
    stops 75 "10 20 21 " "" "$BATS_TEST_TMPDIR/half"
}

@test "what a killed run left half written is removed" {
    half
    cp -r "$run/step-21" "$run/step-30.tmp"
    mkdir "$run/step-31.tmp"
    goes_on
    run ! compgen -G "$run/*.tmp"
}

@test "checkpoints that do not verify are passed over, and replaced" {
    half
    printf 'x' | dd of="$run/step-21/optim.safetensors" bs=1 seek=5000 conv=notrunc status=none
    rm "$run/step-20/manifest.json"
    cp -r "$run/step-20" "$run/step-99" # would be the newest for ever
    run cctrain --out "$run" "${save[@]}" --seed 1 --resume "$rows"
    [ "$status" -eq 64 ]
    [ "$(steps "$run")" = "10 20 21 99 " ] # nothing is removed from a run that does not go on
    run --separate-stderr cctrain --out "$run" "${save[@]}" --resume "$rows"
    [ "$status" -eq 0 ]
    [[ "$stderr" == *"step-21"*"step-20"*"going on from step 10"* ]]
    same_weights "$run" "$whole"
    [ "$(steps "$run")" = "50 60 62 " ]
}

@test "where none of the checkpoints verifies the run is refused, not begun anew" {
    half
    rm "$run"/step-*/manifest.json
    run cctrain --out "$run" "${save[@]}" --resume "$rows"
    [ "$status" -eq 65 ]
    [ "$(steps "$run")" = "10 20 21 " ]
}

# traced ARGUMENT... COMMAND: with system calls made to fail. Leaks cannot be looked for at the same time.
traced() {
    ASAN_OPTIONS="${ASAN_OPTIONS:-}:detect_leaks=0" strace -f -qq -o /dev/null "$@"
}

@test "no room for checkpoints: training goes on, 74 after the third in a row, those before are intact" {
    half
    # one file may have 200 KiB; weights take 500
    run --separate-stderr bash -c "ulimit -f 200; exec '$BIN/cctrain' --out '$run' ${save[*]} --resume '$rows'"
    [ "$status" -eq 74 ]
    [[ "$stderr" == *"1 of 3"*"2 of 3"*"step 50 failed; those before are intact" ]]
    [ "$(steps "$run")" = "10 20 21 " ]
    goes_on
}

@test "checkpoints that fail now and then do not add up" {
    # every second folder that is made for a checkpoint, beginning with the second
    bin=$(realpath "$BIN")
    cd "$BATS_TEST_TMPDIR"
    run --separate-stderr traced -e trace=mkdir -e inject=mkdir:error=ENOSPC:when=3+2 \
        "$bin/cctrain" --out run "${RECIPE[@]}" --save-every 2 "$rows"
    [ "$status" -eq 0 ]
    [ "$(grep -c "1 of 3" <<<"$stderr")" -eq 15 ]
    same_weights "$run" "$whole"
}

@test "no room for the last checkpoint alone: 74" {
    run bash -c "ulimit -f 200; exec '$BIN/cctrain' --out '$run' ${RECIPE[*]} '$rows'"
    [ "$status" -eq 74 ]
    run ! compgen -G "$run/step-*"
    cctrain --out "$run" "${RECIPE[@]}" --resume "$rows"
    same_weights "$run" "$whole"
}

@test "a disk that fills up: the metrics end in a whole line" {
    run --separate-stderr bash -c \
        "ulimit -f 8; exec '$BIN/cctrain' --out '$run' ${RECIPE[*]} --steps 60 --log-every 1 '$rows'"
    [ "$status" -eq 74 ]
    [[ "$stderr" == *"a line of '$run/metrics.jsonl' is lost"* ]]
    [ "$(tail -c 2 "$run/metrics.jsonl")" = "}" ]
}

@test "an older checkpoint that cannot be removed fails no new one, and goes with the next" {
    # steps 10 and 20 are put in their places, then step 10 is to be thrown away
    run --separate-stderr traced -e trace=rename -e inject=rename:error=EIO:when=3 \
        "$BIN/cctrain" --out "$run" "${RECIPE[@]}" --save-every 10 --keep 1 "$rows"
    [ "$status" -eq 0 ]
    [[ "$stderr" == *"an older checkpoint could not be removed; step-20 is whole"* ]]
    run ! grep -q "step 20 failed" <<<"$stderr"
    [ "$(steps "$run" | wc -w)" -eq 1 ]
    same_weights "$run" "$whole"
}

@test "a checkpoint that cannot be put in its place counts as failed, and can be tried again" {
    # step 21 fails, and where the stream ends it is saved once more
    mkfifo "$BATS_TEST_TMPDIR/fifo"
    traced -e trace=rename -e inject=rename:error=EIO:when=1 \
        "$BIN/cctrain" --out "$run" "${RECIPE[@]}" --save-every 21 "$BATS_TEST_TMPDIR/fifo" 2>"$BATS_TEST_TMPDIR/err" 3>&- &
    pid=$!
    exec 4>"$BATS_TEST_TMPDIR/fifo"
    head -c 2500000 "$rows" >&4
    eventually grep -q "step 21 failed" "$BATS_TEST_TMPDIR/err"
    ! compgen -G "$run/step-*" >"$BATS_TEST_TMPDIR/found" || return 1
    exec 4>&-
    wait "$pid" || status=$?
    [ "$status" -eq 75 ]
    [ "$(steps "$run")" = "21 " ]
    goes_on
}

@test "a checkpoint that cannot be brought to the disk counts as failed" {
    half
    run --separate-stderr traced -e trace=fsync -e inject=fsync:error=EIO:when=3 \
        "$BIN/cctrain" --out "$run" "${save[@]}" --resume "$rows"
    [ "$status" -eq 0 ]
    [[ "$stderr" == *"step 30 failed"* ]]
    same_weights "$run" "$whole"
    # the last one
    rm -r "$run"
    run traced -e trace=fsync -e inject=fsync:error=EIO \
        "$BIN/cctrain" --out "$run" "${RECIPE[@]}" "$rows"
    [ "$status" -eq 74 ]
    run ! compgen -G "$run/step-*"
}
