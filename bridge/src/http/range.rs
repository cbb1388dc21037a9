//! The part of a file that a request wants: `Range` as RFC 9110 has it (sections 14.1 and 14.2), written as tower-http reads it.
//! That refuses valid ones: a suffix longer than the file, a unit in upper case, empty elements of the list, and numbers with
//! zeroes before them or of more than 64 bits. Knows a value and a length.

use ::http::header::HeaderValue;

/// The last position that a file can have (lseek(2)).
const LAST: u64 = i64::MAX.unsigned_abs();

/// What tower-http is to be asked for of a file of this length, bytes. `None`: the whole file is to be sent, as the value has
/// another unit, wants several parts or is malformed, or as nothing is in the file.
pub(super) fn of_file(value: &HeaderValue, length: u64) -> Option<HeaderValue> {
    let (unit, parts) = value.to_str().ok()?.split_once('=')?;
    if !unit.eq_ignore_ascii_case("bytes") || length == 0 {
        return None;
    }
    let parts = parts.split(',').map(|part| part.trim_matches([' ', '\t']));
    let mut parts = parts.filter(|part| !part.is_empty());
    let (first, last) = parts.next()?.split_once('-')?;
    if parts.next().is_some() {
        return None;
    }
    let text = match (first, last) {
        ("", last) => match number(last)? {
            // The file may have grown when it is opened, so it stays a suffix where tower-http takes that.
            suffix if suffix <= length => format!("bytes=-{suffix}"),
            _ => "bytes=0-".to_owned(),
        },
        (first, "") => format!("bytes={}-", number(first)?),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            format!("bytes={first}-{last}")
        }
    };
    HeaderValue::try_from(text).ok()
}

/// A number of any length; one that is too large is the last position.
fn number(digits: &str) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    is_number.then(|| digits.parse().map_or(LAST, |number: u64| number.min(LAST)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h1_the_part_that_is_wanted_is_asked_for_however_it_is_written() {
        let meant = |value: &str, length| {
            let value = of_file(&value.parse().unwrap(), length)?;
            Some(value.to_str().unwrap().to_owned())
        };
        for (value, expected) in [
            ("bytes=2-4", Some("bytes=2-4")),
            ("Bytes=02-0004", Some("bytes=2-4")),
            ("bytes=, 2-4 ,", Some("bytes=2-4")),
            ("bytes=2-", Some("bytes=2-")),
            ("bytes=-3", Some("bytes=-3")),
            ("bytes=-9", Some("bytes=-9")),
            ("bytes=-25", Some("bytes=0-")),
            ("bytes=0-99999999999999999999", Some("bytes=0-9223372036854775807")),
            ("bytes=9-", Some("bytes=9-")),
            ("bytes=-0", Some("bytes=-0")),
            ("bytes=0-1,3-4", None),
            ("bytes=4-2", None),
            ("bytes=-", None),
            ("bytes=", None),
            ("bytes=a-b", None),
            ("bytes=+1-2", None),
            ("lines=1-2", None),
            ("bytes", None),
        ] {
            assert_eq!(meant(value, 9).as_deref(), expected, "{value}");
        }
        assert_eq!(meant("bytes=0-", 0), None, "nothing is in the file");
    }
}
