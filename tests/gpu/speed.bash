# speed.bash - the second half of tests/gpu/check: measures what performance is promised of, and writes
# the tables.
#
# Peaks are those of this run: the fastest product of bench_kernels in bf16, and the copy. Rates are
# what the tools themselves say in their metrics, without what they did before the first line. A rate stands
# beside its bound:
#   actgen   operations of a token (2 a weight, and causal attention) / the fastest product
#   cctrain  10 D F operations a row / the fastest product, and 28 bytes a parameter and step / the copy
#   both     what the two rates alone predict, 1 / (1/a + 1/c)
# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034  # variables of tests/gpu/check

# Shapes: width, inner, heads, key heads, head size, layers, sequence, latents, batch.
if [ -n "$emulated" ]; then
    d=64 inner=128 heads=4 key_heads=2 head=16 layers=2 sequence=32 latents=64 batch=32
else
    d=2304 inner=9216 heads=8 key_heads=4 head=256 layers=14 sequence=1024 latents=16384 batch=4096
fi
speeds=() # what, rate, unit, bound, least part of the bound

# calculate EXPRESSION: by awk, 6 digits.
calculate() { awk "BEGIN { printf \"%.6g\", ${1//$'\n'/ } }"; }

# key NAME: that number of each JSON line on standard input.
key() { sed -n "s/.*\"$1\": *\([-0-9.e+]*\).*/\1/p"; }

# peak OPERATION TYPE: its rate, in units of 1e9 a second.
peak() { grep "\"operation\":\"$1" "$work/kernels.json" | grep "\"type\":\"$2\"" | key rate; }

# speed WHAT RATE UNIT BOUND LEAST: a line of the table, and a result; an emulated device promises nothing.
speed() {
    local part
    speeds+=("$1"$'\t'"$2"$'\t'"$3"$'\t'"$4"$'\t'"$5")
    part=$(calculate "$2 / $4")
    if [ -n "$emulated" ]; then
        report skipped "$1" "$2 $3, not judged: the device is emulated"
    elif awk "BEGIN { exit !($part >= $5) }"; then
        report passed "$1" "$2 $3, $part of $4, at least $5"
    else
        report failed "$1" "$2 $3, $part of $4, at least $5"
    fi
}

# stopped STATUS: whether a tool did its work until its time was over.
stopped() { [ "$1" -eq 0 ] || [ "$1" -eq 124 ] || [ "$1" -eq 137 ]; }

speed_kernels() {
    local flags=(--device "$device")
    [ -z "$emulated" ] || flags+=(--tiny)
    on_device "$build/bench_kernels" "${flags[@]}" >"$work/kernels.md" &&
        sed -n '/^{/p' "$work/kernels.md" >"$work/kernels.json" &&
        sed -i '/^|/!d' "$work/kernels.md" &&
        [ -s "$work/kernels.json" ]
}

# actgen_with OPTION...: two models up to the hook; factors are given, so that rows come at once.
hook=blocks.$layers.hook_resid_pre
actgen_with() {
    printf '{"base.%s": 0.25, "chat.%s": 0.25}\n' "$hook" "$hook" >"$work/norm.json"
    on_device "$BIN/actgen" -q --model "base=$inputs/base" --model "chat=$inputs/chat" --hook "$hook" \
        --dtype bf16 --norm "$work/norm.json" "$@"
}

# The rate between the first and the last line of metrics, each of rows and rows a second since the start;
# of the last line alone where there is but one.
between_lines() {
    paste <(key rows <"$1") <(key rows_per_s <"$1") | awk '
        $2 > 0 { rows = $1; time = $1 / $2; if (first == 0) { first = rows; began = time } }
        END {
            if (NR == 0 || rows == 0) exit 1
            if (NR == 1 || time <= began) printf "%.6g", rows / time
            else printf "%.6g", (rows - first) / (time - began) }'
}

# speed_actgen EPOCHS: actgen alone, stopped after 35 s, in which it also loads its models.
speed_actgen() {
    local rate status=0
    "$BIN/tokstream" -q --epochs "$1" "$inputs/tokens.npy" |
        patience=35 actgen_with --metrics "$work/actgen.metrics" -o /dev/null || status=$?
    stopped "$status" || return "$status"
    rate=$(between_lines "$work/actgen.metrics") || { echo "it wrote no metrics in its time" >&2; return 1; }
    actgen_rate=$(calculate "$rate * $sequence / ($sequence - 1)")
}

# steady FILE KEY: the mean over time of a key of cctrain's metrics, without the first two lines.
steady() {
    paste <(key "$2" <"$1") <(key rows_per_s <"$1") | awk '
        NR > 2 { sum += $1 / $2; time += 1 / $2 }
        END { if (time == 0) exit 1; printf "%.6g", sum / time }' ||
        { echo "it wrote no more than two lines of metrics in its time" >&2; return 1; }
}

# cctrain_with RUN OPTION...: the reference's recipe with a larger batch, a line of metrics each 25 steps.
cctrain_with() {
    local run=$work/$1
    rm -rf "$run"
    on_device "$BIN/cctrain" -q --out "$run" --dtype bf16 --latents "$latents" --batch "$batch" \
        --log-every "$log_every" --keep 1 "${@:2}"
}

# What nvidia-smi says is taken of the device, in MiB, twice a second, until memory_grown.
memory_watcher=''
memory_watch() {
    local number=${device#cuda}
    number=${number#:}
    if [ -n "$emulated" ] || ! command -v nvidia-smi >/dev/null; then
        return 0
    fi
    nvidia-smi --id="${number:-0}" --query-gpu=memory.used --format=csv,noheader,nounits -lms 500 >"$work/memory" &
    memory_watcher=$!
}
# In the second half of the samples no more may be taken than in their middle; 16 MiB are others' business.
memory_grown() {
    local grown
    if [ -z "$memory_watcher" ]; then
        report skipped "device memory of cctrain does not grow" "not run: emulated, or without nvidia-smi"
        return 0
    fi
    kill "$memory_watcher" || true
    wait "$memory_watcher" || true
    grown=$(awk '{ taken[NR] = $1 }
        END { middle = int((NR + 1) / 2)
              for (i = middle; i <= NR; i++) if (taken[i] - taken[middle] > most) most = taken[i] - taken[middle]
              if (NR < 4) print "unknown"; else print most + 0 " MiB more than " taken[middle] }' "$work/memory")
    if [ "$grown" = unknown ]; then
        report skipped "device memory of cctrain does not grow" "nvidia-smi said too little"
    elif awk -v grown="$grown" 'BEGIN { exit !(grown ~ /^[0-9]/ && grown + 0 <= 16) }'; then
        report passed "device memory of cctrain does not grow" "$grown"
    else
        report failed "device memory of cctrain does not grow" "$grown"
    fi
}

# The same rows again and again, from the page cache; stopped after 25 s.
speed_cctrain() {
    local rows=() status=0
    for ((i = 0; i < $1; i++)); do
        rows+=("$inputs/rows.ccps")
    done
    memory_watch
    patience=25 cctrain_with run-speed "${rows[@]}" || status=$?
    memory_grown
    stopped "$status" || return "$status"
    cctrain_rate=$(steady "$work/run-speed/metrics.jsonl" rows_per_s) || return 1
    cctrain_wait=$(steady "$work/run-speed/metrics.jsonl" wait_fraction) || return 1
    rm -rf "$work/run-speed"
}

# All tools, one GPU; stopped after 40 s. Only cctrain's own end counts: it ends the others.
# speed_pipeline inline|cuda-ipc EPOCHS [CCTRAIN-OPTION...]
speed_pipeline() {
    local slots=65536 status
    [ -z "$emulated" ] || slots=64
    set +e
    if [ "$1" = inline ]; then
        "$BIN/tokstream" -q --epochs "$2" "$inputs/tokens.npy" | patience=50 actgen_with |
            "$BIN/shufbuf" -q --rows "$slots" | patience=40 cctrain_with run-pipeline "${@:3}"
        status=${PIPESTATUS[3]}
    else
        "$BIN/tokstream" -q --epochs "$2" "$inputs/tokens.npy" | patience=50 actgen_with --via "$1" |
            patience=40 cctrain_with run-pipeline --shuffle-rows "$slots" "${@:3}"
        status=${PIPESTATUS[2]}
    fi
    set -e
    stopped "$status" || return "$status"
    pipeline_rate=$(steady "$work/run-pipeline/metrics.jsonl" rows_per_s) || return 1
    rm -rf "$work/run-pipeline"
}

# measured NAME COMMAND...: true where it could be measured; else a failed result.
measured() {
    local status=0
    "${@:2}" 2>"$log" || status=$?
    [ "$status" -ne 0 ] || return 0
    if over; then
        report skipped "$1" "not measured: nine minutes are over, and --only speed leaves it more of them"
        return 1
    fi
    report failed "$1" "not measured, exit status $status: $(last_words)"
    return 1
}

speed_inputs() {
    measured "random models, tokens and rows" limited 120 "$build/tests/gpu/make_inputs" "$@" "$inputs"
}

speed_measure() {
    local product copy bound flops plane epochs=1000 files=80 steps=() flags=()
    log_every=25 gently=(--foreground)
    if [ -n "$emulated" ]; then
        epochs=4 files=4 steps=(--steps 16) flags=(--tiny) log_every=1
    fi
    measured "each kernel beside its limit" speed_kernels || return 0
    product=$(peak product bf16) copy=$(peak copy f32)
    report passed "each kernel beside its limit" "fastest product $product GF/s, copy $copy GB/s"
    speed_inputs "${flags[@]}" || return 0

    if measured "actgen" speed_actgen "$epochs"; then
        flops=$(calculate "2 * $layers * (2 * ($d * ($heads + 2 * $key_heads) * $head +
            $heads * $head * $d + 3 * $d * $inner) + 2 * $heads * $head * ($sequence + 1))")
        bound=$(calculate "$product * 1e9 / $flops")
        speed "actgen, $layers layers of two models, sequences of $sequence, bf16" "$actgen_rate" \
            tokens/s "$bound" 0.65
    fi
    if measured "cctrain" speed_cctrain "$files"; then
        bound=$(calculate "$batch / ($batch * 20 * $d * $latents / ($product * 1e9) +
            28 * (4 * $d * $latents + $latents + 2 * $d) / ($copy * 1e9))")
        speed "cctrain, F $latents, B $batch, D $((2 * d)), bf16; waiting for rows $cctrain_wait of the time" \
            "$cctrain_rate" rows/s "$bound" 0.75
    fi
    if [ -z "${actgen_rate:-}" ] || [ -z "${cctrain_rate:-}" ]; then
        report skipped "both on one GPU" "not run: one of them could not be measured"
    else
        bound=$(calculate "1 / ($sequence / ($sequence - 1) / $actgen_rate + 1 / $cctrain_rate)")
        for plane in inline cuda-ipc; do
            measured "both on one GPU, $plane" speed_pipeline "$plane" "$epochs" "${steps[@]}" || continue
            speed "both on one GPU, $plane" "$pipeline_rate" rows/s "$bound" 0.9
        done
    fi
    speed_peers
}

# peers_there WHAT: true where python3 has PyTorch and transformers and they see the GPU; else WHAT is skipped.
peers_there() {
    local missing
    if [ -n "$emulated" ]; then
        report skipped "$1" "not run: the device is emulated"
        return 1
    fi
    missing=$("${python[@]}" tests/gpu/peers.py --missing 2>&1) ||
        missing=${missing:-python3 is not there}
    [ -n "$missing" ] || return 0
    report skipped "$1" "not run: ${missing//$'\n'/ }"
    return 1
}

speed_peers() {
    local name rate least ours status=0
    peers_there "beside PyTorch and transformers" || return 0
    if over; then
        report skipped "beside PyTorch and transformers" "not run: nine minutes are over"
        return 0
    fi
    limited 180 "${python[@]}" tests/gpu/peers.py "$inputs/base" "$layers" \
        "$latents" "$batch" >"$work/peers.tsv" 2>"$log" || status=$?
    case $status in
    0) ;;
    124 | 137) report skipped "PyTorch and transformers" "not done after 180 s, or after nine minutes in all" ;;
    *) report failed "PyTorch and transformers" "$(last_words)" ;;
    esac
    while IFS=$'\t' read -r name rate; do
        case $name in
        reference*) ours=${cctrain_rate:-} least=9 ;;
        *step*) ours=${cctrain_rate:-} least=1.2 ;;
        *) ours=${actgen_rate:-} least=1.15 ;;
        esac
        [ -z "$ours" ] || speed "beside $name" "$ours" "a second" "$rate" "$least"
    done <"$work/peers.tsv"
    speed_loss
}

speed_only_loss() {
    gently=(--foreground)
    if peers_there "loss beside the reference's at step 1,000" && speed_inputs; then
        speed_loss
    fi
}

# cctrain's loss in bf16 after 1,000 steps beside the reference's in f32, from the same weights on the same
# rows: the mean of the last 25, which is once through the rows.
speed_loss() {
    local what="loss beside the reference's at step 1,000" last=25 ours theirs rows=()
    if [ $((time_over - SECONDS)) -lt 130 ]; then
        report skipped "$what" "not run: it takes two minutes, which are not left; --only loss runs it"
        return 0
    fi
    log_every=1
    for ((i = 0; i < 40; i++)); do
        rows+=("$inputs/rows.ccps")
    done
    measured "$what" cctrain_with run-start --steps 0 "$inputs/rows.ccps" || return 0
    measured "$what" "$BIN/ccanalyze" dump -q --npy "$work/rows.npy" "$inputs/rows.ccps" || return 0
    patience=60 measured "$what" cctrain_with run-loss --steps 1000 "${rows[@]}" || return 0
    ours=$(tail -n "$last" "$work/run-loss/metrics.jsonl" | key loss | awk '{ sum += $1 } END { printf "%.9g", sum / NR }')
    if limited 120 "${python[@]}" tests/gpu/reference_loss.py \
        "$work/run-start/step-0/cc.safetensors" "$work/rows.npy" "$batch" 1000 "$last" >"$work/loss.tsv" 2>"$log"; then
        read -r theirs _ <"$work/loss.tsv"
        if awk "BEGIN { off = $ours / $theirs - 1; exit !(off <= 0.005 && off >= -0.005) }"; then
            report passed "$what" "$ours, the reference's $theirs"
        else
            report failed "$what" "$ours, the reference's $theirs: more than 0.5 % apart"
        fi
    else
        report failed "$what" "$(last_words)"
    fi
    rm -rf "$work/run-start" "$work/run-loss" "$work/rows.npy"
}

# ---- the tables

quoted() {
    local text=${1//\\/\\\\}
    printf '"%s"' "${text//\"/\\\"}"
}

# joined FUNCTION ITEM...: what the function prints for each item, with commas between.
joined() {
    local format=$1 separator='' item
    shift
    for item in "$@"; do
        printf '%s\n  ' "$separator"
        "$format" "$item"
        separator=,
    done
}
result_json() {
    local status name detail
    IFS=$'\t' read -r status name detail <<<"$1"
    printf '{"result": "%s", "name": %s, "detail": %s}' "$status" "$(quoted "$name")" "$(quoted "$detail")"
}
speed_json() {
    local what rate unit bound least
    IFS=$'\t' read -r what rate unit bound least <<<"$1"
    printf '{"what": %s, "rate": %s, "unit": "%s", "bound": %s, "of_bound": %s, "at_least": %s}' \
        "$(quoted "$what")" "$rate" "$unit" "$bound" "$(calculate "$rate / $bound")" "$least"
}

write_json() {
    printf '{"date": "%s",\n "device": %s,\n "cublaslt": %s,\n "passed": %d, "failed": %d, "skipped": %d,\n' \
        "$1" "$(quoted "$description")" "$(quoted "$cublaslt")" "$passed" "$failed" "$skipped"
    printf ' "results": [%s],\n' "$(joined result_json "${reported[@]}")"
    printf ' "speeds": [%s],\n' "$(joined speed_json "${speeds[@]}")"
    printf ' "kernels": [\n%s]}\n' "$(sed '$!s/$/,/; s/^/  /' "$work/kernels.json" 2>/dev/null || true)"
}

write_markdown() {
    local line status name detail what rate unit bound least
    printf '# tests/gpu/check on %s\n\n%s, cuBLASLt %s. %d passed, %d failed, %d skipped.\n' \
        "$1" "$description" "$cublaslt" "$passed" "$failed" "$skipped"
    [ -z "$emulated" ] || printf '\nThe device is emulated: speeds mean nothing. Not verified on a GPU.\n'
    printf '\n| what | rate | bound | of the bound | at least |\n|---|---:|---:|---:|---:|\n'
    for line in "${speeds[@]}"; do
        IFS=$'\t' read -r what rate unit bound least <<<"$line"
        printf '| %s | %s %s | %s | %.3f | %s |\n' "$what" "$rate" "$unit" "$bound" \
            "$(calculate "$rate / $bound")" "$least"
    done
    printf '\n## Results\n\n| result | what | |\n|---|---|---|\n'
    for line in "${reported[@]}"; do
        IFS=$'\t' read -r status name detail <<<"$line"
        printf '| %s | %s | %s |\n' "$status" "${name//|/\\|}" "${detail//|/\\|}"
    done
    printf '\n## Each kernel\n\n'
    cat "$work/kernels.md" 2>/dev/null || true
}

speed_write() {
    local date name
    date=$(date -u +%Y-%m-%d)
    name=$(sed 's/^[^:]*:[^:]*: *//; s/,.*//; s/[^A-Za-z0-9]\{1,\}/-/g' <<<"$description")
    name=$results/gpu-$name-$date
    mkdir -p "$results"
    write_json "$date" >"$name.json"
    write_markdown "$date" >"$name.md"
    printf '\nThe tables: %s.md and .json\n' "$name"
}
