# ccanalyze's verbs on files: info, verify, salvage, pack, dump.
# shellcheck disable=SC2002,SC2154  # a pipe where a file would do is the point; run sets stderr

STREAM=tests/golden/stream PACK=tests/golden/pack CC=tests/golden/crosscoder

ccanalyze() {
    "${BIN:-bin}/ccanalyze" "$@"
}

# A refused command says so on standard error, and writes nothing.
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
    out="$BATS_TEST_TMPDIR/out" file="$BATS_TEST_TMPDIR/file"
}

# value KEY FILE: what info says.
value() {
    ccanalyze info "$2" | awk -F'\t' -v key="$1" '$1 == key { print $2 }'
}

# ---- info

@test "info of streams" {
    [ "$(value type $STREAM/tokens.ccps)" = tokens ]
    [ "$(value sequences $STREAM/tokens.ccps)" = 3 ]
    [ "$(value type $STREAM/rows-bf16.lz4)" = activations ]
    [ "$(value rows $STREAM/rows-bf16.lz4)" = 4 ]
    [ "$(value records $STREAM/rows-bf16.lz4)" = 2 ]
    [ "$(value codec $STREAM/rows-bf16.lz4)" = lz4 ]
    [ "$(value index $STREAM/rows-bf16.lz4)" = true ]
    [ "$(value complete $STREAM/rows-bf16.lz4)" = true ]
    [ "$(value dtype $STREAM/rows-int8.zst)" = int8 ]
    [ "$(value codec $STREAM/rows-int8.zst)" = zstd ]
    [ "$(value sources.1.name $STREAM/rows-f32.ccps)" = b.x ]
    [ "$(value sources.1.scale $STREAM/rows-f32.ccps)" = 0.5 ]
    [ "$(value tools.0 $STREAM/rows-f32.ccps)" = "oracle 1" ]
    [ "$(ccanalyze info - <$STREAM/tokens.ccps | grep -c '^sequences	3$')" = 1 ]
    [ "$(cat $STREAM/tokens.ccps | ccanalyze info - | grep -c '^sequences	3$')" = 1 ]
}

@test "info of a cut cache says that it is not complete" {
    head -c 700 $STREAM/rows-bf16.lz4 >"$file"
    [ "$(value complete "$file")" = false ]
    [ -z "$(value rows "$file")" ]
    cat $STREAM/rows-bf16.lz4 $STREAM/rows-bf16.lz4 >"$file"
    [ "$(value parts "$file")" = 2 ]
    [ "$(value rows "$file")" = 8 ]
}

@test "info sums what was left out over the parts" {
    "${BIN:-bin}/tokstream" --seq-len 200 demo/tiny-gemma2/tokens/validation.parquet -o "$file"
    cat "$file" "$file" >"$file.2"
    [ "$(value skipped.cut "$file")" = 200 ]
    [ "$(value skipped.cut_tokens "$file")" = $((200 * 56)) ]
    [ "$(value skipped.cut "$file.2")" = 400 ]
}

@test "info of checkpoints, and of a run as pipelines/resume reads it" {
    [ "$(value type $CC)" = run ]
    [ "$(value steps.0 $CC)" = 7 ]
    [ "$(value step $CC)" = 7 ]
    [ "$(value latents $CC/step-7)" = 4 ]
    [ "$(value recipe.l1 $CC/step-7)" = 0.7 ]
    [ "$(value type $CC/unequal.safetensors)" = crosscoder ]
    [ "$(value sources.1.width $CC/unequal.safetensors)" = 3 ]
    [ "$(ccanalyze info --json $CC | sed -n 's/.*"rows_trained": *\([0-9]*\).*/\1/p')" = 7168 ]
}

@test "info of models, norm files and arrays" {
    [ "$(value type demo/tiny-gemma2/base)" = model ]
    [ "$(value layers demo/tiny-gemma2/base)" -gt 0 ]
    echo '{"base.blocks.1.hook_resid_pre": 0.25}' >"$file"
    [ "$(value type "$file")" = norm ]
    [ "$(value 'factors.base.blocks.1.hook_resid_pre' "$file")" = 0.25 ]
    [ "$(value shape.1 $PACK/rows.npy)" = 5 ]
    [ "$(value dtype $PACK/three.npy)" = '<f2' ]
    [ "$(value type $PACK/cache-a)" = memmap ]
    [ "$(value rows $PACK/cache-a)" = 5 ]
    [ "$(value width $PACK/cache-a)" = 3 ]
    [ "$(value shards $PACK/cache-a)" = 2 ]
    [ "$(value dtype $PACK/cache-b)" = f16 ]
}

@test "info refuses what is nothing, with the right code" {
    refused 64 "cannot open" ccanalyze info "$BATS_TEST_TMPDIR/none"
    refused 64 "folder without" ccanalyze info "$BATS_TEST_TMPDIR"
    refused 64 "one file" ccanalyze info
    refused 64 "one file" ccanalyze info a b
    : >"$file"
    refused 66 "is empty" ccanalyze info "$file"
    echo text >"$file"
    refused 65 "offset 0" ccanalyze info "$file"
    echo '{"a": [1]}' >"$file"
    refused 64 "--norm" ccanalyze info "$file"
    refused 64 "tokstream --info" ccanalyze info demo/tiny-gemma2/tokens/validation.parquet
}

# ---- verify

@test "verify prints a line for each file that is whole, and goes on behind a damaged one" {
    cp $STREAM/rows-f32.ccps "$file"
    printf x | dd of="$file" bs=1 seek=700 conv=notrunc status=none
    run --separate-stderr ccanalyze verify "$file" $STREAM/rows-bf16.lz4 $CC $CC/f32.safetensors
    [ "$status" -eq 65 ]
    [[ "$stderr" == *"$file"*offset* ]]
    [ "${#lines[@]}" -eq 4 ]
    [[ "${lines[1]}" == *"4 rows in 2 records, sum "*"index of 4 records" ]]
    [[ "${lines[2]}" == *"run"*"every file of 1 checkpoints" ]]
    [[ "${lines[3]}" == *"no checksums" ]]
    cat $STREAM/rows-f32.ccps | ccanalyze verify
    ccanalyze verify --json $STREAM/empty.ccps | grep -q '"0 rows in 0 records'
}

@test "verify tells cut from damaged" {
    head -c 900 $STREAM/rows-f32.ccps >"$file"
    run ccanalyze verify "$file"
    [ "$status" -eq 66 ]
    : >"$file"
    run ccanalyze verify "$file"
    [ "$status" -eq 66 ]
    run ccanalyze verify $STREAM/aborted.ccps
    [ "$status" -eq 66 ]
    run ccanalyze verify $PACK/rows.npy
    [ "$status" -eq 64 ]
}

@test "damage inside the index shows in verify, and nowhere else" {
    cp $STREAM/rows-bf16.lz4 "$file"
    printf x | dd of="$file" bs=1 seek=900 conv=notrunc status=none
    run --separate-stderr ccanalyze verify "$file"
    [ "$status" -eq 65 ]
    [[ "$stderr" == *"index at offset"*"the rows are whole"* ]]
    diff <(ccanalyze dump "$file") <(ccanalyze dump $STREAM/rows-bf16.lz4)
    ccanalyze salvage "$file" -o "$out"
    ccanalyze verify "$out"
}

@test "verify names every damaged checkpoint of a run" {
    mkdir "$file"
    cp -r $CC/step-7 "$file/step-7"
    cp -r $CC/step-7 "$file/step-8"
    cp -r $CC/step-7 "$file/step-9.tmp"
    rm "$file/step-9.tmp/manifest.json"
    ccanalyze verify "$file"
    echo '{"step":9}' >"$file/step-8/state.json"
    run --separate-stderr ccanalyze verify "$file"
    [ "$status" -eq 65 ]
    [[ "$stderr" == *step-8/state.json* ]]
    run --separate-stderr ccanalyze info "$file"
    [ "$status" -eq 0 ]
    [[ "$stderr" == *"step-8' is passed over"* ]]
    [[ "$output" == *step-7/cc.safetensors* ]]
}

# ---- salvage

@test "salvage says what was saved and lost" {
    head -c 700 $STREAM/rows-f32.ccps >"$file"
    run --separate-stderr ccanalyze salvage "$file" -o "$out"
    [ "$status" -eq 0 ]
    [ -z "$output" ]
    [[ "$stderr" == *"2 rows in 1 records saved to '$out', 3 lost"* ]]
    diff <(ccanalyze dump "$out") <(ccanalyze dump --rows :2 $STREAM/rows-f32.ccps)
    head -c 700 $STREAM/rows-bf16.lz4 >"$file"
    run --separate-stderr ccanalyze salvage "$file" -o "$out"
    [[ "$stderr" == *"how many are lost is not known"* ]]
}

@test "salvage of a whole cache gives its bytes" {
    ccanalyze pack $PACK/rows.npy --source a:5 -o "$file"
    ccanalyze salvage "$file" -o "$out"
    cmp "$file" "$out"
    ccanalyze salvage $STREAM/rows-int8.zst --codec zstd -o "$out"
    diff <(ccanalyze dump "$out") <(ccanalyze dump $STREAM/rows-int8.zst)
}

@test "salvage never writes over its input" {
    cp $STREAM/rows-f32.ccps "$file"
    ln -s "$file" "$file.link"
    ln "$file" "$file.hard"
    refused 64 "one file" ccanalyze salvage "$file" -o "$file"
    refused 64 "one file" ccanalyze salvage "$file" -o "$file.link"
    refused 64 "one file" ccanalyze salvage "$file.hard" -o "$file"
    run bash -c "'${BIN:-bin}/ccanalyze' salvage '$file' -o - 1<>'$file'"
    [ "$status" -eq 64 ]
    cmp "$file" $STREAM/rows-f32.ccps
    refused 64 "-o OUT" ccanalyze salvage "$file"
}

@test "what cannot be salvaged leaves an old output alone" {
    head -c 300 $STREAM/rows-f32.ccps >"$file"
    echo mine >"$out"
    refused 66 "no whole BEGIN" ccanalyze salvage "$file" -o "$out"
    [ "$(cat "$out")" = mine ]
    run bash -c "cat '$file' | '${BIN:-bin}/ccanalyze' salvage /dev/stdin -o '$out'"
    [ "$status" -eq 64 ]
    refused 74 "cannot write" ccanalyze salvage $STREAM/rows-f32.ccps -o /no/such
    refused 74 "" ccanalyze salvage $STREAM/rows-f32.ccps -o /dev/full
}

@test "plans do nothing" {
    ccanalyze salvage $STREAM/rows-f32.ccps --plan | grep -qx 'rows	5'
    ccanalyze pack $PACK/rows.npy --source a:2 --source b:3 --plan -o "$out" | grep -qx 'rows	5'
    ccanalyze dump --plan --npy "$out" --rows 1:4 $STREAM/rows-f32.ccps | grep -qx 'rows	3'
    ccanalyze verify --plan | grep -q '^memory	'
    ccanalyze info --plan $CC | grep -q '^memory	'
    [ ! -e "$out" ]
}

# ---- pack and dump

# The values of a dump, without the header and the first four columns.
values() {
    ccanalyze dump "$@" | tail -n +2 | cut -f 5-
}

# (i - 12) / 4 in five rows of five: what numpy wrote into rows.npy.
expected_rows() {
    awk 'BEGIN { for (i = 0; i < 25; i++) printf "%.9g%s", (i - 12) / 4, i % 5 == 4 ? "\n" : "\t" }'
}

@test "pack takes (N, D) in one array, and an array or a folder for each source" {
    ccanalyze pack $PACK/rows.npy --source m.a:2 --source m.b:3 -o "$out"
    diff <(values "$out") <(expected_rows)
    [ "$(value rows "$out")" = 5 ]
    [ "$(value dtype "$out")" = f32 ]
    [ "$(value sources.1.hook "$out")" = b ]
    [ "$(ccanalyze dump "$out" | cut -f 1-4 | tail -1)" = "4	4	0	0" ]
    ccanalyze pack $PACK/a.npy $PACK/b.npy --source a:2 --source b:3 | ccanalyze dump | tail -n +2 |
        cut -f 5- | diff - <(expected_rows)
    ccanalyze pack $PACK/cache-a $PACK/cache-b --source a:3 --source b:2 -o "$out"
    diff <(values "$out") <(expected_rows)
    [ "$(value dtype "$out")" = f32 ]
    ccanalyze pack $PACK/cache-a --source a:3 -o "$out"
    [ "$(value dtype "$out")" = bf16 ]
    diff <(values "$out") <(expected_rows | cut -f 1-3)
}

@test "pack takes (N, S, d)" {
    ccanalyze pack $PACK/three.npy --source a:3 --source b:3 -o "$out"
    diff <(values "$out") <(seq -12 11 | paste - - - - - -)
    refused 64 "(4, 2, 3)" ccanalyze pack $PACK/three.npy --source a:6
    refused 64 "(4, 2, 3)" ccanalyze pack $PACK/three.npy --source a:2 --source b:4
}

@test "pack refuses what does not fit" {
    refused 64 "which array" ccanalyze pack --source a:5
    refused 64 "--source NAME:WIDTH" ccanalyze pack $PACK/rows.npy
    refused 64 "5 elements, and --source gives 4" ccanalyze pack $PACK/rows.npy --source a:4
    for wrong in a a: :5 a:0 a:x a:-1 a:5x a:99999999; do
        refused 64 "--source '$wrong'" ccanalyze pack $PACK/rows.npy --source "$wrong"
    done
    refused 64 "twice" ccanalyze pack $PACK/a.npy $PACK/b.npy --source a:2 --source a:3
    refused 64 "2 inputs and 3 sources" ccanalyze pack $PACK/a.npy $PACK/b.npy --source a:2 \
        --source b:2 --source c:1
    refused 64 "(4, 2, 3)" ccanalyze pack $PACK/a.npy $PACK/three.npy --source a:2 --source b:6
    ccanalyze pack $PACK/a.npy --source a:2 | ccanalyze dump --rows :4 --npy "$file"
    refused 64 "has 4 rows and" ccanalyze pack "$file" $PACK/b.npy --source a:2 --source b:3
    refused 64 "<f8" ccanalyze pack $PACK/wrong-type.npy --source a:5
    refused 64 "dimensions" ccanalyze pack $PACK/wrong-rank.npy --source a:5
    refused 64 "neither" ccanalyze pack $STREAM/tokens.ccps --source a:5
    run ccanalyze pack $PACK/wrong-value.npy --source a:5 -o "$out"
    [ "$status" -eq 65 ]
    [[ "$output" == *"row 3, element 2"* ]]
    run ccanalyze verify "$out"
    [ "$status" -eq 66 ]
}

@test "pack refuses arrays and caches whose sizes are not what they say" {
    head -c 200 $PACK/rows.npy >"$file"
    refused 66 "its shape needs" ccanalyze pack "$file" --source a:5
    head -c 60 $PACK/rows.npy >"$file"
    refused 66 "header" ccanalyze pack "$file" --source a:5
    { cat $PACK/rows.npy; echo; } >"$file"
    refused 65 "its shape needs" ccanalyze pack "$file" --source a:5
    cp -r $PACK/cache-a "$file.cache"
    : >"$file.cache/shard_1.memmap"
    refused 66 "shard_1.memmap" ccanalyze pack "$file.cache" --source a:3
    rm "$file.cache/shard_1.memmap"
    refused 64 "shard_1.memmap" ccanalyze pack "$file.cache" --source a:3
    cp $PACK/cache-a/shard_1.memmap "$file.cache"
    sed -i 's/"total_size": 5/"total_size": 6/' "$file.cache/config.json"
    refused 65 "total_size" ccanalyze pack "$file.cache" --source a:3
    sed -i 's/"shape": .*/"shape": [9223372036854775807, 9223372036854775807]}/' \
        "$file.cache/shard_0.meta"
    refused 65 overflows ccanalyze pack "$file.cache" --source a:3
    echo '{"shard_count": 1}' >"$file.cache/config.json"
    echo '{"shape": [3, 3]}' >"$file.cache/shard_0.meta"
    refused 65 dtype ccanalyze pack "$file.cache" --source a:3
}

@test "dump writes .npy that pack and the bytes agree on" {
    ccanalyze pack $PACK/rows.npy --source a:5 -o "$file"
    ccanalyze dump --npy "$out" --tags "$out.tags" "$file"
    cmp "$out" $PACK/rows.npy
    [ "$(od -An -v -tu8 -w24 -j128 "$out.tags" | tr -s ' ')" = "$(printf ' %d 0 0\n' 0 1 2 3 4)" ]
    ccanalyze dump --npy - "$file" | cmp - $PACK/rows.npy
    cat "$file" | ccanalyze dump --npy - | cmp - $PACK/rows.npy
    cat "$file" | ccanalyze dump --npy "$out" && cmp "$out" $PACK/rows.npy
}

@test "dump takes a range of rows" {
    for range in 1:4 0:5 3:3 :2 2: : 4:5; do
        from=${range%:*} to=${range#*:}
        diff <(values --rows "$range" $STREAM/rows-f32.ccps) \
            <(values $STREAM/rows-f32.ccps | sed -n "$((${from:-0} + 1)),${to:-5}p" |
                if [ "$range" = 3:3 ]; then cat >/dev/null; else cat; fi)
        diff <(values --rows "$range" $STREAM/rows-f32.ccps) \
            <(cat $STREAM/rows-f32.ccps | values --rows "$range")
    done
    for wrong in 1 x:2 3:2 1:x -1:2 ''; do
        refused 64 "--rows '$wrong'" ccanalyze dump --rows "$wrong" $STREAM/rows-f32.ccps
    done
    refused 64 "5 rows" ccanalyze dump --rows 0:6 $STREAM/rows-f32.ccps
    refused 64 tokens ccanalyze dump $STREAM/tokens.ccps
    refused 64 "both" ccanalyze dump --npy - --tags - $STREAM/rows-f32.ccps
}

@test "dump of a pipe that does not say its rows needs a file" {
    refused 64 "how many rows" bash -c "cat $STREAM/rows-bf16.lz4 | '${BIN:-bin}/ccanalyze' dump --npy - | cat; exit \${PIPESTATUS[1]}"
    cat $STREAM/rows-bf16.lz4 | ccanalyze dump --npy "$out"
    ccanalyze dump --npy "$file" $STREAM/rows-bf16.lz4
    cmp "$out" "$file"
}
