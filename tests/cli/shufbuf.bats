# shufbuf's command line: what is accepted, refused, and said.
# shellcheck disable=SC2002,SC2154  # a pipe where a file would do is the point; run sets stderr

GOLDEN=tests/golden/stream

shufbuf() {
    "${BIN:-bin}/shufbuf" "$@"
}

# A refused command says so in one line on standard error, and writes nothing.
refused() {
    local code=$1 words=$2
    shift 2
    run --separate-stderr "$@"
    [ "$status" -eq "$code" ]
    [ -z "$output" ]
    [[ "$stderr" == *"$words"* ]]
}

setup() {
    bats_require_minimum_version 1.5.0
}

@test "help shows examples and every documented option" {
    run shufbuf --help
    [ "$status" -eq 0 ]
    for word in --rows --seed --epochs --skip-draws --serve --trainers --codec --output --plan \
        --threads --metrics --config 'shufbuf --epochs 4 acts.lz4'; do
        [[ "$output" == *"$word"* ]]
    done
}

@test "version is printed" {
    run shufbuf --version
    [ "$status" -eq 0 ]
    [[ "$output" == *shufbuf* ]]
}

@test "what is not built is refused with 64" {
    refused 64 "not built" shufbuf --serve sweep --trainers 3 $GOLDEN/rows-f32.ccps
}

@test "numbers are strict" {
    for rows in 0 -1 12x 1.5 '' 1e3 99999999999999999999; do
        refused 64 rows shufbuf --rows "$rows" $GOLDEN/rows-f32.ccps
    done
    refused 64 epochs shufbuf --epochs 0 $GOLDEN/rows-f32.ccps
    refused 64 seed shufbuf --seed -1 $GOLDEN/rows-f32.ccps
    shufbuf --rows 2k --seed 1M $GOLDEN/rows-f32.ccps >"$BATS_TEST_TMPDIR/out"
}

@test "an unknown option is refused with 64" {
    refused 64 no-such shufbuf --no-such $GOLDEN/rows-f32.ccps
}

@test "a stream of tokens is refused with 64" {
    refused 64 tokens shufbuf $GOLDEN/tokens.ccps
}

@test "a file that is not there is refused with 64" {
    refused 64 "cannot open 'no/such'" shufbuf no/such
}

@test "no bytes at all are truncated input" {
    refused 66 "" shufbuf </dev/null
}

@test "a file without a byte among others is truncated input, before a row is written" {
    : >"$BATS_TEST_TMPDIR/zero"
    refused 66 "'$BATS_TEST_TMPDIR/zero' is empty" shufbuf $GOLDEN/rows-bf16.lz4 "$BATS_TEST_TMPDIR/zero"
    refused 66 "'$BATS_TEST_TMPDIR/zero' is empty" shufbuf "$BATS_TEST_TMPDIR/zero" $GOLDEN/rows-bf16.lz4
    run bash -c "'${BIN:-bin}/shufbuf' $GOLDEN/rows-bf16.lz4 - >/dev/null </dev/null"
    [ "$status" -eq 66 ]
    [[ "$output" == *"'standard input' is empty"* ]]
}

@test "a terminal is no stream" {
    script -qec true /dev/null >/dev/null 2>&1 || skip "there are no pseudo-terminals here"
    run script -qec "'${BIN:-bin}/shufbuf' >/dev/null" /dev/null
    [ "$status" -eq 64 ]
    [[ "$output" == *"is a terminal"* ]]
}

@test "a stream of no rows passes through" {
    run --separate-stderr shufbuf --rows 10 -o "$BATS_TEST_TMPDIR/out" $GOLDEN/empty.ccps
    [ "$status" -eq 0 ]
    shufbuf <"$BATS_TEST_TMPDIR/out" >"$BATS_TEST_TMPDIR/again"
    [ -s "$BATS_TEST_TMPDIR/again" ]
}

@test "an aborted stream is truncated input" {
    run --separate-stderr shufbuf -o "$BATS_TEST_TMPDIR/out" $GOLDEN/aborted.ccps
    [ "$status" -eq 66 ]
}

@test "every element type is taken" {
    for file in rows-f32.ccps rows-bf16.lz4 rows-int8.zst; do
        shufbuf --rows 3 $GOLDEN/$file | shufbuf --rows 2 -o "$BATS_TEST_TMPDIR/out"
        lz4 -t -q "$BATS_TEST_TMPDIR/out"
    done
}

@test "--epochs needs files" {
    cat $GOLDEN/rows-f32.ccps | refused 64 "epochs" shufbuf --epochs 2
}

@test "--skip-draws behind the end names the number of rows" {
    refused 64 "the input has 5 rows" shufbuf --skip-draws 6 $GOLDEN/rows-f32.ccps
    refused 64 "the input has 10 rows" shufbuf --epochs 2 --skip-draws 11 $GOLDEN/rows-f32.ccps
    shufbuf --skip-draws 5 $GOLDEN/rows-f32.ccps >"$BATS_TEST_TMPDIR/out"
}

@test "--skip-draws behind the end of a pipe is refused at its end" {
    run --separate-stderr bash -c "cat $GOLDEN/rows-f32.ccps | '${BIN:-bin}/shufbuf' --skip-draws 6 -o '$BATS_TEST_TMPDIR/out'"
    [ "$status" -eq 64 ]
    [[ "$stderr" == *"the input has 5 rows"* ]]
}

@test "--plan tells slots, memory and rows, and writes no stream" {
    run --separate-stderr shufbuf --plan --rows 1M $GOLDEN/rows-f32.ccps
    [ "$status" -eq 0 ]
    [[ "$output" == *$'slots\t5'* ]]
    [[ "$output" == *$'rows\t5'* ]]
    # A page of facts, one of words, and 5 slots of 64 bytes (32 + 20, rounded up).
    [[ "$output" == *$'memory\t8512'* ]]
    # Rows of five f32 and tags of 16 bytes, as they are without compression.
    [[ "$output" == *$'disk\t180'* ]]
    shufbuf --plan --skip-draws 2 $GOLDEN/rows-f32.ccps | grep -qx $'disk\t108'
}

@test "an existing output file is replaced" {
    printf 'old' >"$BATS_TEST_TMPDIR/out"
    shufbuf -o "$BATS_TEST_TMPDIR/out" $GOLDEN/rows-f32.ccps
    lz4 -t -q "$BATS_TEST_TMPDIR/out"
}

@test "options come from the environment and from --config, the command line wins" {
    local one="$BATS_TEST_TMPDIR/one" two="$BATS_TEST_TMPDIR/two"
    echo '{"shufbuf": {"rows": 3, "seed": 5}}' >"$BATS_TEST_TMPDIR/conf.json"
    shufbuf --rows 3 --seed 5 $GOLDEN/rows-f32.ccps >"$one"
    shufbuf --config "$BATS_TEST_TMPDIR/conf.json" $GOLDEN/rows-f32.ccps >"$two"
    cmp "$one" "$two"
    CCPIPE_ROWS=3 CCPIPE_SEED=5 shufbuf $GOLDEN/rows-f32.ccps >"$two"
    cmp "$one" "$two"
    echo '{"shufbuf": {"rows": 3, "seed": 6}}' >"$BATS_TEST_TMPDIR/conf.json"
    CCPIPE_SEED=5 shufbuf --config "$BATS_TEST_TMPDIR/conf.json" $GOLDEN/rows-f32.ccps >"$two"
    cmp "$one" "$two"
    CCPIPE_SEED=6 shufbuf --rows 3 --seed 5 $GOLDEN/rows-f32.ccps >"$two"
    cmp "$one" "$two"
    CCPIPE_SEED=6 shufbuf --rows 3 $GOLDEN/rows-f32.ccps >"$two"
    run ! cmp -s "$one" "$two"
    echo '{"shufbuf": {"row": 3}}' >"$BATS_TEST_TMPDIR/conf.json"
    refused 64 row shufbuf --config "$BATS_TEST_TMPDIR/conf.json" $GOLDEN/rows-f32.ccps
}

@test "a full disk is 74" {
    run --separate-stderr bash -c "'${BIN:-bin}/shufbuf' $GOLDEN/rows-f32.ccps >/dev/full"
    [ "$status" -eq 74 ]
}
