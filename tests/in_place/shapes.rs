//! Command lines as they are in use: in documentation, container entry points, unit files, supervisord sections and
//! launchers of the Python websockify. Each with what must work then.
//!
//! | word | stands for |
//! |---|---|
//! | `PORT` | a free port |
//! | `TARGET`, `TPORT` | a service at `localhost:TPORT`, which sends back what it gets |
//! | `DIR` | a directory with the files that are read; others are made there |
//! | `WEBSERVER` | a web server that knows where `vm1` is, at `/text/vm1` and `/json/vm1` |
//! | `REDIS` | the port of a Redis server that knows where `vm1` is, and `desk:vm1` |
//! | `SIGNED` | a token, signed with the secret in `DIR/secret`, that says where the service is |
//! | `PROGRAM` | a program that listens on `PORT`, greets each client, and sends back what it gets |

use super::Expectation::{self, Host, Page, Session, Shown, Tls, TlsPage, Unix};

/// A command line, and what must work with it.
pub(super) struct CommandLine {
    /// Where such a command line is found.
    pub(super) whence: &'static str,
    pub(super) line: &'static str,
    pub(super) then: &'static [Expectation],
    /// Why it does not work with the Python websockify 0.13 as PyPI has it.
    pub(super) fault: Option<&'static str>,
}

impl CommandLine {
    const fn fails_upstream(self, fault: &'static str) -> Self {
        Self { fault: Some(fault), ..self }
    }
}

/// Where noVNC's pages connect to.
const NOVNC: &str = "/websockify";
/// The same, with a token.
const TOKEN: &str = "/websockify?token=vm1";

const NO_REBIND: &str = "its rebind.so is not built by PyPI's installers";

const fn shape(
    whence: &'static str,
    line: &'static str,
    then: &'static [Expectation],
) -> CommandLine {
    CommandLine { whence, line, then, fault: None }
}

pub(super) const COMMAND_LINES: &[CommandLine] = &[
    // Addresses.
    shape("the manual page", "PORT TARGET", &[Session("/")]),
    shape("supervisord", ":PORT TARGET", &[Session(NOVNC)]),
    shape("container", "0.0.0.0:PORT TARGET", &[Session(NOVNC)]),
    shape("autopilot bridge", "127.0.0.1:PORT 127.0.0.1:TPORT", &[Session("/")]),
    shape("behind a proxy", "localhost:PORT TARGET", &[Session(NOVNC)]),
    shape("container", "PORT :TPORT", &[Session(NOVNC)]),
    shape("container", "--prefer-ipv6 PORT TARGET", &[Session(NOVNC)]),
    shape("desktop image", "-6 PORT localhost:TPORT", &[Session(NOVNC)]),
    // Pages.
    shape("Debian's noVNC", "--web=DIR/web PORT TARGET", &[Session(NOVNC), Page("/vnc.html")]),
    shape("unit file", "--web=DIR/web/ PORT TARGET", &[Page("/vnc.html"), Page("/")]),
    shape("container", "--web DIR/web 0.0.0.0:PORT 127.0.0.1:TPORT", &[Page("/vnc.html")]),
    shape("container", "0.0.0.0:PORT 127.0.0.1:TPORT --web=DIR/web", &[Page("/vnc.html")]),
    shape("notebook", "PORT TARGET --web DIR/web/", &[Session(NOVNC), Page("/vnc_lite.html")]),
    shape(
        "novnc_proxy",
        "--web DIR/web --cert DIR/novnc.pem PORT TARGET",
        &[Session(NOVNC), Tls(NOVNC), TlsPage("/vnc.html")],
    ),
    shape(
        "novnc_proxy --file-only --heartbeat --idle-timeout --record --ssl-only",
        "--ssl-only --file-only --web DIR/web --cert DIR/cert.pem --key DIR/key.pem PORT TARGET \
         --heartbeat 30 --idle-timeout 3600 --record DIR/record",
        &[Tls(NOVNC), TlsPage("/vnc.html")],
    ),
    // Certificates.
    shape(
        "container",
        "-D --web=DIR/web/ --cert=DIR/novnc.pem PORT TARGET",
        &[Tls(NOVNC), TlsPage("/vnc.html")],
    ),
    shape(
        "container, before the certificate is made",
        "-D --web=DIR/web/ --cert=~/novnc.pem PORT TARGET",
        &[Session(NOVNC), Page("/vnc.html")],
    ),
    shape("README", "--cert=DIR/cert.pem --key=DIR/key.pem PORT TARGET", &[Tls("/"), Session("/")]),
    shape(
        "conference bridge",
        "-D --ssl-only --cert DIR/cert.pem --key DIR/key.pem PORT TARGET",
        &[Tls("/")],
    ),
    shape(
        "hardened",
        "--ssl-only --cert=DIR/novnc.pem --ssl-version=tlsv1_2 \
         --ssl-ciphers=HIGH:!aNULL:!MD5:ECDHE+AESGCM PORT TARGET",
        &[Tls("/")],
    ),
    shape(
        "locked key",
        "--cert=DIR/cert.pem --key=DIR/locked.pem --key-password=secret PORT TARGET",
        &[Tls("/")],
    ),
    shape("self.pem in the working directory", "--ssl-only PORT TARGET", &[Tls(NOVNC)]),
    // Background.
    shape("script", "PORT TARGET -D", &[Session(NOVNC)]),
    shape("script", "PORT TARGET --daemon", &[Session(NOVNC)]),
    shape("script", "--daemon --log-file=DIR/log PORT TARGET", &[Session(NOVNC)]),
    shape(
        "script",
        "--web DIR/web --daemon --log-file DIR/log --token-plugin TokenFile --token-source DIR/tokens.cfg PORT",
        &[Session(TOKEN)],
    ),
    shape("Open OnDemand", "-D PORT TARGET --heartbeat=30", &[Session(NOVNC)]),
    // Logs.
    shape("Open OnDemand", "PORT TARGET", &[Shown("proxying from :PORT to TARGET")]),
    shape(
        "script",
        "--verbose PORT TARGET",
        &[Session(NOVNC), Shown("proxying from :PORT to TARGET")],
    ),
    shape("script", "-v PORT TARGET --traffic", &[Session(NOVNC)]),
    shape("unit file", "--log-file=DIR/log PORT TARGET", &[Shown("proxying from :PORT to TARGET")]),
    // Limits.
    shape("container", "--timeout 0 --heartbeat 30 PORT TARGET", &[Session(NOVNC)]),
    shape("container", "--web=DIR/web --heartbeat=30 PORT TARGET", &[Session(NOVNC)]),
    shape("launcher", "--run-once PORT TARGET", &[Session(NOVNC)]),
    shape("launcher", "--run-once --timeout=15 --idle-timeout=300 PORT TARGET", &[Session(NOVNC)]),
    // Options for other engines and versions of the Python websockify.
    shape("supervisord", "--libserver --web DIR/web PORT TARGET", &[Session(NOVNC)])
        .fails_upstream("its other server has no unix_listen"),
    shape("unit file", "--auto-pong --heartbeat 30 PORT TARGET", &[Session(NOVNC)])
        .fails_upstream("0.7.0 and 0.8.0 alone have that option"),
    // Options and targets that the Python websockify takes and does not use.
    shape("launcher", "--cafile=DIR/none.pem --cert=DIR/novnc.pem PORT TARGET", &[Tls(NOVNC)]),
    shape(
        "launcher",
        "--target-config=DIR/tokens.cfg PORT localhost:1",
        &[Session(TOKEN), Shown("to targets generated by TokenFile")],
    )
    .fails_upstream("it took a target there until 0.8.0"),
    shape(
        "hypervisor",
        "--unix-target=DIR/sockets/vm1 PORT localhost:1",
        &[Session(NOVNC), Shown("proxying from :PORT to DIR/sockets/vm1")],
    )
    .fails_upstream("it took a target there until 0.8.0"),
    // Values that begin with a hyphen.
    shape("script", "--key-password -x --log-file -D PORT TARGET", &[Session(NOVNC)]),
    // Empty values.
    shape(
        "container, without its certificate",
        "--cert= --key= --key-password= --cafile= --ssl-ciphers= PORT TARGET",
        &[Session(NOVNC)],
    ),
    shape(
        "container, without its pages",
        "--web= --record= --log-file= --syslog= PORT TARGET",
        &[Session(NOVNC)],
    ),
    shape(
        "container, without tokens",
        "--token-source= --auth-source= --target-config= --unix-target= PORT TARGET",
        &[Session(NOVNC)],
    ),
    shape(
        "behind a proxy",
        "--unix-listen=DIR/mode.sock --unix-listen-mode= TARGET",
        &[Unix("mode.sock")],
    ),
    shape("behind a proxy, without its socket", "--unix-listen= PORT TARGET", &[Session(NOVNC)])
        .fails_upstream("it reads the port, and opens a socket without a name"),
    // Tokens.
    shape(
        "container",
        "--token-plugin TokenFile --token-source DIR/tokens/ 0.0.0.0:PORT",
        &[Session(TOKEN), Session("/?token=vm2"), Shown("to targets generated by TokenFile")],
    ),
    shape(
        "unit file",
        "--web=DIR/web --token-plugin=TokenFile --token-source=DIR/tokens.cfg 127.0.0.1:PORT",
        &[Session(TOKEN), Page("/vnc.html")],
    ),
    shape(
        "launcher",
        "PORT --token-plugin TokenFile --token-source DIR/tokens.cfg -D",
        &[Session(TOKEN)],
    ),
    shape(
        "cloud controller",
        "--web DIR/web --token-plugin TokenFile --token-source=DIR/tokens -D PORT",
        &[Session(TOKEN)],
    ),
    shape("script", "-D --web=DIR/web/ PORT --target-config DIR/tokens.cfg", &[Session(TOKEN)]),
    shape("script", "--web DIR/web --target-config=DIR/tokens.cfg PORT", &[Session(TOKEN)]),
    shape(
        "launcher",
        "--token-plugin=ReadOnlyTokenFile --token-source=DIR/tokens.cfg PORT",
        &[Session(TOKEN)],
    ),
    shape(
        "launcher",
        "--token-plugin=websockify.token_plugins.TokenFile --token-source=DIR/tokens.cfg PORT",
        &[Session(TOKEN)],
    ),
    shape(
        "one file a desktop",
        "--token-plugin=TokenFileName --token-source=DIR/names PORT",
        &[Session(TOKEN)],
    ),
    shape(
        "one socket a virtual machine",
        "--token-plugin UnixDomainSocketDirectory --token-source DIR/sockets PORT",
        &[Session(TOKEN)],
    ),
    shape(
        "control panel",
        "--web DIR/web --token-plugin JSONTokenApi --token-source http://WEBSERVER/json/%s PORT",
        &[Session(TOKEN), Page("/vnc.html")],
    ),
    shape(
        "control panel",
        "--token-plugin=BaseTokenAPI --token-source=http://WEBSERVER/text/%s PORT",
        &[Session(TOKEN)],
    ),
    shape(
        "container",
        "--web DIR/web --token-plugin TokenRedis --token-source 127.0.0.1:REDIS:0 0.0.0.0:PORT",
        &[Session(TOKEN), Page("/vnc.html")],
    ),
    shape(
        "container",
        "--token-plugin=TokenRedis --token-source=127.0.0.1:REDIS:::desk PORT",
        &[Session(TOKEN)],
    ),
    shape(
        "web application",
        "--token-plugin JWTTokenApi --token-source DIR/secret PORT",
        &[Session("/?token=SIGNED")],
    ),
    shape(
        "one name a desktop",
        "--host-token --token-plugin TokenFile --token-source DIR/tokens.cfg PORT",
        &[Host("vm1")],
    ),
    shape(
        "a class of a site's own",
        "--web DIR/web --token-plugin desks.Desks --token-source localhost:TPORT PORT",
        &[Session(TOKEN), Page("/vnc.html")],
    ),
    // Authentication.
    shape(
        "a class of a site's own",
        "--auth-plugin=desks.Known --auth-source=me PORT TARGET",
        &[Expectation::Headed("/", "X-Remote-User: me\r\n")],
    ),
    shape(
        "gateway",
        "--auth-plugin=BasicHTTPAuth --auth-source=me:secret PORT TARGET",
        &[Expectation::Headed("/", "Authorization: Basic bWU6c2VjcmV0\r\n")],
    ),
    shape(
        "gateway",
        "--web DIR/web --web-auth --auth-plugin BasicHTTPAuth --auth-source me:secret PORT TARGET",
        &[Expectation::Headed("/", "Authorization: Basic bWU6c2VjcmV0\r\n")],
    ),
    shape(
        "gateway",
        "--auth-plugin ExpectOrigin --auth-source https://desk.example PORT TARGET",
        &[Expectation::Headed("/", "Origin: https://desk.example\r\n")],
    ),
    // Unix sockets.
    shape("hypervisor", "--unix-target=DIR/sockets/vm1 PORT", &[Session(NOVNC)]),
    shape("hypervisor", "PORT --unix-target DIR/sockets/vm1 --web DIR/web", &[Session(NOVNC)]),
    shape("behind a proxy", "--unix-listen=DIR/ws.sock TARGET", &[Unix("ws.sock")]),
    shape(
        "behind a proxy",
        "--unix-listen DIR/web.sock --unix-listen-mode 660 --unix-target DIR/sockets/vm1",
        &[Unix("web.sock")],
    ),
    // Programs.
    shape("the manual page", "PORT -- PROGRAM", &[Session("/")]).fails_upstream(NO_REBIND),
    shape("the manual page", "PORT --wrap-mode=ignore -- PROGRAM", &[Session("/")])
        .fails_upstream(NO_REBIND),
    shape("unit file", "--wrap-mode=respawn --web=DIR/web PORT -- PROGRAM", &[Session("/")])
        .fails_upstream(NO_REBIND),
    shape("supervisord", "--key=DIR/key.pem --cert=DIR/cert.pem PORT -- PROGRAM", &[Tls("/")])
        .fails_upstream(NO_REBIND),
];
