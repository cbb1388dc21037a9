//! The committed inputs in `tests/fuzz/seeds`, and inputs close to them. Other crates that have parsers include this file by
//! path.

use std::fs;
use std::path::Path;

pub(crate) const SEEDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/seeds");

/// Tries the property with all inputs of this name, cut off everywhere, and with each byte replaced by some others.
pub(crate) fn try_neighbours(name: &str, property: fn(&[u8])) {
    let seeds = fs::read_dir(Path::new(SEEDS).join(name)).unwrap();
    let seeds: Vec<_> = seeds.map(|seed| fs::read(seed.unwrap().path()).unwrap()).collect();
    assert!(!seeds.is_empty(), "{name}");
    for seed in seeds {
        property(&seed);
        for at in 0..seed.len() {
            property(&seed[..at]);
            for byte in [0, b'=', 0xff, seed[at] ^ 1] {
                let mut changed = seed.clone();
                changed[at] = byte;
                property(&changed);
            }
        }
    }
}
