//! What holds for the state that one binary leaves to the other, whatever the bytes are (L8).

use serde_json::Value;

use super::format;
use super::state::State;

/// The bytes are a state, or the document of one. False: they are neither.
pub(crate) fn state(bytes: &[u8]) -> bool {
    if let Ok((state, rest)) = format::read(bytes) {
        written_again(&state, rest);
    } else if let Ok(state) = serde_json::from_slice(bytes) {
        written_again(&state, b"bytes");
    } else {
        return false;
    }
    true
}

/// A state that is accepted is the same when it is written and read once more.
fn written_again(state: &State, bytes: &[u8]) {
    let written = format::write(state, bytes).expect("it can be written");
    let (again, rest) = format::read::<State>(&written).expect("it can be read again");
    assert_eq!(rest, bytes);
    assert_eq!(document(&again), document(state));
    let sorted = |state: &State| {
        let mut numbers = state.descriptors();
        numbers.sort_unstable();
        numbers
    };
    assert_eq!(sorted(&again), sorted(state));
}

fn document(state: &State) -> Value {
    serde_json::to_value(state).expect("it can be written")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use crate::neighbours::SEEDS;

    #[test]
    fn l8_known_states_are_the_same_when_they_are_read_again() {
        let mut tried = 0;
        for seed in fs::read_dir(Path::new(SEEDS).join("handed_over")).expect("the seeds") {
            let path = seed.expect("one").path();
            assert!(super::state(&fs::read(&path).expect("read")), "{}", path.display());
            tried += 1;
        }
        assert!(tried >= 5);
    }
}
