//! The target of the proxies: a server that sends, takes or echoes, as its client says first.

use std::net::SocketAddr;

use anyhow::{Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;

use crate::pattern::{self, Check};

/// How much is written, and read, at once.
const PIECE: usize = 64 * 1024;

/// What the target answers when it has got all of it, and all was right.
pub(crate) const GOOD: u8 = b'+';

/// What a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// Send me the pattern.
    Send { position: u64, length: u64 },
    /// Take the pattern, and say [`GOOD`] at its end.
    Take { position: u64, length: u64 },
    /// Send back whatever comes.
    Echo,
}

impl Command {
    pub(crate) const LENGTH: usize = 17;

    pub(crate) fn to_bytes(self) -> [u8; Self::LENGTH] {
        let (letter, position, length) = match self {
            Self::Send { position, length } => (b'S', position, length),
            Self::Take { position, length } => (b'T', position, length),
            Self::Echo => (b'E', 0, 0),
        };
        let mut bytes = [letter; Self::LENGTH];
        bytes[1..9].copy_from_slice(&position.to_be_bytes());
        bytes[9..].copy_from_slice(&length.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: [u8; Self::LENGTH]) -> Result<Self> {
        let number = |at: usize| {
            bytes[at..at + 8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
        };
        let (position, length) = (number(1), number(9));
        Ok(match bytes[0] {
            b'S' => Self::Send { position, length },
            b'T' => Self::Take { position, length },
            b'E' => Self::Echo,
            letter => bail!("unknown command {letter}"),
        })
    }
}

/// Starts a target. Echoes are given on `quick`, everything else on `bulk`.
pub(crate) fn start(quick: &Handle, bulk: &Handle) -> Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let bulk = bulk.clone();
    let _context = quick.enter();
    let socket = nix::sys::socket::Backlog::new(4096)?;
    nix::sys::socket::listen(&listener, socket)?;
    let listener = TcpListener::from_std(listener)?;
    quick.spawn(async move {
        while let Ok((io, _)) = listener.accept().await {
            // A client that ends without a command is the check that the proxy listens.
            tokio::spawn(attend(io, bulk.clone()));
        }
    });
    Ok(addr)
}

async fn attend(mut io: TcpStream, bulk: Handle) -> Result<()> {
    io.set_nodelay(true)?;
    let mut command = [0; Command::LENGTH];
    io.read_exact(&mut command).await?;
    let command = Command::from_bytes(command)?;
    if command == Command::Echo {
        return echo(io).await;
    }
    let io = io.into_std()?;
    bulk.spawn(async move {
        let io = TcpStream::from_std(io)?;
        match command {
            Command::Send { position, length } => send(io, position, length).await,
            Command::Take { position, length } => take(io, Check::new(position, length)).await,
            Command::Echo => echo(io).await,
        }
    });
    Ok(())
}

async fn echo(mut io: TcpStream) -> Result<()> {
    loop {
        // An idle session should not cost the machine a buffer.
        io.readable().await?;
        let mut buffer = [0; 4096];
        match io.try_read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => io.write_all(&buffer[..length]).await?,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
}

async fn send(mut io: TcpStream, mut position: u64, length: u64) -> Result<()> {
    let end = position + length;
    while position < end {
        let piece = PIECE.min(usize::try_from(end - position).unwrap_or(PIECE));
        io.write_all(pattern::slice(position, piece)).await?;
        position += piece as u64;
    }
    until_closed(io).await
}

async fn take(mut io: TcpStream, mut check: Check) -> Result<()> {
    let mut buffer = vec![0; 4 * PIECE];
    while check.left > 0 {
        let length = io.read(&mut buffer).await?;
        if length == 0 {
            bail!("{} bytes too few", check.left);
        }
        check.take(&buffer[..length])?;
    }
    io.write_all(&[GOOD]).await?;
    until_closed(io).await
}

/// Waits until the client closes: the side that closes first keeps its port busy for a minute.
async fn until_closed(mut io: TcpStream) -> Result<()> {
    while io.read(&mut [0; 64]).await? > 0 {}
    Ok(())
}
