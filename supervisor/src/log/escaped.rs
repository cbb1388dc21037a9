//! Text whose control characters are escaped, except tabs. Those in what a client sends, or in a file's name, must not
//! move the cursor of a terminal or begin a new line in the log.

use std::fmt::{self, Write};

/// Displays a text with its control characters escaped.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Escaped<'a>(pub(crate) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in self.0.chars() {
            if letter.is_control() && letter != '\t' {
                write!(f, "{}", letter.escape_default())?;
            } else {
                f.write_char(letter)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f9_control_characters_are_escaped_but_tabs() {
        assert_eq!(Escaped("a\tb\nc\u{1b}[1mé").to_string(), "a\tb\\nc\\u{1b}[1mé");
    }
}
