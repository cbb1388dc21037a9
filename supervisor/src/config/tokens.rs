//! Tokens as they were asked for: what knows them, where requests have them, where they may lead. Reads no
//! file.

use std::ffi::OsStr;
use std::path::PathBuf;

use bridge::{Allowed, Kind, Pattern, RedisServer, TokenPlace};

use super::allowed;
use crate::cli::{Args, TokenPlugin};
use crate::usage::{UsageError, invalid, needs};

/// How a token becomes a target.
#[derive(Debug, Clone)]
pub(crate) struct TokensSpec {
    pub(crate) plugin: TokenPlugin,
    pub(crate) source: TokenSource,
    pub(crate) place: TokenPlace,
    pub(crate) allowed: Option<Allowed>,
}

/// What a plugin asks, or where that stands.
#[derive(Debug, Clone)]
pub(crate) enum TokenSource {
    Typed(Kind),
    In(PathBuf),
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
        // In upstream, too, --target-config takes the place of --token-plugin and --token-source.
        (Some(path), _) => {
            let plugin = TokenPlugin::TokenFile;
            (plugin, typed("--target-config", plugin, path.as_os_str())?)
        }
        (None, Some(name)) => {
            let plugin = plugin_named(name)?;
            (plugin, source(args, plugin)?)
        }
        (None, None) => return Ok(None),
    };
    if args.session_expires && plugin != TokenPlugin::JwtTokenApi {
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

fn source(args: &Args, plugin: TokenPlugin) -> Result<TokenSource, UsageError> {
    match (&args.token_source, &args.token_source_file) {
        (Some(text), _) => typed("--token-source", plugin, text),
        (None, Some(path)) => Ok(TokenSource::In(path.clone())),
        (None, None) => Err(needs("--token-plugin", "--token-source")),
    }
}

/// The value may have a password in it: it is not repeated.
fn typed(option: &str, plugin: TokenPlugin, text: &OsStr) -> Result<TokenSource, UsageError> {
    kind(plugin, text)
        .map(TokenSource::Typed)
        .map_err(|why| UsageError(format!("invalid value for '{option}': {why}")))
}

/// What a plugin asks by the text that it is told, or why that is none.
pub(crate) fn kind(plugin: TokenPlugin, text: &OsStr) -> Result<Kind, String> {
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
    Ok(match plugin {
        TokenPlugin::TokenFile => Kind::TokenFile(path()?),
        TokenPlugin::ReadOnlyTokenFile => Kind::ReadOnlyTokenFile(path()?),
        TokenPlugin::TokenFileName => Kind::TokenFileName(path()?),
        TokenPlugin::UnixDomainSocketDirectory => Kind::UnixDomainSocketDirectory(path()?),
        TokenPlugin::BaseTokenApi => Kind::BaseTokenApi(pattern()?),
        TokenPlugin::JsonTokenApi => Kind::JsonTokenApi(pattern()?),
        TokenPlugin::JwtTokenApi => Kind::JwtTokenApi(path()?),
        TokenPlugin::TokenRedis => Kind::TokenRedis(redis()?),
    })
}

fn plugin_named(typed: &str) -> Result<TokenPlugin, UsageError> {
    // Upstream's are Python classes, and may be named with their module.
    let module = ["websockify.token_plugins.", "token_plugins."];
    let name = module.iter().find_map(|module| typed.strip_prefix(module)).unwrap_or(typed);
    TokenPlugin::ALL.into_iter().find(|plugin| plugin.name() == name).ok_or_else(|| {
        let [others @ .., last] = TokenPlugin::ALL.map(TokenPlugin::name);
        invalid("--token-plugin", typed, &format!("{} or {last}", others.join(", ")))
    })
}
