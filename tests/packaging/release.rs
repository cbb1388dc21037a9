//! The parts of `contrib/release`: its command line, and what it gives to cargo-deb, maturin and container engines.
//! A whole release takes too long to build here; `contrib/release --check` installs and runs one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use super::{PACKAGE, can_package, package, said_by};
use crate::support::{Tools, needs, root, text_of};

/// The programs that the script needs before it builds.
const SHELL: [&str; 8] = ["bash", "cut", "dirname", "head", "mkdir", "sed", "sha256sum", "sort"];

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// Debian on x86-64, with a Rust that is new enough, and without the programs that fetch packages (pip, apt-get).
fn debian() -> Tools {
    let tools = Tools::of_system(&SHELL);
    tools.put("dpkg", "echo amd64");
    tools.put("cargo", "echo cargo 9.9.9");
    tools.put("cc", "");
    tools
}

fn refused(output: &Output, status: i32, reason: &str) {
    let said = text_of(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{said}");
    assert!(said.ends_with(&format!("contrib/release: {reason}\n")), "{said}");
}

/// X3: one command makes a release; where it cannot, it says why.
#[test]
fn x3_the_release_says_what_it_takes() {
    if !needs(&["/usr/include/stdio.h"]) {
        return;
    }
    let run = |tools: &Tools, arguments: &[&str]| tools.run("contrib/release", arguments, "");
    let usage = "usage: contrib/release [--check|--again]";
    refused(&run(&debian(), &["--all"]), 2, usage);
    refused(&run(&debian(), &["--check", "all"]), 2, usage);

    let elsewhere = "this takes Debian on x86-64";
    let tools = debian();
    tools.put("dpkg", "echo arm64");
    refused(&run(&tools, &[]), 1, elsewhere);
    fs::remove_file(tools.path().join("dpkg")).unwrap();
    refused(&run(&tools, &[]), 1, elsewhere);

    let tools = debian();
    let made = "contrib/release makes it";
    let directory = tools.path().canonicalize().unwrap().join("dist");
    let nothing = format!("nothing whole in {}: {made}", directory.display());
    tools.put("git", "echo 1");
    refused(&run(&tools, &["--check"]), 1, &nothing);
    refused(&run(&tools, &["--again"]), 1, &format!("nothing to compare with: {made}"));
    fs::write(directory.join("websockify"), "made").unwrap();
    fs::write(directory.join("SHA256SUMS"), format!("{}  websockify\n", "0".repeat(64))).unwrap();
    refused(&run(&tools, &["--check"]), 1, &nothing);
}

/// X3: the package that is released is the one that is tested, except for the version of the C library that it needs.
#[test]
fn x3_the_released_package_wants_an_old_libc_alone() {
    if !can_package() {
        return;
    }
    let fields = |package: &Path| {
        let said = said_by(Command::new("dpkg-deb").arg("--field").arg(package));
        let fields = said.lines().filter_map(|line| line.split_once(": "));
        fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<BTreeMap<_, _>>()
    };
    let mut released = fields(&package("websockify-released", &["--variant", "glibc"]));
    assert_eq!(released.insert("Depends".into(), String::new()).unwrap(), "libc6 (>= 2.17)");
    let mut tested = fields(&PACKAGE);
    tested.insert("Depends".into(), String::new());
    // The binary may have been built again between the two packages.
    for fields in [&mut released, &mut tested] {
        assert!(fields.remove("Installed-Size").is_some());
    }
    assert_eq!(released, tested);
    assert_eq!(released["Package"], "websockify-rs");
}

/// X3: the wheel has the name of the Python websockify, so that pip replaces that one; it has the program's version.
#[test]
fn x3_the_wheel_is_the_program_under_the_name_that_it_replaces() {
    let project = text("supervisor/pyproject.toml");
    let settings: Vec<_> = project.lines().filter_map(|line| line.split_once(" = ")).collect();
    let setting = |name| settings.iter().find(|(key, _)| *key == name).unwrap().1;
    assert_eq!((setting("name"), setting("bindings")), ("\"websockify\"", "\"bin\""));
    assert!(setting("dynamic").contains("\"version\""), "{project}");
    // The version of maturin that contrib/release pins is one that pyproject.toml allows.
    let maturin = text("contrib/release_tools.sh");
    let (_, pinned) = maturin.split_once("maturin==").unwrap();
    let minor = pinned.strip_prefix("1.").unwrap().split('.').next().unwrap();
    assert_eq!(setting("requires"), "[\"maturin>=1.9,<2\"]");
    assert!(minor.parse::<u32>().unwrap() >= 9, "{pinned}");
}

/// A container image of this program, made in a directory.
fn image(directory: &TempDir, program: &[u8]) -> PathBuf {
    let binary = directory.path().join("websockify-1.2.3-x86_64-linux-static");
    fs::write(&binary, program).unwrap();
    let image = directory.path().join("image.tar");
    let mut python = Command::new("python3");
    python.arg(root().join("contrib/release_image.py")).args([&binary, &image]);
    said_by(python.env("SOURCE_DATE_EPOCH", "1700000000"));
    image
}

/// X3: a container image has one layer, named by its digest, with the program and nothing else, and is the same each time.
#[test]
fn x3_the_image_has_the_program_alone_and_is_the_same_again() {
    if !needs(&["python3", "tar", "sha256sum"]) {
        return;
    }
    let (directory, again) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let made = image(&directory, b"a program");
    assert_eq!(fs::read(&made).unwrap(), fs::read(image(&again, b"a program")).unwrap());

    let tar = |options: &[&str], file: &Path| {
        said_by(Command::new("tar").args(options).arg(file).current_dir(directory.path()))
    };
    tar(&["--extract", "--file"], &made);
    let json = |name: &str| -> Value {
        serde_json::from_slice(&fs::read(directory.path().join(name)).unwrap()).unwrap()
    };
    let manifest = &json("manifest.json")[0];
    assert_eq!(manifest["RepoTags"][0], "localhost/websockify:1.2.3");
    let layer = directory.path().join(manifest["Layers"][0].as_str().unwrap());
    let config = json(manifest["Config"].as_str().unwrap());
    let digest = said_by(Command::new("sha256sum").arg(&layer));
    let digest = format!("sha256:{}", digest.split(' ').next().unwrap());
    assert_eq!(config["rootfs"]["diff_ids"], serde_json::json!([digest]));
    assert_eq!((&config["architecture"], &config["os"]), (&"amd64".into(), &"linux".into()));
    assert_eq!(config["config"]["Entrypoint"], serde_json::json!(["/usr/bin/websockify"]));
    assert_eq!(config["config"]["User"], "65534:65534");
    assert_eq!(tar(&["--list", "--file"], &layer), "usr/\nusr/bin/\nusr/bin/websockify\n");
    tar(&["--extract", "--file"], &layer);
    assert_eq!(fs::read(directory.path().join("usr/bin/websockify")).unwrap(), b"a program");
}

/// The packages that the program is built from on this machine, as cargo says: names and versions.
fn built_from(directory: &Path) -> BTreeSet<(String, String)> {
    let cargo = |arguments: &[&str]| {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        let output = command.args(arguments).current_dir(root()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", text_of(&output.stderr));
        text_of(&output.stdout)
    };
    let host = cargo(&["-vV"]);
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let offline = ["--offline", "--locked"];
    let metadata = ["metadata", "--format-version", "1", "--filter-platform", host];
    fs::write(directory.join("metadata"), cargo(&[&metadata[..], &offline].concat())).unwrap();
    let tree = ["tree", "--package", "websockify", "--edges", "normal,build", "--prefix", "none"];
    let tree = cargo(&[&tree[..], &offline].concat());
    fs::write(directory.join("tree"), &tree).unwrap();
    let package = |line: &str| {
        let (name, rest) = line.split_once(" v").unwrap();
        (name.to_owned(), rest.split(' ').next().unwrap().to_owned())
    };
    tree.lines().filter(|line| !line.is_empty()).map(package).collect()
}

/// The components of a release that are no dependencies in Cargo: the crate `rebind` inside the program, the libraries that
/// come with compilers, and the web page with the packages that its build bundles.
fn from_elsewhere(directory: &Path) -> BTreeSet<(String, String)> {
    let rustc = std::env::var_os("RUSTC").unwrap_or("rustc".into());
    let rustc = said_by(Command::new(rustc).arg("-vV"));
    fs::write(directory.join("rustc"), &rustc).unwrap();
    fs::write(directory.join("musl"), "1.2.5\n").unwrap();
    let release = rustc.lines().find_map(|line| line.strip_prefix("release: ")).unwrap();
    let read = |file: &str| fs::read_to_string(root().join("contrib/wstelnet").join(file)).unwrap();
    let locked: Value = serde_json::from_str(&read("package-lock.json")).unwrap();
    let build = read("build.mjs");
    let (_, bundled) = build.split_once("const shipped = [").unwrap();
    let bundled = bundled.split(']').next().unwrap().split(", ").map(|name| name.trim_matches('"'));
    let bundled = bundled.map(|name| {
        let version = &locked["packages"][format!("node_modules/{name}")]["version"];
        (name.to_owned(), version.as_str().unwrap().to_owned())
    });
    let ours = env!("CARGO_PKG_VERSION");
    let others = [("rebind", ours), ("wstelnet", ours), ("rust-std", release), ("musl", "1.2.5")];
    bundled.chain(others.map(|(name, version)| (name.to_owned(), version.to_owned()))).collect()
}

/// Whether a licence expression is satisfied by the licences that the project accepts (deny.toml).
fn is_accepted(expression: &str, accepted: &str) -> bool {
    let one = |licence: &str| accepted.contains(&format!("\"{licence}\","));
    let plain = expression.replace(['(', ')'], "");
    plain.split(" AND ").all(|part| part.split(" OR ").any(one))
}

/// X3: the bill of materials names all components of a release, each with its licence, and with its checksum where it is
/// from a registry.
#[test]
fn x3_the_bill_of_materials_is_complete_and_well_formed() {
    if !needs(&["python3"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let of_cargo = built_from(directory.path());
    let others = from_elsewhere(directory.path());
    let write = |name: &str| {
        let file = directory.path().join(name);
        let mut python = Command::new("python3");
        python.arg(root().join("contrib/release_bill.py")).arg(root().join("Cargo.lock"));
        said_by(python.arg(&file).arg(directory.path()).env("SOURCE_DATE_EPOCH", "1700000000"));
        fs::read(file).unwrap()
    };
    let made = write("bill");
    assert_eq!(made, write("again"));
    let bill: Value = serde_json::from_slice(&made).unwrap();
    assert_eq!((&bill["bomFormat"], &bill["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
    assert_eq!(bill["metadata"]["timestamp"], "2023-11-14T22:13:20Z");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let program = &bill["metadata"]["component"];
    assert_eq!((&program["type"], &program["name"]), (&"application".into(), &"websockify".into()));
    let components: Vec<_> =
        bill["components"].as_array().unwrap().iter().chain([program]).collect();
    let name = |one: &Value| match &one["group"] {
        Value::String(group) => format!("{group}/{}", text(&one["name"])),
        _ => text(&one["name"]),
    };
    let found: BTreeSet<_> =
        components.iter().map(|one| (name(one), text(&one["version"]))).collect();
    assert_eq!(found, &of_cargo | &others);
    assert_eq!(components.len(), found.len(), "each once");

    let accepted = fs::read_to_string(root().join("deny.toml")).unwrap();
    for one in &components {
        let licence = text(&one["licenses"][0]["expression"]);
        assert!(is_accepted(&licence, &accepted), "{}: {licence}", one["name"]);
        let is_checked = !["websockify", "bridge", "rebind", "wstelnet", "rust-std", "musl"]
            .contains(&one["name"].as_str().unwrap());
        let checksum = one["hashes"][0]["content"].as_str().unwrap_or_default();
        let length = match (is_checked, one["group"].is_null()) {
            (false, _) => 0,
            (true, true) => 64,
            // npm has SHA-512.
            (true, false) => 128,
        };
        assert_eq!(checksum.len(), length, "{}", one["name"]);
    }
    // Every component is a dependency of the program, directly or not, and every dependency is a component.
    let mut reached = BTreeSet::from([text(&program["bom-ref"])]);
    let edges = bill["dependencies"].as_array().unwrap();
    loop {
        let before = reached.len();
        for edge in
            edges.iter().filter(|edge| reached.contains(&text(&edge["ref"]))).collect::<Vec<_>>()
        {
            reached.extend(edge["dependsOn"].as_array().unwrap().iter().map(text));
        }
        if reached.len() == before {
            break;
        }
    }
    assert_eq!(reached, components.iter().map(|one| text(&one["bom-ref"])).collect());
}
