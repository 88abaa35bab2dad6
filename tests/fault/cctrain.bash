# Helpers of the cctrain tests: streams of rows made of digits, and comparisons of runs.
# shellcheck shell=bash

set -o pipefail
BIN=${BIN:-bin}

# shellcheck disable=SC2034  # for those who load this
# A recipe that is small, quick, and in which everything moves.
RECIPE=(--latents 40 --batch 32 --lr 3e-3 --l1 0.1 --lr-warmup 7)

cctrain() {
    "$BIN/cctrain" "$@"
}

# pack_rows N SEED FILE [ARGUMENT...]: a stream of N rows, 512 and 256 values of sources a.x and b.x, 341 rows to a
# record. Two digits are a float16 between 0.12 and 0.7, so that awk can write them.
pack_rows() {
    local n=$1 seed=$2 file=$3
    {
        printf '\x93NUMPY\x01\x00\x76\x00'
        printf '%-117s\n' "{'descr': '<f2', 'fortran_order': False, 'shape': ($n, 768), }"
        awk -v n="$((n * 384))" -v x="$seed" 'BEGIN {
            for (i = 0; i < n; i++) { x = (x * 69069 + 1) % 2147483648; printf "%04d", int(x / 32768) % 10000 } }'
    } >"$file.npy"
    "$BIN/ccanalyze" pack "$file.npy" --source a.x:512 --source b.x:256 -o "$file" "${@:4}"
    rm "$file.npy"
}

# same_weights A B: both runs end in the same bytes.
same_weights() {
    local a b
    a=$(newest "$1") b=$(newest "$2")
    [ "${a##*/}" = "${b##*/}" ] && cmp "$a/cc.safetensors" "$b/cc.safetensors" &&
        cmp "$a/optim.safetensors" "$b/optim.safetensors"
}

# newest RUN: its highest step folder.
newest() {
    local steps=("$1"/step-*[0-9])
    printf '%s\n' "${steps[@]}" | sort -V | tail -n 1
}

# steps RUN: the numbers of its step folders, in order, on one line.
steps() {
    local step
    for step in "$1"/step-*; do
        echo "${step##*/step-}"
    done | sort -V | tr '\n' ' '
}

# figures KEY FILE: its values in a file of metrics, one a line.
figures() {
    grep -oE "\"$1\": ?[-+.0-9e]+" "$2" | grep -oE '[-+.0-9e]+$'
}

# lines_alike A B: the same metrics but for what depends on time.
lines_alike() {
    local timeless='s/"(rows_per_s|wait_fraction)":[^,}]*//g'
    cmp <(sed -E "$timeless" "$1") <(sed -E "$timeless" "$2")
}

# Waits up to 20 s for a condition.
eventually() {
    for _ in $(seq 200); do
        if "$@"; then return 0; fi
        sleep 0.1
    done
    return 1
}
