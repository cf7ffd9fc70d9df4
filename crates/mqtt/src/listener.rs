//! A socket that listens with room for many who connect in the same moment.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

/// Connections that may wait to be accepted; the system may allow fewer (`net.core.somaxconn`). The usual 128 are soon full
/// where a fleet comes back at once: whoever finds no room is not refused but tries again after a second, and then after three.
const WAITING_MAX: u32 = 4_096;

/// Listens on an address; port 0 takes a free one.
///
/// # Errors
/// When the address cannot be listened on.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A server that is started again takes its port at once.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(WAITING_MAX)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::time::Duration;

    use tokio::net::TcpStream;
    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn many_connect_while_nobody_accepts() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let mut connecting = JoinSet::new();
        for _ in 0..400 {
            connecting.spawn(TcpStream::connect(address));
        }
        let all = async {
            let mut connected = Vec::new();
            while let Some(one) = connecting.join_next().await {
                connected.push(one.unwrap().unwrap());
            }
            connected.len()
        };
        // Without room the rest would never be let in.
        assert_eq!(tokio::time::timeout(Duration::from_secs(60), all).await, Ok(400));
    }
}
