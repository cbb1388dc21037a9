//! Encryption and authentication as they were asked for, and the certificates through our life:
//! read before anything is started, and again on SIGHUP.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use bridge::tls::{Acceptor, Authorities, Files, Tls};
use bridge::{Auth, Credentials, Plain, Private};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::cli::{Args, AuthPlugin};
use crate::config::origin;
use crate::exit::Failure;
use crate::usage::{UsageError, invalid, needs};

/// The certificate that is tried if none is given, as upstream does.
const DEFAULT_CERTIFICATE: &str = "self.pem";

/// What was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Security {
    files: Files,
    /// Whether to serve without a usable certificate is no choice.
    is_required: bool,
    plain: Plain,
    auth: Option<Auth>,
    web_auth: bool,
}

impl Security {
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
            clients,
        };
        // Only TLS has client certificates.
        let encrypted_only = args.ssl_only || args.verify_client;
        Ok(Self {
            files,
            is_required: args.cert.is_some() || args.key.is_some() || encrypted_only,
            plain: if encrypted_only { Plain::Refused } else { Plain::Served },
            auth: auth(args)?,
            web_auth: args.web_auth,
        })
    }

    /// The files that it is read from.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.files.paths()
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

/// Why TLS is off.
#[derive(Debug)]
enum Off {
    /// There is no certificate, as in most first runs: that is no fault.
    Missing,
    Unusable(String),
}

/// [`Security`] with its files read.
#[derive(Debug)]
pub(crate) struct Certificates {
    security: Security,
    tls: watch::Sender<Tls>,
    /// Why TLS is off, until that is said.
    off: Option<Off>,
    warnings: Vec<String>,
}

impl Certificates {
    /// Reads the files; without a usable certificate TLS is off, unless it was asked for.
    pub(crate) fn load(security: Security) -> Result<Self> {
        let mut off = None;
        let (tls, warnings) = match Acceptor::load(&security.files) {
            Ok((acceptor, warnings)) => (Tls::On(acceptor), warnings),
            Err(unusable) if security.is_required => return Err(unusable.into()),
            Err(unusable) => {
                let is_missing = unusable.is_missing();
                let reason = Failure::from(anyhow::Error::from(unusable)).reason;
                off = Some(if is_missing { Off::Missing } else { Off::Unusable(reason.clone()) });
                (Tls::Off(reason), vec![])
            }
        };
        Ok(Self { security, tls: watch::Sender::new(tls), off, warnings })
    }

    /// Says, once the bridge is open, that clients are not served by TLS, and why.
    pub(crate) fn report_off(&mut self) {
        match self.off.take() {
            None => {}
            Some(Off::Missing) => {
                info!("No certificate ({}): TLS is off", self.security.files.certificate.display());
            }
            Some(Off::Unusable(reason)) => warn!("TLS is off: {reason}"),
        }
    }

    /// Says what is to be said of them, once there is a log.
    pub(crate) fn report(&self) {
        for warning in &self.warnings {
            warn!("{warning}");
        }
    }

    /// Reads the files again, for the clients to come. Files that cannot be used change nothing.
    pub(crate) fn reload(&mut self) {
        match Acceptor::load(&self.security.files) {
            Ok((acceptor, warnings)) => {
                self.tls.send_replace(Tls::On(acceptor));
                self.off = None;
                self.warnings = warnings;
                info!("certificates are reloaded");
                self.report();
            }
            Err(unusable) => {
                let is_missing = unusable.is_missing();
                let reason = Failure::from(anyhow::Error::from(unusable)).reason;
                if matches!(*self.tls.borrow(), Tls::On(_)) {
                    warn!("the old certificates stay in use: {reason}");
                } else if is_missing {
                    info!("TLS stays off: {reason}");
                } else {
                    warn!("TLS stays off: {reason}");
                }
            }
        }
    }

    /// What the bridge needs to know; it hears of what is reloaded.
    pub(crate) fn for_bridge(&self, private: &Arc<Private>) -> bridge::Security {
        bridge::Security {
            tls: self.tls.subscribe(),
            plain: self.security.plain,
            auth: self.security.auth.clone(),
            web_auth: self.security.web_auth,
            private: Arc::clone(private),
        }
    }
}
