//! The page that a directory without an `index.html` is shown as.

use std::ffi::OsString;
use std::fmt::Write;
use std::path::Path;
use std::{fs, io};

use super::url_path::{UrlPath, reference};
use crate::private::{Private, Snapshot};

/// How many names a page has at most: it is made in memory.
const MOST: usize = 10_000;

/// The style sheet. The page follows the reader's light or dark colour scheme.
const STYLE: &str = "
:root { color-scheme: light dark; font: 1rem/1.6 system-ui, sans-serif; }
body { max-width: 50rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; overflow-wrap: anywhere; }
table { width: 100%; border-collapse: collapse; }
tr:hover { background: #8882; }
td { padding: 0 .4rem; overflow-wrap: anywhere; }
td + td { text-align: right; white-space: nowrap; opacity: .7; }
a { display: block; text-decoration: none; }
a:hover { text-decoration: underline; }
";

/// One line of the page.
struct Entry {
    kind: Kind,
    name: OsString,
}

enum Kind {
    Directory,
    /// With its size, bytes.
    File(u64),
}

/// The page of the directory at `path`, which clients call `url_path`, without files that are not served. Blocks.
pub(super) fn page(path: &Path, url_path: &UrlPath, private: &Private) -> io::Result<String> {
    let mut entries = Vec::new();
    let ours = private.snapshot();
    let mut names = fs::read_dir(path)?;
    for name in names.by_ref().take(MOST) {
        entries.extend(entry(&name?, url_path, &ours));
    }
    let is_cut = names.next().is_some();
    // Directories come first.
    let is_file = |entry: &Entry| matches!(entry.kind, Kind::File(_));
    entries.sort_unstable_by(|one: &Entry, other| {
        (is_file(one), &one.name).cmp(&(is_file(other), &other.name))
    });
    Ok(html(url_path, &entries, is_cut))
}

/// Links are followed. What is neither file nor directory, or leads nowhere, is not shown.
fn entry(listed: &fs::DirEntry, url_path: &UrlPath, ours: &Snapshot<'_>) -> Option<Entry> {
    if !url_path.shows(&listed.file_name()) {
        return None;
    }
    let path = listed.path();
    let metadata = fs::metadata(&path).ok()?;
    if ours.contains(&path, &metadata).ok()? {
        return None;
    }
    let kind = match metadata.is_dir() {
        true => Kind::Directory,
        false if metadata.is_file() => Kind::File(metadata.len()),
        false => return None,
    };
    Some(Entry { kind, name: listed.file_name() })
}

fn html(url_path: &UrlPath, entries: &[Entry], is_cut: bool) -> String {
    let title = escape(&url_path.text());
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n<h1>{title}</h1>\n<table>\n"
    );
    if url_path.name().is_some() {
        page.push_str("<tr><td><a href=\"../\">..</a><td>\n");
    }
    for Entry { kind, name } in entries {
        let (target, name) = (reference(name), escape(&name.to_string_lossy()));
        // Writing to a string cannot fail.
        let _ = match kind {
            Kind::Directory => {
                writeln!(page, "<tr><td><a href=\"{target}/\">{name}/</a><td>")
            }
            Kind::File(size) => {
                writeln!(page, "<tr><td><a href=\"{target}\">{name}</a><td>{}", amount(*size))
            }
        };
    }
    page.push_str("</table>\n");
    if is_cut {
        page.push_str("<p>There are more.\n");
    }
    page
}

/// Bytes for people, in steps of 1024.
fn amount(size: u64) -> String {
    let steps = ["KiB", "MiB", "GiB", "TiB"];
    if size < 1024 {
        return format!("{size} B");
    }
    let (mut tenths, mut unit) = (size * 10 / 1024, 0);
    while tenths >= 10_240 && unit + 1 < steps.len() {
        (tenths, unit) = (tenths / 1024, unit + 1);
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, steps[unit])
}

/// Text as HTML needs it, in attributes too.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h1_names_are_escaped_as_text_and_as_references() {
        let name = |name: &str, kind| Entry { kind, name: name.into() };
        let entries = [
            name("sub dir", Kind::Directory),
            name("<b>&\"'.txt", Kind::File(5)),
            name("a:b?c#d", Kind::File(0)),
        ];
        let page = html(&UrlPath::parse("/<i>/").unwrap(), &entries, true);
        for part in [
            "<h1>/&lt;i&gt;/</h1>",
            "<a href=\"../\">",
            "<a href=\"./sub%20dir/\">sub dir/</a>",
            "<a href=\"./%3Cb%3E%26%22%27.txt\">&lt;b&gt;&amp;&quot;&#39;.txt</a><td>5 B",
            "<a href=\"./a%3Ab%3Fc%23d\">a:b?c#d</a>",
            "There are more",
        ] {
            assert!(page.contains(part), "{part} in {page}");
        }
        let root = html(&UrlPath::parse("/").unwrap(), &[], false);
        assert!(!root.contains("../") && !root.contains("more"), "{root}");
    }

    #[test]
    fn h1_sizes_are_for_people() {
        for (size, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1 << 20, "1.0 MiB"),
            (5 << 40, "5.0 TiB"),
            (5 << 50, "5120.0 TiB"),
        ] {
            assert_eq!(amount(size), shown);
        }
    }
}
