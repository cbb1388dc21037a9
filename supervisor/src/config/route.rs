//! From where to where clients are brought, in the words that others wait for in a log (U2): the addresses as
//! they were typed. Knows no socket.

use crate::cli::Args;

/// `proxying from HOST:PORT to TARGET`.
pub(super) fn proxying(args: &Args) -> String {
    format!("proxying from {} to {}", source(&args.source), target(args))
}

/// A port alone is that of any address, which upstream writes as none.
fn source(typed: &str) -> String {
    if typed.contains(':') { typed.to_owned() } else { format!(":{typed}") }
}

/// The arguments of a program are left out: a password may be among them.
fn target(args: &Args) -> String {
    let program = args.program.iter().flatten().next().map(|name| name.display());
    let port = args.program_port.as_deref();
    let port = port.unwrap_or_else(|| args.source.rsplit(':').next().unwrap_or_default());
    match (&args.target, program) {
        (Some(target), _) => target.clone(),
        (None, Some(program)) => format!("'{program}' (port {port})"),
        (None, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn u2_addresses_are_shown_as_they_were_typed() {
        for (line, shown) in [
            ("6080 localhost:5901", "proxying from :6080 to localhost:5901"),
            (":6080 :5901", "proxying from :6080 to :5901"),
            ("[::1]:80 h:1", "proxying from [::1]:80 to h:1"),
            ("::1:80 h:1", "proxying from ::1:80 to h:1"),
            ("a:80 -- vncserver :1", "proxying from a:80 to 'vncserver' (port 80)"),
            ("80 --program-port=5 -- x", "proxying from :80 to 'x' (port 5)"),
        ] {
            let words = line.split(' ');
            let args = Args::try_parse_from(std::iter::once("websockify").chain(words)).unwrap();
            assert_eq!(proxying(&args), shown);
        }
    }
}
