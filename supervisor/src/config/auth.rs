//! The authentication of clients, as the command line asks for it: the plugin, and what it expects of clients, or the
//! file that says so. Reads no file.

use std::ffi::OsStr;
use std::path::PathBuf;

use bridge::{Auth, Credentials};

use super::helper::{HelperSpec, is_class};
use super::origin;
use crate::cli::{Args, AuthPlugin};
use crate::usage::{UsageError, invalid, needs};

/// What decides who is let in.
#[derive(Debug, Clone)]
pub(crate) struct AuthSpec {
    pub(crate) plugin: AuthBy,
    pub(crate) source: AuthSource,
}

/// The plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AuthBy {
    Ours(AuthPlugin),
    /// A Python class, as MODULE.CLASS.
    Class(String),
}

/// What the plugin expects, or the file that says so.
#[derive(Debug, Clone)]
pub(crate) enum AuthSource {
    Typed(AuthKind),
    In(PathBuf),
}

/// What clients must show, or the helper that is asked for each client.
#[derive(Debug, Clone)]
pub(crate) enum AuthKind {
    Client(Auth),
    Helper(HelperSpec),
}

impl AuthSpec {
    /// The file that says what the plugin expects, if there is one.
    pub(crate) fn path(&self) -> Option<&PathBuf> {
        match &self.source {
            AuthSource::Typed(_) => None,
            AuthSource::In(path) => Some(path),
        }
    }
}

/// The authentication that `args` ask for.
pub(super) fn spec(args: &Args) -> Result<Option<AuthSpec>, UsageError> {
    let Some(typed) = &args.auth_plugin else {
        let options = [
            ("--auth-source", args.auth_source.is_some()),
            ("--auth-source-file", args.auth_source_file.is_some()),
            ("--web-auth", args.web_auth),
        ];
        let vain = options.into_iter().find(|(_, is_typed)| *is_typed);
        return vain.map_or(Ok(None), |(name, _)| Err(needs(name, "--auth-plugin")));
    };
    let plugin = plugin_named(typed)?;
    if plugin == AuthBy::Ours(AuthPlugin::ClientCertCnAuth) && !args.verify_client {
        return Err(needs("--auth-plugin=ClientCertCNAuth", "--verify-client"));
    }
    let source = match (&args.auth_source, &args.auth_source_file, &plugin) {
        (Some(text), _, _) => AuthSource::Typed(
            expected(&plugin, text)
                .map_err(|why| UsageError(format!("invalid value for '--auth-source': {why}")))?,
        ),
        (None, Some(path), _) => AuthSource::In(path.clone()),
        (None, None, AuthBy::Class(name)) => {
            let class = HelperSpec::class(name, None).map_err(UsageError)?;
            AuthSource::Typed(AuthKind::Helper(class))
        }
        (None, None, AuthBy::Ours(_)) => return Err(needs("--auth-plugin", "--auth-source")),
    };
    Ok(Some(AuthSpec { plugin, source }))
}

/// What a plugin expects of clients, if its source is this text, or why the text is wrong. The text may have a password
/// in it; the error repeats no password.
pub(crate) fn expected(plugin: &AuthBy, text: &str) -> Result<AuthKind, String> {
    let plugin = match plugin {
        AuthBy::Class(name) => {
            return HelperSpec::class(name, Some(OsStr::new(text))).map(AuthKind::Helper);
        }
        AuthBy::Ours(plugin) => *plugin,
    };
    let words = || text.split_whitespace().map(str::to_owned);
    let listed = |words: Vec<String>, what| {
        if words.is_empty() { Err(format!("there is no {what} in it")) } else { Ok(words) }
    };
    let auth = match plugin {
        AuthPlugin::Helper => {
            return HelperSpec::program(OsStr::new(text)).map(AuthKind::Helper);
        }
        AuthPlugin::BasicHttpAuth if text.contains(':') && !text.contains('\n') => {
            Ok(Auth::Basic(Credentials::new(text)))
        }
        AuthPlugin::BasicHttpAuth => Err("BasicHTTPAuth expects user:password".into()),
        AuthPlugin::ClientCertCnAuth => listed(words().collect(), "name").map(Auth::ClientCertCn),
        AuthPlugin::ExpectOrigin => {
            let entry = |typed: String| {
                let wrong = || {
                    format!(
                        "'{typed}': expected origins as browsers send them, such as https://example.com:8080"
                    )
                };
                origin::normal(&typed).ok_or_else(wrong)
            };
            let origins = words().map(entry).collect::<Result<_, _>>()?;
            listed(origins, "origin").map(Auth::Origin)
        }
    };
    auth.map(AuthKind::Client)
}

fn plugin_named(typed: &str) -> Result<AuthBy, UsageError> {
    // The plugins of the Python websockify are classes, and may be named with their module.
    let module = ["websockify.auth_plugins.", "auth_plugins."];
    let name = module.iter().find_map(|module| typed.strip_prefix(module)).unwrap_or(typed);
    match AuthPlugin::ALL.into_iter().find(|plugin| plugin.name() == name) {
        Some(plugin) => Ok(AuthBy::Ours(plugin)),
        None if is_class(typed) => Ok(AuthBy::Class(typed.to_owned())),
        None => {
            let [others @ .., last] = AuthPlugin::ALL.map(AuthPlugin::name);
            let ours = format!("{} or {last}, or a Python class MODULE.CLASS", others.join(", "));
            Err(invalid("--auth-plugin", typed, &ours))
        }
    }
}
