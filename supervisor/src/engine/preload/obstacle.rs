//! Why a program cannot be wrapped (W12): what keeps `rebind.so` out of it, or
//! keeps it from starting. Knows how the kernel and the dynamic linker choose
//! what to run; reads files only, and judges none that it cannot read. A script
//! that starts another program later is beyond it.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::prctl;
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{Gid, Uid, getgid, getuid};
use object::elf::{DT_SONAME, FileHeader32, FileHeader64, SHT_DYNSYM};
use object::read::elf::{Dyn, FileHeader, ProgramHeader, Sym};
use object::{Endianness, FileKind, ReadCache};

use super::unpacked::EMBEDDED;
use crate::host::search_path;

/// What stands between a program and `rebind.so`. Displayed behind the program's
/// name, it makes one line that says what to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// No dynamic linker is asked to load anything.
    StaticallyLinked,
    /// Its system calls do not pass the C library, even where it is there.
    Go,
    /// The dynamic linker ignores `LD_PRELOAD` in programs that change user or
    /// group when they start.
    SetUserId,
    /// The same for capabilities that a file gives and we do not have.
    FileCapabilities,
    /// The dynamic linker, or what a script's first line names, is not there:
    /// `exec()` fails with `ENOENT` although the program exists.
    MissingInterpreter(PathBuf),
    /// Our library is of another machine, or of another word size.
    ForeignArchitecture,
    /// The program is a script, and this is wrong with what runs it.
    Interpreter(PathBuf, Box<Obstacle>),
}

impl fmt::Display for Obstacle {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        const INSTEAD: &str = "start it by itself on another port on loopback and run \
                               'websockify PORT 127.0.0.1:OTHER'";
        match self {
            Obstacle::StaticallyLinked => {
                write!(out, "is statically linked, so rebind.so cannot move its port: {INSTEAD}")
            }
            Obstacle::Go => write!(
                out,
                "is a Go program, which makes its system calls without the C library, so \
                 rebind.so cannot move its port: {INSTEAD}"
            ),
            Obstacle::SetUserId => write!(
                out,
                "is setuid or setgid, so the dynamic linker ignores rebind.so: run websockify \
                 as that user and group, or {INSTEAD}"
            ),
            Obstacle::FileCapabilities => write!(
                out,
                "has file capabilities, so the dynamic linker ignores rebind.so: run websockify \
                 as root, or {INSTEAD}"
            ),
            Obstacle::MissingInterpreter(path) => {
                // Quoted and escaped: a carriage return is the usual culprit.
                let path = path.to_string_lossy();
                write!(out, "needs the interpreter {path:?}, which does not exist: install it")
            }
            Obstacle::ForeignArchitecture => write!(
                out,
                "is built for another architecture than rebind.so, which cannot move its port: \
                 {INSTEAD}"
            ),
            Obstacle::Interpreter(path, obstacle) => {
                write!(out, "is run by {}, which {obstacle}", path.display())
            }
        }
    }
}

/// What keeps `rebind.so` from working on `program`, as `execvp()` would find it
/// in `path_env`; `None` if nothing is known to, and if there is no such program.
pub(crate) fn diagnose(program: &OsStr, path_env: Option<&OsStr>) -> Option<Obstacle> {
    judge(&search_path::find(program, path_env)?, path_env, MAX_SCRIPTS)
}

/// How many scripts the kernel lets run one another (`BINPRM_MAX_RECURSION`).
const MAX_SCRIPTS: u32 = 5;
/// What it reads of a script's first line.
const FIRST_LINE: u64 = 256;

fn judge(path: &Path, path_env: Option<&OsStr>, scripts: u32) -> Option<Obstacle> {
    let metadata = path.metadata().ok().filter(Metadata::is_file)?;
    let file = File::open(path).ok()?;
    let mut start = Vec::new();
    (&file).take(FIRST_LINE).read_to_end(&mut start).ok()?;
    if let Some(line) = start.strip_prefix(b"#!") {
        return judge_script(line, path_env, scripts.checked_sub(1)?);
    }
    if start.starts_with(b"\x7fELF") {
        let foreign = kind(&start) != kind(EMBEDDED);
        let image = Image::read(file)?;
        return judge_image(&image, foreign)
            .or_else(|| judge_privileges(path, &metadata, getuid(), getgid()));
    }
    None
}

/// `line` is what follows `#!`: an interpreter, and perhaps one argument.
fn judge_script(line: &[u8], path_env: Option<&OsStr>, scripts: u32) -> Option<Obstacle> {
    let line = line.split(|byte| *byte == b'\n').next()?;
    let mut words = line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
    let mut interpreter = PathBuf::from(OsStr::from_bytes(words.next()?));
    if !interpreter.exists() {
        return Some(Obstacle::MissingInterpreter(interpreter));
    }
    if interpreter.file_name() == Some(OsStr::new("env")) {
        let mut words = words.skip_while(|word| *word == b"-S" || word.contains(&b'='));
        let name = OsStr::from_bytes(words.next().filter(|word| !word.starts_with(b"-"))?);
        match search_path::find(name, path_env) {
            Some(found) => interpreter = found,
            None => return Some(Obstacle::MissingInterpreter(name.into())),
        }
    }
    match judge(&interpreter, path_env, scripts)? {
        // The innermost is what is missing, whoever asks for it.
        obstacle @ Obstacle::MissingInterpreter(_) => Some(obstacle),
        obstacle => Some(Obstacle::Interpreter(interpreter, Box::new(obstacle))),
    }
}

fn judge_image(image: &Image, foreign: bool) -> Option<Obstacle> {
    match &image.interpreter {
        Some(path) if !path.exists() => Some(Obstacle::MissingInterpreter(path.clone())),
        _ if foreign => Some(Obstacle::ForeignArchitecture),
        // Where it has C code that binds, that much can be moved.
        _ if image.go && !image.imports_bind => Some(Obstacle::Go),
        Some(_) => None,
        // The dynamic linker has no interpreter either, and may be given a program.
        None if image.library => None,
        None => Some(Obstacle::StaticallyLinked),
    }
}

/// Where the kernel sets `AT_SECURE` (getauxval(3)), the dynamic linker drops
/// `LD_PRELOAD`: where the ids after `exec()` are not the real ones that we have,
/// also if we are root, and where capabilities are gained, if we are not.
fn judge_privileges(path: &Path, metadata: &Metadata, user: Uid, group: Gid) -> Option<Obstacle> {
    const SET_USER: u32 = 0o4000;
    // Without the group's x bit, the setgid bit means something else.
    const SET_GROUP: u32 = 0o2010;
    let nosuid = statvfs(path).is_ok_and(|fs| fs.flags().contains(FsFlags::ST_NOSUID));
    if nosuid || prctl::get_no_new_privs().unwrap_or(false) {
        return None;
    }
    let mode = metadata.mode();
    let other_user = mode & SET_USER != 0 && metadata.uid() != user.as_raw();
    let other_group = mode & SET_GROUP == SET_GROUP && metadata.gid() != group.as_raw();
    if other_user || other_group {
        return Some(Obstacle::SetUserId);
    }
    let capabilities = rustix::fs::getxattr(path, "security.capability", &mut [0; 64][..]);
    (capabilities.is_ok() && !user.is_root()).then_some(Obstacle::FileCapabilities)
}

/// Class, byte order and machine of an ELF header.
fn kind(header: &[u8]) -> Option<([u8; 2], [u8; 2])> {
    let field = |at| header.get(at..)?.first_chunk::<2>().copied();
    Some((field(4)?, field(18)?))
}

/// What an ELF file says of itself.
struct Image {
    interpreter: Option<PathBuf>,
    /// It has a name that others link with (`DT_SONAME`).
    library: bool,
    go: bool,
    imports_bind: bool,
}

impl Image {
    /// Reads as little as it needs: programs may be of any size.
    fn read(file: File) -> Option<Image> {
        let data = &ReadCache::new(file);
        match FileKind::parse(data).ok()? {
            FileKind::Elf32 => Image::parse::<FileHeader32<Endianness>>(data).ok(),
            FileKind::Elf64 => Image::parse::<FileHeader64<Endianness>>(data).ok(),
            _ => None,
        }
    }

    fn parse<Header: FileHeader<Endian = Endianness>>(
        data: &ReadCache<File>,
    ) -> object::read::Result<Image> {
        let header = Header::parse(data)?;
        let endian = header.endian()?;
        let mut image = Image { interpreter: None, library: false, go: false, imports_bind: false };
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
mod tests {
    use std::fs::{self, Permissions};
    use std::io::ErrorKind;
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::process::Command;

    use tempfile::TempDir;

    use super::*;
    use crate::skip::{skip, skip_even_in_ci};

    /// Its exit status is whether the kernel started it securely.
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
    struct Programs(TempDir);

    impl Programs {
        fn new() -> Programs {
            Programs(TempDir::new().unwrap())
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn script(&self, name: &str, text: &str) -> PathBuf {
            let path = self.path(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
            path
        }

        /// `None` if there is no compiler; in CI there must be one.
        #[expect(clippy::disallowed_methods, reason = "tests have no reaper")]
        fn compiled(&self, name: &str, options: &[&str]) -> Option<PathBuf> {
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

    fn judged(path: &Path) -> Option<Obstacle> {
        diagnose(path.as_os_str(), None)
    }

    /// W12: no warning where there is no obstacle.
    #[test]
    fn w12_ordinary_programs_have_none() {
        let programs = Programs::new();
        let ourselves = std::env::current_exe().unwrap();
        assert_eq!(judged(&ourselves), None);
        assert_eq!(judged(Path::new("/bin/true")), None);
        assert_eq!(diagnose("true".as_ref(), None), None);
        assert_eq!(diagnose("true".as_ref(), Some("/nowhere:/bin".as_ref())), None);
        assert_eq!(judged(&programs.script("sh", "#!/bin/sh\n")), None);
        assert_eq!(judged(&programs.script("args", "#! /bin/sh -e\n")), None);
        assert_eq!(judged(&programs.script("env", "#!/usr/bin/env sh\n")), None);
        assert_eq!(judged(&programs.script("split", "#!/usr/bin/env -S A=b sh -e\n")), None);
        assert_eq!(judged(&programs.script("clear", "#!/usr/bin/env -i sh\n")), None);
        assert_eq!(judged(&programs.script("text", "no first line\n")), None);
        assert_eq!(judged(&programs.script("empty", "")), None);
        assert_eq!(judged(&programs.script("cut", "\x7fELF\x02\x01\x01")), None);
        assert_eq!(judged(&programs.path("missing")), None);
        assert_eq!(judged(programs.0.path()), None);
        // The dynamic linker is not linked dynamically; it may run a program.
        let linker = Image::read(File::open(ourselves).unwrap()).unwrap().interpreter.unwrap();
        assert_eq!(judged(&linker), None);
    }

    /// W12: static, Go with and without a C library, another architecture.
    #[test]
    fn w12_programs_out_of_reach() {
        let programs = Programs::new();
        let table: [(&str, &[&str], Option<Obstacle>); 6] = [
            ("dynamic", &["-DBIND"], None),
            ("static", &["-static", "-DBIND"], Some(Obstacle::StaticallyLinked)),
            ("static-pie", &["-static-pie"], Some(Obstacle::StaticallyLinked)),
            ("go", &["-static", "-DGO"], Some(Obstacle::Go)),
            ("cgo", &["-DGO"], Some(Obstacle::Go)),
            ("go-with-c-server", &["-DGO", "-DBIND"], None),
        ];
        for (name, options, expected) in table {
            let Some(program) = programs.compiled(name, options) else { return };
            assert_eq!(judged(&program), expected, "{name}");
            let directory = Some(programs.0.path().as_os_str());
            assert_eq!(diagnose(name.as_ref(), directory), expected, "{name} by PATH");
        }
        let mut bytes = fs::read(programs.path("dynamic")).unwrap();
        // e_machine: the PDP-11.
        bytes[18..20]
            .copy_from_slice(&(if cfg!(target_endian = "big") { [0, 65] } else { [65, 0] }));
        fs::write(programs.path("foreign"), bytes).unwrap();
        assert_eq!(judged(&programs.path("foreign")), Some(Obstacle::ForeignArchitecture));
    }

    /// W12: what a script is run by counts, and is named.
    #[test]
    fn w12_scripts_are_followed() {
        let programs = Programs::new();
        let Some(sh) = programs.compiled("static-sh", &["-static"]) else { return };
        let run_by = |path: &Path| {
            Some(Obstacle::Interpreter(path.into(), Box::new(Obstacle::StaticallyLinked)))
        };
        let script = programs.script("script", &format!("#!{} -e\n", sh.display()));
        assert_eq!(judged(&script), run_by(&sh));
        let outer = programs.script("outer", &format!("#!{}\n", script.display()));
        let nested = Obstacle::Interpreter(script, Box::new(run_by(&sh).unwrap()));
        assert_eq!(judged(&outer), Some(nested));
        let env = programs.script("env", "#!/usr/bin/env static-sh\n");
        let directory = Some(programs.0.path().as_os_str());
        assert_eq!(diagnose(env.as_os_str(), directory), run_by(&sh));
        let endless = programs.path("endless");
        programs.script("endless", &format!("#!{}\n", endless.display()));
        assert_eq!(judged(&endless), None);
    }

    /// W12: an interpreter that is missing is named, where `exec()` says only that
    /// something does not exist.
    #[test]
    fn w12_missing_interpreters() {
        let programs = Programs::new();
        let missing = |path: &str| Some(Obstacle::MissingInterpreter(path.into()));
        let absent = programs.script("absent", "#! /no/such/sh -e\n");
        assert_eq!(judged(&absent), missing("/no/such/sh"));
        let dos = programs.script("dos", "#!/bin/sh\r\necho\r\n");
        assert_eq!(judged(&dos), missing("/bin/sh\r"));
        let outer = programs.script("outer", &format!("#!{}\n", absent.display()));
        assert_eq!(judged(&outer), missing("/no/such/sh"));
        let by_env = programs.script("env", "#!/usr/bin/env no-such-python\n");
        assert_eq!(judged(&by_env), missing("no-such-python"));
        let linker = "-Wl,--dynamic-linker=/no/such/ld.so";
        let mut failing = vec![absent, dos, outer];
        if let Some(program) = programs.compiled("linker", &[linker]) {
            assert_eq!(judged(&program), missing("/no/such/ld.so"));
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

    /// W12: setuid and setgid programs, as the kernel itself judges them.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "tests have no reaper")]
    fn w12_setuid_programs() {
        let programs = Programs::new();
        let Some(program) = programs.compiled("program", &[]) else { return };
        let (user, group) = (getuid().as_raw(), getgid().as_raw());
        let mut owners = vec![(user, group)];
        if getuid().is_root() {
            owners.extend([(65534, group), (user, 65534)]);
        } else {
            skip_even_in_ci("only root can make files of other users");
        }
        for (user, group) in owners {
            for mode in [0o755, 0o4755, 0o2755, 0o2745, 0o6755] {
                chown(&program, Some(user), Some(group)).unwrap();
                fs::set_permissions(&program, Permissions::from_mode(mode)).unwrap();
                let secure = Command::new(&program).status().unwrap().code() == Some(1);
                let expected = secure.then_some(Obstacle::SetUserId);
                assert_eq!(judged(&program), expected, "{mode:o} {user}:{group}");
            }
        }
    }

    /// W12: file capabilities count for everybody but root.
    #[test]
    fn w12_file_capabilities() {
        // VFS_CAP_REVISION_2 and the effective flag, then CAP_NET_BIND_SERVICE.
        let mut value = [0; 20];
        value[..8].copy_from_slice(&[1, 0, 0, 2, 0, 4, 0, 0]);
        let programs = Programs::new();
        let program = programs.script("program", "");
        let flags = rustix::fs::XattrFlags::empty();
        if rustix::fs::setxattr(&program, "security.capability", &value, flags).is_err() {
            skip_even_in_ci("only root can give capabilities to files");
            return;
        }
        let metadata = program.metadata().unwrap();
        let judged = |user| judge_privileges(&program, &metadata, Uid::from_raw(user), getgid());
        assert_eq!(judged(65534), Some(Obstacle::FileCapabilities));
        assert_eq!(judged(0), None);
    }

    /// W12: one line that continues the program's name and says what to do.
    #[test]
    fn w12_says_what_to_do() {
        let inner = Box::new(Obstacle::StaticallyLinked);
        let table = [
            (Obstacle::StaticallyLinked, "127.0.0.1:OTHER"),
            (Obstacle::Go, "127.0.0.1:OTHER"),
            (Obstacle::SetUserId, "as that user"),
            (Obstacle::FileCapabilities, "as root"),
            (Obstacle::MissingInterpreter("/bin/sh\r".into()), r#""/bin/sh\r", which"#),
            (Obstacle::ForeignArchitecture, "another architecture"),
            (Obstacle::Interpreter("/bin/x".into(), inner), "is run by /bin/x, which is static"),
        ];
        for (obstacle, part) in table {
            let text = obstacle.to_string();
            assert!(text.contains(part) && !text.contains(['\n', '\r']), "{text}");
            assert!(text.starts_with(|first: char| first.is_ascii_lowercase()), "{text}");
        }
    }
}
