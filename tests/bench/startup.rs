//! From the start of websockify to its first accepted connection.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;

use crate::figure::Spread;
use crate::peer::Programs;

/// How often it is started.
const STARTS: usize = 15;

/// After how long a start has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a start takes (P8).
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Startup {
    /// With a target, seconds.
    pub(crate) target: Spread,
    /// With a wrapped program, here socat, seconds; its own start is in it.
    pub(crate) program: Option<Spread>,
    /// The binary's size, bytes.
    pub(crate) size: u64,
}

impl Startup {
    pub(crate) fn measure(programs: &Programs) -> Result<Self> {
        let websockify = programs.websockify();
        let of = |program: Option<&Path>| {
            let times: Result<Vec<_>> = (0..STARTS).map(|_| start(websockify, program)).collect();
            anyhow::Ok(Spread::of(times?).expect("there is a start"))
        };
        Ok(Self {
            target: of(None)?,
            program: programs.socat().map(|socat| of(Some(socat))).transpose()?,
            size: std::fs::metadata(websockify).context("cannot look at websockify")?.len(),
        })
    }
}

fn start(websockify: &Path, program: Option<&Path>) -> Result<f64> {
    let addr = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut command = Command::new(websockify);
    command.arg(addr.to_string());
    match program {
        None => command.arg("127.0.0.1:9"),
        Some(socat) => {
            let listen = format!("TCP-LISTEN:{},bind=127.0.0.1,reuseaddr,fork", addr.port());
            command.arg("--").arg(socat).args([&listen, "EXEC:cat"])
        }
    };
    let began = Instant::now();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let accepted = wait(&mut child, addr, began);
    kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM)?;
    child.wait()?;
    accepted
}

fn wait(child: &mut Child, addr: SocketAddr, began: Instant) -> Result<f64> {
    loop {
        if TcpStream::connect(addr).is_ok() {
            return Ok(began.elapsed().as_secs_f64());
        }
        ensure!(child.try_wait()?.is_none(), "websockify has ended at once");
        ensure!(began.elapsed() < PATIENCE, "websockify does not accept");
        // Asks seldom: the start that is measured needs the processor more.
        std::thread::sleep(Duration::from_micros(200));
    }
}
