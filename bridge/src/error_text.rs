//! What the operating system says, in words for a person: without its number, in lower case.

use std::io;

/// What an error says, `connection refused` and not `Connection refused (os error 111)`. For a timeout of tokio's, too,
/// this is `timed out`.
pub fn error_text(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::TimedOut {
        return error.kind().to_string();
    }
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    #[tokio::test]
    async fn c4_an_error_is_told_without_its_number() {
        let refused = io::Error::from(Errno::ECONNREFUSED);
        assert_eq!(error_text(&refused), "connection refused");
        let too_large = io::Error::from(Errno::EFBIG);
        assert_eq!(error_text(&too_large), "file too large");
        let late = tokio::time::timeout(std::time::Duration::ZERO, std::future::pending::<()>());
        let late = late.await.expect_err("it never comes");
        assert_eq!(error_text(&late.into()), "timed out");
    }
}
