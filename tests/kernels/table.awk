# Kernel × row: how many of a row's tests have passed, of how many if it is not all; and the names of those that have not.
# Arguments are the kernels, whose results (run) are in KERNEL.out. A test's rows begin its name.

function rows_of(name, rows,    parts, count, at) {
    sub(/.*::/, "", name)
    count = split(name, parts, "_")
    for (at = 1; at <= count && parts[at] ~ /^[a-z][1-9][0-9]?$/; at++) rows[at] = toupper(parts[at])
    return at - 1
}

function note(kernel, name, passed,    rows, count, at) {
    if (!passed) others[++other_count] = kernel "  " name (name in why ? "  " why[name] : "")
    count = rows_of(name, rows)
    for (at = 1; at <= count; at++) {
        if (!(rows[at] in seen)) { seen[rows[at]]; order[++row_count] = rows[at] }
        ran[kernel, rows[at]]++
        passes[kernel, rows[at]] += passed
    }
}

# "W4" before "W12".
function comes_before(one, other) {
    if (substr(one, 1, 1) != substr(other, 1, 1)) return substr(one, 1, 1) < substr(other, 1, 1)
    return substr(one, 2) + 0 < substr(other, 2) + 0
}

function sort_rows(    at, back, row) {
    for (at = 2; at <= row_count; at++) {
        row = order[at]
        for (back = at - 1; back >= 1 && comes_before(row, order[back]); back--) order[back + 1] = order[back]
        order[back + 1] = row
    }
}

function read_results(kernel,    directory, line, words) {
    directory = kernel ".out/"
    getline title[kernel] < (directory "version")
    sub(/-.*/, "", title[kernel])
    split("", why)
    while ((getline line < (directory "skipped")) > 0) {
        split(line, words, ": ")
        why[words[1]] = "skipped: " substr(line, length(words[1]) + 3)
    }
    while ((getline line < (directory "log")) > 0)
        if (line ~ /^test [^ ]*::[^ ]* \.\.\. (ok|FAILED)$/) {
            split(line, words, " ")
            note(kernel, words[2], words[4] == "ok" && !(words[2] in why))
        }
}

BEGIN {
    for (at = 1; at < ARGC; at++) read_results(ARGV[at])
    sort_rows()
    printf "%-5s", ""
    for (at = 1; at < ARGC; at++) printf "%12s", title[ARGV[at]]
    print ""
    for (row = 1; row <= row_count; row++) {
        printf "%-5s", order[row]
        for (at = 1; at < ARGC; at++) {
            count = ran[ARGV[at], order[row]] + 0
            passed = passes[ARGV[at], order[row]] + 0
            printf "%12s", count == 0 ? "-" : passed == count ? count : passed " of " count
        }
        print ""
    }
    for (at = 1; at <= other_count; at++) print others[at]
}
