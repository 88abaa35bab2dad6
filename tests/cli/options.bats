# What the five tools have in common on the command line, and that help, man page, completion and parser
# agree: all come from one table.
# shellcheck disable=SC2154  # run sets stderr and stderr_lines

tools=(tokstream actgen shufbuf cctrain)
while read -r verb; do
    tools+=("ccanalyze $verb")
done < <("${BIN:-bin}/ccanalyze" --help | sed -n '/^usage:/d; s/^\([a-z]*\): .*/\1/p' | sort -u)

# tool WORDS...: the first word may be a program and a verb.
tool() {
    local words
    read -ra words <<<"$1"
    "${BIN:-bin}/${words[0]}" "${words[@]:1}" "${@:2}"
}

setup() {
    bats_require_minimum_version 1.5.0
    unset "${!CCPIPE_@}"
}

@test "help, man page and completion name the same options" {
    local name
    [ "${#tools[@]}" -gt 8 ]
    for name in "${tools[@]}"; do
        echo "$name"
        tool "$name" --help |
            sed -nE '/^options:$/,/^examples:$/s/^  (-., |    )--([a-z0-9-]+).*/--\2/p' |
            grep -vxE -- '--(help|version)' >"$BATS_TEST_TMPDIR/help"
        tool "$name" --man | sed -nE 's/^(\\fB\\-.\\fR, )?\\fB\\-\\-([^ ]*)\\fR.*/--\2/p' |
            sed 's/\\-/-/g' >"$BATS_TEST_TMPDIR/man"
        diff "$BATS_TEST_TMPDIR/help" "$BATS_TEST_TMPDIR/man"
        tool "$name" --completion | bash -n
        while read -r option; do
            tool "$name" --completion | grep -q -- "[ ']$option "
        done <"$BATS_TEST_TMPDIR/help"
        for option in --verbose --quiet --metrics --threads --config --plan; do
            grep -qx -- "$option" "$BATS_TEST_TMPDIR/help"
        done
    done
}

# completions LINE: what bash offers for its last word.
completions() {
    bash -c '
        source <("$1" --completion)
        read -ra COMP_WORDS <<<"$2"
        [[ $2 != *" " ]] || COMP_WORDS+=("")
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        "_ccpipe_${1##*/}" "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        echo "${COMPREPLY[*]}"' bash "${BIN:-bin}/${1%% *}" "$1"
}

@test "completion offers options, their words, and verbs with options of their own" {
    [ "$(completions "tokstream --sh")" = "--shuffle --shard" ]
    [ "$(completions "shufbuf --codec l")" = lz4 ]
    [ "$(completions "shufbuf --rows ")" = "" ]
    [ "$(completions "ccanalyze sal")" = salvage ]
    [ "$(completions "ccanalyze ver")" = verify ]
    [ "$(completions "ccanalyze top --min")" = --min-relative-norm ]
    [ "$(completions "ccanalyze freq run --dtype b")" = bf16 ]
    [ "$(completions "ccanalyze ce --")" = "" ]
}

@test "man pages and an installation are made, and run from elsewhere" {
    local root="$BATS_TEST_TMPDIR/root" page
    make -s -o all BIN="${BIN:-bin}" DESTDIR="$root" PREFIX=/usr install
    for page in tokstream ccanalyze ccanalyze-report ccanalyze-salvage; do
        grep -q "^\.SH NAME" "$root/usr/share/man/man1/$page.1"
    done
    [ "$(find "$root/usr/share/man/man1" -name 'ccanalyze-*.1' | wc -l)" -eq $((${#tools[@]} - 4)) ]
    cd /
    env -i PATH=/usr/bin "$root/usr/bin/ccanalyze" freq -q "$OLDPWD/tests/golden/analysis/exact/cc.safetensors" \
        "$OLDPWD/tests/golden/analysis/exact/rows" | grep -q '^index'
}

@test "help has examples" {
    local name
    for name in "${tools[@]}"; do
        echo "$name"
        tool "$name" --help | grep -q '^examples:$'
    done
}

@test "help fits into 80 columns, examples aside" {
    local name
    for name in "${tools[@]}"; do
        echo "$name"
        run ! grep -nE '^.{81}' <(tool "$name" --help | sed -n '3,/^examples:/p')
    done
}

@test "the version is one line on standard output" {
    local name
    for name in "${tools[@]}"; do
        run --separate-stderr tool "$name" --version
        [ "$status" -eq 0 ]
        [ "$output" = "$name 0.1.0 (ccpipe)" ]
        [ -z "$stderr" ]
    done
}

@test "an unknown option is 64 on one line that shows the way" {
    local name
    for name in "${tools[@]}"; do
        run --separate-stderr tool "$name" --qiet
        [ "$status" -eq 64 ]
        [ -z "$output" ]
        [ "${#stderr_lines[@]}" -eq 1 ]
        [[ "$stderr" == *"unknown option '--qiet' (is '--quiet' meant?); try '$name --help'" ]]
    done
}

@test "an option without its value, and a value without its option, are 64" {
    local name
    for name in "${tools[@]}"; do
        run --separate-stderr tool "$name" --threads
        [ "$status" -eq 64 ]
        [[ "$stderr" == *"'--threads' needs a value"* ]]
        run --separate-stderr tool "$name" --quiet=yes
        [ "$status" -eq 64 ]
        [[ "$stderr" == *"'--quiet' takes no value"* ]]
    done
}

@test "a file of options with an unknown key or section is 64 and named" {
    local name
    for name in "${tools[@]}"; do
        echo "{\"${name%% *}\": {\"no-such\": 1}}" >"$BATS_TEST_TMPDIR/key.json"
        run --separate-stderr tool "$name" --config "$BATS_TEST_TMPDIR/key.json"
        [ "$status" -eq 64 ]
        [[ "$stderr" == *"key.json', ${name%% *}.no-such: '$name' has no such option" ]]
        echo '{"trainer": {}}' >"$BATS_TEST_TMPDIR/section.json"
        CCPIPE_CONFIG=$BATS_TEST_TMPDIR/section.json run --separate-stderr tool "$name"
        [ "$status" -eq 64 ]
        [[ "$stderr" == *"section 'trainer' is of no tool"* ]]
    done
    echo '{"ccanalyze": {"norm": {"pair": "0,1"}, "norms": {"pair": "0,1"}}}' >"$BATS_TEST_TMPDIR/verb.json"
    run --separate-stderr tool "ccanalyze info" --config "$BATS_TEST_TMPDIR/verb.json" tests/golden/stream/empty.ccps
    [ "$status" -eq 64 ]
    [[ "$stderr" == *"verb.json', ccanalyze.norm: there is no such verb" ]]
}

@test "no tool empties a file that it reads, nor writes two things into one file" {
    local in="$BATS_TEST_TMPDIR/in" link="$BATS_TEST_TMPDIR/link" run="$BATS_TEST_TMPDIR/run" command
    cp tests/golden/stream/rows-bf16.lz4 "$in"
    ln -s in "$link"
    PATH=$(realpath "${BIN:-bin}"):$PATH
    export in link run
    for command in "shufbuf \$in -o \$in" "shufbuf -o \$link <\$in" "shufbuf \$in >>\$in" \
        "shufbuf --metrics \$in \$link" "cctrain --out \$run --metrics \$in \$in" \
        "ccanalyze dump \$in --npy \$link" "ccanalyze dump --tags \$link <\$in" \
        "ccanalyze pack --source a:1 \$in -o \$in" "ccanalyze salvage \$in -o \$link" \
        "tokstream \$in -o \$in" "actgen --model a=X --hook H \$in -o \$link" \
        "actgen --model a=X --hook H --norm-out \$in \$in"; do
        echo "$command"
        run bash -c "$command"
        [ "$status" -eq 64 ]
        [[ "$output" == *"are one file"* ]]
        cmp tests/golden/stream/rows-bf16.lz4 "$in"
    done
    run ccanalyze dump "$in" --npy "$in.x" --tags "$in.x"
    [ "$status" -eq 64 ]
    [ ! -e "$in.x" ]
    run --separate-stderr shufbuf "$in" -o - --metrics -
    [ "$status" -eq 64 ]
    [[ "$stderr" == *"are both '-'"* ]]
}

@test "a reader of help that goes away is no failure" {
    local name
    for name in "${tools[@]}"; do
        run bash -c "exec 3> >(:); wait \$!; '${BIN:-bin}/${name%% *}' ${name#"${name%% *}"} --help >&3"
        [ "$status" -eq 0 ]
        [[ "$output" == *"the reader of standard output went away"* ]]
    done
}

@test "standard output that cannot be written is 74" {
    local name
    for name in "${tools[@]}"; do
        run tool "$name" --help >/dev/null
        [ "$status" -eq 0 ]
        run bash -c "'${BIN:-bin}/${name%% *}' ${name#"${name%% *}"} --help >/dev/full"
        [ "$status" -eq 74 ]
        run bash -c "'${BIN:-bin}/${name%% *}' ${name#"${name%% *}"} --help >&-"
        [ "$status" -eq 74 ]
    done
}
