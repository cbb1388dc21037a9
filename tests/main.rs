//! End-to-end tests: the real `websockify` binary, real programs, loopback only.
//!
//! | module | what it proves (rows of `PROMISES.md`) |
//! |---|---|
//! | `command_line` | bad input: its error line and exit status, and that nothing is left behind (C1–C8, W8) |
//! | `plain` | the bridge without a program (C2, B, S) |
//! | `faults` | peers that vanish (L4), and everything else that may go wrong: `FAULTS.md` (L6) |
//! | `crowd` | many clients without a session, beside a few that have one (L5) |
//! | `soak` | many clients and a program that crashes, for a while (L7) |
//! | `kernel` | older kernels, and machines and containers that refuse and hide much (X1, X2, F2–F4, F7, F14) |
//! | `listening` | Unix sockets in the place of a port, and inetd (U3, U4) |
//! | `tokens` | one port, many targets, and targets at Unix sockets (K1–K8, U3) |
//! | `plugins` | helpers and Python classes that look up tokens, or decide who gets a session (U8, U9) |
//! | `in_place` | command lines of the Python websockify that are in use (U1, U2) |
//! | `tls` | encryption, client certificates, authentication (T1–T6, U5, U6) |
//! | `wrap` | the life of a wrapped program; the program is `support/actor.c` (W1–W12, W14, W15) |
//! | `client_address` | which client address the target sees, and which connections the program accepts (A1, A2, A6) |
//! | `programs` | telnetd, vncserver, redis, nginx and others from Debian's packages (R6, W13, W14) |
//! | `drain` | sessions that go on to their own end after websockify was asked to stop (O1) |
//! | `hand_over` | the new binary takes over in the running process, or is refused (O2) |
//! | `web` | files on the same port (H1–H3), slow clients (T6) and time limits (B8) |
//! | `privileges` | websockify that root starts and that runs as another user, and which rights are left (W16) |
//! | `proxies` | reverse proxies before websockify, well configured or not (F21, F24, F34), and clients that they name (A3–A5) |
//! | `demo` | `contrib/demo`, the one command to begin with |
//! | `scale_out` | `contrib/scale-out`: several behind HAProxy, and the same in Kubernetes (O4) |
//! | `readme` | what README.md tells people to type |
//! | `security` | the tests that SECURITY.md names (L9) |
//! | `test_run` | `tests/run`, which runs all tests |
//! | `admin` | the admin address: health, metrics, sessions and their end (O3) |
//! | `service` | daemon, log, journald, systemd, syslog (D1–D4, U7, W11) |
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
