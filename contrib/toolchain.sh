# What a build needs, looked for before minutes are spent on it. For scripts to source, in the project's directory.

# Ends the script, whose name is given, where there is no Rust or one that is too old.
needs_rust() {
    least=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    found=$(cargo --version 2>/dev/null | cut -d ' ' -f 2)
    oldest=$(printf '%s\n' "$least" "$found" | sort -V | head -n 1)
    [ "$oldest" = "$least" ] && return
    echo "$1: this needs Rust $least or newer, and there is ${found:-none} here. Debian's own is too old:" \
        "https://rustup.rs has a newer one, for you alone" >&2
    exit 1
}

# The same for the C compiler, which links as well, and the C library's headers.
needs_c() {
    command -v cc >/dev/null && [ -e /usr/include/stdio.h ] && return
    echo "$1: this needs a C compiler: apt-get install gcc libc6-dev" >&2
    exit 1
}
