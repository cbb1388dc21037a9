//! Redis servers.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::needs;
use super::wait::wait_for;

/// A Redis server of one test.
pub(crate) struct Redis {
    child: Child,
    pub(crate) port: u16,
}

impl Redis {
    /// Starts a server on `port`; `None` if Redis is not installed.
    pub(crate) fn start(port: u16, options: &[&str]) -> Option<Self> {
        if !needs(&["redis-server"]) {
            return None;
        }
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        let child = command.args(options).stdout(Stdio::null()).spawn().unwrap();
        let redis = Self { child, port };
        wait_for("redis", || redis.connect());
        Some(redis)
    }

    pub(crate) fn connect(&self) -> Option<TcpStream> {
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok()
    }

    /// Sends lines to the server, each a command, and waits until it has answered them.
    pub(crate) fn tell(&self, lines: &[String]) {
        let mut stream = self.connect().unwrap();
        for line in lines {
            // Redis limits the length of a line. A long value must be sent as an argument with its length.
            match line.strip_prefix("SET long ") {
                None => write!(stream, "{line}\r\n").unwrap(),
                Some(value) => {
                    let length = value.len();
                    write!(stream, "*3\r\n$3\r\nSET\r\n$4\r\nlong\r\n${length}\r\n{value}\r\n")
                        .unwrap();
                }
            }
            let mut said = Vec::new();
            while !said.ends_with(b"\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                said.push(byte[0]);
            }
            assert!(!said.starts_with(b"-"), "{line}: {}", String::from_utf8_lossy(&said));
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
