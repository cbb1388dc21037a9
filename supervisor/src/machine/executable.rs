//! The executable that runs when a program is started: the file that its name leads to, and where that is a script, the
//! interpreter that its first line names, as the kernel chooses it. Reads files only, reports nothing of those that it
//! cannot read, and knows no engine. Does not see what a script starts later.

mod bounded;

use std::ffi::OsStr;
use std::fmt;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use object::elf::{DT_SONAME, FileHeader32, FileHeader64, SHT_DYNSYM};
use object::read::elf::{Dyn, FileHeader, ProgramHeader, Sym};
use object::{Endianness, FileKind, ReadCache};

use super::search_path;
use bounded::{Bounded, Budget};

/// An ELF file that the kernel runs.
#[derive(Debug)]
pub(crate) struct Executable {
    pub(crate) path: PathBuf,
    pub(crate) metadata: Metadata,
    pub(crate) machine: Option<Machine>,
    pub(crate) image: ElfFile,
    /// The interpreters that lead to it: that of a script, that interpreter's own if it is a script too, and so on; the
    /// last is this file.
    pub(crate) interpreters: Vec<PathBuf>,
}

/// Class and byte order, and machine, of an ELF header.
pub(crate) type Machine = ([u8; 2], [u8; 2]);

/// The dynamic linker, or what a script's first line names, is not there: `exec()` fails with `ENOENT`
/// although the program exists. Displayed behind the program's name, it makes one line that says what to
/// do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MissingInterpreter(PathBuf);

impl fmt::Display for MissingInterpreter {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Quoted and escaped: a carriage return is the usual culprit.
        let path = self.0.to_string_lossy();
        write!(out, "needs the interpreter {path:?}, which does not exist: install it")
    }
}

/// How many scripts the kernel lets run one another (`BINPRM_MAX_RECURSION`).
const MAX_SCRIPTS: u32 = 5;
/// How many bytes the kernel reads of a script's first line.
const FIRST_LINE: u64 = 256;

/// What runs as `program`, which is looked up in `path_env` as `execvp()` does; `None` if nothing is
/// known of it, and if there is no such program.
///
/// # Errors
///
/// The program is there, and its interpreter is not.
pub(crate) fn find(
    program: &OsStr,
    path_env: Option<&OsStr>,
) -> Result<Option<Executable>, MissingInterpreter> {
    match search_path::find(program, path_env) {
        Some(path) => follow(path, path_env, MAX_SCRIPTS),
        None => Ok(None),
    }
}

fn follow(
    path: PathBuf,
    path_env: Option<&OsStr>,
    scripts: u32,
) -> Result<Option<Executable>, MissingInterpreter> {
    let Some((metadata, file, start)) = open(&path) else { return Ok(None) };
    if let Some(line) = start.strip_prefix(b"#!") {
        let scripts = scripts.checked_sub(1);
        return scripts.map_or(Ok(None), |scripts| follow_script(line, path_env, scripts));
    }
    let Some(image) = ElfFile::read(file) else { return Ok(None) };
    if let Some(linker) = image.interpreter.as_ref().filter(|linker| !linker.exists()) {
        return Err(MissingInterpreter(linker.clone()));
    }
    let machine = machine(&start);
    Ok(Some(Executable { path, metadata, machine, image, interpreters: vec![] }))
}

/// A regular file and its beginning.
fn open(path: &Path) -> Option<(Metadata, File, Vec<u8>)> {
    let metadata = path.metadata().ok().filter(Metadata::is_file)?;
    let file = File::open(path).ok()?;
    let mut start = Vec::new();
    (&file).take(FIRST_LINE).read_to_end(&mut start).ok()?;
    Some((metadata, file, start))
}

/// `line` is what follows `#!`: an interpreter, and perhaps one argument.
fn follow_script(
    line: &[u8],
    path_env: Option<&OsStr>,
    scripts: u32,
) -> Result<Option<Executable>, MissingInterpreter> {
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let mut words = line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
    let Some(word) = words.next() else { return Ok(None) };
    let mut interpreter = PathBuf::from(OsStr::from_bytes(word));
    if !interpreter.exists() {
        return Err(MissingInterpreter(interpreter));
    }
    if interpreter.file_name() == Some(OsStr::new("env")) {
        let mut words = words.skip_while(|word| *word == b"-S" || word.contains(&b'='));
        let name = words.next().filter(|word| !word.starts_with(b"-"));
        let Some(name) = name.map(OsStr::from_bytes) else { return Ok(None) };
        let found = search_path::find(name, path_env);
        interpreter = found.ok_or_else(|| MissingInterpreter(name.into()))?;
    }
    let mut found = follow(interpreter.clone(), path_env, scripts)?;
    if let Some(executable) = &mut found {
        executable.interpreters.insert(0, interpreter);
    }
    Ok(found)
}

pub(crate) fn machine(header: &[u8]) -> Option<Machine> {
    let field = |at| header.get(at..)?.first_chunk::<2>().copied();
    Some((field(4)?, field(18)?))
}

/// What an ELF file says of itself.
#[derive(Debug)]
pub(crate) struct ElfFile {
    pub(crate) interpreter: Option<PathBuf>,
    /// It has a name that others link with (`DT_SONAME`).
    pub(crate) library: bool,
    /// Linked by Go's own linker.
    pub(crate) go: bool,
    pub(crate) imports_bind: bool,
}

impl ElfFile {
    /// Reads as little as it needs: programs may be of any size. `None` also if it would have to read very much, which
    /// no program needs that a linker has made.
    fn read(file: File) -> Option<ElfFile> {
        let (file, budget) = (&ReadCache::new(file), &Budget::new());
        let data = Bounded { file, budget };
        let image = match FileKind::parse(data).ok()? {
            FileKind::Elf32 => ElfFile::parse::<FileHeader32<Endianness>>(data).ok(),
            FileKind::Elf64 => ElfFile::parse::<FileHeader64<Endianness>>(data).ok(),
            _ => None,
        };
        image.filter(|_| !budget.is_exceeded())
    }

    fn parse<Header: FileHeader<Endian = Endianness>>(
        data: Bounded<'_>,
    ) -> object::read::Result<ElfFile> {
        let header = Header::parse(data)?;
        let endian = header.endian()?;
        let mut image =
            ElfFile { interpreter: None, library: false, go: false, imports_bind: false };
        for segment in header.program_headers(endian, data)? {
            if let Some(path) = segment.interpreter(endian, data)? {
                image.interpreter = Some(OsStr::from_bytes(path).into());
            }
            let entries = segment.dynamic(endian, data)?.unwrap_or_default();
            image.library |= entries.iter().any(|entry| entry.tag(endian) == DT_SONAME);
        }
        let sections = header.sections(endian, data)?;
        image.go = sections.section_by_name(endian, b".go.buildinfo").is_some();
        if image.go {
            let symbols = sections.symbols(endian, data, SHT_DYNSYM)?;
            image.imports_bind = symbols.iter().any(|symbol| {
                symbol.is_undefined(endian) && symbols.symbol_name(endian, symbol) == Ok(b"bind")
            });
        }
        Ok(image)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs::{self, Permissions};
    use std::io::ErrorKind;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use tempfile::TempDir;

    use super::*;
    use crate::skip::skip;

    /// The exit status of this program says whether the kernel started it in secure mode (`AT_SECURE`).
    const SOURCE: &str = r#"
        #include <sys/auxv.h>
        #include <sys/socket.h>
        #ifdef GO
        __attribute__((section(".go.buildinfo"))) const char info[32] = "go";
        #endif
        int main(int argc, char **argv)
        {
        #ifdef BIND
            bind(argc, 0, 0);
        #endif
            (void)argc, (void)argv;
            return getauxval(AT_SECURE);
        }"#;

    /// A directory with programs for a test.
    pub(crate) struct Programs(pub(crate) TempDir);

    impl Programs {
        pub(crate) fn new() -> Programs {
            Programs(TempDir::new().unwrap())
        }

        pub(crate) fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        pub(crate) fn script(&self, name: &str, text: &str) -> PathBuf {
            let path = self.path(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
            path
        }

        /// `None` if there is no compiler; in CI there must be one.
        #[expect(clippy::disallowed_methods, reason = "tests have no reaper")]
        pub(crate) fn compiled(&self, name: &str, options: &[&str]) -> Option<PathBuf> {
            let source = self.path("program.c");
            fs::write(&source, SOURCE).unwrap();
            let program = self.path(name);
            let mut gcc = Command::new("gcc");
            match gcc.args(options).arg("-o").arg(&program).arg(&source).status() {
                Ok(status) => assert!(status.success(), "{gcc:?}"),
                Err(error) => {
                    skip(&format!("{error}: not installed: gcc"));
                    return None;
                }
            }
            Some(program)
        }
    }

    fn lacking(path: &Path) -> Option<MissingInterpreter> {
        find(path.as_os_str(), None).err()
    }

    /// W12: an interpreter that is missing is named, where `exec()` says only that
    /// something does not exist.
    #[test]
    fn w12_missing_interpreters() {
        let programs = Programs::new();
        let missing = |path: &str| Some(MissingInterpreter(path.into()));
        let absent = programs.script("absent", "#! /no/such/sh -e\n");
        assert_eq!(lacking(&absent), missing("/no/such/sh"));
        let dos = programs.script("dos", "#!/bin/sh\r\necho\r\n");
        assert_eq!(lacking(&dos), missing("/bin/sh\r"));
        let outer = programs.script("outer", &format!("#!{}\n", absent.display()));
        assert_eq!(lacking(&outer), missing("/no/such/sh"));
        let by_env = programs.script("env", "#!/usr/bin/env no-such-python\n");
        assert_eq!(lacking(&by_env), missing("no-such-python"));
        let linker = "-Wl,--dynamic-linker=/no/such/ld.so";
        let mut failing = vec![absent, dos, outer];
        if let Some(program) = programs.compiled("linker", &[linker]) {
            assert_eq!(lacking(&program), missing("/no/such/ld.so"));
            failing.push(program);
        }
        for program in failing {
            // A child that another test forked may still hold the file open for writing.
            let error = std::iter::repeat_with(|| Command::new(&program).spawn().unwrap_err())
                .find(|error| error.kind() != ErrorKind::ExecutableFileBusy);
            let kind = error.map(|error| error.kind());
            assert_eq!(kind, Some(ErrorKind::NotFound), "{}", program.display());
        }
    }

    /// W12: of a file that another user has made, little is read, whatever its headers say.
    #[test]
    fn w12_headers_that_name_gigabytes_are_refused_at_once() {
        const HEADERS: u16 = 73;
        const SIZE: u64 = 3 << 30;
        let programs = Programs::new();
        let mut bytes = fs::read("/proc/self/exe").unwrap()[..64].to_vec();
        assert_eq!(bytes[4], 2, "64 bits");
        // e_phoff, e_shoff; e_phentsize, e_phnum; e_shnum, e_shstrndx.
        bytes[32..40].copy_from_slice(&64_u64.to_ne_bytes());
        bytes[40..48].fill(0);
        bytes[54..56].copy_from_slice(&56_u16.to_ne_bytes());
        bytes[56..58].copy_from_slice(&HEADERS.to_ne_bytes());
        bytes[60..64].fill(0);
        for nth in 0..u64::from(HEADERS) {
            // PT_DYNAMIC; p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align.
            bytes.extend([2_u32, 4].iter().flat_map(|word| word.to_ne_bytes()));
            let words = [nth * 16, 0, 0, SIZE - (1 << 20), 0, 8];
            bytes.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        }
        let path = programs.path("sparse");
        fs::write(&path, &bytes).unwrap();
        let image = || ElfFile::read(File::open(&path).unwrap());
        assert!(image().is_none(), "the headers name more than there is");
        File::options().write(true).open(&path).unwrap().set_len(SIZE).unwrap();
        let began = std::time::Instant::now();
        assert!(image().is_none());
        assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
        // The same file with headers that name little is read.
        let small = bytes.len() - usize::from(HEADERS) * 56;
        for nth in 0..usize::from(HEADERS) {
            let at = small + nth * 56 + 32;
            bytes[at..at + 8].copy_from_slice(&16_u64.to_ne_bytes());
        }
        fs::write(&path, &bytes).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(SIZE).unwrap();
        assert!(image().is_some_and(|image| !image.library));
    }

    #[test]
    fn w12_says_what_to_do_about_an_interpreter() {
        let text = MissingInterpreter("/bin/sh\r".into()).to_string();
        assert!(text.contains(r#""/bin/sh\r", which"#) && !text.contains(['\n', '\r']), "{text}");
        assert!(text.starts_with(|first: char| first.is_ascii_lowercase()), "{text}");
    }
}
