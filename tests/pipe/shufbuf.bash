# Helpers of the shufbuf tests: streams whose rows are lines of text. A row is two f32 whose eight
# bytes are the row's number in seven digits and a newline, kept as f32 on the whole way, so that what
# comes out can be read as text.

set -o pipefail
BIN=${BIN:-bin}

# rows N FILE: a stream of N such rows, in a file.
rows() {
    {
        printf '\x93NUMPY\x01\x00\x76\x00'
        printf '%-117s\n' "{'descr': '<f4', 'fortran_order': False, 'shape': ($1, 2), }"
        [ "$1" -eq 0 ] || seq -f '%07.0f' 0 $(($1 - 1))
    } >"$BATS_TEST_TMPDIR/rows.npy"
    "$BIN/ccanalyze" pack "$BATS_TEST_TMPDIR/rows.npy" --source a.x:2 -o "$2"
}

# lines: the rows of the stream on standard input, as text.
lines() {
    local npy="$BATS_TEST_TMPDIR/lines.$BASHPID.npy" header
    "$BIN/ccanalyze" dump --npy "$npy" || return
    header=$(od -An -tu2 -j8 -N2 "$npy")
    tail -c +$((header + 11)) "$npy"
    rm "$npy"
}
