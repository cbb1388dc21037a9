//! Encryption and authentication of clients, as the command line asks for them. Reads no file.

use std::path::PathBuf;

use bridge::Plain;
use bridge::tls::{Authorities, Files, KeyPassword, MinVersion};

use super::auth::{self, AuthSpec};
use crate::cli::{Args, SslVersion};
use crate::usage::UsageError;

/// The certificate that is tried if none is given, as the Python websockify does.
const DEFAULT_CERTIFICATE: &str = "self.pem";

/// Who may connect, and how.
#[derive(Debug)]
pub(crate) struct Access {
    /// Where our certificate and its key are, and the authorities for clients'.
    pub(crate) files: Files,
    pub(crate) need: Need,
    /// The oldest version of TLS that is offered, and the cipher suites, if an option says.
    pub(crate) least: MinVersion,
    pub(crate) ciphers: Option<String>,
    pub(crate) plain: Plain,
    pub(crate) auth: Option<AuthSpec>,
    pub(crate) web_auth: bool,
}

/// What is demanded of the files for TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing: no option names one.
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
            (_, false) => None,
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
                Some(SslVersion::Tlsv1_3) => MinVersion::V1_3,
                None | Some(SslVersion::Default | SslVersion::Tlsv1_1 | SslVersion::Tlsv1_2) => {
                    MinVersion::V1_2
                }
            },
            ciphers: args.ssl_ciphers.clone(),
            plain: if encrypted_only { Plain::Refused } else { Plain::Served },
            auth: auth::spec(args)?,
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
