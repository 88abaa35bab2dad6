# actgen's command line: what is accepted, refused, and said.
# shellcheck disable=SC2002,SC2154  # a pipe where a file would do is the point; run sets stderr

TOKENS=tests/golden/actgen/tokens.ccps
DEMO=demo/tiny-gemma2

setup() {
    bats_require_minimum_version 1.5.0
    BIN=${BIN:-bin}
    out="$BATS_TEST_TMPDIR/out"
}

# traced CALLS COMMAND...: under strace, where the search for leaks does not work; to $BATS_TEST_TMPDIR/trace.
traced() {
    ASAN_OPTIONS="${ASAN_OPTIONS:-}:detect_leaks=0" strace -f -e "trace=$1" -o "$BATS_TEST_TMPDIR/trace" "${@:2}"
}

actgen() {
    "$BIN/actgen" "$@"
}

# base ARG...: the demo's base model, its first residual stream.
base() {
    actgen --model base=$DEMO/base --hook blocks.0.hook_resid_pre "$@"
}

# A refused command says so on standard error, and writes nothing.
refused() {
    local code=$1 words=$2
    shift 2
    run --separate-stderr "$@"
    [ "$status" -eq "$code" ] || { echo "exit $status: $stderr"; return 1; }
    [ -z "$output" ]
    [[ "$stderr" == *"$words"* ]] || { echo "$stderr"; return 1; }
}

# model: a copy of the demo's base model; its folder.
model() {
    local folder="$BATS_TEST_TMPDIR/model"
    rm -rf "$folder"
    cp -r $DEMO/base "$folder"
    echo "$folder"
}

# config KEY VALUE: a copy of the base model whose config.json has another value.
config() {
    local folder
    folder=$(model)
    sed -i "s|^  \"$1\": .*[^,]\(,\?\)\$|  \"$1\": $2\1|" "$folder/config.json"
    grep -q "\"$1\": $2" "$folder/config.json" || sed -i "1s|{|{ \"$1\": $2,|" "$folder/config.json"
    grep -q "\"$1\": $2" "$folder/config.json"
    echo "$folder"
}

@test "help shows examples and every documented option" {
    run actgen --help
    [ "$status" -eq 0 ]
    for word in --model --hook --device --dtype --row-dtype --batch --drop-bos --keep-bos --skip-first \
        --drop-id --norm --norm-sequences --norm-out --via --format --codec --output --plan --threads \
        --metrics --config 'actgen --model base=DIR'; do
        [[ "$output" == *"$word"* ]]
    done
}

@test "version is printed" {
    run actgen --version
    [ "$status" -eq 0 ]
    [[ "$output" == *actgen* ]]
}

@test "what is not built is refused with 64, a device that is not there with 76" {
    refused 64 "not built" base --via shm $TOKENS
    refused 64 "not built" base --format memmap -o "$out" $TOKENS
    refused 64 "unknown device" base --device gpu $TOKENS
    if [ ! -e "$BIN/ccpipe-cuda.so" ]; then
        refused 76 CUDA base --device cuda $TOKENS
        refused 76 CUDA base --device cuda:1 $TOKENS
    fi
}

@test "models and hooks are needed, and are named once" {
    refused 64 "no --model" actgen --hook blocks.0.hook_resid_pre $TOKENS
    refused 64 "no --hook" actgen --model base=$DEMO/base $TOKENS
    for name in base =x base= a.b=$DEMO/base a/b=$DEMO/base "a b=$DEMO/base" "$(printf '%065d' 0)=$DEMO/base"; do
        refused 64 NAME=DIR actgen --model "$name" --hook blocks.0.hook_resid_pre $TOKENS
    done
    refused 64 "two models" base --model base=$DEMO/chat $TOKENS
    refused 64 "blocks.0.hook_resid_pre" base --hook blocks.0.hook_resid_pre $TOKENS
    refused 64 "blocks.0.hook_resid_pre" base --hook base:blocks.0.hook_resid_pre $TOKENS
    refused 64 "no --hook is for model 'two'" actgen --model one=$DEMO/base --model two=$DEMO/chat \
        --hook one:blocks.0.hook_resid_pre $TOKENS
    refused 64 "no --model is called 'other'" base --hook other:blocks.1.hook_resid_pre $TOKENS
}

@test "hooks are spelled in one way" {
    for hook in blocks.0.resid_pre blocks.0.hook_resid blocks.00.hook_resid_pre blocks.-1.hook_resid_pre \
        blocks..hook_resid_pre block.0.hook_resid_pre blocks.0.hook_resid_pre.x blocks.0.hook_resid_prex \
        ' blocks.0.hook_resid_pre' blocks.9999999.hook_resid_pre hook_embed ''; do
        refused 64 "$hook" base --hook "$hook" $TOKENS
    done
    refused 64 "6 layers" base --hook blocks.6.hook_resid_pre $TOKENS
    refused 64 "6 layers" base --hook blocks.6.hook_attn_out $TOKENS
    base --hook blocks.5.hook_resid_post -o "$out" $TOKENS
}

@test "numbers are strict" {
    for batch in 0 -1 1.5 x 65537; do
        refused 64 batch base --batch "$batch" $TOKENS
    done
    for id in -1 x 4294967296 ''; do
        refused 64 drop-id base --drop-id "$id" $TOKENS
    done
    refused 64 norm-sequences base --norm-sequences 0 $TOKENS
    refused 64 skip-first base --skip-first -1 $TOKENS
    refused 64 dtype base --dtype f16 $TOKENS
    refused 64 row-dtype base --row-dtype fp8 $TOKENS
    refused 64 "exclude each other" base --drop-bos --keep-bos $TOKENS
}

@test "a model that is not there, or not whole, is named" {
    refused 64 no/such actgen --model a=no/such --hook blocks.0.hook_resid_pre $TOKENS
    folder=$(model)
    rm "$folder/model-00001-of-00002.safetensors"
    refused 64 model-00001 actgen --model "a=$folder" --hook blocks.0.hook_resid_pre $TOKENS
    rm "$folder/model.safetensors.index.json"
    refused 64 "neither model.safetensors nor" actgen --model "a=$folder" --hook blocks.0.hook_resid_pre $TOKENS
    rm "$folder/config.json"
    refused 64 config.json actgen --model "a=$folder" --hook blocks.0.hook_resid_pre $TOKENS
    echo '{' >"$folder/config.json"
    refused 65 config.json actgen --model "a=$folder" --hook blocks.0.hook_resid_pre $TOKENS
}

@test "a cut file of weights is 66, a damaged header 65" {
    folder=$(model)
    truncate -s -1 "$folder/model-00001-of-00002.safetensors"
    refused 66 model-00001 actgen --model "a=$folder" --hook blocks.0.hook_resid_pre $TOKENS
    folder=$(model)
    printf '\xff\xff\xff\xff\xff\xff\xff\xff' |
        dd of="$folder/model-00001-of-00002.safetensors" conv=notrunc status=none
    refused 65 model-00001 actgen --model "a=$folder" --hook blocks.0.hook_resid_pre $TOKENS
    folder=$(model)
    printf '\x10\x00\x00\x00\x00\x00\x00\x00[' |
        dd of="$folder/model-00001-of-00002.safetensors" conv=notrunc status=none
    refused 65 model-00001 actgen --model "a=$folder" --hook blocks.0.hook_resid_pre $TOKENS
}

@test "what the forward pass does not do is refused with 64, naming the key" {
    while read -r key value; do
        refused 64 "'$key'" actgen --model "a=$(config "$key" "$value")" --hook blocks.0.hook_resid_pre $TOKENS
    done <<'KEYS'
model_type "gemma3"
attention_bias true
use_bidirectional_attention true
hidden_activation "gelu"
rope_scaling {"type":"linear","factor":2}
quantization_config {"bits":4}
KEYS
    while read -r key value; do
        refused 65 "'$key'" actgen --model "a=$(config "$key" "$value")" --hook blocks.0.hook_resid_pre $TOKENS
    done <<'KEYS'
hidden_size 0
hidden_size "128"
num_hidden_layers 1e9
vocab_size -3
head_dim 31
rms_norm_eps 0
KEYS
    refused 65 embed_tokens actgen --model "a=$(config vocab_size 1023)" --hook blocks.0.hook_resid_pre $TOKENS
    refused 65 "by config.json" actgen --model "a=$(config hidden_size 127)" --hook blocks.0.hook_resid_pre $TOKENS
}

@test "rows are no tokens: 64; nothing at all: 66; no sequences: 0" {
    refused 64 tokens base tests/golden/stream/rows-f32.ccps
    refused 66 "" base </dev/null
    refused 64 no/such base no/such
    "$BIN/tokstream" --limit 0 $DEMO/tokens/validation.parquet >"$BATS_TEST_TMPDIR/none"
    base -o "$out" "$BATS_TEST_TMPDIR/none"
    lz4 -t -q "$out"
    base <"$BATS_TEST_TMPDIR/none" >"$out"
    [ -s "$out" ]
}

@test "a pipe, a file and a redirected file give the same rows" {
    base -o "$out.lz4" $TOKENS
    lz4 -t -q "$out.lz4"
    cat $TOKENS | base | cat >"$out.pipe"
    lz4 -d -q -c "$out.lz4" >"$out.raw"
    base --codec none -o "$out.none" $TOKENS
    cmp "$out.pipe" "$out.none"
    base --codec lz4 <$TOKENS | cmp - "$out.lz4"
    base >"$out.redirected" <$TOKENS
    cmp "$out.redirected" "$out.lz4"
}

@test "threads and batch change no byte" {
    for dtype in f32 bf16; do
        for threads in 1 2 3; do
            for batch in 1 2; do
                actgen --model chat=$DEMO/chat --hook blocks.4.hook_mlp_out --dtype $dtype --threads $threads \
                    --batch $batch $TOKENS | cat >"$out.$threads.$batch"
                cmp "$out.1.1" "$out.$threads.$batch"
            done
        done
    done
}

@test "two files read as one; a pipe of two says that more rows came than were announced" {
    base -o "$out" $TOKENS $TOKENS
    cat $TOKENS $TOKENS >"$BATS_TEST_TMPDIR/both"
    base "$BATS_TEST_TMPDIR/both" | cat >"$out.both"
    strings -n 20 "$out.both" | grep -q '"rows":1020,'
    cat $TOKENS $TOKENS | base 2>"$out.err" | cat >"$out.piped"
    grep -q "1020 rows came, and BEGIN announced 510" "$out.err"
    # Sequences of another length behind the first file's: then BEGIN cannot know.
    "$BIN/tokstream" --limit 2 --seq-len 100 $DEMO/tokens/validation.parquet >"$BATS_TEST_TMPDIR/short"
    base $TOKENS "$BATS_TEST_TMPDIR/short" | cat >"$out.mixed"
    strings -n 20 "$out.mixed" | grep -q '"rows":null,'
}

@test "--plan tells memory and rows, reads no weights and writes no stream" {
    run --separate-stderr traced openat,pread64 "$BIN/actgen" --plan \
        --model base=$DEMO/base --hook blocks.5.hook_resid_pre $TOKENS
    [ "$status" -eq 0 ]
    [[ "$output" == *$'rows\t510'* ]]
    [[ "$output" == *$'row_bytes\t256'* ]]
    [[ "$output" == *$'embedding\t524288'* ]]
    [[ "$output" == *$'disk\t138720'* ]]
    # Headers are a few KB; a tensor would be read in pieces of up to 1 MiB.
    run ! grep -E 'pread64.* = [0-9]{6}' "$BATS_TEST_TMPDIR/trace"
    run --separate-stderr base --plan </dev/null
    [ "$status" -eq 0 ]
    [[ "$output" != *rows$'\t'* ]]
}

@test "weights above the last hook are neither opened nor read" {
    traced openat "$BIN/actgen" --model base=$DEMO/base \
        --hook blocks.0.hook_resid_pre -o "$out" $TOKENS
    grep -q model-00001-of-00002 "$BATS_TEST_TMPDIR/trace"
    run ! grep -q model-00002-of-00002 "$BATS_TEST_TMPDIR/trace"
}

@test "BEGIN names no folder, and models and hooks in their order" {
    actgen --model one=$DEMO/base --model two=$DEMO/chat --hook blocks.1.hook_resid_pre \
        --hook one:blocks.0.hook_attn_out --skip-first 7 --drop-id 3 $TOKENS | head -c 4000 | strings -n 20 >"$out" || true
    run ! grep -q "$DEMO" "$out"
    grep -q '"name":"one.blocks.1.hook_resid_pre".*"name":"one.blocks.0.hook_attn_out".*"name":"two.blocks.1.hook_resid_pre"' "$out"
    grep -q '"ids":\[3\],"positions_below":7' "$out"
}

@test "factors are written to a file, and a run with it gives the same bytes" {
    base --norm-out "$out.json" -o "$out" $TOKENS
    grep -qE '"base.blocks.0.hook_resid_pre": 0\.[0-9]{9}' "$out.json"
    base --norm "$out.json" -o "$out.again" $TOKENS
    cmp "$out" "$out.again"
    refused 74 /dev/full base --norm-out /dev/full $TOKENS
    refused 74 /no/such base --norm-out /no/such/norm.json $TOKENS
}

@test "--metrics has a line of rows and of what was left out" {
    base --skip-first 6 --metrics "$out.jsonl" -o "$out" $TOKENS
    grep -q '"rows": *500' "$out.jsonl"
    grep -q '"skipped_position": *12' "$out.jsonl"
}

@test "options come from --config, the command line wins" {
    echo '{"actgen": {"model": ["base='$DEMO'/base"], "hook": ["blocks.0.hook_resid_pre"], "skip-first": 6}}' \
        >"$BATS_TEST_TMPDIR/conf.json"
    actgen --config "$BATS_TEST_TMPDIR/conf.json" -o "$out.1" $TOKENS
    base --skip-first 6 -o "$out.2" $TOKENS
    cmp "$out.1" "$out.2"
    actgen --config "$BATS_TEST_TMPDIR/conf.json" --skip-first 0 -o "$out.1" $TOKENS
    base -o "$out.2" $TOKENS
    cmp "$out.1" "$out.2"
    echo '{"actgen": {"skip_first": 6}}' >"$BATS_TEST_TMPDIR/conf.json"
    refused 64 skip_first base --config "$BATS_TEST_TMPDIR/conf.json" $TOKENS
}

@test "no file is both read and written" {
    cp $TOKENS "$BATS_TEST_TMPDIR/tokens"
    ln -s tokens "$BATS_TEST_TMPDIR/link"
    for arguments in "-o tokens tokens" "-o link tokens" "-o tokens link" "-o tokens <tokens" "tokens >>tokens"; do
        run bash -c "cd '$BATS_TEST_TMPDIR' && '$(realpath "$BIN/actgen")' --model base='$PWD/$DEMO/base' \
            --hook blocks.0.hook_resid_pre $arguments"
        [ "$status" -eq 64 ]
        [[ "$output" == *"are one file"* ]]
        cmp $TOKENS "$BATS_TEST_TMPDIR/tokens"
    done
    base -o "$out" $TOKENS
    cp "$out" "$out.kept"
    refused 64 "are one file" "$BIN/shufbuf" -o "$out" "$out"
    cmp "$out" "$out.kept"
}
