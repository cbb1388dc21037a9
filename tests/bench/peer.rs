//! The proxies that are compared: how each is started, and what it speaks.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Resource, getrlimit};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, version};

use crate::meter::Tree;
use crate::wire::{Route, Wire};

/// Descriptors that are not a session's.
const OTHER_FILES: u64 = 200;

/// How long a proxy may take to listen.
const START: Duration = Duration::from_secs(10);

/// The path that handshakes ask for.
const PATH: &str = "/websockify";

/// A kind of proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub(crate) enum Kind {
    Ours,
    Haproxy,
    Socat,
    Websocat,
    Python,
    OursTls,
    HaproxyTls,
    PythonTls,
}

impl Kind {
    /// The kinds that are compared on plain connections.
    pub(crate) const PLAIN: [Self; 5] =
        [Self::Ours, Self::Haproxy, Self::Socat, Self::Websocat, Self::Python];

    /// The kinds of these that serve thousands of clients in one process.
    pub(crate) const EVENTS: [Self; 2] = [Self::Ours, Self::Haproxy];

    /// The kinds that terminate TLS.
    pub(crate) const TLS: [Self; 3] = [Self::OursTls, Self::HaproxyTls, Self::PythonTls];

    /// Its name in the tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "websockify",
            Self::Haproxy => "HAProxy (raw TCP)",
            Self::Socat => "socat (raw TCP)",
            Self::Websocat => "websocat",
            Self::Python => "Python websockify",
            Self::OursTls => "websockify, TLS",
            Self::HaproxyTls => "HAProxy, TLS",
            Self::PythonTls => "Python websockify, TLS",
        }
    }

    /// Its name in the picture.
    pub(crate) fn short_name(self) -> &'static str {
        match self {
            Self::Ours | Self::OursTls => "websockify",
            Self::Haproxy => "HAProxy, raw TCP",
            Self::HaproxyTls => "HAProxy",
            Self::Socat => "socat, raw TCP",
            Self::Websocat => "websocat",
            Self::Python | Self::PythonTls => "Python websockify",
        }
    }

    /// Whether it is what this project builds.
    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::Ours | Self::OursTls)
    }

    /// Whether it forks a process for each client: it then cannot be asked for thousands of sessions.
    pub(crate) fn forks(self) -> bool {
        matches!(self, Self::Socat | Self::Python | Self::PythonTls)
    }

    /// What it speaks with its clients.
    pub(crate) fn wire(self) -> Wire {
        match self {
            Self::Haproxy | Self::HaproxyTls | Self::Socat => Wire::Raw,
            _ => Wire::WebSocket,
        }
    }

    fn is_tls(self) -> bool {
        Self::TLS.contains(&self)
    }
}

/// Where the programs are. A peer that is not there is left out, and a line says so.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Programs {
    /// Our binary.
    #[arg(long, value_name = "FILE")]
    websockify: PathBuf,
    /// HAProxy.
    #[arg(long, value_name = "FILE", default_value = "haproxy")]
    haproxy: PathBuf,
    /// socat.
    #[arg(long, value_name = "FILE", default_value = "socat")]
    socat: PathBuf,
    /// websocat.
    #[arg(long, value_name = "FILE", default_value = "websocat")]
    websocat: PathBuf,
    /// The Python websockify.
    #[arg(long, value_name = "FILE", default_value = "websockify")]
    python: PathBuf,
}

impl Programs {
    pub(crate) fn of(&self, kind: Kind) -> &Path {
        match kind {
            Kind::Ours | Kind::OursTls => &self.websockify,
            Kind::Haproxy | Kind::HaproxyTls => &self.haproxy,
            Kind::Socat => &self.socat,
            Kind::Websocat => &self.websocat,
            Kind::Python | Kind::PythonTls => &self.python,
        }
    }

    /// Our binary.
    pub(crate) fn websockify(&self) -> &Path {
        &self.websockify
    }

    /// socat, if it is there.
    pub(crate) fn socat(&self) -> Option<&Path> {
        self.version(Kind::Socat).map(|_| self.socat.as_path())
    }

    /// The kinds of these whose program is there.
    pub(crate) fn present(&self, kinds: &[Kind]) -> Vec<Kind> {
        kinds.iter().copied().filter(|kind| self.version(*kind).is_some()).collect()
    }

    /// What it says of its version, in a few words. `None`: it cannot be run.
    pub(crate) fn version(&self, kind: Kind) -> Option<String> {
        let option = match kind {
            Kind::Haproxy | Kind::HaproxyTls => "-v",
            Kind::Socat => "-V",
            _ => "--version",
        };
        let output = Command::new(self.of(kind)).arg(option).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let has_digits =
            |word: &&str| word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit());
        // The Python websockify does not say.
        Some(text.split_whitespace().find(has_digits).unwrap_or("").to_owned())
    }
}

/// Certificate and key for the proxies that terminate TLS, and the directory of all files.
pub(crate) struct Files {
    directory: tempfile::TempDir,
    certificate: rcgen::CertifiedKey<rcgen::KeyPair>,
}

impl Files {
    pub(crate) fn create() -> Result<Self> {
        let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let files = Self { directory: tempfile::tempdir()?, certificate };
        let pem = [files.certificate.cert.pem(), files.certificate.signing_key.serialize_pem()];
        fs::write(files.pem(), pem.concat())?;
        Ok(files)
    }

    /// The directory of these files, and of others.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    fn pem(&self) -> PathBuf {
        self.directory.path().join("self.pem")
    }

    /// A client that knows one cipher suite, so that all proxies use the same.
    fn connector(&self) -> Result<TlsConnector> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.cert.der().clone())?;
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites = vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
        let config = ClientConfig::builder_with_provider(provider.into())
            .with_protocol_versions(&[&version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

/// A proxy that runs.
pub(crate) struct Peer {
    pub(crate) tree: Tree,
    pub(crate) route: Route,
}

impl Peer {
    /// Starts a proxy to `target` on this CPU, and waits until it listens.
    pub(crate) fn start(
        kind: Kind,
        programs: &Programs,
        files: &Files,
        target: SocketAddr,
        cpu: usize,
    ) -> Result<Self> {
        // Nobody else on this machine is likely to take it meanwhile.
        let addr = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let command = command(kind, programs, files, addr, target)?;
        Self::launch(kind, &command, addr, PATH.to_owned(), files, cpu)
    }

    /// Starts a command that is a proxy of this kind and listens on `addr`; handshakes ask for `path`.
    pub(crate) fn launch(
        kind: Kind,
        command: &Command,
        addr: SocketAddr,
        path: String,
        files: &Files,
        cpu: usize,
    ) -> Result<Self> {
        let mut tree = Tree::start(command, cpu)?;
        let began = Instant::now();
        while TcpStream::connect(addr).is_err() {
            let name = kind.name();
            ensure!(!tree.has_ended(), "{name} has ended at once: {command:?}");
            ensure!(began.elapsed() < START, "{name} does not listen: {command:?}");
            sleep(Duration::from_millis(10));
        }
        let tls = kind.is_tls().then(|| files.connector()).transpose()?;
        Ok(Self { tree, route: Route { addr, wire: kind.wire(), path, tls } })
    }
}

/// How many sessions there may be: each takes two descriptors of the proxy, and two of the load.
pub(crate) fn max_sessions() -> Result<u64> {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(soft.saturating_sub(OTHER_FILES) / 2)
}

fn command(
    kind: Kind,
    programs: &Programs,
    files: &Files,
    addr: SocketAddr,
    target: SocketAddr,
) -> Result<Command> {
    let mut command = Command::new(programs.of(kind));
    match kind {
        Kind::Ours | Kind::Python => {
            command.args([addr.to_string(), target.to_string()]);
        }
        Kind::OursTls | Kind::PythonTls => {
            command.arg("--cert").arg(files.pem()).args([addr.to_string(), target.to_string()]);
        }
        Kind::Haproxy | Kind::HaproxyTls => {
            let tls = if kind == Kind::HaproxyTls {
                format!("ssl crt {}", files.pem().display())
            } else {
                String::new()
            };
            let config = files.directory.path().join(format!("haproxy-{}.cfg", addr.port()));
            let text = format!(
                "global\n maxconn {}\n nbthread 1\n\
                 defaults\n mode tcp\n timeout connect 5s\n timeout client 1h\n timeout server 1h\n\
                 listen bench\n bind {addr} {tls}\n server target {target}\n",
                max_sessions()?
            );
            fs::write(&config, text).context("cannot write HAProxy's configuration")?;
            command.arg("-db").arg("-f").arg(config);
        }
        Kind::Socat => {
            command.args(["-b", "65536"]);
            command.arg(format!(
                "TCP-LISTEN:{},bind={},fork,reuseaddr,nodelay,backlog=4096",
                addr.port(),
                addr.ip()
            ));
            command.arg(format!("TCP:{target},nodelay"));
        }
        Kind::Websocat => {
            command.args(["--binary", "--protocol", "binary"]);
            command.args([format!("ws-l:{addr}"), format!("tcp:{target}")]);
        }
    }
    Ok(command)
}
