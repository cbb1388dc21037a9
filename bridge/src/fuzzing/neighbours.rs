//! Inputs that were committed, in `tests/fuzz/seeds`, and those beside them. Included by path where other crates have
//! parsers, too.

use std::fs;
use std::path::Path;

pub(crate) const SEEDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/seeds");

/// All inputs of this name have the property, cut off everywhere, and with every byte replaced by some others.
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
