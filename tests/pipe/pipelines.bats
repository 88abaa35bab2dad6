# The scripts in pipelines/, on the bundled pair with a small recipe: each runs as documented, and the ways to
# train (live, from a cache, over a FIFO, resumed) end in the same weights.
# shellcheck disable=SC2016,SC2154,SC2086  # run sets stderr; the words of a fake ssh; paths without spaces

setup_file() {
    export pair=demo/tiny-gemma2 CCPIPE_BIN=${BIN:-bin} CCPIPE_THREADS=1
    export conf=$BATS_FILE_TMPDIR/conf.json tokens="$pair/tokens/valid*.parquet"
    cat >"$conf" <<'JSON'
{
  "tokstream": {"limit": 100, "epochs": 2},
  "actgen": {"hook": ["blocks.2.hook_resid_pre"], "dtype": "f32", "norm-sequences": 50},
  "shufbuf": {"rows": 5000, "seed": 3},
  "cctrain": {"latents": 96, "batch": 512, "steps": 90, "lr": 1e-3, "l1": 0.5, "save-every": 40,
              "dtype": "f32"}
}
JSON
    # The live run that the others are compared with.
    pipelines/train "$BATS_FILE_TMPDIR/live" "$tokens" $pair/base $pair/chat "$conf"
    # The same rows from a cache need the factors of the live run.
    norm=$BATS_FILE_TMPDIR/live.norm.json
    sed "s,\"norm-sequences\": 50,\"norm\": \"$norm\"," "$conf" >"$BATS_FILE_TMPDIR/factors.json"
    pipelines/cache "$BATS_FILE_TMPDIR/acts.lz4" "$tokens" $pair/base $pair/chat \
        "$BATS_FILE_TMPDIR/factors.json" >"$BATS_FILE_TMPDIR/cache.out"
}

setup() {
    bats_require_minimum_version 1.5.0
}

# same_weights RUN: as the live run.
same_weights() {
    cmp "$1/step-90/cc.safetensors" "$BATS_FILE_TMPDIR/live/step-90/cc.safetensors"
    cmp "$1/step-90/optim.safetensors" "$BATS_FILE_TMPDIR/live/step-90/optim.safetensors"
}

@test "train leaves checkpoints, metrics and the factors" {
    run=$BATS_FILE_TMPDIR/live
    for step in 40 80 90; do
        [ -s "$run/step-$step/manifest.json" ]
    done
    [ "$(wc -l <"$run/metrics.jsonl")" -ge 1 ]
    grep -q '"base.blocks.2.hook_resid_pre"' "$run.norm.json"
}

@test "train leaves a folder alone that holds a run, and its factors" {
    local before
    before=$(sha256sum "$BATS_FILE_TMPDIR/live.norm.json" "$BATS_FILE_TMPDIR/live/metrics.jsonl")
    run pipelines/train "$BATS_FILE_TMPDIR/live" "$tokens" $pair/base $pair/chat "$BATS_FILE_TMPDIR/factors.json"
    [ "$status" -eq 64 ]
    [[ "$output" == *"holds a run"* ]]
    [ "$before" = "$(sha256sum "$BATS_FILE_TMPDIR/live.norm.json" "$BATS_FILE_TMPDIR/live/metrics.jsonl")" ]
}

@test "cache writes what lz4 and verify accept" {
    lz4 -tq "$BATS_FILE_TMPDIR/acts.lz4"
    "$CCPIPE_BIN/ccanalyze" verify "$BATS_FILE_TMPDIR/acts.lz4"
    [ -s "$BATS_FILE_TMPDIR/cache.out" ]
}

@test "retrain on the cache ends in the weights of the live pipe" {
    pipelines/retrain "$BATS_TEST_TMPDIR/run" "$BATS_FILE_TMPDIR/acts.lz4" "$conf"
    same_weights "$BATS_TEST_TMPDIR/run"
}

@test "retrain passes further options on" {
    pipelines/retrain "$BATS_TEST_TMPDIR/run" "$BATS_FILE_TMPDIR/acts.lz4" "$conf" --steps 3
    [ -s "$BATS_TEST_TMPDIR/run/step-3/manifest.json" ]
}

@test "two hosts over a FIFO end in the weights of the live pipe" {
    pipelines/two-hosts "$BATS_TEST_TMPDIR/run" "$tokens" $pair/base $pair/chat "$conf"
    same_weights "$BATS_TEST_TMPDIR/run"
}

# An ssh that runs the command here shows that what would be sent is a valid command.
@test "two hosts over ssh send a command that the other side can run" {
    mkdir "$BATS_TEST_TMPDIR/path"
    printf '#!/bin/sh\n[ "$1" = gpu1 ] || exit 64\nshift\nexec sh -c "$*"\n' >"$BATS_TEST_TMPDIR/path/ssh"
    chmod +x "$BATS_TEST_TMPDIR/path/ssh"
    PATH=$BATS_TEST_TMPDIR/path:$PATH HOST=gpu1 \
        pipelines/two-hosts "$BATS_TEST_TMPDIR/run" "$tokens" $pair/base $pair/chat "$conf"
    same_weights "$BATS_TEST_TMPDIR/run"
}

@test "resume takes up a stopped run, from the cache and live" {
    local run status
    for run in cached live; do
        status=0
        "$CCPIPE_BIN/shufbuf" --config "$conf" "$BATS_FILE_TMPDIR/acts.lz4" |
            head -c 20000000 |
            "$CCPIPE_BIN/cctrain" --config "$conf" --out "$BATS_TEST_TMPDIR/$run" || status=$?
        [ "$status" -eq 75 ]
        [ ! -e "$BATS_TEST_TMPDIR/$run/step-90" ]
    done
    pipelines/resume "$BATS_TEST_TMPDIR/cached" "$BATS_FILE_TMPDIR/acts.lz4" "$conf"
    same_weights "$BATS_TEST_TMPDIR/cached"
    pipelines/resume "$BATS_TEST_TMPDIR/live" "$tokens" $pair/base $pair/chat "$conf"
    same_weights "$BATS_TEST_TMPDIR/live"
}

@test "demo trains, prints its table and contexts, and writes the report" {
    sed 's/"steps": 90/"steps": 98/; s/"limit": 100, "epochs": 2/"epochs": 1, "limit": 200/; s/blocks.2/blocks.3/' \
        "$conf" >"$BATS_TEST_TMPDIR/conf.json"
    run --separate-stderr pipelines/demo "$BATS_TEST_TMPDIR/demo" "$BATS_TEST_TMPDIR/conf.json"
    echo "$output"
    [ "$status" -eq 0 ]
    [[ "$output" == *"51000 tokens that it has not seen:"* ]]
    [ "$(grep -cE '^(explained|L0|loss|latents|median).* -?[0-9.]+ +[0-9.]+$' <<<"$output")" -eq 8 ]
    grep -qE '^latents that are shared .* 1988$' <<<"$output"
    [ "$(grep -cE '^latent [0-9]+, R [01]\.[0-9]{3}$' <<<"$output")" -eq 6 ]
    [ "$(grep -c '^    .*«.*».*' <<<"$output")" -ge 6 ]
    grep -q '</html>' "$BATS_TEST_TMPDIR/demo/report.html"
}

@test "a pipeline without arguments prints its usage and exits 64" {
    local name
    for name in train cache retrain two-hosts resume; do
        run --separate-stderr "pipelines/$name"
        [ "$status" -eq 64 ]
        [[ "$stderr" == *"$name "* ]]
    done
}

@test "a pipeline's status is that of the stage that failed by itself" {
    run pipelines/train "$BATS_TEST_TMPDIR/run" "$tokens" "$BATS_TEST_TMPDIR/nowhere" $pair/chat "$conf"
    [ "$status" -eq 64 ]
}
