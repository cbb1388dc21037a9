//! Tokens as the command line asks for them: the plugin that knows them, where a request has its token, and which
//! targets are allowed. Reads no file.

use std::ffi::OsStr;
use std::path::PathBuf;

use bridge::{Allowed, Kind, Pattern, RedisServer, TokenPlace};

use super::allowed;
use super::helper::{HelperSpec, is_class};
use crate::cli::{Args, TokenPlugin};
use crate::usage::{UsageError, invalid, needs};

/// How a token becomes a target.
#[derive(Debug, Clone)]
pub(crate) struct TokensSpec {
    pub(crate) plugin: Plugin,
    pub(crate) source: TokenSource,
    pub(crate) place: TokenPlace,
    pub(crate) allowed: Option<Allowed>,
}

/// The plugin.
#[derive(Debug, Clone)]
pub(crate) enum Plugin {
    Ours(TokenPlugin),
    /// A Python class, as MODULE.CLASS.
    Class(String),
}

/// Where a plugin looks tokens up, or the file that says so.
#[derive(Debug, Clone)]
pub(crate) enum TokenSource {
    Typed(TokenKind),
    In(PathBuf),
}

/// Where a plugin looks tokens up: in a source that the bridge reads itself, or with a helper.
#[derive(Debug, Clone)]
pub(crate) enum TokenKind {
    Own(Kind),
    Helper(HelperSpec),
}

/// The option that asks for tokens, if one does.
pub(super) fn option(args: &Args) -> Option<&'static str> {
    let options = [
        ("--target-config", args.target_config.is_some()),
        ("--token-plugin", args.token_plugin.is_some()),
    ];
    options.into_iter().find(|(_, is_typed)| *is_typed).map(|(name, _)| name)
}

/// What `args` say of tokens.
pub(super) fn spec(args: &Args) -> Result<Option<TokensSpec>, UsageError> {
    check_needs(args)?;
    let (plugin, source) = match (&args.target_config, &args.token_plugin) {
        // In the Python websockify, too, --target-config takes the place of --token-plugin and --token-source.
        (Some(path), _) => {
            let plugin = Plugin::Ours(TokenPlugin::TokenFile);
            let source = typed("--target-config", &plugin, path.as_os_str())?;
            (plugin, source)
        }
        (None, Some(name)) => {
            let plugin = plugin_named(name)?;
            let source = source(args, &plugin)?;
            (plugin, source)
        }
        (None, None) => return Ok(None),
    };
    if args.session_expires && !matches!(plugin, Plugin::Ours(TokenPlugin::JwtTokenApi)) {
        return Err(needs("--session-expires", "--token-plugin=JWTTokenApi"));
    }
    let place = if args.host_token { TokenPlace::Host } else { TokenPlace::Query };
    let allowed = args.target_allow.as_deref().map(allowed::list).transpose()?.map(Allowed::new);
    Ok(Some(TokensSpec { plugin, source, place, allowed }))
}

fn check_needs(args: &Args) -> Result<(), UsageError> {
    let of_plugin = [
        ("--token-source", args.token_source.is_some()),
        ("--token-source-file", args.token_source_file.is_some()),
    ];
    let of_any =
        [("--host-token", args.host_token), ("--target-allow", args.target_allow.is_some())];
    if args.session_expires && option(args).is_none() {
        return Err(needs("--session-expires", "--token-plugin=JWTTokenApi"));
    }
    let vain = of_plugin.into_iter().filter(|_| args.token_plugin.is_none());
    let vain = vain.chain(of_any.into_iter().filter(|_| option(args).is_none()));
    let first = { vain }.find(|(_, is_typed)| *is_typed);
    first.map_or(Ok(()), |(name, _)| Err(needs(name, "--token-plugin")))
}

fn source(args: &Args, plugin: &Plugin) -> Result<TokenSource, UsageError> {
    match (&args.token_source, &args.token_source_file) {
        (Some(text), _) => typed("--token-source", plugin, text),
        (None, Some(path)) => Ok(TokenSource::In(path.clone())),
        (None, None) => match plugin {
            Plugin::Class(name) => {
                let class = HelperSpec::class(name, None).map_err(UsageError)?;
                Ok(TokenSource::Typed(TokenKind::Helper(class)))
            }
            Plugin::Ours(_) => Err(needs("--token-plugin", "--token-source")),
        },
    }
}

/// The value may have a password in it: it is not repeated.
fn typed(option: &str, plugin: &Plugin, text: &OsStr) -> Result<TokenSource, UsageError> {
    kind(plugin, text)
        .map(TokenSource::Typed)
        .map_err(|why| UsageError(format!("invalid value for '{option}': {why}")))
}

/// Where a plugin looks tokens up, if its source is this text, or why the text is wrong.
pub(crate) fn kind(plugin: &Plugin, text: &OsStr) -> Result<TokenKind, String> {
    let plugin = match plugin {
        Plugin::Class(name) => {
            return HelperSpec::class(name, Some(text)).map(TokenKind::Helper);
        }
        Plugin::Ours(plugin) => *plugin,
    };
    let path = || std::path::absolute(text).map_err(|_| "it is no path".to_owned());
    let utf8 = || text.to_str().ok_or("it is not text in UTF-8");
    let redis = || {
        let expects = "expects host[:port[:db[:password[:namespace]]]]";
        let server = utf8().and_then(RedisServer::parse);
        server.map_err(|why| format!("{} {expects}: {why}", plugin.name()))
    };
    let pattern = || {
        let pattern = utf8().and_then(Pattern::parse);
        let expects = "expects a URL with %s where the token goes";
        pattern.map_err(|why| format!("{} {expects}: {why}", plugin.name()))
    };
    Ok(TokenKind::Own(match plugin {
        TokenPlugin::TokenFile => Kind::TokenFile(path()?),
        TokenPlugin::ReadOnlyTokenFile => Kind::ReadOnlyTokenFile(path()?),
        TokenPlugin::TokenFileName => Kind::TokenFileName(path()?),
        TokenPlugin::UnixDomainSocketDirectory => Kind::UnixDomainSocketDirectory(path()?),
        TokenPlugin::BaseTokenApi => Kind::BaseTokenApi(pattern()?),
        TokenPlugin::JsonTokenApi => Kind::JsonTokenApi(pattern()?),
        TokenPlugin::JwtTokenApi => Kind::JwtTokenApi(path()?),
        TokenPlugin::TokenRedis => Kind::TokenRedis(redis()?),
        TokenPlugin::Helper => return HelperSpec::program(text).map(TokenKind::Helper),
    }))
}

fn plugin_named(typed: &str) -> Result<Plugin, UsageError> {
    // The plugins of the Python websockify are classes, and may be named with their module.
    let module = ["websockify.token_plugins.", "token_plugins."];
    let name = module.iter().find_map(|module| typed.strip_prefix(module)).unwrap_or(typed);
    match TokenPlugin::ALL.into_iter().find(|plugin| plugin.name() == name) {
        Some(plugin) => Ok(Plugin::Ours(plugin)),
        None if is_class(typed) => Ok(Plugin::Class(typed.to_owned())),
        None => {
            let [others @ .., last] = TokenPlugin::ALL.map(TokenPlugin::name);
            let ours = format!("{} or {last}, or a Python class MODULE.CLASS", others.join(", "));
            Err(invalid("--token-plugin", typed, &ours))
        }
    }
}

impl Plugin {
    /// The name for the log. The Python websockify leaves the module out.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Ours(plugin) => plugin.name(),
            Self::Class(name) => name.rsplit('.').next().unwrap_or(name),
        }
    }
}
