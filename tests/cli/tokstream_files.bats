# Token files of every format, by the programs that write them, against what those hold
# (tests/oracle/make_tokens.py).
# shellcheck disable=SC2002,SC2094,SC2154  # pipes are the point; no file is written; run sets stderr

GOLDEN=tests/golden/tokens

tokstream() {
    "${BIN:-bin}/tokstream" "$@"
}

# A refused command says so in one line on standard error, and writes nothing.
refused() {
    local code=$1 words=$2
    shift 2
    run --separate-stderr "$@"
    echo "$stderr"
    [ "$status" -eq "$code" ]
    [ -z "$output" ]
    [[ "$stderr" == *"$words"* ]]
    [ "${#stderr_lines[@]}" -eq 1 ]
}

# A broken file is found when something of it may have been written: the message is what counts.
broken() {
    local code=$1 file=$2 words=$3
    shift 3
    run --separate-stderr tokstream --format jsonl "$@" "$file"
    echo "$stderr"
    [ "$status" -eq "$code" ]
    [[ "$stderr" == "tokstream: error: '$file'"*"$words"* ]]
    [ "${#stderr_lines[@]}" -eq 1 ]
}

# What the lists of a set are, with all cut to N.
cut_to() {
    sed -E "s/(\[([0-9]+,){$(($1 - 1))}[0-9]+),[0-9,]*\]/\1]/" "$2"
}

setup() {
    bats_require_minimum_version 1.5.0
    unset "${!CCPIPE_@}"
}

@test "Parquet of every writer and form holds what its writer says" {
    local name set count=0
    while read -r name set; do
        echo "$name"
        tokstream --format jsonl "$GOLDEN/good/$name.parquet" | cmp - "$GOLDEN/$set.jsonl"
        count=$((count + 1))
    done <"$GOLDEN/good.tsv"
    [ "$count" -ge 30 ]
}

@test "the same when cut, and when a few rows are wanted" {
    local name set
    while read -r name set; do
        echo "$name"
        tokstream -q --seq-len 7 --format jsonl "$GOLDEN/good/$name.parquet" |
            cmp - <(cut_to 7 "$GOLDEN/$set.jsonl")
        tokstream -q --skip 23 --limit 9 --format jsonl "$GOLDEN/good/$name.parquet" |
            cmp - <(sed -n 24,32p "$GOLDEN/$set.jsonl")
    done <"$GOLDEN/good.tsv"
}

@test "the demo's tokens are those that pyarrow reads" {
    [ "$(tokstream --format jsonl demo/tiny-gemma2/tokens | sha256sum | cut -d' ' -f1)" = \
        "$(<$GOLDEN/demo.sha256)" ]
}

@test ".npy of every type of integer" {
    local type
    for type in u2 i4 u4 i8 u8; do
        tokstream --format jsonl $GOLDEN/good/$type.npy | cmp - $GOLDEN/even.jsonl
        tokstream --format jsonl <$GOLDEN/good/$type.npy | cmp - $GOLDEN/even.jsonl
        cat $GOLDEN/good/$type.npy | tokstream --format jsonl | cmp - $GOLDEN/even.jsonl
        tokstream -q --seq-len 5 --format jsonl $GOLDEN/good/$type.npy |
            cmp - <(cut_to 5 $GOLDEN/even.jsonl)
        cat $GOLDEN/good/$type.npy | tokstream -q --seq-len 5 --format jsonl |
            cmp - <(cut_to 5 $GOLDEN/even.jsonl)
    done
    tokstream --seq-len 16 --format jsonl $GOLDEN/good/flat.npy | cmp - $GOLDEN/even.jsonl
}

@test "flat arrays are cut at --seq-len, and a shorter last piece is kept" {
    tokstream --dtype u16 --seq-len 16 --format jsonl $GOLDEN/good/even-u16.bin | cmp - $GOLDEN/even.jsonl
    cat $GOLDEN/good/even-u16.bin | tokstream --dtype u16 --seq-len 16 --format jsonl |
        cmp - $GOLDEN/even.jsonl
    printf '\1\0\2\0\3\0\4\0\5\0' >"$BATS_TEST_TMPDIR/five"
    [ "$(tokstream --dtype u16 --seq-len 2 --format jsonl "$BATS_TEST_TMPDIR/five")" = \
        '{"index":0,"input_ids":[1,2]}
{"index":1,"input_ids":[3,4]}
{"index":2,"input_ids":[5]}' ]
    printf '\1\0\0\0\377\377\377\377' |
        tokstream --dtype u32 --seq-len 9 --format jsonl | grep -qx '{"index":0,"input_ids":\[1,4294967295\]}'
}

@test "JSON lines and text, from files and from a pipe" {
    local set
    for set in mixed even wide few; do
        tokstream --format jsonl $GOLDEN/$set.jsonl | cmp - $GOLDEN/$set.jsonl
        tokstream --format jsonl <$GOLDEN/$set.jsonl | cmp - $GOLDEN/$set.jsonl
        cat $GOLDEN/$set.jsonl | tokstream --format jsonl - | cmp - $GOLDEN/$set.jsonl
        sed 's/.*\[\(.*\)\]}/\1/; s/,/ /g' $GOLDEN/$set.jsonl >"$BATS_TEST_TMPDIR/text"
        tokstream --format jsonl "$BATS_TEST_TMPDIR/text" | cmp - $GOLDEN/$set.jsonl
        cat "$BATS_TEST_TMPDIR/text" | tokstream --format jsonl | cmp - $GOLDEN/$set.jsonl
        sed 's/.*\(\[.*\]\)}/ \1 /' $GOLDEN/$set.jsonl | tokstream --format jsonl |
            cmp - $GOLDEN/$set.jsonl
    done
}

@test "blank lines are empty sequences of text and nothing in JSON; ends of lines of any kind" {
    [ "$(printf '1 2\r\n\n 3\t4 ' | tokstream --format jsonl)" = \
        '{"index":0,"input_ids":[1,2]}
{"index":1,"input_ids":[]}
{"index":2,"input_ids":[3,4]}' ]
    [ "$(printf '\n[1]\r\n \n{"input_ids": []}' | tokstream --format jsonl)" = \
        '{"index":0,"input_ids":[1]}
{"index":1,"input_ids":[]}' ]
}

@test "--column names another column or key" {
    tokstream --format jsonl --column labels $GOLDEN/bad/other-columns.parquet 2>&1 | grep -q "no column 'labels'"
    [ "$(tokstream --format jsonl --column tokens $GOLDEN/bad/other-columns.parquet)" = \
        '{"index":0,"input_ids":[1]}' ]
    [ "$(echo '{"a": [1], "b": [2, 3]}' | tokstream --format jsonl --column b)" = \
        '{"index":0,"input_ids":[2,3]}' ]
}

@test "a missing column is 64, and those that are there are named" {
    refused 64 "there is no column 'input_ids' (--column); there is 'tokens', 'text'" \
        tokstream $GOLDEN/bad/other-columns.parquet
    echo '{"ids": [1], "text": "x"}' >"$BATS_TEST_TMPDIR/keys.jsonl"
    broken 64 "$BATS_TEST_TMPDIR/keys.jsonl" "there is no key 'input_ids' (--column); there is 'ids', 'text'"
}

@test "what is no list of integers is 64" {
    local name
    for name in lists-of-lists strings floats no-list pairs; do
        refused 64 "tokens are a list of integers" tokstream $GOLDEN/bad/$name.parquet
    done
}

@test "codecs and encodings that are not built are 64 and named" {
    local codec
    for codec in gzip zstd brotli; do
        refused 64 "compressed with $codec" tokstream $GOLDEN/bad/$codec.parquet
        [[ "$stderr" == *"not built"* ]]
    done
    refused 64 "compressed with lz4_raw: reading that is not built" tokstream $GOLDEN/bad/lz4.parquet
    for name in delta_binary_packed byte_stream_split; do
        broken 64 $GOLDEN/bad/$name.parquet "the encoding ${name^^} is not built"
    done
    broken 64 $GOLDEN/bad/duckdb-v2.parquet "DELTA_BINARY_PACKED is not built"
}

@test "a null, a negative or a too large id is 65, and names file and row" {
    broken 65 $GOLDEN/bad/null-list.parquet "row 4: the list is null"
    broken 65 $GOLDEN/bad/null-token.parquet "row 4: a token is null"
    broken 65 $GOLDEN/bad/negative.parquet "row 5: -5 is no token id"
    broken 65 $GOLDEN/bad/negative-dictionary.parquet "row 5: -5 is no token id"
    broken 65 $GOLDEN/bad/too-large.parquet "row 4: 4294967296 is no token id"
    broken 65 $GOLDEN/bad/negative.npy "row 1: -4 is no token id"
    local file="$BATS_TEST_TMPDIR/bad.jsonl" line
    for line in 'null:the list of ids is null' '[1,null]:a token is null' '[1,-2]:-2 is no token id' \
        '[4294967296]:4294967296 is no token id' '[1.5]:no integer' '["1"]:no integer' \
        '5:no list of ids' '[true]:no integer' '[9223372036854775808]:JSON'; do
        printf '{"input_ids":[1]}\n{"input_ids":%s}\n' "${line%%:*}" >"$file"
        broken 65 "$file" "${line#*:}"
        [[ "$stderr" == *"row"*1* ]]
    done
    for line in '1 -2' '1 4294967296' '1 x' '1x' '99999999999999999999999' '1,2' '+1' '0x1'; do
        printf '5\n%s\n' "$line" >"$BATS_TEST_TMPDIR/bad.txt"
        broken 65 "$BATS_TEST_TMPDIR/bad.txt" "row 1 (line 2): '${line#1 }' is no token id"
    done
}

@test "JSON that is damaged is 65" {
    local line
    for line in '{"input_ids":[1]' '[1]]' '{"input_ids":[1],"input_ids":[2]}' '[1] [2]' '{"input_ids":[01]}'; do
        printf '[1]\n%s\n' "$line" >"$BATS_TEST_TMPDIR/bad.json"
        broken 65 "$BATS_TEST_TMPDIR/bad.json" "JSON"
    done
    printf '%*s' 100 '' | tr ' ' '[' >"$BATS_TEST_TMPDIR/deep.json"
    broken 65 "$BATS_TEST_TMPDIR/deep.json" "nested deeper"
}

@test "long lines are read, and one that is longer than any sequence is 65" {
    local file="$BATS_TEST_TMPDIR/long.jsonl"
    { printf '['; head -c 5000000 /dev/zero | tr '\0' ' '; echo ']'; } >"$file"
    [ "$(tokstream --format jsonl "$file")" = '{"index":0,"input_ids":[]}' ]
    printf '[1]\n[' >"$file"
    truncate -s 300M "$file" # zeros without an end of line, and without blocks on the disk
    broken 65 "$file" "row 1 at offset 4: the line is longer than 256 MiB"
}

@test "cut files are 66" {
    local file="$BATS_TEST_TMPDIR/cut"
    head -c 1000 $GOLDEN/good/v1-snappy.parquet >"$file"
    broken 66 "$file" "does not end with the mark of Parquet"
    head -c 8 $GOLDEN/good/v1-snappy.parquet >"$file"
    broken 66 "$file" "too few for Parquet"
    head -c 1000 $GOLDEN/good/i4.npy >"$file"
    broken 66 "$file" "its header announces"
    run --separate-stderr tokstream --format jsonl < <(head -c 1000 $GOLDEN/good/i4.npy)
    [ "$status" -eq 66 ]
    [[ "$stderr" == *"'standard input' ends at offset"* ]]
    head -c 31 $GOLDEN/good/even-u16.bin >"$file"
    broken 66 "$file" "no whole number of items" --dtype u16 --seq-len 4
    run --separate-stderr tokstream --dtype u16 --seq-len 4 --format jsonl < <(cat "$file")
    [ "$status" -eq 66 ]
    : >"$file"
    broken 66 "$file" "is empty"
    run --separate-stderr tokstream </dev/null
    [ "$status" -eq 66 ]
}

@test "a file longer than its header says is 65" {
    { cat $GOLDEN/good/i4.npy; printf '\0'; } >"$BATS_TEST_TMPDIR/long.npy"
    broken 65 "$BATS_TEST_TMPDIR/long.npy" "its header announces"
}

@test "what is no token file is refused, and says why" {
    local file="$BATS_TEST_TMPDIR/file"
    printf 'PK\3\4....' >"$file"
    refused 64 "is not built" tokstream "$file"
    printf 'PARE....PARE' >"$file"
    refused 64 "encrypted" tokstream "$file"
    echo 1 2 | gzip >"$file"
    refused 64 "zcat" tokstream "$file"
    echo 1 2 | zstd -q >"$file" -
    refused 64 "zstdcat" tokstream "$file"
    refused 64 "stream already" tokstream tests/golden/stream/tokens.ccps
    printf 'hello\n' >"$file"
    refused 64 "--dtype u16 or u32 and --seq-len" tokstream "$file"
    cp "$file" "$file.parquet"
    refused 65 "does not begin as its name says" tokstream "$file.parquet"
    cp "$file" "$file.jsonl"
    refused 65 "begins neither as JSON lines nor" tokstream "$file.jsonl"
    cp "$file" "$file.pt"
    refused 64 ".pt files is not built" tokstream "$file.pt"
    refused 64 "say with --seq-len N where it is cut" tokstream $GOLDEN/good/flat.npy
    refused 64 "say with --seq-len N where it is cut" tokstream --dtype u16 $GOLDEN/good/even-u16.bin
    refused 64 "items of type '<f4'" tokstream tests/golden/files/f4_2x0x3.npy
    refused 64 "cannot open 'no/such'" tokstream no/such
    cat $GOLDEN/good/v1-snappy.parquet | refused 64 "is a pipe" tokstream
}
