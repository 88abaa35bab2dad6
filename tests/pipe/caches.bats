# Caches and the programs around them: lz4, zstd, cat, and what salvage leaves in a pipeline.
# shellcheck disable=SC2002,SC2154  # a pipe where a file would do is the point; run sets stderr

load shufbuf

setup() {
    in="$BATS_TEST_TMPDIR/in.lz4" out="$BATS_TEST_TMPDIR/out.lz4"
    bats_require_minimum_version 1.5.0
}

# The rows 0 to N-1 of rows(), a line each.
numbers() {
    [ "$1" -eq 0 ] || seq -f '%07.0f' 0 $(($1 - 1))
}

@test "lz4 tests, lists and unpacks a cache; what it unpacks is the stream" {
    rows 200000 "$in"
    lz4 -t "$in"
    lz4 -dc "$in" | "$BIN/ccanalyze" verify
    lz4 -dc "$in" | lines | cmp - <(numbers 200000)
    "$BIN/ccanalyze" verify "$in" | grep -q 'index of'
}

@test "a cache packed anew by another program is read through that program" {
    rows 1000 "$in"
    lz4 -dc "$in" | lz4 -c >"$out"
    run "$BIN/ccanalyze" verify "$out"
    [ "$status" -eq 65 ]
    lz4 -dc "$out" | "$BIN/ccanalyze" verify
    "$BIN/shufbuf" --codec zstd "$in" >"$out.zst" 
    zstd -qt "$out.zst"
    zstd -dqc "$out.zst" | "$BIN/ccanalyze" verify
}

@test "cat of caches is a cache: verified, dumped and salvaged as one" {
    rows 1000 "$in"
    cat "$in" "$in" "$in" >"$in.cat"
    "$BIN/ccanalyze" verify "$in.cat" | grep -q '3000 rows'
    lines <"$in.cat" | cmp - <(numbers 1000; numbers 1000; numbers 1000)
    "$BIN/ccanalyze" dump --rows 1500:2500 --npy "$out" "$in.cat"
    tail -c +129 "$out" | cmp - <(numbers 1000 | tail -500; numbers 1000 | head -500)
    "$BIN/ccanalyze" salvage "$in.cat" -o "$out"
    "$BIN/ccanalyze" verify "$out" | grep -q '3000 rows'
}

@test "what is salvaged from a cut cache goes through shufbuf, with and without an index" {
    rows 200000 "$in"
    head -c $(($(stat -c %s "$in") * 2 / 3)) "$in" >"$in.cut"
    run "$BIN/shufbuf" -o /dev/null "$in.cut"
    [ "$status" -eq 66 ]
    "$BIN/ccanalyze" salvage "$in.cut" -o "$out"
    saved=$("$BIN/ccanalyze" info --json "$out" | sed -n 's/.*"rows": *\([0-9]*\).*/\1/p')
    [ "$saved" -gt 0 ]
    "$BIN/shufbuf" --rows 1000 "$out" | lines | sort | cmp - <(numbers "$saved")
    "$BIN/shufbuf" --rows 1000 --skip-draws 2000 "$out" | lines | wc -l | grep -qx $((saved - 2000))
    "$BIN/ccanalyze" salvage "$in.cut" -o - | "$BIN/shufbuf" --rows 1000 | lines | sort |
        cmp - <(numbers "$saved")
    lz4 -t "$out"
}

@test "a whole cache before a cut one is read, and then the input is truncated" {
    rows 200000 "$in"
    { cat "$in"; head -c $(($(stat -c %s "$in") * 3 / 4)) "$in"; } >"$in.cat"
    for rows in 1 1M; do
        run bash -c "'$BIN/shufbuf' --rows $rows '$in.cat' >'$out'"
        [ "$status" -eq 66 ]
        [[ "$output" == *"ends inside the record"* ]]
        run "$BIN/ccanalyze" verify "$out"
        [ "$status" -eq 66 ]
    done
}

@test "a damaged place in the middle costs its record alone, and the rest trains on" {
    rows 200000 "$in"
    printf 'xxxx' | dd of="$in" bs=1 seek=$(($(stat -c %s "$in") / 2)) conv=notrunc status=none
    run "$BIN/shufbuf" -o /dev/null "$in"
    [ "$status" -eq 65 ]
    run --separate-stderr "$BIN/ccanalyze" salvage "$in" -o "$out"
    [ "$status" -eq 0 ]
    [[ "$stderr" == *"are no whole record"* ]]
    lost=$(sed -n 's/.* \([0-9]*\) lost.*/\1/p' <<<"$stderr")
    [ "$lost" -gt 0 ]
    "$BIN/shufbuf" "$out" | lines | wc -l | grep -qx $((200000 - lost))
    [ "$(lines <"$out" | sort -u | wc -l)" -eq $((200000 - lost)) ]
}

@test "a reader of dump that goes away is no failure" {
    rows 200000 "$in"
    run bash -c "'$BIN/ccanalyze' dump '$in' | head -2; exit \${PIPESTATUS[0]}"
    [ "$status" -eq 0 ]
    [[ "$output" == *"the reader of standard output went away"* ]]
}

@test "a full disk under salvage and pack is 74, and what was written can be salvaged" {
    rows 200000 "$in"
    run bash -c "ulimit -f 300; trap '' XFSZ; '$BIN/ccanalyze' salvage '$in' -o '$out'"
    [ "$status" -eq 74 ]
    "$BIN/ccanalyze" salvage "$out" -o "$out.saved"
    "$BIN/ccanalyze" verify "$out.saved"
}
