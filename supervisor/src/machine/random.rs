//! Names and tokens that nobody can guess. Must not know what they are for.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

/// 128 random bits (getrandom(2)), as 32 hexadecimal digits.
pub(crate) fn hex() -> io::Result<String> {
    let mut bytes = [0; 16];
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    Ok(u128::from_ne_bytes(bytes)).map(|number| format!("{number:032x}"))
}
