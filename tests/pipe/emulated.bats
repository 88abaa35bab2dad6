# actgen and cctrain with --device cuda, on the emulated device of tests/emu, on a few sequences of the bundled
# pair: the CPU's rows and losses, the same bytes in whatever order threads run, and what a lost device leaves.
#
# Rows in f32 are within 2e-5 of transformers on either device (the parity tests), so within 4e-5 of each other.
# A loss at this point of training is a mean of squares, and its gradient is no less smooth: both follow within
# twice that, 8e-5. What bf16 may change is one rounding of everything in one direction: 2^-8.

setup_file() {
    export BIN=${BIN:-bin} EMULATED=${BUILD:-build}/emu pair=demo/tiny-gemma2 dir=$BATS_FILE_TMPDIR
    echo '{"base.blocks.2.hook_resid_pre": 0.5257, "chat.blocks.2.hook_resid_pre": 0.5300}' >"$dir/norm.json"
    "$BIN/tokstream" -q --limit 3 --seq-len 96 "$pair/tokens/validation.parquet" >"$dir/tokens"
    local type
    for type in f32 bf16; do
        actgen cpu $type $type "$dir/cpu.$type"
        actgen cuda $type $type "$dir/cuda.$type"
    done
    train cpu f32 "$dir/cpu.f32" "$dir/run.cpu"
    train cuda f32 "$dir/cuda.f32" "$dir/run.cuda"
    train cuda bf16 "$dir/cuda.bf16" "$dir/run.cuda.bf16"
}

setup() {
    bats_require_minimum_version 1.5.0
}

# on DEVICE PROGRAM...: with the backend of that device.
on() {
    local device=$1
    shift
    if [ "$device" = cuda ]; then
        CCPIPE_BACKENDS=$EMULATED "$@"
    else
        "$@"
    fi
}

# actgen DEVICE DTYPE ROW-DTYPE OUT [OPTION...]
actgen() {
    on "$1" "$BIN/actgen" -q --device "$1" --dtype "$2" --row-dtype "$3" -o "$4" "${@:5}" --norm "$dir/norm.json" \
        --model "base=$pair/base" --model "chat=$pair/chat" --hook blocks.2.hook_resid_pre "$dir/tokens"
}

# train DEVICE DTYPE ROWS OUT [OPTION...]: 8 steps of 32 rows, of the 285.
train() {
    "$BIN/shufbuf" -q --rows 50 --seed 3 "$3" |
        on "$1" "$BIN/cctrain" -q --device "$1" --dtype "$2" --out "$4" --latents 64 --batch 32 --steps 8 \
            --lr 1e-3 --save-every 4 --log-every 1 "${@:5}"
}

# row_errors WANT GOT: for each source the largest and the mean relative distance of a row; fails if tags differ.
row_errors() {
    paste <("$BIN/ccanalyze" dump "$1") <("$BIN/ccanalyze" dump "$2") | awk -F '\t' '
        NR == 1 { next }
        {
            half = NF / 2
            for (i = 1; i <= 4; i++) if ($i != $(half + i)) exit 1
            width = (half - 4) / 2
            for (s = 0; s < 2; s++) {
                off = norm = 0
                for (i = 5 + s * width; i < 5 + (s + 1) * width; i++) {
                    off += ($(half + i) - $i) ^ 2
                    norm += $i ^ 2
                }
                error = sqrt(off / norm)
                sum[s] += error
                if (error > most[s]) most[s] = error
            }
            rows++
        }
        END { if (rows != 285) exit 1; for (s = 0; s < 2; s++) print most[s], sum[s] / rows }'
}

# figure RUN KEY: of every step, a line each.
figure() {
    sed -n "s/.*\"$2\":\([-0-9.e]*\)[,}].*/\1/p" "$1/metrics.jsonl"
}

# same_figure KEY WANT GOT MOST: in each of the 8 steps, relative to what CPU has.
same_figure() {
    paste <(figure "$2" "$1") <(figure "$3" "$1") | awk -v key="$1" -v most="$4" '
        { off = ($2 - $1) / $1; if (off < 0) off = -off
          print key " of step " NR - 1 ": " $1 " on the CPU, " $2
          if (NF != 2 || !(off <= most)) bad = 1 }
        END { exit bad || NR != 8 }'
}

same_weights() {
    cmp "$1/step-8/cc.safetensors" "$2/step-8/cc.safetensors"
    cmp "$1/step-8/optim.safetensors" "$2/step-8/optim.safetensors"
}

@test "rows in f32 are the CPU's, each within 4e-5" {
    row_errors "$dir/cpu.f32" "$dir/cuda.f32" | tee "$BATS_TEST_TMPDIR/errors"
    awk '!($1 <= 4e-5) { bad = 1 } END { exit bad || NR != 2 }' "$BATS_TEST_TMPDIR/errors"
}

@test "rows in bf16 are as near to the rows in f32 as the CPU's are" {
    paste -d ' ' <(row_errors "$dir/cpu.f32" "$dir/cpu.bf16") <(row_errors "$dir/cpu.f32" "$dir/cuda.bf16") |
        tee "$BATS_TEST_TMPDIR/errors"
    awk '!($4 <= 1.3 * $2) { bad = 1 } END { exit bad || NR != 2 }' "$BATS_TEST_TMPDIR/errors"
}

@test "losses and gradients of a run in f32 are the CPU's" {
    local key
    for key in loss l2_loss l1_loss grad_norm fve fve_A fve_B; do
        same_figure $key "$dir/run.cpu" "$dir/run.cuda" 1e-4
    done
    same_figure l0_loss "$dir/run.cpu" "$dir/run.cuda" 1e-3 # one latent of one row: 1/32 of more than 32
}

@test "losses of a run in bf16 are those of f32, within a rounding to bf16" {
    same_figure loss "$dir/run.cpu" "$dir/run.cuda.bf16" 0.00390625
    same_figure l2_loss "$dir/run.cpu" "$dir/run.cuda.bf16" 0.00390625
}

# A step of int8 is 1/127 of a row's largest value, so its rounding is smaller than bf16's of that value.
@test "rows of int8 train as well" {
    actgen cuda bf16 int8 "$BATS_TEST_TMPDIR/rows"
    train cuda bf16 "$BATS_TEST_TMPDIR/rows" "$BATS_TEST_TMPDIR/run"
    same_figure loss "$dir/run.cpu" "$BATS_TEST_TMPDIR/run" 0.00390625
}

# A factor is sqrt(d) over a mean of row norms, which are off by 2e-5 at most on either device.
@test "factors that a device estimates are the CPU's" {
    local device
    for device in cpu cuda; do
        on $device "$BIN/actgen" -q --device $device --dtype f32 --norm estimate --norm-out "$BATS_TEST_TMPDIR/$device" \
            --model "base=$pair/base" --hook blocks.1.hook_mlp_out -o "$BATS_TEST_TMPDIR/rows" "$dir/tokens"
    done
    paste -d ' ' "$BATS_TEST_TMPDIR/cpu" "$BATS_TEST_TMPDIR/cuda" | tee "$BATS_TEST_TMPDIR/both"
    grep -o '[0-9]\+\.[0-9]\+' "$BATS_TEST_TMPDIR/both" | awk '
        { factor[NR] = $1 }
        END { off = factor[2] / factor[1] - 1; exit NR != 2 || off > 4e-5 || off < -4e-5 }'
}

@test "a pipe gives the bytes of the stages one by one, on another device too" {
    "$BIN/tokstream" -q --limit 3 --seq-len 96 "$pair/tokens/validation.parquet" |
        on cuda "$BIN/actgen" -q --device cuda:0 --dtype f32 --row-dtype f32 --norm "$dir/norm.json" \
            --model "base=$pair/base" --model "chat=$pair/chat" --hook blocks.2.hook_resid_pre |
        "$BIN/shufbuf" -q --rows 50 --seed 3 |
        on cuda "$BIN/cctrain" -q --device cuda:1 --dtype f32 --out "$BATS_TEST_TMPDIR/run" --latents 64 \
            --batch 32 --steps 8 --lr 1e-3
    same_weights "$BATS_TEST_TMPDIR/run" "$dir/run.cuda"
}

@test "threads in whatever order give the same rows and weights" {
    local order
    for order in backward random:1; do
        EMU_ORDER=$order actgen cuda bf16 bf16 "$BATS_TEST_TMPDIR/rows"
        cmp "$BATS_TEST_TMPDIR/rows" "$dir/cuda.bf16"
        EMU_ORDER=$order train cuda bf16 "$dir/cuda.bf16" "$BATS_TEST_TMPDIR/$order"
        same_weights "$BATS_TEST_TMPDIR/$order" "$dir/run.cuda.bf16"
    done
}

# Of one sequence a pass two passes are under way at once; what the device does first is drawn.
@test "rows do not depend on --batch, nor on which of two passes' copies come first" {
    local order
    for order in random:1 random:2 random:3 random:4; do
        EMU_ORDER=$order actgen cuda bf16 bf16 "$BATS_TEST_TMPDIR/rows" --batch 1
        cmp "$BATS_TEST_TMPDIR/rows" "$dir/cuda.bf16"
    done
}

# The first BEGIN says 8 tokens a sequence, and those of the demo have 96. What it cannot say, for an id that never
# comes, is how many rows there will be.
@test "a sequence longer than a pass makes room between passes" {
    head -c 64 "$pair/base/config.json" | od -An -v -tu1 -w1 | awk '{ printf "%c%c", $1 % 100, 1 }' >"$BATS_TEST_TMPDIR/ids"
    head -c 64 "$BATS_TEST_TMPDIR/ids" >"$BATS_TEST_TMPDIR/short.u16"
    "$BIN/tokstream" -q --dtype u16 --seq-len 8 "$BATS_TEST_TMPDIR/short.u16" >"$BATS_TEST_TMPDIR/short"
    cat "$BATS_TEST_TMPDIR/short" "$dir/tokens" "$BATS_TEST_TMPDIR/short" |
        on cuda "$BIN/actgen" -v --device cuda --norm "$dir/norm.json" --batch 2 --drop-id 99999 --model "base=$pair/base" \
            --model "chat=$pair/chat" --hook blocks.2.hook_resid_pre >"$BATS_TEST_TMPDIR/rows" 2>"$BATS_TEST_TMPDIR/err"
    grep 'more memory is taken' "$BATS_TEST_TMPDIR/err"
    "$BIN/ccanalyze" dump "$BATS_TEST_TMPDIR/rows" | sed -n 2,999p >"$BATS_TEST_TMPDIR/got"
    [ "$(wc -l <"$BATS_TEST_TMPDIR/got")" -eq $((4 * 7 + 285 + 4 * 7)) ]
    "$BIN/ccanalyze" dump "$dir/cuda.bf16" | sed -n 2,999p | cut -f 3- |
        cmp - <(sed -n 29,313p "$BATS_TEST_TMPDIR/got" | cut -f 3-)
    cmp <(sed -n 1,28p "$BATS_TEST_TMPDIR/got" | cut -f 3-) <(sed -n 314,999p "$BATS_TEST_TMPDIR/got" | cut -f 3-)
}

@test "a lost device ends cctrain with 76 and leaves no checkpoint of what it had; --resume goes on" {
    local run=$BATS_TEST_TMPDIR/run status=0
    EMU_FAIL=170 train cuda f32 "$dir/cuda.f32" "$run" 2>"$BATS_TEST_TMPDIR/err" || status=$?
    cat "$BATS_TEST_TMPDIR/err"
    [ "$status" -eq 76 ]
    grep -q 'unspecified launch failure' "$BATS_TEST_TMPDIR/err"
    [ -e "$run/step-4/manifest.json" ]
    [ "$(find "$run" -name 'step-*' | wc -l)" -eq 1 ]
    train cuda f32 "$dir/cuda.f32" "$run" --resume
    same_weights "$run" "$dir/run.cuda"
}

@test "a lost device ends actgen with 76, and what it wrote with ABORT" {
    local status=0
    EMU_FAIL=40 actgen cuda f32 f32 - --batch 1 >"$BATS_TEST_TMPDIR/rows" 2>"$BATS_TEST_TMPDIR/err" || status=$?
    cat "$BATS_TEST_TMPDIR/err"
    [ "$status" -eq 76 ]
    [ "$(grep -c 'unspecified launch failure' "$BATS_TEST_TMPDIR/err")" -eq 1 ]
    run "$BIN/ccanalyze" dump "$BATS_TEST_TMPDIR/rows"
    [ "$status" -eq 66 ]
}

# The device still reads the tokens of the pass then.
@test "a signal amid a pass ends actgen with 143, and what it wrote with ABORT" {
    "$BIN/tokstream" -q "$pair/tokens/validation.parquet" >"$BATS_TEST_TMPDIR/tokens"
    run env "CCPIPE_BACKENDS=$EMULATED" timeout --foreground --preserve-status 2 "$BIN/actgen" -q --device cuda \
        --norm "$dir/norm.json" --model "base=$pair/base" --model "chat=$pair/chat" --hook blocks.2.hook_resid_pre \
        -o "$BATS_TEST_TMPDIR/rows" "$BATS_TEST_TMPDIR/tokens"
    echo "$output"
    [ "$status" -eq 143 ]
    run "$BIN/ccanalyze" dump "$BATS_TEST_TMPDIR/rows"
    [ "$status" -eq 66 ]
}

@test "no device is 76, before any row" {
    local status=0
    EMU_DEVICES=0 actgen cuda f32 f32 - >"$BATS_TEST_TMPDIR/rows" 2>"$BATS_TEST_TMPDIR/err" || status=$?
    [ "$status" -eq 76 ]
    grep -q 'error: there is no CUDA device: ' "$BATS_TEST_TMPDIR/err"
    [ ! -s "$BATS_TEST_TMPDIR/rows" ]
    status=0
    EMU_DEVICES=0 train cuda f32 "$dir/cuda.f32" "$BATS_TEST_TMPDIR/run" 2>"$BATS_TEST_TMPDIR/err" || status=$?
    [ "$status" -eq 76 ]
    [ ! -e "$BATS_TEST_TMPDIR/run" ]
}

# Of sequences whose length BEGIN does not say, 8 of 1,024 tokens; a row is 2 x 128 values of bf16; two buffers. And
# the bundled pair's embeddings are 1024 x 128 in f32 and in bf16.
@test "actgen says what of the device's memory it takes" {
    CCPIPE_BACKENDS=$EMULATED EMU_MEMORY=100000000 "$BIN/actgen" --device cuda --norm "$dir/norm.json" \
        --model "base=$pair/base" --model "chat=$pair/chat" --hook blocks.2.hook_resid_pre -o "$BATS_TEST_TMPDIR/rows" \
        "$dir/tokens" 2>"$BATS_TEST_TMPDIR/err"
    cat "$BATS_TEST_TMPDIR/err"
    grep -Eq 'device memory: weights [0-9][.][0-9]{2} MB, embedding 786[.]43 kB, workspace [0-9]{2}[.][0-9]{2} MB, rows 8[.]39 MB of 99[.]9[0-9] MB free$' \
        "$BATS_TEST_TMPDIR/err"
}

@test "too little device memory is 71, says what was asked and what is free, and comes before any row" {
    local status=0
    EMU_MEMORY=1000000 actgen cuda f32 f32 - >"$BATS_TEST_TMPDIR/rows" 2>"$BATS_TEST_TMPDIR/err" || status=$?
    cat "$BATS_TEST_TMPDIR/err"
    [ "$status" -eq 71 ]
    grep -Eq "running the models .* needs [0-9]{2}[.][0-9]{2} MB of the device's memory, and 9[0-9]{2}[.][0-9]{2} kB are free" \
        "$BATS_TEST_TMPDIR/err"
    [ ! -s "$BATS_TEST_TMPDIR/rows" ]
    status=0
    EMU_MEMORY=200000 train cuda f32 "$dir/cuda.f32" "$BATS_TEST_TMPDIR/run" 2>"$BATS_TEST_TMPDIR/err" || status=$?
    cat "$BATS_TEST_TMPDIR/err"
    [ "$status" -eq 71 ]
    grep -Eq "needs .* of the device's memory, and .* free" "$BATS_TEST_TMPDIR/err"
    [ ! -e "$BATS_TEST_TMPDIR/run" ]
}

@test "what a GPU's memory is taken for is told at the start, what a CPU's is with -v alone" {
    local told='note: device memory: weights [0-9.]+ kB, Adam [0-9.]+ kB, workspace [0-9.]+ [kM]B, buffer [0-9.]+ [kM]B of 500\.00 MB free'
    start() {
        rm -rf "$BATS_TEST_TMPDIR/run"
        on "$1" "$BIN/cctrain" --device "$1" --out "$BATS_TEST_TMPDIR/run" --latents 64 --batch 32 --steps 2 \
            "${@:2}" "$dir/cpu.f32" 2>"$BATS_TEST_TMPDIR/err"
    }
    EMU_MEMORY=500000000 start cuda
    grep -Eq "$told" "$BATS_TEST_TMPDIR/err"
    start cpu
    run ! grep -q 'device memory' "$BATS_TEST_TMPDIR/err"
    start cpu -v
    grep -q 'device memory: weights' "$BATS_TEST_TMPDIR/err"
}
