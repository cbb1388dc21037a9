//! End-to-end tests: the real `websockify` binary, real programs, loopback only.
//!
//! | module | what it proves (rows of `PROMISES.md`) |
//! |---|---|
//! | `command_line` | what bad input gets, and what is left behind: nothing (C1–C6, W8) |
//! | `plain` | the bridge without a program (C2, B, S) |
//! | `faults` | peers that vanish, counted (L4), and all else that may go wrong: `FAULTS.md` (L6) |
//! | `crowd` | many who have no session, before a few who do (L5) |
//! | `soak` | many clients and a program that crashes, for a while (L7) |
//! | `kernel` | older kernels, and machines and containers that refuse and hide much (X1, X2, F2–F4, F7, F14) |
//! | `listening` | Unix sockets in the place of a port, and inetd (U3, U4) |
//! | `tokens` | one port, many targets, and targets at Unix sockets (K1–K7, U3) |
//! | `plugins` | helpers and Python classes that know tokens, or who is let in (U8, U9) |
//! | `in_place` | command lines of the Python websockify, as people have them (U1) |
//! | `tls` | encryption, client certificates, authentication (T1–T6) |
//! | `wrap` | the life of a wrapped program, acted by `support/actor.c` (W1–W12) |
//! | `client_address` | who the target sees, and whom the program serves (A1, A2, A6) |
//! | `programs` | telnetd, vncserver, redis, nginx and others as Debian has them (R6, W13) |
//! | `drain` | sessions that end in their own time when we are asked to stop (O1) |
//! | `hand_over` | the program on disk takes over in place, or does not (O2) |
//! | `web` | files on the same port (H1–H3), and who has to wait for whom (T6, B8) |
//! | `privileges` | users whom root becomes, and what is left of its rights (W16) |
//! | `proxies` | reverse proxies before us, well set up and not (F21, F24, F34), and whom they speak for (A3–A5) |
//! | `demo` | `contrib/demo`, the one command to begin with |
//! | `scale_out` | `contrib/scale-out`: several behind HAProxy, and the same in Kubernetes (O4) |
//! | `readme` | what README.md tells people to type |
//! | `security` | the tests that SECURITY.md names (L9) |
//! | `test_run` | `tests/run`, the other command of the README |
//! | `admin` | the admin address: health, metrics, sessions and their end (O3) |
//! | `service` | daemon, log, journald, systemd (D1–D4, W11) |
//! | `packaging` | the Debian package, and its units under a systemd of their own (D2, D4, R5) |
//! | `manual` | the manual page and the shell completions are up to date |
//! | `promises` | `PROMISES.md` has every row that is cited, and the tests of each |
//! | `rebind` | `rebind.so` by itself (R1–R4) |
//!
//! Every test picks its own ports and directory, waits for conditions with a deadline, and stops
//! what it started. The name of a test, or the comment above it, begins with the row it proves.

#![allow(
    clippy::disallowed_methods,
    reason = "the ban on waiting is for the product; a test may wait for what it started"
)]
#![allow(clippy::unwrap_used, reason = "all of this is tests, helpers too")]

mod admin;
mod client_address;
mod command_line;
mod crowd;
mod demo;
mod drain;
mod faults;
mod hand_over;
mod in_place;
mod kernel;
mod listening;
mod manual;
#[path = "../bridge/src/fuzzing/numbers.rs"]
mod numbers;
mod packaging;
mod plain;
mod plugins;
mod privileges;
mod programs;
mod promises;
mod proxies;
mod readme;
mod rebind;
mod scale_out;
mod security;
mod service;
mod soak;
mod support;
mod test_run;
mod tls;
mod tokens;
mod web;
mod wrap;
