//! An obstacle: what keeps `rebind.so` out of a program (W12), because the dynamic linker is not asked to load it, or
//! refuses. Knows files, and not whether the program listens.

use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::prctl;
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{Gid, Uid, getgid, getuid};

use super::unpacked::EMBEDDED;
use crate::machine::executable::{self, ElfFile, Executable};

/// What stands between a program and `rebind.so`. Displayed behind the program's
/// name, it makes one line that says what to do.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::engine) enum Obstacle {
    /// No dynamic linker is asked to load anything.
    StaticallyLinked,
    /// Its system calls do not go through the C library, even if the program is linked to it.
    Go,
    /// The dynamic linker ignores `LD_PRELOAD` in programs that change user or
    /// group when they start.
    SetUserId,
    /// The same for capabilities that a file gives and we do not have.
    FileCapabilities,
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

/// What keeps `rebind.so` from working in what is executed; `None` if nothing is known to.
pub(super) fn of(executable: &Executable) -> Option<Obstacle> {
    let Executable { path, metadata, interpreters, .. } = executable;
    let obstacle =
        in_image_of(executable).or_else(|| in_privileges(path, metadata, getuid(), getgid()))?;
    let outwards = interpreters.iter().rev();
    Some(outwards.fold(obstacle, |inner, path| Obstacle::Interpreter(path.clone(), inner.into())))
}

/// The same, by the ELF file alone, without its owner, mode and capabilities.
pub(super) fn in_image_of(executable: &Executable) -> Option<Obstacle> {
    in_image(&executable.image, executable.machine != executable::machine(EMBEDDED))
}

/// Whether a program gains rights when it starts, by its file: setuid, setgid or capabilities.
pub(in crate::engine) fn gains_privileges(executable: &Executable) -> bool {
    in_privileges(&executable.path, &executable.metadata, getuid(), getgid()).is_some()
}

impl Obstacle {
    /// The obstacle alone, as text that continues the program's name.
    pub(in crate::engine) fn cause(&self) -> String {
        match self {
            Self::StaticallyLinked => "is statically linked".to_owned(),
            Self::Go => "is a Go program".to_owned(),
            Self::SetUserId => "is setuid or setgid".to_owned(),
            Self::FileCapabilities => "has file capabilities".to_owned(),
            Self::ForeignArchitecture => "is built for another architecture".to_owned(),
            Self::Interpreter(path, inner) => {
                format!("is run by {}, which {}", path.display(), inner.cause())
            }
        }
    }

    /// Whether it keeps out the preload engine alone, and not the seccomp engine.
    pub(in crate::engine) fn is_of_preloading(&self) -> bool {
        match self {
            Self::ForeignArchitecture => false,
            Self::Interpreter(_, inner) => inner.is_of_preloading(),
            Self::StaticallyLinked | Self::Go | Self::SetUserId | Self::FileCapabilities => true,
        }
    }
}

fn in_image(image: &ElfFile, foreign: bool) -> Option<Obstacle> {
    match &image.interpreter {
        _ if foreign => Some(Obstacle::ForeignArchitecture),
        // If it has C code that calls bind(), what that binds can be moved.
        _ if image.go && !image.imports_bind => Some(Obstacle::Go),
        Some(_) => None,
        // The dynamic linker itself has no interpreter either, and it may be executed with a program as its argument.
        None if image.library => None,
        None => Some(Obstacle::StaticallyLinked),
    }
}

/// Where the kernel sets `AT_SECURE` (getauxval(3)), the dynamic linker drops
/// `LD_PRELOAD`: where the ids after `exec()` are not the real ones that we have,
/// also if we are root, and where capabilities are gained, if we are not.
fn in_privileges(path: &Path, metadata: &Metadata, user: Uid, group: Gid) -> Option<Obstacle> {
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

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::process::Command;

    use super::*;
    use crate::machine::executable::find;
    use crate::machine::executable::tests::Programs;
    use crate::skip::skip_even_in_ci;

    fn diagnose(program: &OsStr, path_env: Option<&OsStr>) -> Option<Obstacle> {
        of(&find(program, path_env).expect("no interpreter is missing")?)
    }

    fn obstacle_to(path: &Path) -> Option<Obstacle> {
        diagnose(path.as_os_str(), None)
    }

    /// W12: no warning where there is no obstacle.
    #[test]
    fn w12_ordinary_programs_have_none() {
        let programs = Programs::new();
        let ourselves = std::env::current_exe().unwrap();
        assert_eq!(obstacle_to(&ourselves), None);
        assert_eq!(obstacle_to(Path::new("/bin/true")), None);
        assert_eq!(diagnose("true".as_ref(), None), None);
        assert_eq!(diagnose("true".as_ref(), Some("/nowhere:/bin".as_ref())), None);
        assert_eq!(obstacle_to(&programs.script("sh", "#!/bin/sh\n")), None);
        assert_eq!(obstacle_to(&programs.script("args", "#! /bin/sh -e\n")), None);
        assert_eq!(obstacle_to(&programs.script("env", "#!/usr/bin/env sh\n")), None);
        assert_eq!(obstacle_to(&programs.script("split", "#!/usr/bin/env -S A=b sh -e\n")), None);
        assert_eq!(obstacle_to(&programs.script("clear", "#!/usr/bin/env -i sh\n")), None);
        assert_eq!(obstacle_to(&programs.script("text", "no first line\n")), None);
        assert_eq!(obstacle_to(&programs.script("empty", "")), None);
        assert_eq!(obstacle_to(&programs.script("cut", "\x7fELF\x02\x01\x01")), None);
        assert_eq!(obstacle_to(&programs.path("missing")), None);
        assert_eq!(obstacle_to(programs.0.path()), None);
        // The dynamic linker is not linked dynamically; it may run a program.
        let ourselves = find(ourselves.as_os_str(), None).unwrap().unwrap();
        let linker = ourselves.image.interpreter.unwrap();
        assert_eq!(obstacle_to(&linker), None);
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
            assert_eq!(obstacle_to(&program), expected, "{name}");
            let directory = Some(programs.0.path().as_os_str());
            assert_eq!(diagnose(name.as_ref(), directory), expected, "{name} by PATH");
        }
        let mut bytes = fs::read(programs.path("dynamic")).unwrap();
        // e_machine: the PDP-11.
        bytes[18..20]
            .copy_from_slice(&(if cfg!(target_endian = "big") { [0, 65] } else { [65, 0] }));
        fs::write(programs.path("foreign"), bytes).unwrap();
        assert_eq!(obstacle_to(&programs.path("foreign")), Some(Obstacle::ForeignArchitecture));
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
        assert_eq!(obstacle_to(&script), run_by(&sh));
        let outer = programs.script("outer", &format!("#!{}\n", script.display()));
        let nested = Obstacle::Interpreter(script, Box::new(run_by(&sh).unwrap()));
        assert_eq!(obstacle_to(&outer), Some(nested));
        let env = programs.script("env", "#!/usr/bin/env static-sh\n");
        let directory = Some(programs.0.path().as_os_str());
        assert_eq!(diagnose(env.as_os_str(), directory), run_by(&sh));
        let endless = programs.path("endless");
        programs.script("endless", &format!("#!{}\n", endless.display()));
        assert_eq!(obstacle_to(&endless), None);
    }

    /// W12: setuid and setgid programs, as the kernel itself takes them.
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
                assert_eq!(obstacle_to(&program), expected, "{mode:o} {user}:{group}");
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
        let obstacle = |user| in_privileges(&program, &metadata, Uid::from_raw(user), getgid());
        assert_eq!(obstacle(65534), Some(Obstacle::FileCapabilities));
        assert_eq!(obstacle(0), None);
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
