//! The systemd units, and the Debian package that brings them: installed into directories and machines
//! of their own, not into the system.

mod installed;
mod machine;
mod release;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use tempfile::TempDir;

use crate::support::{
    Actor, Client, SERVERS, WEBSOCKIFY, Websockify, copy_program, free_port, needs, needs_root,
    root, skip_even_in_ci, text_of,
};

/// systemd-analyze(1), which needs /run/systemd: systemd makes it at boot, and root can.
fn systemd_analyze() -> Option<Command> {
    if !needs(&["systemd-analyze"]) {
        return None;
    }
    if !nix::unistd::geteuid().is_root() && !Path::new("/run/systemd").exists() {
        skip_even_in_ci("only root can make /run/systemd, which systemd-analyze wants");
        return None;
    }
    Some(Command::new("systemd-analyze"))
}

/// Runs a command that must succeed; gives all that it printed.
fn said_by(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = text_of(&output.stdout) + &text_of(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    said
}

/// The units as they are installed, but for the path of the binary under test.
fn units() -> TempDir {
    let directory = TempDir::new().unwrap();
    for entry in fs::read_dir(root().join("contrib/systemd")).unwrap() {
        let path = entry.unwrap().path();
        let unit = fs::read_to_string(&path).unwrap().replace("/usr/bin/websockify", WEBSOCKIFY);
        fs::write(directory.path().join(path.file_name().unwrap()), unit).unwrap();
    }
    directory
}

/// D4: systemd-analyze(1) finds nothing wrong with the units.
#[test]
fn d4_the_units_are_valid() {
    let units = units();
    for unit in ["websockify.service", "websockify.socket", "websockify@x.service"] {
        let Some(mut analyze) = systemd_analyze() else { return };
        analyze.args(["verify", "--man=no"]).arg(units.path().join(unit));
        let said = said_by(&mut analyze);
        // What it reports of the host's own units does not matter.
        let of_ours: Vec<_> = said.lines().filter(|line| line.contains("websockify")).collect();
        assert_eq!(of_ours, Vec::<&str>::new());
    }
}

/// O5: systemd-analyze(1) finds nothing wrong with the example for a user's own systemd either, and websockify takes the
/// command line of that example.
#[test]
fn o5_d4_the_example_on_demand_is_valid() {
    let units = units();
    let unit = units.path().join("websockify-vnc-on-demand.service");
    let text = fs::read_to_string(&unit).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    websockify::command().try_get_matches_from(line.split_whitespace()).unwrap();
    assert!(line.contains("--start=on-demand"), "{line}");
    let Some(mut analyze) = systemd_analyze() else { return };
    analyze.env("XDG_RUNTIME_DIR", units.path());
    let said = said_by(analyze.args(["verify", "--user", "--man=no"]).arg(unit));
    let of_ours: Vec<_> = said.lines().filter(|line| line.contains("websockify")).collect();
    assert_eq!(of_ours, Vec::<&str>::new());
}

/// D4: what systemd-analyze(1) calls exposure, 0 to 10, stays low. Its option `--threshold` is in tenths of that.
#[test]
fn d4_the_units_are_hardened() {
    let units = units();
    for (unit, threshold) in [("websockify.service", 20), ("websockify@.service", 30)] {
        let Some(mut analyze) = systemd_analyze() else { return };
        analyze.args(["security", "--offline=true", &format!("--threshold={threshold}")]);
        let said = said_by(analyze.arg(units.path().join(unit)));
        println!("{}", said.lines().last().unwrap());
    }
}

/// The command lines in the units are ones that websockify takes.
#[test]
fn d4_the_units_settings_make_a_command_line() {
    let settings = |file: &str| {
        let text = fs::read_to_string(root().join("contrib/systemd").join(file)).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(str::to_owned).filter(|line| !line.is_empty()).collect::<Vec<_>>()
    };
    for (unit, file) in
        [("websockify.service", "websockify.default"), ("websockify@.service", "example.conf")]
    {
        let unit = fs::read_to_string(root().join("contrib/systemd").join(unit)).unwrap();
        let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        let mut line = line.replace("/usr/bin/websockify", "");
        for setting in settings(file) {
            let (name, value) = setting.split_once('=').unwrap();
            line = line.replace(&format!("${{{name}}}"), value).replace(&format!("${name}"), value);
        }
        assert!(!line.contains('$'), "{line}");
        let arguments = std::iter::once("websockify").chain(line.split_whitespace());
        websockify::command().try_get_matches_from(arguments).unwrap();
    }
}

/// The package, with the binary under test in it.
static PACKAGE: LazyLock<PathBuf> = LazyLock::new(|| package("websockify", &[]));

/// A package under this file name, with the binary under test in it.
fn package(name: &str, options: &[&str]) -> PathBuf {
    let binary = Path::new(WEBSOCKIFY);
    let profile = if binary.ends_with("release/websockify") { "release" } else { "dev" };
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let unfinished = directory.join(format!("{name}-{}.deb", std::process::id()));
    let mut cargo = Command::new("cargo");
    cargo.args(["deb", "-p", "websockify", "--no-build", "--no-strip", "--fast", "--profile"]);
    cargo.arg(profile).args(options).arg("--output").arg(&unfinished).current_dir(root());
    said_by(cargo.env("CARGO_TARGET_DIR", binary.ancestors().nth(2).unwrap()));
    let finished = directory.join(format!("{name}.deb"));
    fs::rename(unfinished, &finished).unwrap();
    finished
}

/// Whether the package can be built here.
fn can_package() -> bool {
    needs(&["cargo-deb", "dpkg-deb"])
}

#[test]
fn r5_f63_the_debian_package_has_everything() {
    if !can_package() {
        return;
    }
    let contents = said_by(Command::new("dpkg-deb").arg("--contents").arg(&*PACKAGE));
    println!("{contents}");
    for file in [
        "usr/bin/websockify",
        "usr/lib/websockify/rebind.so",
        "usr/share/man/man1/websockify.1.gz",
        "usr/share/bash-completion/completions/websockify",
        "usr/share/zsh/vendor-completions/_websockify",
        "usr/share/fish/vendor_completions.d/websockify.fish",
        "usr/lib/systemd/system/websockify.service",
        "usr/lib/systemd/system/websockify.socket",
        "usr/lib/systemd/system/websockify@.service",
        "usr/share/websockify/wstelnet.html",
        "usr/share/doc/websockify-rs/examples/websockify-vnc-on-demand.service",
        "usr/share/doc/websockify-rs/copyright",
        "usr/share/doc/websockify-rs/changelog.Debian.gz",
        "etc/default/websockify",
        "etc/websockify/example.conf",
    ] {
        let is_file = |line: &str| line.starts_with('-') && line.ends_with(&format!(" ./{file}"));
        assert!(contents.lines().any(is_file), "{file} is missing in\n{contents}");
    }
    // F63: the README shows pictures that the package does not have, so it is not in the package.
    assert!(!contents.contains("README"), "{contents}");
}

/// F53: also where the package was built without dpkg-dev, which would find out what it needs.
#[test]
fn f53_the_debian_package_says_what_it_needs_and_whose_it_is() {
    if !can_package() {
        return;
    }
    let field = |name| said_by(Command::new("dpkg-deb").arg("--field").arg(&*PACKAGE).arg(name));
    let depends = field("Depends");
    let depends: Vec<_> = depends.split(", ").map(str::trim).collect();
    let named = |package: &str| {
        let is_it = |one: &&&str| one.split(' ').next() == Some(package);
        depends.iter().filter(is_it).count()
    };
    let linked = said_by(Command::new("ldd").arg(WEBSOCKIFY));
    for (library, package) in [("libc.so.6", "libc6"), ("libgcc_s.so.1", "libgcc-s1")] {
        assert!(linked.contains(library), "{linked}");
        assert_eq!(named(package), 1, "{depends:?}");
    }
    let extracted = TempDir::new().unwrap();
    said_by(Command::new("dpkg-deb").arg("--extract").arg(&*PACKAGE).arg(extracted.path()));
    let copyright = extracted.path().join("usr/share/doc/websockify-rs/copyright");
    let copyright = fs::read_to_string(copyright).unwrap();
    assert!(copyright.contains("\nCopyright: ") && copyright.contains("Apache-2.0"), "{copyright}");
    assert!(field("Maintainer").contains(" <"), "an address");
    let description = field("Description");
    assert!(!["A ", "An ", "The "].iter().any(|article| description.starts_with(article)));
}

/// F53: lintian, Debian's own checker, reports no error.
#[test]
fn f53_lintian_finds_no_error() {
    if !can_package() || !needs(&["lintian"]) {
        return;
    }
    let mut lintian = Command::new("lintian");
    lintian.args(["--fail-on", "error", "--allow-root", "--tag-display-limit", "0"]);
    // The binary under test still has its symbols.
    lintian.args(["--suppress-tags", "unstripped-binary-or-object"]).arg(&*PACKAGE);
    let output = lintian.output().unwrap();
    let said = text_of(&output.stdout) + &text_of(&output.stderr);
    assert!(output.status.success(), "{said}");
    println!("{said}");
}

/// F72: the reload of the units needs no package with a kill(1). O2: files are read again, and the new binary takes
/// over.
#[test]
fn f72_the_units_reload_with_what_every_system_has() {
    let directory = TempDir::new().unwrap();
    let pem = directory.path().join("self.pem");
    fs::write(&pem, SERVERS.issue("localhost").pem()).unwrap();
    let units = ["websockify.service", "websockify@.service", "websockify-vnc-on-demand.service"];
    for unit in units {
        let text = fs::read_to_string(root().join("contrib/systemd").join(unit)).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("ExecReload=")).unwrap();
        let (shell, script) = line.split_once(" -c ").unwrap();
        // The new binary reads the files, too, and may take over before the log says that they were read: so whether the old one
        // has read them is not seen in the log.
        assert!(script.contains("kill -HUP $MAINPID;"), "{script}");
        let websockify = Websockify::start(&format!(
            "127.0.0.1:{} 127.0.0.1:9 --cert={}",
            free_port(),
            pem.display()
        ));
        websockify.wait_until_open();
        let mut reload = Command::new(shell);
        reload.arg("-c").arg(script.trim_matches('\'')).env_clear().env("PATH", "/nowhere");
        said_by(reload.env("MAINPID", websockify.pid().to_string()));
        websockify.wait_for_log(&["taken over: 0 sessions"]);
    }
}

/// A root directory with the package in it, and with the libraries of the packages that it depends on.
fn clean_root() -> TempDir {
    let directory = TempDir::new().unwrap();
    let clean = directory.path();
    for name in ["lib", "lib64"] {
        fs::create_dir_all(clean.join("usr").join(name)).unwrap();
        std::os::unix::fs::symlink(format!("usr/{name}"), clean.join(name)).unwrap();
    }
    for name in ["proc", "dev", "tmp"] {
        fs::create_dir(clean.join(name)).unwrap();
    }
    said_by(Command::new("dpkg-deb").arg("--extract").arg(&*PACKAGE).arg(clean));
    let depends = said_by(Command::new("dpkg-deb").arg("--field").arg(&*PACKAGE).arg("Depends"));
    // What libc6 depends on is on every system.
    let further =
        said_by(Command::new("dpkg-query").args(["--show", "--showformat=,${Depends}", "libc6"]));
    let depends = depends + &further;
    let packages = depends.split(',').filter_map(|one| one.split_whitespace().next());
    let mut query = Command::new("dpkg-query");
    let files = said_by(query.arg("--listfiles").args(packages));
    let is_library = |file: &&str| file.contains(".so") && Path::new(file).is_file();
    // cp(1) copies, and not this process: the dynamic linker among the files is executed (see copy_program).
    let mut copy = Command::new("cp");
    copy.args(["--parents", "--dereference"]).args(files.lines().filter(is_library));
    said_by(copy.arg(clean));
    directory
}

/// R5: websockify as it was installed wraps a program with the library that came with it, in a root directory with
/// nothing but the package and its dependencies.
#[test]
fn r5_the_debian_package_wraps_a_program_in_a_clean_root() {
    if !can_package() || !needs_root() || !needs(&["unshare", "mount", "chroot"]) {
        return;
    }
    let clean = clean_root();
    copy_program(Actor, clean.path().join("usr/bin/actor"));
    let port = free_port();
    let mut command = Command::new("unshare");
    let script = "mount -t proc proc proc && touch dev/null && mount --bind /dev/null dev/null && \
                  exec chroot . /usr/bin/websockify \"$@\"";
    command.args(["--mount", "sh", "-c", script, "sh", &port.to_string(), "--", "actor"]);
    command.args(["bind", &port.to_string(), "listen", "serve"]);
    let mut websockify = Websockify::launch(command.current_dir(&clean).env("TMPDIR", "/nowhere"));
    let mut client = Client::connect_once_open(port);
    client.read_line();
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
    assert_eq!(websockify.leader().variable("LD_PRELOAD"), "/usr/lib/websockify/rebind.so");
    websockify.assert_alone_on(port);
    assert_eq!(websockify.stop(), 0);
}
