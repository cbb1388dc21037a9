//! The admin address and its password, as the command line asks for them. Opens nothing.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::address;
use super::auth::{AuthBy, AuthSource, AuthSpec};
use crate::cli::{Args, AuthPlugin};
use crate::usage::{UsageError, invalid, needs};

/// The address of the administration.
#[derive(Debug, Clone)]
pub(crate) struct AdminSpec {
    pub(crate) place: AdminPlace,
    /// None: everybody who can connect to the address may use it.
    pub(crate) auth: Option<AuthSpec>,
}

/// The address itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AdminPlace {
    Port(SocketAddr),
    Unix(PathBuf),
}

const PLACE: &str = "an address such as 127.0.0.1:9000 or [::1]:9000, or unix:FILE";

impl AdminSpec {
    pub(super) fn new(args: &Args) -> Result<Option<Self>, UsageError> {
        let Some(typed) = &args.admin else {
            let in_vain = args.admin_auth_source_file.is_some();
            return if in_vain { Err(needs(AUTH_OPTION, "--admin")) } else { Ok(None) };
        };
        let place = AdminPlace::read(typed)?;
        let auth = args.admin_auth_source_file.as_ref().map(|path| AuthSpec {
            plugin: AuthBy::Ours(AuthPlugin::BasicHttpAuth),
            source: AuthSource::In(path.clone()),
        });
        if auth.is_none() && place.is_for_others() {
            let typed = typed.display();
            return Err(UsageError(format!(
                "option '--admin={typed}' needs '{AUTH_OPTION}': other machines may reach that address"
            )));
        }
        Ok(Some(Self { place, auth }))
    }

    /// What the administrator should be warned of.
    pub(super) fn warning(&self) -> Option<String> {
        self.place.is_for_others().then(|| {
            "the password of '--admin' is not encrypted on its way to another address than this machine's own"
                .to_owned()
        })
    }
}

const AUTH_OPTION: &str = "--admin-auth-source-file";

impl AdminPlace {
    fn read(typed: &OsStr) -> Result<Self, UsageError> {
        let wrong = |expected: &str| invalid("--admin", &typed.to_string_lossy(), expected);
        if let Some(path) = typed.as_bytes().strip_prefix(b"unix:") {
            let path = Path::new(OsStr::from_bytes(path));
            let path = std::path::absolute(path).ok().filter(|path| path.file_name().is_some());
            return path.map(Self::Unix).ok_or_else(|| wrong("the path of a socket after unix:"));
        }
        let text = typed.to_str().unwrap_or_default();
        let address = text.parse::<SocketAddr>().ok().filter(|address| address.port() != 0);
        address.map(Self::Port).ok_or_else(|| {
            let port = text.rsplit(':').next().and_then(address::port).filter(|port| *port != 0);
            let is_here = text.trim_start_matches("localhost").trim_start_matches(':');
            match port.filter(|port| is_here == port.to_string()) {
                Some(port) => wrong(&format!("{PLACE} (127.0.0.1:{port}?)")),
                None => wrong(PLACE),
            }
        })
    }

    /// Whether other machines may reach it.
    fn is_for_others(&self) -> bool {
        matches!(self, Self::Port(address) if !address.ip().is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o3_an_address_is_one_of_a_machine_or_a_socket() {
        let read = |typed: &str| AdminPlace::read(OsStr::new(typed));
        for (typed, is_for_others) in [
            ("127.0.0.1:9000", false),
            ("127.1.2.3:9000", false),
            ("[::1]:9000", false),
            ("0.0.0.0:9000", true),
            ("[::]:9000", true),
            ("192.0.2.1:9000", true),
            ("[::ffff:127.0.0.1]:9000", true),
        ] {
            let place = read(typed).expect(typed);
            assert_eq!(place, AdminPlace::Port(typed.parse().unwrap()));
            assert_eq!(place.is_for_others(), is_for_others, "{typed}");
        }
        assert_eq!(read("unix:/run/x"), Ok(AdminPlace::Unix("/run/x".into())));
        for (typed, hint) in [
            ("", "unix:FILE"),
            ("9000", "(127.0.0.1:9000?)"),
            (":9000", "(127.0.0.1:9000?)"),
            ("localhost:9000", "(127.0.0.1:9000?)"),
            ("127.0.0.1:0", "unix:FILE"),
            ("127.0.0.1", "unix:FILE"),
            ("::1:9000", "unix:FILE"),
            ("a.example:9000", "unix:FILE"),
            ("http://127.0.0.1:9000", "unix:FILE"),
            ("/run/x", "unix:FILE"),
            ("unix:", "the path of a socket after unix:"),
            ("unix:/", "the path of a socket after unix:"),
        ] {
            let UsageError(line) = read(typed).expect_err(typed);
            assert!(line.contains(&format!("'{typed}' for '--admin'")), "{line}");
            assert!(line.ends_with(hint), "{line}");
        }
    }
}
