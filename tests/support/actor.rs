//! A program to wrap that does what its arguments say (`actor.c`), built by the system's C compiler.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/support/actor.c");

static DYNAMIC: LazyLock<PathBuf> = LazyLock::new(|| compile(SOURCE, "actor", &[]));
static STATIC: LazyLock<PathBuf> = LazyLock::new(|| compile(SOURCE, "actor-static", &["-static"]));

/// The program; displayed, it is its path, ready for a command line.
pub(crate) struct Actor;

impl AsRef<Path> for Actor {
    fn as_ref(&self) -> &Path {
        &DYNAMIC
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        DYNAMIC.display().fmt(f)
    }
}

/// The same program without a dynamic linker.
pub(crate) fn static_actor() -> &'static str {
    STATIC.to_str().unwrap()
}

/// The same program, built with musl-gcc, which must be installed.
pub(crate) fn musl_actor(name: &str, options: &[&str]) -> PathBuf {
    let options = [&["-O1"], options].concat();
    compile_with("musl-gcc", SOURCE, name, &options)
}

/// A library to be preloaded, from the file of this name beside this one.
pub(crate) fn compile_library(name: &str) -> PathBuf {
    let source = format!("{}/../tests/support/{name}.c", env!("CARGO_MANIFEST_DIR"));
    compile(&source, &format!("{name}.so"), &["-shared", "-fPIC", "-ldl"])
}

/// Compiles a C program. The finished file is renamed into its place, because another test run may build the same
/// program at the same time.
pub(crate) fn compile(source: &str, name: &str, options: &[&str]) -> PathBuf {
    let options = [&["-Wall", "-Werror", "-O1", "-pthread"], options].concat();
    compile_with("cc", source, name, &options)
}

fn compile_with(compiler: &str, source: &str, name: &str, options: &[&str]) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let unfinished = directory.join(format!("{name}-{}", std::process::id()));
    let mut compiler = Command::new(compiler);
    compiler.arg(source).arg("-o").arg(&unfinished).args(options);
    assert!(compiler.status().unwrap().success(), "cannot compile {source}");
    let finished = directory.join(name);
    std::fs::rename(unfinished, &finished).unwrap();
    finished
}
