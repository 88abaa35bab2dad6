# The order that shufbuf gives, seen from outside: the same from a pipe, from a file, from a later draw.
# shellcheck disable=SC2002,SC2154  # a pipe where a file would do is the point; setup sets variables

load shufbuf

setup() {
    bats_require_minimum_version 1.5.0
    in="$BATS_TEST_TMPDIR/in" want="$BATS_TEST_TMPDIR/want" got="$BATS_TEST_TMPDIR/got"
}

@test "every row comes out once, in another order" {
    rows 5000 "$in"
    "$BIN/shufbuf" --rows 700 "$in" | lines >"$got"
    seq -f '%07.0f' 0 4999 >"$want"
    run ! cmp -s "$want" "$got"
    sort "$got" | cmp - "$want"
}

@test "a pipe and a file give the same rows in the same order" {
    rows 5000 "$in"
    for n in 1 64 4999 5000 5001 100000; do
        "$BIN/shufbuf" --rows $n --seed 3 "$in" | lines >"$want"
        cat "$in" | "$BIN/shufbuf" --rows $n --seed 3 | lines >"$got"
        cmp "$want" "$got"
    done
}

@test "the same seed gives the same bytes, another seed another order" {
    rows 5000 "$in"
    "$BIN/shufbuf" --rows 700 --seed 3 "$in" >"$want"
    for threads in 1 2 7; do
        "$BIN/shufbuf" --rows 700 --seed 3 --threads $threads "$in" | cat >"$got"
        "$BIN/shufbuf" --rows 700 --seed 3 --threads $threads --codec none -o "$got.file" "$in"
        cmp "$got" "$got.file"
        [ $threads -eq 1 ] || cmp "$got" "$got.1"
        cp "$got" "$got.$threads"
    done
    "$BIN/shufbuf" --rows 700 --seed 4 "$in" | lines >"$got"
    lines <"$want" >"$want.lines"
    run ! cmp -s "$got" "$want.lines"
}

@test "a later draw begins in the middle of the same order" {
    rows 3456 "$in"
    "$BIN/shufbuf" --rows 1000 "$in" | lines >"$want"
    for skip in 1 999 1000 1001 2500 3000 3455 3456; do
        "$BIN/shufbuf" --rows 1000 --skip-draws $skip "$in" | lines >"$got"
        tail -n +$((skip + 1)) "$want" | cmp - "$got"
        cat "$in" | "$BIN/shufbuf" --rows 1000 --skip-draws $skip | lines >"$got"
        tail -n +$((skip + 1)) "$want" | cmp - "$got"
    done
}

@test "epochs run into each other, each row once in each" {
    rows 1300 "$in"
    "$BIN/shufbuf" --rows 1000 --epochs 3 "$in" | lines >"$want"
    sort "$want" | uniq -c | awk '{print $1}' | sort -u | cmp - <(echo 3)
    [ "$(wc -l <"$want")" -eq 3900 ]
    for skip in 1299 1300 2600 3333; do
        "$BIN/shufbuf" --rows 1000 --epochs 3 --skip-draws $skip "$in" | lines >"$got"
        tail -n +$((skip + 1)) "$want" | cmp - "$got"
    done
}

@test "tags stay with their rows" {
    rows 2000 "$in"
    "$BIN/shufbuf" --rows 300 "$in" >"$want"
    "$BIN/ccanalyze" dump --npy "$got.npy" --tags "$got.tags" <"$want"
    header=$(od -An -tu2 -j8 -N2 "$got.tags")
    # Of a tag's three numbers the first is the row's.
    tail -c +$((header + 11)) "$got.tags" | od -An -v -tu8 -w24 | awk '{printf "%07d\n", $1}' >"$got"
    lines <"$want" | cmp - "$got"
}

@test "two files read as one, by name and through cat" {
    rows 800 "$in"
    rows 900 "$in.b"
    "$BIN/shufbuf" --rows 500 "$in" "$in.b" | lines >"$want"
    [ "$(wc -l <"$want")" -eq 1700 ]
    cat "$in" "$in.b" >"$in.both"
    "$BIN/shufbuf" --rows 500 "$in.both" | lines >"$got"
    cmp "$want" "$got"
    cat "$in" "$in.b" | "$BIN/shufbuf" --rows 500 2>"$got.err" | lines >"$got"
    cmp "$want" "$got"
    grep -q announced "$got.err"
    # Also where memory was taken for the first file's rows alone.
    "$BIN/shufbuf" --rows 5000 "$in.both" | lines >"$want"
    cat "$in" "$in.b" | "$BIN/shufbuf" --rows 5000 | lines >"$got"
    cmp "$want" "$got"
}

@test "a shuffle of a shuffle is a stream like any other" {
    rows 1000 "$in"
    "$BIN/shufbuf" --rows 300 "$in" | "$BIN/shufbuf" --rows 200 --seed 9 -o "$got"
    lz4 -t -q "$got"
    lines <"$got" | sort | cmp - <(seq -f '%07.0f' 0 999)
}
