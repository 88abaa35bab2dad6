# Rows on a data plane, into cctrain on the emulated devices of tests/emu. The file that loads this sets PLANE, and
# FROM and TO, the generator's device and the trainer's. via_rows (tests/pipe/via_rows.c) sends the rows of a file, in
# passes of all sizes, and faults where it is asked to.

export BIN=${BIN:-bin} EMULATED=${BUILD:-build}/emu VIA=${BUILD:-build}/tests/pipe/via_rows pair=demo/tiny-gemma2
export dir=$BATS_FILE_TMPDIR

# make_rows: $dir/rows, 285 of them, and $dir/run, what is trained on them through shufbuf. In one thread: the thread
# sanitizer does not know libgomp's (tests/deep/threads.supp), and looks at each report for minutes.
make_rows() {
    echo '{"base.blocks.2.hook_resid_pre": 0.5257, "chat.blocks.2.hook_resid_pre": 0.5300}' >"$dir/norm.json"
    "$BIN/tokstream" -q --limit 3 --seq-len 96 "$pair/tokens/validation.parquet" >"$dir/tokens"
    "$BIN/actgen" -q --device cpu --threads 1 --dtype f32 --row-dtype bf16 --norm "$dir/norm.json" \
        --model "base=$pair/base" --model "chat=$pair/chat" --hook blocks.2.hook_resid_pre -o "$dir/rows" "$dir/tokens"
    inline 50 "$dir/run"
}

# train DEVICE OUT [OPTION...]: 8 steps of 32 rows.
train() {
    CCPIPE_BACKENDS=$EMULATED timeout 100 "$BIN/cctrain" --device "$1" --dtype f32 --out "$2" --latents 64 --batch 32 \
        --steps 8 --lr 1e-3 --save-every 4 --log-every 1 "${@:3}"
}

# inline N OUT [OPTION...]
inline() {
    "$BIN/shufbuf" -q --rows "$1" --seed 3 "$dir/rows" | train "$TO" "$2" -q "${@:3}"
}

# source_of DEVICE CAPACITY [FAULT ROW]: leaves its exit status in $BATS_TEST_TMPDIR/generator.
source_of() {
    local status=0
    CCPIPE_BACKENDS=$EMULATED timeout 100 "$VIA" "$PLANE" "$1" "$2" "$dir/rows" "${@:3}" || status=$?
    echo $status >"$BATS_TEST_TMPDIR/generator"
}

# via CAPACITY N OUT [FAULT ROW] [-- OPTION...]: the trainer's status.
via() {
    local fault=() capacity=$1 n=$2 out=$3
    shift 3
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        fault+=("$1")
        shift
    done
    source_of "$FROM" "$capacity" ${fault[@]+"${fault[@]}"} |
        train "$TO" "$out" --shuffle-rows "$n" --shuffle-seed 3 "${@:2}"
}

generator_status() {
    echo "generator: $(<"$BATS_TEST_TMPDIR/generator")"
    [ "$(<"$BATS_TEST_TMPDIR/generator")" -eq "$1" ]
}

same_weights() {
    cmp "$1/step-8/cc.safetensors" "$2/step-8/cc.safetensors"
    cmp "$1/step-8/optim.safetensors" "$2/step-8/optim.safetensors"
}

# same_at SIZES...: N:CAPACITY each; rows by the plane train to the bytes of the same rows through shufbuf.
same_at() {
    local sizes n
    for sizes in "$@"; do
        n=${sizes%:*}
        inline "$n" "$BATS_TEST_TMPDIR/inline.$n"
        via "${sizes#*:}" "$n" "$BATS_TEST_TMPDIR/via.$n"
        generator_status 0
        same_weights "$BATS_TEST_TMPDIR/inline.$n" "$BATS_TEST_TMPDIR/via.$n"
    done
}

# actgen [OPTION...]: on the emulated device, as its rows there differ from the CPU's in the last bits.
actgen() {
    CCPIPE_BACKENDS=$EMULATED timeout 100 "$BIN/actgen" -q --device "$FROM" --dtype f32 --row-dtype bf16 \
        --norm "$dir/norm.json" --model "base=$pair/base" --model "chat=$pair/chat" --hook blocks.2.hook_resid_pre \
        "$@" "$dir/tokens"
}
