#!/bin/sh
# verify-log.sh FILE [RUN]: follows the hash chain of an orchgit event log. Exit 0: it holds. 1: it does not, and where.
#
# POSIX sh and coreutils alone; shares no code with orchgit, whose `log.chain` it must agree with. The rules:
#   no byte is zero; the file ends in a newline, and is not empty; line n, from 0, begins {"v":<digits>,"seq":<n>,"run":"<run>",
#   and ends ,"prev":"<64 hex>","hash":"<64 hex>"}; hash is SHA-256 of the line before ,"hash":" ; prev is the hash of the
#   line before, 64 zeros at first; the run is RUN, or else that of the first line.
# From a clone: git cat-file blob refs/orchgit/runs/RUN:events.jsonl > FILE
set -u
LC_ALL=C
export LC_ALL
file=${1:?usage: verify-log.sh FILE [RUN]}
run=${2:-}

no() {
    echo "$1"
    exit 1
}
hex() { # 64 lower-case hexadecimal digits
    case $1 in *[!0-9a-f]*) return 1 ;; esac
    [ "${#1}" -eq 64 ]
}

[ -r "$file" ] || { echo "verify-log.sh: cannot read $file" >&2; exit 2; }
[ -s "$file" ] || no "event 0: there is not one event"
[ "$(tr -d '\000' <"$file" | wc -c)" -eq "$(wc -c <"$file")" ] || no "a byte is zero"
[ "$(tail -c 1 "$file" | wc -l)" -eq 1 ] || no "the last line is not whole"

dir=$(mktemp -d) || exit 2
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM
prev=0000000000000000000000000000000000000000000000000000000000000000
n=0
: >"$dir/sums"
while IFS= read -r line; do
    # What a line must be is built and compared, never searched for: nothing in it can be taken for something else.
    rest=${line#'{"v":'}
    version=${rest%%,*}
    case $version in '' | *[!0-9]*) no "event $n: not in the form of a line of the log" ;; esac
    rest=${rest#"$version,\"seq\":"}
    seq=${rest%%,*}
    rest=${rest#"$seq,\"run\":\""}
    of=${rest%%\"*}
    case $seq in '' | *[!0-9]*) no "event $n: not in the form of a line of the log" ;; esac
    case $of in '' | *[!A-Za-z0-9._-]*) no "event $n: not in the form of a line of the log" ;; esac
    run=${run:-$of}
    begin="{\"v\":$version,\"seq\":$n,\"run\":\"$run\","
    case $line in "$begin"*) ;; *) no "event $n: its seq or its run is not the one due here" ;; esac
    digest=${line##*',"hash":"'}
    digest=${digest%'"}'}
    hex "$digest" || no "event $n: not in the form of a line of the log"
    head=${line%",\"hash\":\"$digest\"}"}
    [ "$head" != "$line" ] || no "event $n: not in the form of a line of the log"
    [ "${#head}" -ge "$((${#begin} + 74))" ] || no "event $n: not in the form of a line of the log"
    case $head in *",\"prev\":\"$prev\"") ;; *) no "event $n: its prev is not the hash of the line before" ;; esac
    printf '%s' "$head" >"$dir/$n" || exit 2
    echo "$digest  $n" >>"$dir/sums"
    prev=$digest
    n=$((n + 1))
done <"$file"
bad=$(cd "$dir" && sha256sum --check --quiet sums 2>/dev/null | head -n 1)
[ -z "$bad" ] || no "event ${bad%%:*}: the hash is not that of the line"
echo "$n events, the chain holds: $prev"
