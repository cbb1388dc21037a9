//! SIGUSR2: the binary on disk takes over in place, and whatever was goes on (O2).

mod load;
mod rest;
mod wrapped;
