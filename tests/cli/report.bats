# ccanalyze report from outside: what the page holds, that it is whole and harmless, and what is refused.
# shellcheck disable=SC2154  # run sets stderr

GOLDEN=tests/golden/analysis
CC=$GOLDEN/exact/cc.safetensors
ROWS=$GOLDEN/exact/rows
MODEL=$GOLDEN/exact/model

ccanalyze() {
    "${BIN:-bin}/ccanalyze" "$@"
}

# A refused command says so on standard error, and writes nothing.
refused() {
    local code=$1 words=$2
    shift 2
    run --separate-stderr "$@"
    echo "$* -> $status: $stderr"
    [ "$status" -eq "$code" ]
    [ -z "$output" ]
    [[ "$stderr" == *"$words"* ]]
}

setup() {
    bats_require_minimum_version 1.5.0
    page=$BATS_TEST_TMPDIR/report.html
}

# whole PAGE: every element that begins ends, in order, and nothing comes from elsewhere. Text holds no
# angle brackets, as they are escaped, so tags can be found by them.
whole() {
    [ "$(head -c 15 "$1")" = '<!DOCTYPE html>' ]
    [ "$(tail -n 1 "$1")" = '</html>' ]
    run ! grep -niE 'http|src=|<script|<link|<img|<iframe|@import|url\(|javascript:| on[a-z]+=' "$1"
    run ! grep -nE '[^a-z](nan|inf|-nan)[^a-z]' "$1"
    tr '\n' ' ' <"$1" | sed 's,<style>[^<]*</style>,,' | grep -oE '<[^>]*>' | awk '
        /^<!DOCTYPE/ || /^<(meta|br)[ >]/ || /\/>$/ { next }
        /^<\// { name = substr($0, 3, length($0) - 3)
                 if (open[depth--] != name) { print "found " $0 " in " open[depth + 1]; exit 1 }
                 next }
        { name = substr($0, 2); sub(/[ >].*/, "", name); open[++depth] = name }
        END { if (depth != 0) { print depth " left open, the last one " open[depth]; exit 1 } }'
    # Ids are said once, and links lead to them.
    [ -z "$(grep -oE ' id="[^"]*"' "$1" | sort | uniq -d)" ]
    comm -23 <(grep -oE 'href="#[^"]*"' "$1" | sed 's/.*#//' | tr -d '"' | sort -u) \
        <(grep -oE ' id="[^"]*"' "$1" | sed 's/.*id=//' | tr -d '"' | sort -u) >"$1.lost"
    [ ! -s "$1.lost" ]
}

# values ID PAGE: the numbers of the table of that id as programs read them, one a line.
values() {
    tr '\n' ' ' <"$2" | grep -oE "<table id=\"$1\".*" | sed 's,</table>.*,,' |
        grep -oE '<data value="[^"]*"' | cut -d '"' -f 2
}

@test "a page of weights and rows is whole, and the same each time" {
    ccanalyze report $CC $ROWS --model $MODEL -o "$page"
    whole "$page"
    ccanalyze report $CC $ROWS --model $MODEL >"$page.again"
    cmp "$page" "$page.again"
    for words in '<h1>base and chat</h1>' 'Most specific to chat' 'Most specific to base' \
        'id="evaluation"' 'prefers-color-scheme:dark' 'Relative Norm' 'Number of Latents' \
        'Frequency: share of rows' 'class="contexts"'; do
        grep -q "$words" "$page"
    done
    run ! grep -q 'id="training"' "$page"
}

@test "a page of weights alone has their figures, and no others" {
    ccanalyze report $CC -o "$page"
    whole "$page"
    grep -q 'Most specific to chat' "$page"
    run ! grep -qE 'id="evaluation"|class="contexts"|Frequency: share' "$page"
}

@test "one source, or three, have no relative norms, and the page says so" {
    ccanalyze report $GOLDEN/single/cc.safetensors $GOLDEN/single/rows -o "$page"
    whole "$page"
    grep -q 'With one source there is nothing to compare' "$page"
    run ! grep -qE 'Relative Norm|id="clusters"' "$page"
    ccanalyze report $GOLDEN/uneven/cc.safetensors $GOLDEN/uneven/rows -o "$page"
    whole "$page"
    grep -q 'Relative norms compare two sources, and this crosscoder has 3' "$page"
    run ! grep -q 'Relative Norm' "$page"
    ccanalyze report $GOLDEN/uneven/cc.safetensors --pair 0,2 -o "$page"
    whole "$page"
    grep -q '>Relative Norm</text>' "$page"
    grep -q 'vectors of different widths have no angle' "$page"
}

@test "the numbers are those of clusters, eval, freq and norms" {
    ccanalyze report $CC $ROWS -o "$page"
    ccanalyze clusters $CC | tail -n +2 | cut -f 3 >"$page.clusters"
    tr '\n' ' ' <"$page" | grep -oE '<table id="clusters".*' | sed 's,</table>.*,,' |
        grep -oE '<td>[0-9,]*</td>' | tr -dc '0-9\n' | cmp - "$page.clusters"
    # explained variance, fve, l0, l2, l1, loss; a source has no l0.
    ccanalyze eval $CC $ROWS | tail -n +2 |
        awk -F '\t' '{ print $7; print $8; if ($6 != "") print $6; print $4; print $5; print $3 }' \
            >"$page.eval"
    values evaluation "$page" | cmp - "$page.eval"
    # Of a latent's card: relative norm, delta, cosine; then frequency, mean, max.
    tr '\n' ' ' <"$page" | grep -oE 'id="latent-11".*' | sed 's,</article>.*,,;s,</dl>.*,,' |
        grep -oE '<data value="[^"]*"' | cut -d '"' -f 2 >"$page.card"
    { ccanalyze norms $CC | awk -F '\t' '$1 == 11 { print $4; print $5; print $6 }'
      ccanalyze freq $CC $ROWS | awk -F '\t' '$1 == 11 { print $3; print $4; print $5 }'; } |
        cmp - "$page.card"
}

@test "contexts are those of top, the strongest first" {
    ccanalyze report $CC $ROWS -n 3 --context 2 -o "$page"
    tr '\n' ' ' <"$page" | grep -oE 'id="latent-11".*' | sed 's,</article>.*,,' |
        grep -oE '<li>.*' >"$page.items"
    ccanalyze top $CC $ROWS --latents 11 -n 3 --context 2 | tail -n +2 >"$page.top"
    [ "$(wc -l <"$page.top")" -eq 3 ]
    grep -oE 'class="f"[^>]*><data value="[^"]*"' "$page.items" | sed 's/.*value="//;s/"//' |
        cmp - <(cut -f 3 "$page.top")
    sed 's,<li>,\n,g' "$page.items" | tail -n +2 | sed 's/.*class="text">//;s/<[^>]*>//g;s/ *$//' |
        cmp - <(cut -f 7 "$page.top")
}

@test "tokens are shaded by eighths of the largest activation, and the strongest is marked" {
    ccanalyze report $CC $ROWS -n 3 --context 2 -o "$page"
    most=$(ccanalyze freq $CC $ROWS | awk -F '\t' '$1 == 11 { print $5 }')
    ccanalyze top $CC $ROWS --latents 11 -n 3 --context 2 --json | tr '{' '\n' |
        sed -n 's/.*"at":\([0-9]*\).*"activations":\[\(.*\)\]}.*/\1,\2/p' |
        awk -F , -v most="$most" '{
            for (i = 2; i <= NF; i++) {
                eighths = $i / most * 8
                shade = int(eighths) + (eighths > int(eighths))
                print "t" shade " x" (i - 2 == $1 ? " at" : "")
            } }' >"$page.expected"
    [ "$(sort -u "$page.expected" | wc -l)" -gt 4 ]
    tr '\n' ' ' <"$page" | grep -oE 'id="latent-11".*' | sed 's,</article>.*,,;s/.*class="contexts"//' |
        grep -oE 'class="t[0-9][^"]*"' | cut -d '"' -f 2 | cmp - "$page.expected"
}

@test "latents that never fire are passed over" {
    # 12 is of chat alone; on rows in which it never fires it is in no table.
    ccanalyze report $CC $ROWS -o "$page"
    for latent in $(ccanalyze freq $CC $ROWS | awk -F '\t' '$7 == 1 { print $1 }'); do
        run ! grep -q "id=\"latent-$latent\"" "$page"
    done
    [ -n "$latent" ]
    ccanalyze report $CC $ROWS --per-side 1 -o "$page"
    [ "$(grep -c '<article' "$page")" -eq 2 ]
}

@test "hostile pieces of a tokenizer are text" {
    mkdir "$BATS_TEST_TMPDIR/evil"
    # Whatever the ids are, their pieces are hostile.
    awk 'BEGIN {
        printf "{\"model\":{\"type\":\"BPE\",\"vocab\":{"
        for (i = 0; i < 1024; i++)
            printf "%s\"</p><script>alert(%d)</script>&amp;\\\" onload=\\\"x\\u001b\\u202e\":%d", i ? "," : "", i, i
        printf "}},\"added_tokens\":[]}" }' >"$BATS_TEST_TMPDIR/evil/tokenizer.json"
    ccanalyze report $CC $ROWS --model "$BATS_TEST_TMPDIR/evil" -o "$page"
    grep -q '&#60;script&#62;alert' "$page"
    run ! grep -q $'\033' "$page"
    sed 's/onload=&#34;/x/g;s/&#60;script/x/g' "$page" >"$page.rest"
    whole "$page.rest"
}

@test "hostile metadata is text" {
    cc=$BATS_TEST_TMPDIR/evil.safetensors
    header='{"__metadata__":{"format":"ccpipe","hook":"<script>&","activation":"relu","step":"7",'
    header+='"recipe":"{\"a<b\": \"</dd>\\\"\", \"steps\": 7}",'
    header+='"sources":"[{\"name\":\"<i>A\",\"width\":1,\"scale\":1},'
    header+='{\"name\":\"\\\"B\",\"width\":1,\"scale\":1}]"},'
    header+='"W_enc":{"dtype":"F32","shape":[2,1,1],"data_offsets":[0,8]},'
    header+='"W_dec":{"dtype":"F32","shape":[1,2,1],"data_offsets":[8,16]},'
    header+='"b_enc":{"dtype":"F32","shape":[1],"data_offsets":[16,20]},'
    header+='"b_dec":{"dtype":"F32","shape":[2,1],"data_offsets":[20,28]}}'
    { printf '%b' "\\x$(printf %x $((${#header} & 255)))\\x$(printf %x $((${#header} >> 8)))"
      printf '\0\0\0\0\0\0%s' "$header"
      head -c 28 /dev/zero; } >"$cc"
    ccanalyze report "$cc" -o "$page"
    whole "$page"
    for words in '&#60;script&#62;&#38;' 'a&#60;b' '&#60;/dd&#62;&#34;' '&#60;i&#62;A' '&#34;B'; do
        grep -q "$words" "$page"
    done
}

@test "metrics are found in the run folder, or named" {
    mkdir -p "$BATS_TEST_TMPDIR/run/step-300"
    cp $CC "$BATS_TEST_TMPDIR/run/step-300/cc.safetensors"
    for step in 0 100 200; do
        echo "{\"step\": $step, \"loss\": $((900 - step)), \"l2_loss\": 5, \"explained_variance\": 0.5," \
            "\"explained_variance_A\": 0.25, \"explained_variance_B\": -0.75, \"lr\": 1e-4, \"dead_fraction\": 0}"
    done >"$BATS_TEST_TMPDIR/run/metrics.jsonl"
    ccanalyze report "$BATS_TEST_TMPDIR/run/step-300/cc.safetensors" -o "$page"
    whole "$page"
    grep -q 'id="training"' "$page"
    grep -q 'What was measured at 3 steps' "$page"
    grep -q 'loss <data value="700">' "$page"
    grep -q '^learning rate 1</title>' "$page" # a share of its largest value
    grep -q 'chat <data value="-0.75">' "$page"
    ccanalyze report $CC --metrics "$BATS_TEST_TMPDIR/run/metrics.jsonl" -o "$page.named"
    cmp <(sed 's,<code>[^<]*cc.safetensors</code>,,' "$page") \
        <(sed 's,<code>[^<]*cc.safetensors</code>,,' "$page.named")
    # It is read, never written, also where rows are.
    cp "$BATS_TEST_TMPDIR/run/metrics.jsonl" "$page.before"
    ccanalyze report $CC $ROWS --metrics "$BATS_TEST_TMPDIR/run/metrics.jsonl" -o "$page"
    whole "$page"
    cmp "$BATS_TEST_TMPDIR/run/metrics.jsonl" "$page.before"
    echo '{"rows": 3}' >"$BATS_TEST_TMPDIR/none.jsonl"
    refused 65 "no line with a step" ccanalyze report $CC --metrics "$BATS_TEST_TMPDIR/none.jsonl"
    echo 'x' >"$BATS_TEST_TMPDIR/none.jsonl"
    refused 65 "none.jsonl:1" ccanalyze report $CC --metrics "$BATS_TEST_TMPDIR/none.jsonl"
    refused 64 "cannot open 'no/such'" ccanalyze report $CC --metrics no/such
}

@test "a report that fails leaves what was there" {
    echo old >"$page"
    head -c 3000 $ROWS >"$BATS_TEST_TMPDIR/cut"
    refused 66 cut ccanalyze report $CC "$BATS_TEST_TMPDIR/cut" -o "$page"
    refused 64 "has 2 sources, the rows have 3" ccanalyze report $CC $GOLDEN/uneven/rows -o "$page"
    [ "$(cat "$page")" = old ]
    refused 74 "cannot write 'no/such/report.html'" ccanalyze report $CC -o no/such/report.html
    refused 74 "/dev/full" ccanalyze report $CC -o /dev/full
    # A file may grow to 4 blocks of 1024 bytes only: nothing is better than part of a page.
    run bash -c "trap '' XFSZ; ulimit -f 4; '${BIN:-bin}/ccanalyze' report $CC -o '$page'"
    [ "$status" -eq 74 ]
    [ ! -s "$page" ]
}

@test "a page is not for a terminal" {
    script -qec true /dev/null >/dev/null 2>&1 || skip "there are no pseudo-terminals here"
    run script -qec "'${BIN:-bin}/ccanalyze' report $CC" /dev/null
    [ "$status" -eq 64 ]
    [[ "$output" == *"not for a terminal"* ]]
}

@test "shuffled rows have no contexts, and are taken where none are asked for" {
    "${BIN:-bin}/shufbuf" --seed 3 $ROWS >"$BATS_TEST_TMPDIR/shuffled"
    refused 64 "this stream went through shufbuf" ccanalyze report $CC "$BATS_TEST_TMPDIR/shuffled"
    ccanalyze report $CC "$BATS_TEST_TMPDIR/shuffled" -n 0 -o "$page"
    whole "$page"
    run ! grep -q 'class="contexts"' "$page"
    grep -q '<article' "$page"
}

@test "rows come through a pipe, too" {
    ccanalyze report $CC $ROWS -o "$page"
    ccanalyze report $CC - -o "$page.piped" <$ROWS
    cmp "$page" "$page.piped"
}

@test "a stream of no rows makes a page" {
    ccanalyze dump --rows 0:0 --npy "$BATS_TEST_TMPDIR/none.npy" $ROWS >/dev/null
    ccanalyze pack "$BATS_TEST_TMPDIR/none.npy" --source base.blocks.3.hook_resid_pre:5 \
        --source chat.blocks.3.hook_resid_pre:5 -o "$BATS_TEST_TMPDIR/none"
    ccanalyze report $CC "$BATS_TEST_TMPDIR/none" -o "$page"
    whole "$page"
    grep -q 'None of them fires' "$page"
}

@test "the plan says what it takes, with rows and without" {
    run ccanalyze report --plan $CC
    [ "$status" -eq 0 ]
    [[ "$output" =~ ^memory$'\t'[0-9]+$ ]]
    run --separate-stderr ccanalyze report --plan $CC $ROWS
    [ "$status" -eq 0 ]
    [[ "$output" =~ memory$'\t'[0-9]+ ]]
    [[ "$output" == *$'rows\t'102* ]]
}
