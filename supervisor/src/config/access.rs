//! Encryption and authentication as they were asked for. Reads no file.

use std::path::PathBuf;

use bridge::tls::{Authorities, Files, KeyPassword, Least, Plain};
use bridge::{Auth, Credentials};

use super::origin;
use crate::cli::{Args, AuthPlugin, SslVersion};
use crate::usage::{UsageError, invalid, needs};

/// The certificate that is tried if none is given, as upstream does.
const DEFAULT_CERTIFICATE: &str = "self.pem";

/// Who may connect, and how.
#[derive(Debug)]
pub(crate) struct Access {
    /// Where our certificate and its key are, and the authorities for clients'.
    pub(crate) files: Files,
    pub(crate) need: Need,
    /// The oldest version of TLS that is offered, and the cipher suites, if somebody says.
    pub(crate) least: Least,
    pub(crate) ciphers: Option<String>,
    pub(crate) plain: Plain,
    pub(crate) auth: Option<Auth>,
    pub(crate) web_auth: bool,
}

/// What is demanded of those files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing: nobody has named one.
    Nothing,
    /// That they can be used if they are there. They may come later.
    Usable,
    /// That they are there and can be used: nobody is served without.
    Present,
}

impl Access {
    pub(crate) fn new(args: &Args) -> Result<Self, UsageError> {
        let clients = match (&args.cafile, args.verify_client) {
            (Some(path), true) => Some(Authorities::File(path.clone())),
            (None, true) => Some(Authorities::System),
            (None, false) => None,
            (Some(_), false) => return Err(needs("--cafile", "--verify-client")),
        };
        let files = Files {
            certificate: args.cert.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_CERTIFICATE)),
            key: args.key.clone(),
            password: password(args)?,
            clients,
        };
        // Only TLS has client certificates.
        let encrypted_only = args.ssl_only || args.verify_client;
        Ok(Self {
            files,
            need: match args.cert.is_some() || args.key.is_some() {
                _ if encrypted_only => Need::Present,
                true => Need::Usable,
                false => Need::Nothing,
            },
            least: match args.ssl_version {
                Some(SslVersion::Tlsv1_3) => Least::V1_3,
                None | Some(SslVersion::Default | SslVersion::Tlsv1_1 | SslVersion::Tlsv1_2) => {
                    Least::V1_2
                }
            },
            ciphers: args.ssl_ciphers.clone(),
            plain: if encrypted_only { Plain::Refused } else { Plain::Served },
            auth: auth(args)?,
            web_auth: args.web_auth,
        })
    }
}

fn password(args: &Args) -> Result<Option<KeyPassword>, UsageError> {
    match (&args.key_password, &args.key_password_file) {
        (Some(_), Some(_)) => Err(UsageError(
            "options '--key-password' and '--key-password-file' exclude each other".into(),
        )),
        (Some(text), None) => Ok(Some(KeyPassword::Text(text.clone()))),
        (None, Some(path)) => Ok(Some(KeyPassword::File(path.clone()))),
        (None, None) => Ok(None),
    }
}

fn auth(args: &Args) -> Result<Option<Auth>, UsageError> {
    let (plugin, source) = match (&args.auth_plugin, &args.auth_source) {
        (Some(plugin), Some(source)) => (plugin, source),
        (Some(_), None) => return Err(needs("--auth-plugin", "--auth-source")),
        (None, Some(_)) => return Err(needs("--auth-source", "--auth-plugin")),
        (None, None) if args.web_auth => return Err(needs("--web-auth", "--auth-plugin")),
        (None, None) => return Ok(None),
    };
    let kind = plugin_named(plugin)?;
    let list = |what| {
        let words: Vec<_> = source.split_whitespace().map(str::to_owned).collect();
        if words.is_empty() {
            return Err(UsageError(format!("there is no {what} in the value of '--auth-source'")));
        }
        Ok(words)
    };
    match kind {
        // The value has a password in it: it is not repeated.
        AuthPlugin::BasicHttpAuth if !source.contains(':') => Err(UsageError(
            "invalid value for '--auth-source': BasicHTTPAuth expects user:password".into(),
        )),
        AuthPlugin::BasicHttpAuth => Ok(Some(Auth::Basic(Credentials::new(source)))),
        AuthPlugin::ClientCertCnAuth if !args.verify_client => {
            Err(needs("--auth-plugin=ClientCertCNAuth", "--verify-client"))
        }
        AuthPlugin::ClientCertCnAuth => Ok(Some(Auth::ClientCertCn(list("name")?))),
        AuthPlugin::ExpectOrigin => {
            let entry = |typed: String| {
                let expected = "origins as browsers send them, such as https://example.com:8080";
                origin::normal(&typed).ok_or_else(|| invalid("--auth-source", &typed, expected))
            };
            let origins = list("origin")?.into_iter().map(entry).collect::<Result<_, _>>();
            Ok(Some(Auth::Origin(origins?)))
        }
    }
}

fn plugin_named(typed: &str) -> Result<AuthPlugin, UsageError> {
    // Upstream's are Python classes, and may be named with their module.
    let module = ["websockify.auth_plugins.", "auth_plugins."];
    let name = module.iter().find_map(|module| typed.strip_prefix(module)).unwrap_or(typed);
    AuthPlugin::ALL.into_iter().find(|plugin| plugin.name() == name).ok_or_else(|| {
        let [others @ .., last] = AuthPlugin::ALL.map(AuthPlugin::name);
        invalid("--auth-plugin", typed, &format!("{} or {last}", others.join(", ")))
    })
}
