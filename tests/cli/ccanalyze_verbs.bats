# ccanalyze's norms, clusters, cosine, freq, eval and top from outside: what they print where, and what they
# refuse. The figures themselves: tests/unit/test_analysis.c.
# shellcheck disable=SC2154  # run sets stderr

GOLDEN=tests/golden/analysis
CC=$GOLDEN/exact/cc.safetensors
ROWS=$GOLDEN/exact/rows

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

# header LINE VERB...: the first line, and the same number of fields in all.
header() {
    local line=$1
    shift
    ccanalyze "$@" >"$BATS_TEST_TMPDIR/table"
    [ "$(head -n 1 "$BATS_TEST_TMPDIR/table")" = "$line" ]
    awk -F '\t' 'NR == 1 { n = NF } NF != n { exit 1 }' "$BATS_TEST_TMPDIR/table"
}

setup() {
    bats_require_minimum_version 1.5.0
    out=$BATS_TEST_TMPDIR/out
}

# ---- what is printed

@test "tables begin with their columns" {
    header $'index\tnorm_base\tnorm_chat\trelative_norm\tdelta\tdec_cosine\tenc_norm_base\tenc_norm_chat\tenc_cosine' norms $CC
    header $'definition\tclass\tcount' clusters $CC
    header $'index\tcosine' cosine $CC
    header $'index\tcount\tfrequency\tmean\tmax\tmax_scaled\tdead' freq $CC $ROWS
    header $'source\trows\tloss\tl2\tl1\tl0\texplained_variance\tfve\tfve_centered' eval $CC $ROWS
    header $'index\trank\tactivation\tsequence\tposition\ttoken\tcontext' top $CC $ROWS
    header $'index\trank\tactivation\tsequence\tposition\ttoken\tcontext' top $CC $ROWS --model $GOLDEN/exact/model
}

@test "with three sources there is a delta for each, and a pair on request" {
    local cc=$GOLDEN/uneven/cc.safetensors
    header $'index\tnorm_source0\tnorm_source1\tnorm_source2\tdelta_source0\tdelta_source1\tdelta_source2\tenc_norm_source0\tenc_norm_source1\tenc_norm_source2' norms $cc
    header $'index\tnorm_source0\tnorm_source1\tnorm_source2\trelative_norm\tdelta\tdec_cosine\tdelta_source0\tdelta_source1\tdelta_source2\tenc_norm_source0\tenc_norm_source1\tenc_norm_source2\tenc_cosine' norms $cc --pair 2,0
    run --separate-stderr ccanalyze clusters $cc
    [ "${lines[0]}" = $'definition\tclass\tcount' ]
    [ "${#lines[@]}" -eq 5 ]
    [[ "$output" != *relative_norm* ]]
}

@test "-o replaces a file and leaves standard output alone" {
    echo old >"$out"
    run --separate-stderr ccanalyze norms $CC -o "$out"
    [ "$status" -eq 0 ]
    [ -z "$output" ]
    ccanalyze norms $CC | cmp - "$out"
}

@test "the output is opened before the rows are read" {
    refused 74 "/no/such" ccanalyze freq $CC $ROWS -o /no/such/folder/out
    [[ "$stderr" != *device* ]]
}

@test "what is read is never written to" {
    cp $CC "$out.cc"
    cp $ROWS "$out.rows"
    ln "$out.rows" "$out.link"
    for verb in norms clusters cosine; do
        refused 64 "one file" ccanalyze $verb "$out.cc" -o "$out.cc"
        refused 64 "one file" bash -c "'${BIN:-bin}/ccanalyze' $verb '$out.cc' >>'$out.cc'"
    done
    for verb in freq eval top report; do
        refused 64 "one file" ccanalyze $verb "$out.cc" "$out.rows" -o "$out.cc"
        refused 64 "one file" ccanalyze $verb "$out.cc" "$out.rows" -o "$out.link"
    done
    cmp $CC "$out.cc"
    cmp $ROWS "$out.rows"
}

@test "a full disk is 74" {
    for verb in norms clusters cosine; do
        run --separate-stderr bash -c "'${BIN:-bin}/ccanalyze' $verb $CC >/dev/full"
        [ "$status" -eq 74 ]
    done
    for verb in freq eval top; do
        run --separate-stderr bash -c "'${BIN:-bin}/ccanalyze' $verb $CC $ROWS >/dev/full"
        [ "$status" -eq 74 ]
    done
    refused 74 "/dev/full" ccanalyze clusters $CC --svg /dev/full
}

@test "rows come from files or from standard input, with the same result" {
    for verb in freq eval top; do
        ccanalyze $verb $CC $ROWS >"$out"
        ccanalyze $verb $CC <$ROWS | cmp - "$out"
        ccanalyze $verb $CC - <$ROWS | cmp - "$out"
    done
    # Two parts, as by cat: every row twice; repeats give no new examples.
    ccanalyze freq $CC $ROWS $ROWS --json | grep -q '"rows":204}$'
    ccanalyze top $CC $ROWS >"$out"
    ccanalyze top $CC $ROWS $ROWS --latents 5 >"$out.twice"
    # Single rows are no repeats, so each of them comes twice.
    [ "$(awk -F '\t' '$1 == 5' "$out" | cut -f 3-7 | sort -u)" = "$(sed 1d "$out.twice" | cut -f 3-7 | sort -u)" ]
}

@test "threads have no influence" {
    for verb in freq eval top; do
        ccanalyze $verb $CC $ROWS --threads 1 >"$out"
        ccanalyze $verb $CC $ROWS --threads 3 | cmp - "$out"
    done
}

@test "the order of rows has no influence on freq, and none to speak of on eval" {
    "${BIN:-bin}/shufbuf" --rows 1k --seed 3 $ROWS >"$out.shuffled"
    ccanalyze freq $CC $ROWS >"$out"
    ccanalyze freq $CC "$out.shuffled" | cmp - "$out"
    paste <(ccanalyze eval $CC $ROWS) <(ccanalyze eval $CC "$out.shuffled") | awk -F '\t' '
        NR > 1 {
            for (i = 3; i <= 9; i++) {
                d = $i - $(i + 9)
                if ((d < 0 ? -d : d) > 1e-6 * ($i < 0 ? -$i : $i)) exit 1
            }
            n++
        }
        END { if (n != 3) exit 1 }'
}

# Rows and weights of this crosscoder are bf16 numbers, so that only the latents are rounded, by at most 2^-8.
@test "in bf16 the same latents fire, as strongly" {
    paste <(ccanalyze freq $CC $ROWS) <(ccanalyze freq $CC $ROWS --dtype bf16) | awk -F '\t' '
        NR > 1 {
            d = $5 - $12
            if ($2 != $9 || (d < 0 ? -d : d) > $5 / 256) exit 1
            n += d != 0
        }
        END { if (NR != 20 || n == 0) exit 1 }'
}

@test "what is said goes to standard error, with -q nothing" {
    run --separate-stderr ccanalyze freq $CC $ROWS -q
    [ "$status" -eq 0 ]
    [ -z "$stderr" ]
    run --separate-stderr ccanalyze eval $GOLDEN/uneven/cc.safetensors $GOLDEN/uneven/rows -q
    [ "$status" -eq 0 ]
    [[ "$stderr" == *"does not say its L1 weight"* ]]
    run --separate-stderr ccanalyze top $CC $ROWS --min-relative-norm 0.15 --max-relative-norm 0.16
    [ "$status" -eq 0 ]
    [ "${#lines[@]}" -eq 1 ]
    [[ "$stderr" == *"no latent"* ]]
}

@test "--metrics writes what the pass took" {
    ccanalyze freq $CC $ROWS --metrics "$out" >/dev/null
    [ -s "$out" ]
}

@test "figures are drawn into a file, with the table as before" {
    ccanalyze clusters $CC >"$out.plain"
    ccanalyze clusters $CC --svg "$out.svg" | cmp - "$out.plain"
    grep -q 'Relative Norm (0: base only, 1: chat only)' "$out.svg"
    grep -q 'Number of Latents' "$out.svg"
    for tick in 0 ¼ ½ ¾ 1; do
        grep -q "\"middle\">$tick</text>" "$out.svg"
    done
    # 18 latents have a relative norm; they lie in 16 of the 200 bins, of 3.26 units.
    [ "$(grep -o 'class="bar" d="M[0-9.]* [0-9.]*h3.26V' "$out.svg" | wc -l)" -eq 16 ]
    ccanalyze cosine $CC >"$out.plain"
    ccanalyze cosine $CC --svg "$out.svg" | cmp - "$out.plain"
    # 8 cosines: 4 of 0, 2 of 1, -1 and -0.52, in bins of 6.52 units with 1 between.
    [ "$(grep -o 'class="bar" d="M[0-9.]* [0-9.]*h5.52V' "$out.svg" | wc -l)" -eq 4 ]
    grep -q 'log scale' "$out.svg"
    ccanalyze clusters $CC --json --dead <(ccanalyze freq $CC $ROWS) --svg "$out.svg" >/dev/null
    run ! grep -qi '<script' "$out.svg"
}

@test "a stream of no rows has rows of no values" {
    local empty=$out.empty
    cut_rows 0 >"$empty"
    run --separate-stderr ccanalyze freq $CC "$empty"
    [ "$status" -eq 0 ]
    [ "${lines[1]}" = $'0\t0\t\t\t\t\t1' ]
    run --separate-stderr ccanalyze eval $CC "$empty"
    [ "$status" -eq 0 ]
    [ "${lines[1]}" = $'all\t0\t\t\t\t\t\t\t' ]
    run --separate-stderr ccanalyze eval $CC "$empty" --json
    [ "$status" -eq 0 ]
    [[ "$output" == *'"fve": null'* ]]
    [[ "$output" != *nan* ]]
    run --separate-stderr ccanalyze top $CC "$empty"
    [ "$status" -eq 0 ]
    [ "${#lines[@]}" -eq 1 ]
}

# cut_rows N: the first N rows of ROWS as a stream of their own.
cut_rows() {
    ccanalyze dump --rows "0:$1" --npy "$out.npy" $ROWS >/dev/null
    ccanalyze pack "$out.npy" --source base.blocks.3.hook_resid_pre:5 --source chat.blocks.3.hook_resid_pre:5
}

@test "--plan tells memory and rows, and does nothing else" {
    for verb in norms clusters cosine; do
        run --separate-stderr ccanalyze $verb $CC --plan -o "$out"
        [ "$status" -eq 0 ]
        [[ "$output" == memory$'\t'[1-9]* ]]
        [ ! -e "$out" ]
    done
    for verb in freq eval top; do
        run --separate-stderr ccanalyze $verb $CC $ROWS --plan -o "$out"
        [ "$status" -eq 0 ]
        [[ "${lines[0]}" == memory$'\t'[1-9]* ]]
        [ "${lines[1]}" = $'rows\t102' ]
        [ ! -e "$out" ]
    done
    run --separate-stderr ccanalyze freq $CC --plan </dev/null
    [ "$status" -eq 0 ]
    [ "${#lines[@]}" -eq 1 ]
}

# ---- what is refused

@test "without a checkpoint, or with two, there is nothing to do" {
    for verb in norms clusters cosine freq eval top; do
        refused 64 "which checkpoint" ccanalyze $verb
        refused 64 "no/such" ccanalyze $verb no/such
    done
    for verb in norms clusters cosine; do
        refused 64 "'$CC' follows it" ccanalyze $verb $CC $CC
    done
    refused 64 "is not a crosscoder" ccanalyze norms tests/golden/files/types.safetensors
}

@test "what is not built is refused with 64" {
    refused 64 "not built" ccanalyze freq --groups x $CC $ROWS
    refused 64 "not built" ccanalyze eval --topk $CC $ROWS
    refused 64 "not built" ccanalyze top --quantiles 0.5,1 $CC $ROWS
    for verb in ce scaling match export import intervene twins; do
        refused 64 "not built" ccanalyze $verb $CC
    done
    refused 64 "no verb" ccanalyze norm $CC
    refused 64 "which verb" ccanalyze
}

@test "rows of another crosscoder are refused with both sides" {
    for verb in freq eval top; do
        refused 64 "has 2 sources, the rows have 3" ccanalyze $verb $CC $GOLDEN/uneven/rows
        refused 64 "'a.x' of width 3 in the rows" ccanalyze $verb $CC tests/golden/stream/rows-f32.ccps
        refused 64 tokens ccanalyze $verb $CC tests/golden/stream/tokens.ccps
    done
    ccanalyze dump --npy "$out.npy" $ROWS >/dev/null
    ccanalyze pack "$out.npy" --source base.blocks.4.hook_resid_pre:5 --source chat.blocks.4.hook_resid_pre:5 >"$out"
    refused 64 "source 0 is 'base.blocks.3.hook_resid_pre' in" ccanalyze freq $CC "$out"
    [[ "$stderr" == *"'base.blocks.4.hook_resid_pre' in the rows"* ]]
}

@test "cut input is 66 and changed input 65, and nothing is printed" {
    head -c -1 $ROWS >"$out.cut"
    { head -c 3000 $ROWS && printf '\377' && tail -c +3002 $ROWS; } >"$out.changed"
    for verb in freq eval top; do
        refused 66 "" ccanalyze $verb $CC "$out.cut" -o "$out"
        refused 65 "" ccanalyze $verb $CC "$out.changed" -o "$out"
        refused 66 "" ccanalyze $verb $CC </dev/null
    done
}

@test "contexts of shuffled rows are refused" {
    "${BIN:-bin}/shufbuf" --rows 1k $ROWS >"$out"
    refused 64 "went through shufbuf" ccanalyze top $CC "$out"
}

@test "two sources are needed, and a pair names them" {
    local three=$GOLDEN/uneven/cc.safetensors one=$GOLDEN/single/cc.safetensors
    refused 64 "has 3; name two with --pair" ccanalyze cosine $three
    refused 64 "has 3; name two with --pair" ccanalyze clusters $three --svg "$out"
    refused 64 "has 3" ccanalyze top $three $GOLDEN/uneven/rows --min-relative-norm 0.5
    refused 64 "has 1" ccanalyze clusters $one
    refused 64 "has 1" ccanalyze cosine $one
    for verb in norms clusters cosine top; do
        refused 64 "does not name two of the 3 sources" ccanalyze $verb $three --pair 0,3 </dev/null
        refused 64 "does not name two of the 1 sources" ccanalyze $verb $one --pair 0,0 </dev/null
    done
}

@test "between sources of different widths there is no cosine" {
    run --separate-stderr ccanalyze cosine $GOLDEN/uneven/cc.safetensors --pair 0,2
    [ "$status" -eq 0 ]
    [ "${#lines[@]}" -gt 1 ]
    printf '%s\n' "${lines[@]:1}" >"$out"
    run ! grep -v $'^[0-9]*\t$' "$out"
}

@test "latents are numbers of this crosscoder" {
    for list in 19 -1 x 1.5 '' '1,' ',1' '1,,2' '1 2' 0,18446744073709551616; do
        refused 64 "is not a latent: numbers from 0 to 18" ccanalyze top $CC $ROWS --latents="$list"
    done
    ccanalyze top $CC $ROWS --latents 18,0,18 | cut -f 1 | uniq | tr '\n' ' ' | grep -qx 'index 18 0 '
}

@test "numbers are strict" {
    refused 64 batch ccanalyze eval $CC $ROWS --batch 0
    refused 64 l1 ccanalyze eval $CC $ROWS --l1 -1
    refused 64 n ccanalyze top $CC $ROWS --n 0
    refused 64 context ccanalyze top $CC $ROWS --context -1
    refused 64 min-relative-norm ccanalyze top $CC $ROWS --min-relative-norm 1.1
    refused 64 dtype ccanalyze freq $CC $ROWS --dtype f16
}

@test "a device that is not there is 76, a word that is none 64" {
    refused 76 CUDA ccanalyze freq $CC $ROWS --device cuda:63
    refused 64 abacus ccanalyze freq $CC $ROWS --device abacus
}

@test "a table of another crosscoder does not say which latents are dead" {
    ccanalyze freq $GOLDEN/single/cc.safetensors $GOLDEN/single/rows -o "$out"
    refused 64 "has 5 latents, the crosscoder has 19" ccanalyze clusters $CC --dead "$out"
    refused 64 "is it the output of ccanalyze freq" ccanalyze clusters $CC --dead <(ccanalyze norms $CC)
}
