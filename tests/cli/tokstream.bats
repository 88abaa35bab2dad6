# tokstream's command line: which sequences, in which order, and what is said.
# shellcheck disable=SC2001,SC2002,SC2154  # sed and pipes are the point; run sets stderr

GOLDEN=tests/golden/tokens

tokstream() {
    "${BIN:-bin}/tokstream" "$@"
}

# The indices of what is emitted, in one line.
indices() {
    tokstream --format jsonl "$@" | sed 's/{"index":\([0-9]*\),.*/\1/' | paste -sd' '
}

refused() {
    local code=$1 words=$2
    shift 2
    run --separate-stderr "$@"
    echo "$stderr"
    [ "$status" -eq "$code" ]
    [ -z "$output" ]
    [[ "$stderr" == *"$words"* ]]
}

setup() {
    bats_require_minimum_version 1.5.0
    unset "${!CCPIPE_@}"
    seq 0 9 >"$BATS_TEST_TMPDIR/ten.txt"
    TEN=$BATS_TEST_TMPDIR/ten.txt
}

@test "help shows every documented option" {
    run tokstream --help
    [ "$status" -eq 0 ]
    for word in --column --dtype --seq-len --skip --limit --epochs --shuffle --seed --shard --mix --format \
        --info --output --codec --plan --threads --metrics --config; do
        [[ "$output" == *"$word"* ]]
    done
}

@test "skip, limit and epochs" {
    [ "$(indices --skip 7 "$TEN")" = "7 8 9" ]
    [ "$(indices --skip 2 --limit 3 "$TEN")" = "2 3 4" ]
    [ "$(indices --limit 0 "$TEN")" = "" ]
    [ "$(indices --limit 3 --epochs 2 "$TEN")" = "0 1 2 10 11 12" ]
    [ "$(indices --skip 8 --epochs 3 "$TEN")" = "8 9 18 19 28 29" ]
    [ "$(indices --limit 100 "$TEN")" = "0 1 2 3 4 5 6 7 8 9" ]
    [ "$(indices --skip 7 < <(cat "$TEN"))" = "7 8 9" ]
}

@test "shards are interleaved, and come before skip and limit" {
    [ "$(indices --shard 0/3 "$TEN")" = "0 3 6 9" ]
    [ "$(indices --shard 1/3 "$TEN")" = "1 4 7" ]
    [ "$(indices --shard 2/3 --skip 1 "$TEN")" = "5 8" ]
    [ "$(indices --shard 2/3 --skip 1 --limit 1 --epochs 2 "$TEN")" = "5 15" ]
    [ "$(indices --shard 1/3 < <(cat "$TEN"))" = "1 4 7" ]
    for text in 3/3 0/0 1 /3 1/ -1/3 a/b 0/3/1 ''; do
        refused 64 "--shard '$text' is not I/N" tokstream --shard "$text" "$TEN"
    done
}

@test "a shuffle is a permutation that the seed gives, another one each epoch" {
    local one two file
    for file in "$TEN" $GOLDEN/good/groups.parquet $GOLDEN/good/u2.npy $GOLDEN/mixed.jsonl; do
        one=$(indices --shuffle "$file")
        [ "$one" = "$(indices --shuffle "$file")" ]
        [ "$one" = "$(indices --shuffle --seed 49 "$file")" ]
        [ "$one" != "$(indices --shuffle --seed 50 "$file")" ]
        [ "$one" != "$(indices "$file")" ]
        [ "$(tr ' ' '\n' <<<"$one" | sort -n | paste -sd' ')" = "$(indices "$file")" ]
        two=$(indices --shuffle --epochs 2 "$file")
        [[ "$two" == "$one "* ]]
        [ "$(tr ' ' '\n' <<<"$two" | sort -n | paste -sd' ')" = "$(indices --epochs 2 "$file")" ]
        two=${two#"$one "} # the second epoch with the indices of the first
        count=$(wc -w <<<"$one")
        [ "$(for i in $two; do echo $((i - count)); done | paste -sd' ')" != "$one" ]
    done
}

@test "a sequence keeps its index when it is shuffled" {
    for name in groups duckdb v1-snappy; do
        tokstream --shuffle --format jsonl $GOLDEN/good/$name.parquet | sort -t: -k2n |
            cmp - $GOLDEN/mixed.jsonl
    done
    tokstream --shuffle --format jsonl $GOLDEN/mixed.jsonl | sort -t: -k2n | cmp - $GOLDEN/mixed.jsonl
    tokstream --shuffle --format jsonl $GOLDEN/good/i8.npy | sort -t: -k2n | cmp - $GOLDEN/even.jsonl
}

@test "shuffled shards, skip and limit are parts of the shuffled order" {
    local file all i
    for file in "$TEN" $GOLDEN/good/groups.parquet; do
        read -ra all <<<"$(indices --shuffle "$file")"
        [ "$(indices --shuffle --skip 3 --limit 4 "$file")" = "${all[*]:3:4}" ]
        local part=()
        for ((i = 1; i < ${#all[@]}; i += 4)); do
            part+=("${all[i]}")
        done
        [ "$(indices --shuffle --shard 1/4 "$file")" = "${part[*]}" ]
        [ "$(indices --shuffle --shard 1/4 --skip 1 "$file")" = "${part[*]:1}" ]
    done
}

@test "files of several formats are one input" {
    local all
    all=$(indices "$TEN" $GOLDEN/good/u2.npy $GOLDEN/good/groups.parquet $GOLDEN/even.jsonl)
    [ "$all" = "$(seq -s' ' 0 149)" ]
    [ "$(indices --skip 49 --limit 2 "$TEN" $GOLDEN/good/u2.npy $GOLDEN/good/groups.parquet)" = "49 50" ]
    tokstream --skip 50 --format jsonl "$TEN" $GOLDEN/good/u2.npy $GOLDEN/good/groups.parquet |
        sed 's/.*"input_ids"//' | cmp - <(sed 's/.*"input_ids"//' $GOLDEN/mixed.jsonl)
    [ "$(indices --epochs 3 "$TEN" $GOLDEN/good/u2.npy $GOLDEN/good/groups.parquet $GOLDEN/even.jsonl)" = \
        "$(seq -s' ' 0 449)" ]
    all=$(indices --shuffle "$TEN" $GOLDEN/good/u2.npy $GOLDEN/good/groups.parquet)
    [ "$(tr ' ' '\n' <<<"$all" | sort -n | paste -sd' ')" = "$(seq -s' ' 0 109)" ]
    cat "$TEN" | tokstream --format jsonl $GOLDEN/even.jsonl - | tail -n 1 |
        grep -qx '{"index":49,"input_ids":\[9\]}'
}

@test "what can be read once only is neither shuffled, repeated nor mixed" {
    cat "$TEN" | refused 64 "--shuffle needs regular files" tokstream --shuffle
    cat "$TEN" | refused 64 "--epochs needs regular files" tokstream --epochs 2
    cat "$TEN" | refused 64 "--mix needs regular files" tokstream --mix 1=-
}

@test "a mix takes the input that lacks most, and ends with the first that ends" {
    seq 100 103 >"$BATS_TEST_TMPDIR/b.txt"
    run --separate-stderr tokstream --format jsonl --mix 3="$TEN" --mix 1="$BATS_TEST_TMPDIR/b.txt"
    [ "$status" -eq 0 ]
    # By hand: lacks 0.75 and 0.25, 0.5 and 0.5 (a tie), 0.25 and 0.75, 1 and 0, and so on; after
    # thirteen, ten of the first are taken and it is its turn again.
    [ "$(sed 's/{"index":\([0-9]*\),.*/\1/' <<<"$output" | paste -sd' ')" = "0 1 10 2 3 4 11 5 6 7 12 8 9" ]
    [[ "$stderr" == *"note: '$TEN' has ended first"* ]]
    [ "$(indices --mix 1="$TEN" --mix 1="$BATS_TEST_TMPDIR/b.txt" 2>/dev/null)" = "0 10 1 11 2 12 3 13 4" ]
    [ "$(indices -q --mix 1="$TEN" --mix 1="$BATS_TEST_TMPDIR/b.txt" --skip 3)" = "11 2 12 3 13 4" ]
    [ "$(indices -q --mix 1="$TEN" --mix 1="$BATS_TEST_TMPDIR/b.txt" --skip 1 --limit 2 --epochs 2)" = "10 1 24 15" ]
    [ "$(indices -q --mix 1="$TEN" --mix 1="$BATS_TEST_TMPDIR/b.txt" --shard 1/2)" = "10 11 12 13" ]
    # Shuffled, each alone: the same places take turns.
    all=$(indices -q --shuffle --mix 1="$TEN" --mix 1="$BATS_TEST_TMPDIR/b.txt")
    [ "$(for i in $all; do echo $((i >= 10)); done | paste -sd' ')" = "0 1 0 1 0 1 0 1 0" ]
    [ "$(tr ' ' '\n' <<<"$all" | awk '$1 >= 10' | sort -n | paste -sd' ')" = "10 11 12 13" ]
}

@test "a wrong mix is 64" {
    local text
    for text in "$TEN" "=$TEN" "x=$TEN" "1=" "0=$TEN" "-1=$TEN" "nan=$TEN" "inf=$TEN"; do
        refused 64 "--mix '$text'" tokstream --mix "$text"
    done
    refused 64 "one too many" tokstream --mix "1=$TEN" "$TEN"
    refused 64 "--info" tokstream --info --mix "1=$TEN"
    refused 64 "goes to standard output" tokstream --info "$TEN" -o "$BATS_TEST_TMPDIR/info"
}

@test "folders are read recursively in the order of the paths" {
    local dir="$BATS_TEST_TMPDIR/dir"
    mkdir -p "$dir/a" "$dir/a.d" "$dir/.hidden" "$dir/B"
    echo 1 >"$dir/a/x.txt"
    echo 2 >"$dir/a.d/x.txt"
    echo '[3]' >"$dir/B/x.jsonl"
    echo '[4]' >"$dir/a/x.json"
    printf '\5\0' >"$dir/b.bin"
    echo 6 >"$dir/.hidden/x.txt"
    echo 7 >"$dir/.dot.txt"
    echo no >"$dir/README.md"
    echo no >"$dir/a/notes"
    run --separate-stderr tokstream --dtype u16 --seq-len 4 --format jsonl "$dir/"
    [ "$status" -eq 0 ]
    # Bytewise: B before a, '.' before '/'.
    [ "$(sed 's/.*\[\(.*\)\]}/\1/' <<<"$output" | paste -sd' ')" = "3 2 4 1 5" ]
    [ "$stderr" = "tokstream: note: '$dir/': 2 other files are passed over" ]
    refused 64 "--dtype u16 or u32" tokstream --seq-len 4 "$dir"
    cp "$TEN" "$dir/x.pt"
    refused 64 "reading torch .pt files is not built" tokstream -q --dtype u16 --seq-len 4 "$dir"
    mkdir "$BATS_TEST_TMPDIR/none"
    refused 64 "holds no token files" tokstream "$BATS_TEST_TMPDIR/none"
    ln -s .. "$dir/a/up"
    rm "$dir/x.pt"
    refused 64 "does a link go round?" tokstream --dtype u16 --seq-len 4 "$dir"
}

@test "more files than may be open by default" {
    local dir="$BATS_TEST_TMPDIR/many"
    mkdir "$dir"
    for i in {100..249}; do
        echo "$i" >"$dir/$i.txt"
    done
    run --separate-stderr bash -c "ulimit -S -n 64; '${BIN:-bin}/tokstream' --shuffle --format jsonl '$dir'"
    [ "$status" -eq 0 ]
    [ "$(sed 's/.*\[\(.*\)\]}/\1/' <<<"$output" | sort -n | paste -sd' ')" = "$(seq -s' ' 100 249)" ]
}

@test "lists are cut to --seq-len, which is said and counted in END" {
    run --separate-stderr tokstream --seq-len 2 --codec none -o "$BATS_TEST_TMPDIR/out" <<<$'1 2 3\n4\n5 6 7 8'
    [ "$status" -eq 0 ]
    [ "$stderr" = "tokstream: note: 2 sequences were cut to --seq-len, 3 tokens left out" ]
    grep -aq '"skipped":{"cut":2,"cut_tokens":3}' "$BATS_TEST_TMPDIR/out"
    tokstream --seq-len 4 --codec none <<<$'1 2 3\n4' | grep -aq '"skipped":{}'
}

@test "BEGIN says how many sequences come, and their length, where that is known" {
    begin() {
        tokstream -q --codec none "$@" | tr -c '[:print:]' '\n' | grep -o '"rows":[0-9a-z]*,"seq_len":[0-9a-z]*' | head -n 1
    }
    [ "$(begin $GOLDEN/good/groups.parquet)" = '"rows":60,"seq_len":null' ]
    [ "$(begin $GOLDEN/good/u2.npy)" = '"rows":40,"seq_len":16' ]
    [ "$(begin --seq-len 3 $GOLDEN/good/u2.npy)" = '"rows":40,"seq_len":3' ]
    [ "$(begin --seq-len 16 $GOLDEN/good/flat.npy)" = '"rows":40,"seq_len":16' ]
    [ "$(begin --seq-len 17 $GOLDEN/good/flat.npy)" = '"rows":38,"seq_len":null' ]
    [ "$(begin "$TEN")" = '"rows":null,"seq_len":null' ]
    [ "$(begin --shuffle "$TEN")" = '"rows":10,"seq_len":null' ]
    [ "$(begin --shard 1/3 --skip 1 --epochs 4 $GOLDEN/good/groups.parquet)" = '"rows":76,"seq_len":null' ]
    [ "$(begin --limit 7 --epochs 2 $GOLDEN/good/groups.parquet)" = '"rows":14,"seq_len":null' ]
    [ "$(begin --skip 60 $GOLDEN/good/groups.parquet)" = '"rows":0,"seq_len":null' ]
    [ "$(begin $GOLDEN/good/u2.npy $GOLDEN/good/groups.parquet)" = '"rows":100,"seq_len":null' ]
}

@test "BEGIN holds the options that matter and no path" {
    tokstream -q --codec none --shuffle --mix 0.75="$TEN" --mix 0.25=$GOLDEN/good/u2.npy >"$BATS_TEST_TMPDIR/out"
    grep -aq '"mix":\["0.75","0.25"\]' "$BATS_TEST_TMPDIR/out"
    grep -aq '"shuffle":true' "$BATS_TEST_TMPDIR/out"
    run ! grep -aq 'u2.npy' "$BATS_TEST_TMPDIR/out"
}

@test "the same command gives the same bytes, whatever the threads" {
    tokstream --shuffle --threads 1 -o "$BATS_TEST_TMPDIR/one" demo/tiny-gemma2/tokens
    tokstream --shuffle --threads 3 -o "$BATS_TEST_TMPDIR/two" demo/tiny-gemma2/tokens
    cmp "$BATS_TEST_TMPDIR/one" "$BATS_TEST_TMPDIR/two"
    lz4 -t -q "$BATS_TEST_TMPDIR/one"
}

@test "an input without sequences is a stream of no rows" {
    tokstream --codec none $GOLDEN/good/empty.parquet | grep -aq '"rows":0'
    [ -z "$(tokstream --format jsonl $GOLDEN/good/empty.parquet)" ]
    [ -z "$(tokstream --format jsonl --shuffle --epochs 2 $GOLDEN/good/empty.parquet)" ]
    [ "$(indices $GOLDEN/good/empty.parquet "$TEN" $GOLDEN/good/empty.parquet)" = "0 1 2 3 4 5 6 7 8 9" ]
    run --separate-stderr tokstream --format jsonl --skip 10 --shuffle "$TEN"
    [ "$status" -eq 0 ]
    [[ "$stderr" == *"no sequence is left of the 10"* ]]
}

@test "--info says what the input is" {
    run --separate-stderr tokstream --info $GOLDEN/good/v1-snappy.parquet $GOLDEN/wide.jsonl
    [ "$status" -eq 0 ]
    [ "$(tail -n 7 <<<"$output")" = "$(awk -F'[][]' '
        { n = $2 == "" ? 0 : split($2, id, ","); all += n
          if (NR == 1 || n < short) short = n
          if (n > long) long = n
          for (i = 1; i <= n; i++) { if (!any++ || id[i] + 0 < small) small = id[i] + 0
                                     if (id[i] + 0 > large) large = id[i] + 0 } }
        END { printf "files\t2\nsequences\t%d\ntokens\t%d\nshortest\t%d\nlongest\t%d\nsmallest_id\t%.0f\nlargest_id\t%.0f",
              NR, all, short, long, small, large }' $GOLDEN/mixed.jsonl $GOLDEN/wide.jsonl)" ]
    grep -qx $'file\t'$GOLDEN/good/v1-snappy.parquet$'\tParquet\t60' <<<"$output"
    tokstream --info "$TEN" | grep -qx $'sequences\t10'
    tokstream --info < <(cat "$TEN") | grep -qx $'file\tstandard input\ttext\t10'
}

@test "--plan tells memory, rows and disk, and writes no stream" {
    run --separate-stderr tokstream --plan --limit 10 $GOLDEN/good/u2.npy
    [ "$status" -eq 0 ]
    [ "$(tail -n 2 <<<"$output")" = $'rows\t10\ndisk\t760' ] # 10 x (12 + 16 x 4)
    tokstream --plan --shuffle demo/tiny-gemma2/tokens | grep -qx $'rows\t3200'
    [ "$(tokstream --plan "$TEN" | wc -l)" -eq 1 ]
}

@test "numbers are strict" {
    for option in --skip --limit --epochs --seed --seq-len; do
        for text in -1 12x 1.5 1e3 99999999999999999999; do
            refused 64 "$option" tokstream "$option" "$text" "$TEN"
        done
    done
    refused 64 epochs tokstream --epochs 0 "$TEN"
    refused 64 seq-len tokstream --seq-len 0 "$TEN"
    refused 64 dtype tokstream --dtype i16 "$TEN"
    refused 64 format tokstream --format json "$TEN"
    refused 64 "--codec is for streams" tokstream --format jsonl --codec lz4 "$TEN"
    [ "$(indices --skip 1k --limit 1M "$TEN" 2>/dev/null)" = "" ]
}

@test "a bad sequence in the middle ends with ABORT, and a reader of that with 66" {
    printf '1\n2\nx\n' >"$BATS_TEST_TMPDIR/bad.txt"
    run --separate-stderr tokstream --codec none -o "$BATS_TEST_TMPDIR/out" "$BATS_TEST_TMPDIR/bad.txt"
    [ "$status" -eq 65 ]
    grep -aq '"reason":"tokstream: corrupt data","status":65' "$BATS_TEST_TMPDIR/out"
}

@test "a reader that goes away is one note and no failure" {
    for format in stream jsonl; do
        run bash -c "exec 3> >(:); wait \$!; '${BIN:-bin}/tokstream' --epochs 9 --format $format demo/tiny-gemma2/tokens >&3"
        [ "$status" -eq 0 ]
        [ "$output" = "tokstream: note: the reader of standard output went away; stopping" ]
    done
}

@test "a file of a folder or of a mix that is read is not emptied" {
    mkdir "$BATS_TEST_TMPDIR/dir"
    cp "$TEN" "$BATS_TEST_TMPDIR/dir/a.txt"
    for option in -o --metrics; do
        refused 64 "is one of the files that are read" tokstream "$option" "$BATS_TEST_TMPDIR/dir/a.txt" "$BATS_TEST_TMPDIR/dir"
        refused 64 "is one of the files that are read" tokstream "$option" "$TEN" --mix 1="$BATS_TEST_TMPDIR/dir" --mix 1="$TEN"
    done
    refused 64 "" tokstream -o "$TEN" "$TEN"
    cmp "$TEN" "$BATS_TEST_TMPDIR/dir/a.txt"
    [ "$(wc -l <"$TEN")" -eq 10 ]
    tokstream -o "$BATS_TEST_TMPDIR/dir/new.ccps" "$BATS_TEST_TMPDIR/dir"
}

@test "a full disk is 74" {
    for format in stream jsonl; do
        run --separate-stderr bash -c "'${BIN:-bin}/tokstream' --format $format '$TEN' >/dev/full"
        [ "$status" -eq 74 ]
    done
}

@test "a signal ends the stream with ABORT" {
    local signal status
    for signal in TERM:143 INT:130 USR1:75; do
        rm -f "$BATS_TEST_TMPDIR/out" # what the one before wrote would be taken for this one's
        mkfifo "$BATS_TEST_TMPDIR/in"
        "${BIN:-bin}/tokstream" --codec none -o "$BATS_TEST_TMPDIR/out" - <"$BATS_TEST_TMPDIR/in" 3>&- &
        local pid=$!
        exec 9>"$BATS_TEST_TMPDIR/in"
        seq 20000 >&9 # some of it has been read when there is a DATA record
        until [ "$(stat -c %s "$BATS_TEST_TMPDIR/out" 2>/dev/null || echo 0)" -gt 1000 ]; do :; done
        kill -"${signal%:*}" "$pid"
        status=0
        wait "$pid" || status=$?
        exec 9>&-
        rm "$BATS_TEST_TMPDIR/in"
        echo "$signal $status"
        [ "$status" -eq "${signal#*:}" ]
        grep -aq '"reason":"tokstream was stopped by signal' "$BATS_TEST_TMPDIR/out"
    done
}

@test "metrics are JSON lines" {
    tokstream --metrics "$BATS_TEST_TMPDIR/metrics" "$TEN" >"$BATS_TEST_TMPDIR/out"
    grep -q '"sequences":10' "$BATS_TEST_TMPDIR/metrics"
}
