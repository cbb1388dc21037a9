//! Compiles `rebind.so`, so that the binary can carry it (R5): by `rustc` alone,
//! because it must abort on panic and go without the standard library, while the
//! workspace unwinds; or takes one that is there. Knows the compiler's command line and no code.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const SOURCES: &str = "../rebind/src";

/// Names a `rebind.so` that is built already. One for glibc names libraries that musl takes for itself, so it
/// serves a static binary better than one for musl, which programs of an old glibc cannot load.
const BUILT: &str = "WEBSOCKIFY_REBIND";

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={SOURCES}");
    println!("cargo::rerun-if-env-changed={BUILT}");
    let library = match env::var_os(BUILT) {
        Some(built) => take(Path::new(&built)),
        None => compile(&Path::new(SOURCES).join("lib.rs")),
    };
    match library.and_then(|library| publish(&library)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            println!("cargo::error=cannot build rebind.so: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn take(built: &Path) -> Result<PathBuf, String> {
    println!("cargo::rerun-if-changed={}", built.display());
    let library = PathBuf::from(variable("OUT_DIR")?).join("rebind.so");
    let copied = std::fs::copy(built, &library);
    copied.map(|_| library).map_err(|error| format!("{}: {error}", built.display()))
}

/// Cargo runs this in the package's directory, and says the rest in the
/// environment.
#[expect(clippy::disallowed_methods, reason = "a build script has no other children to reap")]
fn compile(source: &Path) -> Result<PathBuf, String> {
    let rustc = variable("RUSTC")?;
    let library = PathBuf::from(variable("OUT_DIR")?).join("rebind.so");
    let mut command = Command::new(&rustc);
    command
        .args(["--crate-name", "rebind", "--crate-type", "cdylib", "--edition", "2024"])
        .args(["-C", "panic=abort", "-C", "opt-level=s", "-C", "codegen-units=1", "-C", "lto"])
        // Musl targets cannot build a shared library otherwise.
        .args(["-C", "strip=symbols", "-C", "target-feature=-crt-static"])
        .arg("--target")
        .arg(variable("TARGET")?)
        .arg("-o")
        .arg(&library)
        .arg(source);
    // From the configuration or CARGO_TARGET_*_LINKER; cargo has looked it up.
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut option = OsString::from("linker=");
        option.push(linker);
        command.arg("-C").arg(option);
    }
    match command.status() {
        Ok(status) if status.success() => Ok(library),
        Ok(status) => Err(format!("{} failed ({status})", rustc.display())),
        Err(error) => Err(format!("{}: {error}", rustc.display())),
    }
}

/// Copies the library beside the binary, where packages take both from. Cargo has no name for that
/// directory; `OUT_DIR` is in it, in `build/websockify-HASH/out`.
fn publish(library: &Path) -> Result<(), String> {
    let mut above = library.ancestors().skip(3);
    if above.next().and_then(Path::file_name) != Some("build".as_ref()) {
        return Ok(());
    }
    let Some(beside) = above.next() else { return Ok(()) };
    let copied = std::fs::copy(library, beside.join("rebind.so"));
    copied.map(drop).map_err(|error| error.to_string())
}

fn variable(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or_else(|| format!("{name} is not set"))
}
