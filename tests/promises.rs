//! `PROMISES.md` compared with the project's files: every row that is cited is there, and each has its tests, or a
//! reason why it has none. With `BLESS=1` the lists of tests are written anew, and the text stays.
//!
//! **A row** is a capital letter and a number up to 99 that stand alone: between blanks, brackets, quotes, commas and
//! the like (`W9`, `(B4)`, `T1–T6`). So `SHA1`, `P-521`, `IpAddr::V4` and `F_` are no rows, and [`OTHERS`] are words
//! that look like rows and mean something else.
//!
//! **A citation** is a row in a comment or in a document, and in the benchmark anywhere.
//!
//! **A test proves** the rows that its name begins with (`f10_b4_…`, in the pages' suites `F54: …`), and those that
//! begin the comment above it (`/// W9, B8: …`). A file of the pages' tests whose first line begins with rows proves
//! these with all its tests, and is listed by its path.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::support::{blessed, root};

const PROMISES: &str = "tests/PROMISES.md";
/// Directories that nobody has written by hand: built, installed, drawn, or found by a fuzzer.
const NOT_WRITTEN: &[&str] =
    &["target", "node_modules", "dist", "corpus", "artifacts", "seeds", "pictures"];
/// Address families, the engine of node and Chromium, the window system, an encoding.
const OTHERS: &[&str] = &["V4", "V6", "V8", "X11", "B64"];
/// How long a line of a list may be.
const WIDTH: usize = 118;

/// The name of a row in the document, and its section without the list of tests.
struct Row {
    name: String,
    text: String,
}

/// What the project's files say: where each row is cited, and which tests prove it.
#[derive(Default)]
struct Tree {
    cited: BTreeMap<String, String>,
    tests: BTreeMap<String, BTreeSet<String>>,
}

impl Tree {
    fn read() -> Self {
        let mut tree = Self::default();
        let mut pending = vec![root()];
        while let Some(path) = pending.pop() {
            let name = path.file_name().unwrap().to_str().unwrap();
            if NOT_WRITTEN.contains(&name) || (name.starts_with('.') && name != ".ci") {
                continue;
            }
            if path.is_dir() {
                pending.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            } else if let Ok(text) = fs::read_to_string(&path) {
                let path = path.strip_prefix(root()).unwrap().to_str().unwrap();
                if path != PROMISES {
                    tree.add(path, &text);
                }
            }
        }
        tree
    }

    /// The names of all tests that prove a row.
    fn names(&self) -> BTreeSet<String> {
        self.tests.values().flatten().cloned().collect()
    }

    fn add(&mut self, path: &str, text: &str) {
        let extension = Path::new(path).extension().and_then(|extension| extension.to_str());
        let cites = match extension {
            _ if path.starts_with("tests/bench/") => whole,
            Some("md" | "roff") => whole,
            Some("rs" | "js" | "mjs" | "css" | "c") => behind_slashes,
            Some("svg" | "html" | "json" | "lock" | "1") => return,
            _ => behind_hash,
        };
        for row in text.lines().flat_map(|line| rows_in(cites(line))) {
            self.cited.entry(row).or_insert_with(|| path.to_owned());
        }
        let proofs = match extension {
            Some("rs") => rust_tests(text),
            Some("mjs") if path.ends_with(".test.mjs") => page_tests(path, text),
            _ => Vec::new(),
        };
        for (rows, test) in proofs {
            for row in rows {
                self.cited.entry(row.clone()).or_insert_with(|| test.clone());
                self.tests.entry(row).or_default().insert(test.clone());
            }
        }
    }
}

/// The names of all tests that prove a row, for other documents that name some.
pub(crate) fn tests() -> BTreeSet<String> {
    Tree::read().names()
}

fn whole(line: &str) -> &str {
    line
}

fn behind_slashes(line: &str) -> &str {
    match line.trim_start() {
        inside if inside.starts_with('*') || inside.starts_with("/*") => inside,
        line => line.split_once("//").map_or("", |(_, comment)| comment),
    }
}

fn behind_hash(line: &str) -> &str {
    line.split_once('#').map_or("", |(_, comment)| comment)
}

/// Whether a word looks like a row; what stands beside it is not looked at.
fn is_row(word: &str) -> bool {
    let mut letters = word.chars();
    let number = letters.clone().skip(1).collect::<String>();
    letters.next().is_some_and(|letter| letter.is_ascii_uppercase())
        && (1..=2).contains(&number.len())
        && !number.starts_with('0')
        && number.chars().all(|digit| digit.is_ascii_digit())
        && !OTHERS.contains(&word)
}

/// The rows that are cited in a text.
fn rows_in(text: &str) -> Vec<String> {
    let apart = |letter: char| letter.is_whitespace() || "()[]\"`,;–".contains(letter);
    let words = text.split(apart).map(|word| word.trim_end_matches(['.', ':', '\'']));
    // "W12's".
    let words = words.map(|word| word.strip_suffix("'s").unwrap_or(word));
    words.filter(|word| is_row(word)).map(str::to_owned).collect()
}

/// The rows that a comment or title begins with: "W9, B8: …".
pub(crate) fn rows_before(text: &str) -> Vec<String> {
    let Some((rows, _)) = text.split_once(": ") else { return Vec::new() };
    let rows: Vec<_> = rows.split(", ").collect();
    if rows.iter().all(|row| is_row(row)) {
        rows.into_iter().map(str::to_owned).collect()
    } else {
        Vec::new()
    }
}

/// The rows that a name begins with: `f10_b4_…`.
fn rows_of(name: &str) -> Vec<String> {
    let parts = name.split('_').map(str::to_uppercase);
    parts.take_while(|part| is_row(part)).collect()
}

/// Rust's tests, and what each proves.
fn rust_tests(text: &str) -> Vec<(Vec<String>, String)> {
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let mut tests = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        if !(line.starts_with("#[test]") || line.starts_with("#[tokio::test")) {
            continue;
        }
        let name = lines[at..].iter().find_map(|line| line.split_once("fn ")).unwrap().1;
        let name = name.split('(').next().unwrap();
        let above = lines[..at].iter().rev();
        let above = above.take_while(|line| line.starts_with("///") || line.starts_with("#["));
        let first = above.filter_map(|line| line.strip_prefix("/// ")).last();
        let mut rows = rows_of(name);
        rows.extend(first.into_iter().flat_map(rows_before));
        tests.push((rows, name.to_owned()));
    }
    tests
}

/// The tests of pages, and what each proves; the file as a whole, too.
fn page_tests(path: &str, text: &str) -> Vec<(Vec<String>, String)> {
    let first = text.lines().next().and_then(|line| line.strip_prefix("// "));
    let whole = (first.map(rows_before).unwrap_or_default(), path.to_owned());
    let titles = text.lines().filter_map(|line| {
        let call = line.trim_start().trim_start_matches("await ").trim_start_matches("t.");
        let title = call.strip_prefix("test(")?;
        let quote = title.chars().next().filter(|quote| "\"`'".contains(*quote))?;
        title[1..].split(quote).next()
    });
    titles.map(|title| (rows_before(title), title.to_owned())).chain([whole]).collect()
}

/// The document: what stands before its first row, and its rows.
fn parse(document: &str) -> (String, Vec<Row>) {
    let mut parts = document.split("\n### ");
    let before = parts.next().unwrap().to_owned();
    let rows = parts.map(|part| {
        let name = part.split([' ', '\n']).next().unwrap().to_owned();
        let kept = part.split("\n\n").filter(|paragraph| !paragraph.starts_with("Tests: "));
        Row { name, text: kept.collect::<Vec<_>>().join("\n\n").trim_end().to_owned() }
    });
    (before, rows.collect())
}

/// A list in lines that are not too long; a name is never broken.
fn listed(tests: &BTreeSet<String>) -> String {
    let mut text = "Tests:".to_owned();
    let mut width = text.len();
    for (at, test) in tests.iter().enumerate() {
        let item = format!("`{test}`{}", if at + 1 == tests.len() { '.' } else { ',' });
        let is_first = at == 0;
        let (between, from) =
            if is_first || width + 1 + item.len() <= WIDTH { (' ', width + 1) } else { ('\n', 0) };
        text.push(between);
        text += &item;
        width = from + item.len();
    }
    text
}

/// The document as it should be.
fn document(before: &str, rows: &[Row], tests: &BTreeMap<String, BTreeSet<String>>) -> String {
    let sections = rows.iter().map(|row| {
        // The headline of the next group, if there is one, stands behind the list.
        let (text, group) = row.text.split_once("\n\n## ").unzip();
        let group = group.map(|group| format!("\n\n## {group}")).unwrap_or_default();
        let list = tests.get(&row.name).map(|tests| format!("\n\n{}", listed(tests)));
        format!("\n### {}{}{group}\n", text.unwrap_or(&row.text), list.unwrap_or_default())
    });
    before.to_owned() + &sections.collect::<String>()
}

#[test]
fn every_row_has_its_tests_and_every_citation_its_row() {
    let tree = Tree::read();
    let (before, rows) = parse(&fs::read_to_string(root().join(PROMISES)).unwrap());
    let mut names = BTreeSet::new();
    for row in &rows {
        assert!(is_row(&row.name), "{PROMISES}: {} is no row", row.name);
        assert!(names.insert(row.name.as_str()), "{PROMISES}: {} is there twice", row.name);
        let (proved, excused) =
            (tree.tests.contains_key(&row.name), row.text.contains("\n\nNo test: "));
        assert!(proved || excused, "{PROMISES}: {} has neither a test nor a reason", row.name);
        assert!(!(proved && excused), "{PROMISES}: {} has tests, and a reason why not", row.name);
    }
    for (row, place) in &tree.cited {
        assert!(names.contains(row.as_str()), "{row} is cited in {place}, and not in {PROMISES}");
    }
    blessed(PROMISES, &document(&before, &rows, &tree.tests), "promises");
}

#[test]
fn what_is_a_row_and_what_only_looks_like_one() {
    let rows = |text: &str| rows_in(text).join(" ");
    assert_eq!(
        rows("ends (W9, B8), as W12's \"P1\" and T1–T6; F3: [`L4`]. D1."),
        "W9 B8 W12 P1 T1 T6 F3 L4 D1"
    );
    assert_eq!(
        rows("SHA1 P-521 P521 IPv4 IpAddr::V4 V6 X509 X11 RFC 6455 F_ W0 W01 W100 w9 E1s #F1 F6="),
        ""
    );
    assert_eq!(rows_of("f10_b4_a_client_has_2_ends"), ["F10", "B4"]);
    assert_eq!(rows_of("for_f68_skips"), [""; 0]);
    assert_eq!(rows_before("W9, B8: the end"), ["W9", "B8"]);
    assert_eq!(rows_before("the end: W9"), [""; 0]);
    assert_eq!(behind_slashes("    let x = F1; // W9"), " W9");
    assert_eq!(behind_hash("A=F1 # W9"), " W9");
}

#[test]
fn tests_are_found_with_all_their_rows() {
    let rust = "/// B8, L1: why.\n/// W9: no row of it.\n#[test]\n#[ignore]\nfn b8_ends() {}\n\
                #[tokio::test(start_paused = true)]\nasync fn plain() {}\n";
    let found = rust_tests(rust);
    assert_eq!(found[0], (vec!["B8".into(), "B8".into(), "L1".into()], "b8_ends".into()));
    assert_eq!(found[1], (vec![], "plain".into()));
    let page = "// H4: a page.\ntest(\"F54: it ends\", () => {\n  await t.test(`${x}`, () => {\n";
    let found = page_tests("a.test.mjs", page);
    assert_eq!(found[0], (vec!["F54".into()], "F54: it ends".into()));
    assert_eq!(found[1], (vec![], "${x}".into()));
    assert_eq!(found[2], (vec!["H4".into()], "a.test.mjs".into()));
}

#[test]
fn lists_are_written_anew_and_words_are_kept() {
    let old = "# P\n\n## A: one\n\n### A1 Head\n\nWords.\n\nTests: `gone`.\n\n## B: two\n\n### B2 Head\n\n\
               No test: why.\n";
    let (before, rows) = parse(old);
    let tests = BTreeMap::from([("A1".to_owned(), BTreeSet::from(["a1_it".to_owned()]))]);
    let new = document(&before, &rows, &tests);
    assert_eq!(new, old.replace("gone", "a1_it"));
    let long: BTreeSet<_> = (10..20).map(|n| format!("{n}{}", "x".repeat(40))).collect();
    assert!(listed(&long).lines().all(|line| line.len() <= WIDTH), "{}", listed(&long));
}
