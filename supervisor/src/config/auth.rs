//! What clients must show, as it was asked for: the kind of proof, and what is expected of it or the file where
//! that stands. Reads no file.

use std::path::PathBuf;

use bridge::{Auth, Credentials};

use super::origin;
use crate::cli::{Args, AuthPlugin};
use crate::usage::{UsageError, invalid, needs};

/// What clients must show.
#[derive(Debug, Clone)]
pub(crate) struct AuthSpec {
    pub(crate) plugin: AuthPlugin,
    pub(crate) source: AuthSource,
}

/// What the plugin expects, or where that stands.
#[derive(Debug, Clone)]
pub(crate) enum AuthSource {
    Typed(Auth),
    In(PathBuf),
}

/// What `args` say of it.
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
    let (source, file) = (args.auth_source.as_deref(), &args.auth_source_file);
    if source.is_none() && file.is_none() {
        return Err(needs("--auth-plugin", "--auth-source"));
    }
    let plugin = plugin_named(typed)?;
    if plugin == AuthPlugin::ClientCertCnAuth && !args.verify_client {
        return Err(needs("--auth-plugin=ClientCertCNAuth", "--verify-client"));
    }
    let source = match (source, file) {
        (Some(text), _) => AuthSource::Typed(
            expected(plugin, text)
                .map_err(|why| UsageError(format!("invalid value for '--auth-source': {why}")))?,
        ),
        (None, file) => AuthSource::In(file.clone().unwrap_or_default()),
    };
    Ok(Some(AuthSpec { plugin, source }))
}

/// What a plugin expects of clients by the text that it is told, or why that is nothing. The text may have a
/// password in it: of that, nothing is repeated.
pub(crate) fn expected(plugin: AuthPlugin, text: &str) -> Result<Auth, String> {
    let words = || text.split_whitespace().map(str::to_owned);
    let listed = |words: Vec<String>, what| {
        if words.is_empty() { Err(format!("there is no {what} in it")) } else { Ok(words) }
    };
    match plugin {
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
