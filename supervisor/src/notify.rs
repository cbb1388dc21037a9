//! Hears from `rebind.so` that a moved socket listens. The message is a hint to look and no more:
//! anybody may send one, and who sends it need not be who serves in the end.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram as StdUnixDatagram};

use tokio::net::UnixDatagram;

/// A datagram socket in the abstract namespace (unix(7)): it has no path, so a program that changed
/// its root, its user or its /tmp still reaches it.
#[derive(Debug)]
pub(crate) struct Notifications {
    socket: UnixDatagram,
    /// The address, without its leading zero byte.
    pub(crate) name: String,
    /// What a message must begin with to be heard.
    pub(crate) token: String,
}

impl Notifications {
    /// Opens a socket under a name that nobody can guess.
    pub(crate) fn open() -> io::Result<Self> {
        let name = format!("websockify-{}", random_hex()?);
        let token = random_hex()?;
        let socket = StdUnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket: UnixDatagram::from_std(socket)?, name, token })
    }

    /// Returns when somebody who knows the token has sent something. Cancel-safe.
    pub(crate) async fn heard(&self) {
        let mut message = [0; 128];
        loop {
            match self.socket.recv(&mut message).await {
                Ok(length) if message[..length].starts_with(self.token.as_bytes()) => return,
                Ok(_) => {}
                // Not seen to happen on a bound datagram socket; there is the look at each deadline.
                Err(_) => std::future::pending().await,
            }
        }
    }
}

/// 128 random bits (getrandom(2)).
fn random_hex() -> io::Result<String> {
    let mut bytes = [0; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u128::from_ne_bytes(bytes)).map(|number| format!("{number:032x}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn r3_only_a_message_with_the_token_is_heard() {
        let notifications = Notifications::open().expect("a socket");
        let address = SocketAddr::from_abstract_name(&notifications.name).expect("a name");
        let sender = StdUnixDatagram::unbound().expect("a socket");
        sender.send_to_addr(b"nonsense", &address).expect("sent");
        let heard = tokio::time::timeout(Duration::from_millis(50), notifications.heard()).await;
        heard.expect_err("nonsense is not heard");
        sender
            .send_to_addr(format!("{} 1", notifications.token).as_bytes(), &address)
            .expect("sent");
        let heard = tokio::time::timeout(Duration::from_secs(5), notifications.heard()).await;
        heard.expect("heard");
    }
}
