# Sourced by the pipelines: where the tools are, and what a pipeline says when it fails.
# shellcheck shell=bash

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(dirname "$here")

# The tools of this checkout, or the installed ones.
bin=${CCPIPE_BIN:-$top/bin}
if [ -x "$bin/tokstream" ]; then
    PATH=$bin:$PATH
elif ! command -v tokstream >/dev/null; then
    echo "$(basename "$0"): no tools in '$bin' or on the PATH; run 'make' first" >&2
    exit 64
fi

# usage FILE: the comment at the head of a pipeline is its help.
usage() {
    sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$1"
}

# A pipeline's status is that of the first stage that failed for a reason of its own: 66 and 75 only tell that
# another stage ended early. Called with "${PIPESTATUS[@]}".
worst_status() {
    local status worst=0
    for status in "$@"; do
        case $status in
        0) ;;
        66 | 75) [ "$worst" -ne 0 ] || worst=$status ;;
        *) echo "$status"; return ;;
        esac
    done
    echo "$worst"
}

# factors_of RUN: the factors that its rows were made with, in the form of actgen --norm.
factors_of() {
    ccanalyze info "$1" | awk -F '\t' '
        $1 ~ /^sources\.[0-9]+\.name$/ { name = $2 }
        $1 ~ /^sources\.[0-9]+\.scale$/ { printf "%s\"%s\": %s", n++ ? ", " : "{", name, $2 }
        END { if (!n) exit 1; print "}" }'
}
