# cctrain's command line: what is trained, saved, refused and said.
# shellcheck disable=SC2030,SC2031,SC2154  # each test is a subshell; run sets stderr

load ../fault/cctrain

setup() {
    bats_require_minimum_version 1.5.0
    rows="$BATS_FILE_TMPDIR/rows.ccps" run="$BATS_TEST_TMPDIR/run" other="$BATS_TEST_TMPDIR/other"
}

setup_file() {
    pack_rows 2000 1 "$BATS_FILE_TMPDIR/rows.ccps" --codec none
}

# refused CODE WORDS COMMAND...: one line that says so, and no step folder.
refused() {
    local code=$1 words=$2
    shift 2
    run --separate-stderr "$@"
    [ "$status" -eq "$code" ]
    [[ "$stderr" == *"$words"* ]]
    run ! compgen -G "$run/step-*" >/dev/null
}

@test "the folder is needed" {
    refused 64 "--out DIR is needed" cctrain "$rows"
}

@test "what is not built is refused with 64" {
    for activation in topk batchtopk jumprelu; do
        refused 64 "not built" cctrain --out "$run" --activation $activation "$rows"
    done
    refused 64 "not built" cctrain --out "$run" --attach ring
    refused 64 "not built" cctrain --out "$run" --k 32 "$rows"
}

@test "the defaults are the reference recipe" {
    run --separate-stderr cctrain --out "$run" -v --plan "$rows"
    for word in '"latents":16384' '"activation":"relu"' '"batch":4096' '"lr":5.e-5' '"beta1":0.9' \
        '"beta2":0.999' '"eps":1e-8' '"clip":1.0' '"l1":2.0' '"l1-warmup":0.05' '"lr-decay":0.2' \
        '"lr-warmup":0' '"seed":49' '"dtype":"bf16"' '"save-every":10000' '"keep":3' \
        '"log-every":100'; do
        # 17 digits: 0.90000000000000002
        shorter=$(sed -E 's/0{6,}[0-9]+([,}e])/\1/g' <<<"$stderr")
        [[ "$shorter" == *"$word"* ]] || { echo "no $word in $shorter"; return 1; }
    done
}

@test "a run of torch is followed step by step" {
    golden=tests/golden/train
    "$BIN/ccanalyze" pack $golden/rows.npy --source a.x:9 --source b.x:6 |
        cctrain --out "$run" --init $golden/init.safetensors --batch 13 --steps 20 --lr 1e-2 --l1 0.4 \
            --l1-warmup 0.25 --lr-decay 0.3 --lr-warmup 3 --dtype f32 --log-every 1 \
            --metrics "$other"
    cmp "$run/metrics.jsonl" "$other"
    # Rounding in f32 of 20 steps is far below 1e-4; the least mistake in the recipe is far above.
    for key in step loss l2_loss l1_loss l0_loss l1_coeff lr grad_norm explained_variance \
        explained_variance_A explained_variance_B fve fve_A fve_B; do
        figures $key $golden/trajectory.json | tail -n 20 >"$BATS_TEST_TMPDIR/want" # behind the recipe
        figures $key "$run/metrics.jsonl" >"$BATS_TEST_TMPDIR/got"
        [ "$(wc -l <"$BATS_TEST_TMPDIR/got")" -eq 20 ]
        paste "$BATS_TEST_TMPDIR/want" "$BATS_TEST_TMPDIR/got" | awk -v key=$key '
            { off = $1 - $2; all = $1 < 0 ? -$1 : $1
              if (off > 1e-4 * (1 + all) || off < -1e-4 * (1 + all)) { print key ": " $0; bad = 1 } }
            END { exit bad }'
    done
    [[ "$(head -c 600 "$run/step-20/cc.safetensors")" == *'"W_enc.1":{'*'"shape":[6,21]'* ]]
}

@test "metrics: step 0, every so many, and the last" {
    cctrain --out "$run" "${RECIPE[@]}" --log-every 25 "$rows"
    [ "$(figures step "$run/metrics.jsonl" | tr '\n' ' ')" = "0 25 50 61 " ]
    for key in dead_fraction rows_per_s wait_fraction; do
        [ "$(figures $key "$run/metrics.jsonl" | wc -l)" -eq 4 ]
    done
    # so that curves of one source look like those of several, all and A are there and the same
    "$BIN/ccanalyze" pack tests/golden/train/rows.npy --source a.x:15 |
        cctrain --out "$other" --batch 20 --latents 8
    [ "$(figures fve "$other/metrics.jsonl")" = "$(figures fve_A "$other/metrics.jsonl")" ]
}

@test "without --steps: as many as there are whole batches, and the rest is counted" {
    run --separate-stderr cctrain --out "$run" "${RECIPE[@]}" "$rows"
    [ "$status" -eq 0 ]
    [ "$(steps "$run")" = "62 " ]
    [[ "$stderr" == *"16 rows at the end are not trained on"* ]]
    grep -q '"steps": 62' "$run/step-62/state.json"
}

@test "more steps than rows are refused before the first" {
    refused 64 "at most --steps 62" cctrain --out "$run" "${RECIPE[@]}" --steps 63 "$rows"
    [ ! -e "$run" ]
}

@test "numbers that cannot be are refused" {
    refused 64 "beyond counting" cctrain --out "$run" --batch 16M --steps 9007199254740992 "$rows"
    for option in batch=0 latents=0 latents=2G lr=-1 lr=nan beta1=1 beta2=1 eps=0 clip=-1 l1=x l1-warmup=1.1 \
        lr-decay=-0.1 save-every=0 keep=0 log-every=0 seed=-1 dtype=f16 activation=gelu; do
        refused 64 "${option%%=*}" cctrain --out "$run" "--$option" "$rows"
    done
}

@test "--steps stops there, and the stage before is told in its own way" {
    run bash -c "'$BIN/shufbuf' --rows 100 '$rows' |
        '$BIN/cctrain' --out '$run' ${RECIPE[*]} --steps 3; echo \"\${PIPESTATUS[@]}\""
    [[ "$output" == *"0 0" ]]
    [ "$(steps "$run")" = "3 " ]
}

@test "checkpoints: at every so many steps and at the end, the newest are kept" {
    cctrain --out "$run" "${RECIPE[@]}" --save-every 10 "$rows"
    [ "$(steps "$run")" = "50 60 62 " ]
    cctrain --out "$other" "${RECIPE[@]}" --save-every 31 --keep 1 "$rows"
    [ "$(steps "$other")" = "62 " ]
    for file in cc.safetensors cfg.json optim.safetensors state.json manifest.json; do
        [ -s "$run/step-62/$file" ]
        [ "$(stat -c %a "$run/step-62/$file")" = 600 ] || [[ $file != *safetensors ]]
    done
    [ "$(stat -c %a "$run/step-62")" = 700 ]
    grep -q '"rows_trained": 1984' "$run/step-62/state.json"
    for key in '"dict_size": 40' '"batch_size": 32' '"l1_coeff": 0.1' '"seed": 49'; do
        grep -qF "$key" "$run/step-62/cfg.json"
    done
}

@test "the same command gives the same bytes; another seed does not" {
    for dtype in f32 bf16; do
        cctrain --out "$run.$dtype" "${RECIPE[@]}" --dtype $dtype "$rows"
        cctrain --out "$other.$dtype" "${RECIPE[@]}" --dtype $dtype <"$rows"
        same_weights "$run.$dtype" "$other.$dtype"
    done
    run ! same_weights "$run.f32" "$run.bf16"
    cctrain --out "$run.seed" "${RECIPE[@]}" --seed 50 "$rows"
    run ! same_weights "$run.seed" "$run.bf16"
}

@test "a folder that holds a run is refused without --resume, and left as it is" {
    cctrain --out "$run" "${RECIPE[@]}" "$rows"
    cp -r "$run" "$other"
    run --separate-stderr cctrain --out "$run" "${RECIPE[@]}" "$rows"
    [ "$status" -eq 64 ]
    [[ "$stderr" == *--resume* ]]
    diff -r "$run" "$other"
}

@test "a finished run ends with 0 and reads nothing" {
    cctrain --out "$run" "${RECIPE[@]}" "$rows"
    cp -r "$run" "$other"
    cctrain --out "$run" "${RECIPE[@]}" --resume /nowhere
    cctrain --out "$run" "${RECIPE[@]}" --resume --steps 62 /nowhere
    diff -r "$run" "$other"
}

# A run of 21 steps of 62, as a stop in between leaves it: the first two records are 682 rows.
stopped_run() {
    head -c 2500000 "$rows" | {
        run cctrain --out "$run" "${RECIPE[@]}" --save-every 10 "$@"
        [ "$status" -eq 75 ]
    }
    [ "$(steps "$run")" = "10 20 21 " ]
}

@test "an option of the recipe that differs is refused and named; others may" {
    stopped_run
    for option in latents=41 batch=16 steps=60 lr=1e-3 beta1=0.8 beta2=0.99 eps=1e-7 clip=2 l1=0.2 \
        l1-warmup=0.1 lr-decay=0.1 lr-warmup=6 seed=50 dtype=f32 init=tests/golden/train/init.safetensors; do
        run --separate-stderr cctrain --out "$run" "${RECIPE[@]}" "--$option" --resume "$rows"
        [ "$status" -eq 64 ]
        now=${option#*=}
        case $option in lr=*) now=0.001 ;; eps=*) now=1e-7 ;; clip=2) now=2.0 ;; init=*) now= ;; esac
        [[ "$stderr" == *"--${option%%=*} is "*"$now"*" now and was "* && "$stderr" != *00000* ]] ||
            { echo "$option: $stderr"; return 1; }
    done
    cctrain --out "$run" "${RECIPE[@]}" --resume --threads 2 --save-every 7 --keep 2 --log-every 9 \
        --metrics "$other" "$rows"
    [ "$(steps "$run" | wc -w)" -eq 2 ]
}

@test "resume on a folder without a run starts at 0" {
    cctrain --out "$run" "${RECIPE[@]}" --resume "$rows"
    cctrain --out "$other" "${RECIPE[@]}" "$rows"
    same_weights "$run" "$other"
}

@test "metrics of a resumed run read as those of one run" {
    stopped_run --log-every 3 --metrics "$BATS_TEST_TMPDIR/lines"
    # as a kill between two checkpoints leaves it
    rm -r "$(newest "$run")"
    cctrain --out "$run" "${RECIPE[@]}" --log-every 3 --metrics "$BATS_TEST_TMPDIR/lines" --resume "$rows"
    cctrain --out "$other" "${RECIPE[@]}" --log-every 3 "$rows"
    lines_alike "$run/metrics.jsonl" "$other/metrics.jsonl"
    lines_alike "$run/metrics.jsonl" "$BATS_TEST_TMPDIR/lines"
    same_weights "$run" "$other"
}

@test "another stream is refused, by what it says and by its rows" {
    stopped_run
    "$BIN/shufbuf" "$rows" >"$BATS_TEST_TMPDIR/shuffled"
    run --separate-stderr cctrain --out "$run" "${RECIPE[@]}" --resume "$BATS_TEST_TMPDIR/shuffled"
    [ "$status" -eq 64 ]
    [[ "$stderr" == *"not the stream"* ]]
    pack_rows 2000 3 "$BATS_TEST_TMPDIR/alike"
    run --separate-stderr cctrain --out "$run" "${RECIPE[@]}" --resume "$BATS_TEST_TMPDIR/alike"
    [ "$status" -eq 64 ]
    [[ "$stderr" == *"their sums differ"* ]]
}

@test "a stream that begins where the run stands, or before, is gone on with; one behind is refused" {
    shuffled=("$BIN/shufbuf" --rows 300 --seed 5)
    "${shuffled[@]}" "$rows" | cctrain --out "$other" "${RECIPE[@]}"
    "${shuffled[@]}" "$rows" | head -c 2500000 | {
        run cctrain --out "$run" "${RECIPE[@]}"
        [ "$status" -eq 75 ]
    }
    row=$(figures next_row "$(newest "$run")/state.json")
    [ "$row" -gt 300 ]
    "${shuffled[@]}" --skip-draws $((row + 1)) "$rows" | {
        run --separate-stderr cctrain --out "$run" "${RECIPE[@]}" --resume
        [ "$status" -eq 64 ]
        [[ "$stderr" == *"rows would be left out"* ]]
    }
    cp -r "$run" "$run.before"
    "${shuffled[@]}" --skip-draws "$row" "$rows" | cctrain --out "$run" "${RECIPE[@]}" --resume
    same_weights "$run" "$other"
    "${shuffled[@]}" --skip-draws $((row - 17)) "$rows" | cctrain --out "$run.before" "${RECIPE[@]}" --resume
    same_weights "$run.before" "$other"
    # before any checkpoint a run stands at row 0
    "${shuffled[@]}" --skip-draws 5 "$rows" | {
        run --separate-stderr cctrain --out "$BATS_TEST_TMPDIR/new" "${RECIPE[@]}" --resume
        [ "$status" -eq 64 ]
    }
}

@test "--init: latents come from the file, widths and latents must agree" {
    cctrain --out "$other" "${RECIPE[@]}" "$rows"
    cctrain --out "$run" --init "$other" --batch 32 --steps 0 "$rows"
    cmp <(tail -c 4000 "$run/step-0/cc.safetensors") <(tail -c 4000 "$other/step-62/cc.safetensors")
    rm -r "$run"
    refused 64 "--latents is 41" cctrain --out "$run" --init "$other" --latents 41 --batch 32 "$rows"
    refused 64 "width of 9" cctrain --out "$run" --init tests/golden/train/init.safetensors --batch 32 "$rows"
    refused 64 "nowhere" cctrain --out "$run" --init /nowhere "$rows"
    head -c 2000 tests/golden/train/init.safetensors >"$BATS_TEST_TMPDIR/cut.safetensors"
    run cctrain --out "$run" --init "$BATS_TEST_TMPDIR/cut.safetensors" "$rows"
    [ "$status" -eq 65 ] || [ "$status" -eq 66 ]
}

@test "a resumed run need not name its --init again" {
    cctrain --out "$other.start" "${RECIPE[@]}" --steps 5 "$rows"
    init="$other.start/step-5/cc.safetensors"
    head -c 2500000 "$rows" | {
        run cctrain --out "$run" --init "$init" --batch 32 --lr 3e-3
        [ "$status" -eq 75 ]
    }
    cctrain --out "$run" --resume --batch 32 --lr 3e-3 "$rows"
    cctrain --out "$other" --init "$init" --batch 32 --lr 3e-3 "$rows"
    same_weights "$run" "$other"
}

@test "a stream of no rows is a run of no steps" {
    pack_rows 0 1 "$BATS_TEST_TMPDIR/empty"
    cctrain --out "$run" "${RECIPE[@]}" "$BATS_TEST_TMPDIR/empty"
    [ "$(steps "$run")" = "0 " ]
    [ ! -s "$run/metrics.jsonl" ]
}

@test "a stream of tokens is refused with 64" {
    refused 64 tokens cctrain --out "$run" tests/golden/stream/tokens.ccps
}

@test "the plan says what it takes and does nothing" {
    run --separate-stderr cctrain --out "$run" "${RECIPE[@]}" --plan "$rows"
    [ "$status" -eq 0 ]
    [[ "$output" == *$'parameters\t62248\n'*$'steps\t62\nrows\t1984' ]]
    [[ "$output" == *memory*disk* ]]
    [ ! -e "$run" ]
}

@test "memory that is not there is 71 at the start, with what is asked and free" {
    refused 71 "GB of the device's memory, and" cctrain --out "$run" --latents 1G --batch 32 "$rows"
}

@test "a device that is not there is 76" {
    refused 76 CUDA cctrain --out "$run" --device cuda "$rows"
}

@test "one trainer at a time works in a folder" {
    mkfifo "$BATS_TEST_TMPDIR/fifo"
    cctrain --out "$run" "${RECIPE[@]}" --resume "$BATS_TEST_TMPDIR/fifo" 3>&- &
    exec 4>"$BATS_TEST_TMPDIR/fifo"
    cat "$rows" >&4
    run --separate-stderr cctrain --out "$run" "${RECIPE[@]}" --resume "$rows"
    [ "$status" -eq 64 ]
    [[ "$stderr" == *"another cctrain is at work"* ]]
    exec 4>&-
    wait $!
}

@test "folders on the way are made; a file in the way is refused" {
    cctrain --out "$run/a/b" "${RECIPE[@]}" --steps 1 "$rows"
    [ "$(steps "$run/a/b")" = "1 " ]
    echo >"$other"
    run cctrain --out "$other" "${RECIPE[@]}" "$rows"
    [ "$status" -eq 64 ] || [ "$status" -eq 74 ]
}
