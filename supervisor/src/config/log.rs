//! Where the log is asked to go. Opens nothing.

use crate::cli::Args;
use crate::log::{Requested, Server, SyslogFormat};
use crate::usage::{UsageError, invalid, needs};

use super::address;

/// What the command line says about the log.
pub(super) fn requested(args: &Args) -> Result<Requested, UsageError> {
    let syslog = args.syslog.as_deref().map(server).transpose()?;
    if args.legacy_syslog && syslog.is_none() {
        return Err(needs("--legacy-syslog", "--syslog"));
    }
    let format = if args.legacy_syslog { SyslogFormat::Rfc3164 } else { SyslogFormat::Rfc5424 };
    Ok(Requested {
        file: args.log_file.clone(),
        syslog: syslog.map(|server| (server, format)),
        journal: args.journald,
    })
}

/// With a colon and no slash it is an address, else a socket's file.
fn server(typed: &str) -> Result<Server, UsageError> {
    let wrong = || invalid("--syslog", typed, "a local socket (/dev/log) or HOST:PORT");
    if typed.contains('/') || !typed.contains(':') {
        return (!typed.is_empty()).then(|| Server::Local(typed.into())).ok_or_else(wrong);
    }
    let address = address::target(typed).map_err(|_| wrong())?;
    Ok(Server::Udp { host: address.host, port: address.port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn u7_a_syslog_server_is_a_file_or_an_address() {
        let udp = |host: &str| Ok(Server::Udp { host: host.into(), port: 514 });
        assert_eq!(server("/dev/log"), Ok(Server::Local("/dev/log".into())));
        assert_eq!(server("log"), Ok(Server::Local("log".into())));
        assert_eq!(server("logs.example:514"), udp("logs.example"));
        assert_eq!(server("[::1]:514"), udp("::1"));
        for typed in ["", "host:", "host:0", "host:x", "a:b:1"] {
            let UsageError(line) = server(typed).expect_err(typed);
            assert!(line.starts_with(&format!("invalid value '{typed}' for '--syslog'")), "{line}");
        }
    }
}
