//! The `websockify` command.

fn main() -> std::process::ExitCode {
    websockify::run(std::env::args_os()).into()
}
