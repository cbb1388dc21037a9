//! `tests/run`, which runs all tests. Here it has stand-ins for cargo, npm and node, which note how they are called.

use std::fs::File;
use std::process::{Command, Output};

use crate::support::{Tools, free_port, text_of};

/// Stand-ins of which cargo's has one test, and runs the script `run` when it is asked to run tests.
fn tools(run: &str) -> Tools {
    let tools = Tools::of_system(&[]);
    let list = "printf 'wrap::w4_held: test\\n'";
    let script = format!(
        "case \"$*\" in --version) echo cargo 1.99.0 ;; *--list) {list} ;; *--no-run) ;; *) {run} ;; esac"
    );
    tools.put("cargo", &script);
    for program in ["npm", "node", "apt-get", "sudo"] {
        tools.put(program, "");
    }
    tools
}

fn run(tools: &Tools, names: &[&str]) -> Output {
    tools.run("tests/run", names, ":/usr/bin:/bin")
}

/// The calls that were made, but for those that only ask for a version or a list, or only build.
fn tests_run(tools: &Tools) -> Vec<String> {
    let calls = tools.calls();
    let looks = ["--version", "--list", "--no-run"];
    let is_look = |call: &&str| looks.iter().any(|look| call.ends_with(look));
    calls.lines().filter(|call| !is_look(call)).map(str::to_owned).collect()
}

#[test]
fn f52_a_name_runs_the_tests_that_have_it_wherever_they_are() {
    let of_rust = tools("");
    let output = run(&of_rust, &["w4_"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(tests_run(&of_rust), ["cargo test --workspace -- w4_"]);

    let of_pages = tools("");
    let output = run(&of_pages, &["f54_"]);
    assert!(output.status.success(), "{output:?}");
    let runs = tests_run(&of_pages);
    assert_eq!(runs[0], "npm ci --no-audit --no-fund");
    assert!(runs[1].starts_with("node --test --test-name-pattern=/f54[^a-z0-9]+/i "), "{runs:?}");
    assert!(runs[1].contains("test/connection.test.mjs"), "{runs:?}");
    assert!(!runs[1].contains("test/line.test.mjs"), "{runs:?}");
    assert_eq!(runs.len(), 2, "{runs:?}");

    let of_both = tools("");
    assert!(run(&of_both, &["W4_", "guests of the demo"]).status.success());
    let runs = tests_run(&of_both);
    assert_eq!(runs[0], "cargo test --workspace -- w4_ guests of the demo");
    assert!(runs.last().unwrap().ends_with("guestbook.test.mjs"), "{runs:?}");
}

#[test]
fn f52_a_name_that_no_test_has_is_an_error() {
    for names in [&["nonesuch"][..], &["w4_", "nonesuch"]] {
        let tools = tools("");
        let output = run(&tools, names);
        assert_eq!(output.status.code(), Some(1));
        assert!(
            text_of(&output.stderr).contains("no test has 'nonesuch' in its name"),
            "{output:?}"
        );
        assert_eq!(tests_run(&tools), Vec::<String>::new());
    }
}

/// The tests of the pages run beside those of Rust, are printed after them, and their failure counts as much.
#[test]
fn f52_all_tests_are_those_of_rust_and_of_the_pages() {
    let whole = |cargo: &str, npm: &str| {
        let tools = tools(cargo);
        tools.put("npm", npm);
        // apt-get's stand-in installs nothing. These two are installed in other ways, so they must be there.
        tools.put("busybox-static", "");
        tools.put("kubernetes-validate", "");
        let output = run(&tools, &[]);
        (tests_run(&tools), output)
    };
    let (runs, output) = whole("", "echo of the pages");
    assert!(output.status.success(), "{output:?}");
    let of = |name: &str| runs.iter().filter(|run| run.starts_with(name)).count();
    assert_eq!((of("cargo test"), of("npm ci"), of("npm test")), (2, 2, 2), "{runs:?}");
    assert_eq!(text_of(&output.stdout).matches("of the pages\n").count(), 4, "{output:?}");
    let (_, output) = whole("", "exit 3");
    assert_eq!(output.status.code(), Some(3));
    let (_, output) = whole("exit 101", "echo of the pages");
    assert_eq!(output.status.code(), Some(101));
    assert!(text_of(&output.stdout).contains("of the pages\n"), "{output:?}");
}

#[test]
fn f52_a_failure_is_one() {
    let tools = tools("exit 101");
    assert_eq!(run(&tools, &["w4_"]).status.code(), Some(101));
}

/// F37: `tests/run` says so before it installs anything.
#[test]
fn f37_without_a_new_rust_nothing_is_begun() {
    let tools = tools("");
    tools.put("cargo", "echo cargo 1.85.1");
    let output = run(&tools, &[]);
    assert_eq!(output.status.code(), Some(1));
    let said = text_of(&output.stderr);
    assert!(
        said.contains("tests/run: this needs Rust 1.") && said.contains("1.85.1 here"),
        "{said}"
    );
    assert_eq!(tests_run(&tools), Vec::<String>::new());
}

#[test]
fn f68_what_was_skipped_is_counted_and_named_at_the_end() {
    let lines =
        "printf 'a: only root can do this\\nb: no IPv6\\nb: no IPv6\\n' >>\"$WEBSOCKIFY_SKIPPED\"";
    let tools = tools(lines);
    let output = run(&tools, &["w4_"]);
    assert!(output.status.success());
    let end = "skipped, in whole or in part: 2\n    a: only root can do this\n    b: no IPv6\n";
    assert!(text_of(&output.stdout).ends_with(end), "{output:?}");
}

/// F68: a test that skips leaves its name and the reason.
#[test]
fn f68_a_test_that_skips_leaves_a_line() {
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("skipped");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "test_run::for_f68_skips"]).env_remove("CI");
    assert!(command.env("WEBSOCKIFY_SKIPPED", &file).output().unwrap().status.success());
    let expected = "test_run::for_f68_skips: not installed: no-such-program nor-this\n";
    assert_eq!(std::fs::read_to_string(file).unwrap(), expected);
    assert!(!command.env("CI", "true").output().unwrap().status.success());
}

#[test]
#[ignore = "f68 runs it"]
fn for_f68_skips() {
    assert!(!crate::support::needs(&["no-such-program", "sh", "nor-this"]));
}

/// F68: what a test needs is installed: where it is missing in continuous integration, the test fails.
#[test]
fn f68_every_program_that_a_test_needs_is_installed() {
    // Programs of packages that every Debian has, or that come with others, what .ci/run installs, and the two names that
    // `for_f68_skips` asks for.
    let there = "chroot dpkg-deb grep ldd mount nsenter ps runuser setpriv sh sha256sum su tar timeout unshare \
                 inetd journalctl cargo-deb no-such-program nor-this";
    let packages =
        std::fs::read_to_string(crate::support::root().join("tests/packages.sh")).unwrap();
    let installed = |program: &str| {
        let line = format!("\n{program}:");
        packages.contains(&line) || there.split_whitespace().any(|name| name == program)
    };
    let mut pending = vec![crate::support::root().join("tests")];
    let mut asked = std::collections::BTreeSet::new();
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            for list in text
                .split(concat!("needs(", "&["))
                .skip(1)
                .map(|rest| rest.split(']').next().unwrap())
            {
                asked.extend(list.split('"').skip(1).step_by(2).map(str::to_owned));
            }
        }
    }
    assert!(asked.contains("haproxy"), "{asked:?}");
    asked.retain(|program| !installed(program));
    assert!(asked.is_empty(), "not in tests/packages.sh: {asked:?}");
}

/// F65: also with a soft limit that is lower than systems have.
#[test]
fn f65_tests_may_have_many_files_open() {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -Sn 256 && exec \"$0\" \"$@\""]);
    command.arg(std::env::current_exe().unwrap());
    let output =
        command.args(["--ignored", "--exact", "test_run::for_f65_opens"]).output().unwrap();
    assert!(output.status.success(), "{}", text_of(&output.stdout));
}

#[test]
#[ignore = "f65 runs it"]
fn for_f65_opens() {
    free_port();
    let files: Result<Vec<_>, _> = (0..1500).map(|_| File::open("/dev/null")).collect();
    files.unwrap();
}

/// X1: `tests/kernels/run` says so before it installs or builds anything.
#[test]
fn x1_a_kernel_that_there_is_not_is_a_usage_error() {
    let tools = tools("");
    let output = tools.run("tests/kernels/run", &["2.6"], ":/usr/bin:/bin");
    assert_eq!(output.status.code(), Some(2));
    let said = text_of(&output.stderr);
    assert!(said.contains("no kernel '2.6'; there are 4.19 5.4 container 5.10"), "{said}");
    assert_eq!(tests_run(&tools), Vec::<String>::new());
}

/// X1: a test counts for each of its rows; what was skipped has not passed.
#[test]
fn x1_what_passed_on_which_kernel_is_a_table() {
    let directory = tempfile::TempDir::new().unwrap();
    let put = |kernel: &str, version: &str, log: &str, skipped: &str| {
        let place = directory.path().join(format!("{kernel}.out"));
        std::fs::create_dir(&place).unwrap();
        for (name, text) in [("version", version), ("log", log), ("skipped", skipped)] {
            std::fs::write(place.join(name), text).unwrap();
        }
    };
    let all = "\nrunning 3 tests\ntest wrap::w12_b ... ok\ntest wrap::f4_w4_a ... ok\n";
    put("5.10", "5.10.262-1\n", &format!("{all}test x::w4_c ... FAILED\n"), "");
    put("newest", "7.3.4-1~bpo13+1\n", all, "wrap::f4_w4_a: no: not here\n");
    let mut awk = Command::new("awk");
    awk.arg("-f").arg(crate::support::root().join("tests/kernels/table.awk"));
    let output = awk.args(["5.10", "newest"]).current_dir(&directory).output().unwrap();
    let expected = "
         5.10.262       7.3.4
F4              1      0 of 1
W4         1 of 2      0 of 1
W12             1           1
5.10  x::w4_c
newest  wrap::f4_w4_a  skipped: no: not here
";
    assert_eq!(text_of(&output.stdout), expected[1..]);
}
