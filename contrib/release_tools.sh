# What contrib/release builds with, fetched by the ordinary clients into a directory of its own: nothing is installed, and
# root is not needed. maturin, zig and cargo-zigbuild are from PyPI; where the Rust that is there has not all targets
# (`rustup target add` would change it), Debian has one. For scripts to source, in the project's directory, with $tools absolute.

musl=x86_64-unknown-linux-musl
targets="x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu $musl"
# These versions are part of what makes two builds the same.
from_pypi='maturin==1.16.0 cargo-zigbuild==0.24.1 ziglang==0.17.1'

# maturin, cargo-zigbuild and zig; cargo-deb. Their caches stay with them.
fetch_programs() {
    export PATH="$tools/python/bin:$tools/cargo/bin:$PATH"
    export CARGO_ZIGBUILD_CACHE_DIR="$tools/cache" ZIG_GLOBAL_CACHE_DIR="$tools/cache/zig" ZIG_LOCAL_CACHE_DIR="$tools/cache/zig"
    python3 -m venv "$tools/python" || fail "this needs Python's venv: apt-get install python3-venv"
    # shellcheck disable=SC2086 # a list
    pip install --quiet $from_pypi
    cargo deb --version >/dev/null 2>&1 || cargo install --quiet --locked --root "$tools/cargo" cargo-deb
}

# Rust for all targets: the one that is there, if it has them, or else Debian's, as $RUSTC.
fetch_rust() {
    for target in $targets; do
        [ -d "$(rustc --print target-libdir --target "$target")" ] || missing=$target
    done
    [ -n "${missing-}" ] || return 0
    if [ ! -e "$tools/rust/done" ]; then
        debian_rust
        musl_library
        touch "$tools/rust/done"
    fi
    export RUSTC="$tools/rust/rustc"
}

# Runs apt-get or apt-cache with package lists of our own, which know the packages of both architectures.
apart() {
    mkdir -p "$tools/apt/lists/partial" "$tools/apt/archives/partial" "$tools/apt/packages"
    program=$1
    shift
    (
        cd "$tools/apt/packages"
        "$program" -qq -o "Dir::State=$tools/apt" -o Dir::State::status=/dev/null -o "Dir::Cache=$tools/apt" \
            -o APT::Architectures::=amd64 -o APT::Architectures::=arm64 -o APT::Sandbox::User= "$@"
    )
}

# Fetches Debian packages, and unpacks them into a directory.
unpack() {
    into=$1
    shift
    apart apt-get download "$@"
    for file in "$tools"/apt/packages/*.deb; do
        dpkg-deb --extract "$file" "$into"
        rm "$file"
    done
}

# Debian's Rust, whichever of its packages is new enough, with the libraries of both architectures.
debian_rust() {
    least=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    rust=$tools/rust
    rm -rf "$rust"
    apart apt-get update
    offered=
    for kind in -web ''; do
        offered=$(apart apt-cache show --no-all-versions "rustc$kind" 2>/dev/null | sed -n 's/^Version: //p' | head -n 1)
        [ "$(printf '%s\n' "$least" "$offered" | sort -V | head -n 1)" = "$least" ] && break
        offered=
    done
    [ -n "$offered" ] || fail "neither the Rust that is here nor Debian's, of version $least or newer, has the targets $targets"
    echo "contrib/release: building with Debian's rustc$kind $offered"
    # A C library is there, and the compiler's own.
    needed=$(apart apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
        --no-replaces --no-enhances "libstd-rust$kind-dev" | grep '^[a-z]' | grep -vE '^(libc6|libgcc|libstdc|gcc)')
    # shellcheck disable=SC2086 # a list
    unpack "$rust" "rustc$kind" "rust$kind-src" "libstd-rust$kind-dev:arm64" $needed
    # What is looked up beside the compiler is there, what the loader looks up is not.
    cat >"$rust/rustc" <<-END
		#!/bin/sh
		LD_LIBRARY_PATH='$rust/usr/lib/x86_64-linux-gnu' exec '$rust/usr/bin/rustc' "\$@"
	END
    chmod +x "$rust/rustc"
}

# The standard library for musl, which Debian has as source alone. It uses what is unstable.
musl_library() {
    source=$(echo "$rust"/usr/src/rustc-*/library)
    library=$rust/usr/lib/rustlib/$musl/lib
    (
        export RUSTC="$rust/rustc" RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="$rust/musl"
        # With bitcode, for what links it with lto.
        export RUSTFLAGS="-C embed-bitcode=yes -C force-unwind-tables=yes -C link-self-contained=no -Z force-unstable-if-unmarked"
        cd "$source"
        cargo zigbuild --quiet --release --locked --target "$musl" --package sysroot --features panic-unwind
    )
    mkdir -p "$library"
    cp "$rust/musl/$musl"/release/deps/*.rlib "$library"
    rm -r "$rust/musl"
}
