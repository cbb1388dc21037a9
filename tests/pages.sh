# How the tests of the pages are run. For scripts to source, in the project's directory.

# A name as a pattern for the tests of the pages, which have titles: `f54_` is "F54: …" there.
pattern() {
    printf '%s' "$1" | sed 's/[][\.*^$+?(){}|/]/\\&/g; s/_/[^a-z0-9]+/g'
}

# The files of a suite that have tests of these names.
files_with() {
    directory=$1
    shift
    for name; do
        grep -liE "^ *(await )?(t\.)?test\(.*$(pattern "$name")" "$directory"/*.test.mjs || true
    done | sort -u
}

# Runs a suite of the pages' tests: all of it, or the tests that have these names.
page_tests() {
    suite=$1 directory=$2
    shift 2
    if [ $# -eq 0 ]; then
        (cd "$suite" && npm ci --no-audit --no-fund && npm test)
        return
    fi
    files=$(files_with "$suite/$directory" "$@")
    [ -n "$files" ] || return 0
    for name; do
        shift
        set -- "$@" --test-name-pattern="/$(pattern "$name")/i"
    done
    files=$(printf '%s\n' "$files" | sed "s|^$suite/||")
    # shellcheck disable=SC2086 # no file of ours has a blank in its name
    (cd "$suite" && npm ci --no-audit --no-fund && node --test "$@" $files)
}

all_page_tests() {
    page_tests contrib/wstelnet test "$@" && page_tests tests/browser . "$@"
}
