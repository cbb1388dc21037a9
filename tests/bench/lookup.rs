//! Sessions that are opened by a token: what the look-up costs with four of the sources of tokens (K, U8, U9).

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use crate::figure::Spread;
use crate::peer::{Kind, Peer};
use crate::series::{Stage, in_turns};

/// How many tokens there are.
const TOKENS: usize = 1000;

/// The token that is looked up.
const TOKEN: &str = "desk500";

/// How long Redis may take to start.
const START: Duration = Duration::from_secs(10);

/// A source of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Source {
    File,
    /// A program that speaks lines of JSON; here one in Python.
    Helper,
    /// A Python class of the user's own.
    Class,
    Redis,
}

/// What was measured of one proxy with one source.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Lookups {
    pub(crate) source: Source,
    pub(crate) kind: Kind,
    /// Sessions per second: connect, handshake, look-up, one echo, close.
    pub(crate) rate: Spread,
    /// CPU time of one session, seconds: with that of the helper or class that is asked, but without that of Redis.
    pub(crate) cost: Spread,
}

impl Source {
    const ALL: [Self; 4] = [Self::File, Self::Helper, Self::Class, Self::Redis];

    /// Its name in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::File => "TokenFile",
            Self::Helper => "Helper",
            Self::Class => "a Python class",
            Self::Redis => "TokenRedis",
        }
    }

    fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Helper => &[Kind::Ours],
            Self::File | Self::Class | Self::Redis => &[Kind::Ours, Kind::Python],
        }
    }

    /// How many sessions make a round: fewer for slow proxies, whose round takes some seconds.
    fn amount(self, kind: Kind) -> u64 {
        match (kind, self) {
            (Kind::Python, _) => 120,
            (_, Self::Class) => 1000,
            _ => 4000,
        }
    }

    /// The options for this source; `redis` is the port of a Redis that runs.
    fn options(self, files: &Path, redis: Option<u16>) -> Result<[String; 2]> {
        let (plugin, source) = match self {
            Self::File => ("TokenFile", files.join("tokens").display().to_string()),
            Self::Helper => ("Helper", format!("python3 {}", files.join("helper.py").display())),
            Self::Class => ("benchmark_plugin.Tokens", "desks".to_owned()),
            Self::Redis => {
                ("TokenRedis", format!("127.0.0.1:{}", redis.context("there is no redis-server")?))
            }
        };
        Ok([format!("--token-plugin={plugin}"), format!("--token-source={source}")])
    }
}

impl Stage<'_> {
    /// Measures each source with each proxy that can ask it.
    pub(crate) fn lookups(&self, rounds: usize) -> Result<Vec<Lookups>> {
        let files = self.files.path();
        write_sources(files, self.target)?;
        let redis = Redis::start(self.target)
            .inspect_err(|error| eprintln!("left out at TokenRedis: {error:#}"))
            .ok();
        let mut all = Vec::new();
        for source in Source::ALL {
            if source == Source::Redis && redis.is_none() {
                continue;
            }
            eprintln!("look-ups, {}", source.name());
            let redis = redis.as_ref().map(|redis| redis.port);
            let kinds = self.programs.present(source.kinds());
            let samples = in_turns(source.name(), kinds, rounds, |kind| {
                let peer = self.asking(kind, &source.options(files, redis)?)?;
                // What the proxy sets up for its first sessions does not count.
                self.run(self.load.connect(&peer, 40))?;
                self.run(self.load.connect(&peer, source.amount(kind)))
            })?;
            all.extend(samples.into_iter().filter_map(|(kind, samples)| {
                let rate = Spread::of(samples.iter().map(crate::load::Sample::rate))?;
                let cost = Spread::of(samples.iter().map(crate::load::Sample::cost))?;
                Some(Lookups { source, kind, rate, cost })
            }));
        }
        Ok(all)
    }

    /// A proxy that takes its targets from a source of tokens.
    fn asking(&self, kind: Kind, options: &[String]) -> Result<Peer> {
        let addr = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = Command::new("env");
        command.arg(format!("PYTHONPATH={}", self.files.path().display()));
        command.arg(self.programs.of(kind)).args(options).arg(addr.to_string());
        let path = format!("/websockify?token={TOKEN}");
        Peer::launch(kind, &command, addr, path, self.files, self.core)
    }
}

/// Writes the files of the sources, each in its own format. All of them know the same: a thousand tokens that lead to
/// one target.
fn write_sources(files: &Path, target: SocketAddr) -> Result<()> {
    let (host, port) = (target.ip(), target.port());
    let lines: Vec<_> =
        (0..TOKENS).map(|number| format!("desk{number}: {host}:{port}\n")).collect();
    fs::write(files.join("tokens"), lines.concat())?;
    let known = format!("desks = {{f\"desk{{number}}\" for number in range({TOKENS})}}\n");
    let helper = format!(
        "import json, sys\n{known}for line in sys.stdin:\n    ask = json.loads(line)\n    \
         answer = {{\"id\": ask[\"id\"]}}\n    if ask[\"token\"] in desks:\n        \
         answer.update(host=\"{host}\", port={port})\n    print(json.dumps(answer), flush=True)\n"
    );
    fs::write(files.join("helper.py"), helper)?;
    let class = format!(
        "{known}class Tokens:\n    def __init__(self, source):\n        self.source = source\n    \
         def lookup(self, token):\n        \
         return (\"{host}\", \"{port}\") if token in desks else None\n"
    );
    fs::write(files.join("benchmark_plugin.py"), class).context("cannot write the plugin")
}

/// A Redis that knows the tokens, and is ended when this is dropped.
struct Redis {
    child: Child,
    port: u16,
}

impl Redis {
    fn start(target: SocketAddr) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--save", "", "--bind", "127.0.0.1"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().context("cannot start redis-server")?;
        let redis = Self { child, port };
        let began = Instant::now();
        let stream = loop {
            match TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
                Ok(stream) => break stream,
                Err(_) if began.elapsed() < START => sleep(Duration::from_millis(10)),
                Err(error) => bail!("redis-server does not listen: {error}"),
            }
        };
        let mut answers = BufReader::new(stream.try_clone()?).lines();
        let mut stream = stream;
        for number in 0..TOKENS {
            write!(stream, "SET desk{number} {target}\r\n")?;
            let answer = answers.next().context("redis-server has ended")??;
            ensure!(answer == "+OK", "redis-server says {answer}");
        }
        Ok(redis)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
