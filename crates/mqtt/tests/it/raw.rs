//! A client made of bytes, independent of the code under test.
#![expect(clippy::unwrap_used, reason = "a test stops where its assumption fails")]

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::{here, soon};

pub struct Raw {
    pub tcp: TcpStream,
    version: u8,
}

fn text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(&u16::try_from(text.len()).unwrap().to_be_bytes());
    out.extend_from_slice(text);
}

pub fn packet(head: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![head];
    let mut length = body.len();
    loop {
        let low = u8::try_from(length % 128).unwrap();
        length /= 128;
        out.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

pub struct Hello<'a> {
    pub version: u8,
    pub client_id: &'a str,
    pub user: Option<&'a str>,
    pub password: &'a str,
    pub clean: bool,
    pub keep_alive: u16,
    pub will: Option<(&'a str, &'a str)>,
    /// MQTT 5: receive maximum.
    pub receive_max: Option<u16>,
}

impl<'a> Hello<'a> {
    pub fn new(version: u8, user: &'a str, password: &'a str) -> Self {
        Self {
            version,
            client_id: user,
            user: Some(user),
            password,
            clean: true,
            keep_alive: 60,
            will: None,
            receive_max: None,
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut body = Vec::new();
        text(&mut body, b"MQTT");
        body.push(self.version);
        let will = if self.will.is_some() { 0x04 } else { 0 };
        let login = if self.user.is_some() { 0xc0 } else { 0 };
        body.push(login | will | if self.clean { 0x02 } else { 0 });
        body.extend_from_slice(&self.keep_alive.to_be_bytes());
        if self.version == 5 {
            // A session that asks to live for an hour.
            let mut properties = vec![0x11, 0, 0, 0x0e, 0x10];
            if let Some(max) = self.receive_max {
                properties.push(0x21);
                properties.extend_from_slice(&max.to_be_bytes());
            }
            body.push(u8::try_from(properties.len()).unwrap());
            body.extend_from_slice(&properties);
        }
        text(&mut body, self.client_id.as_bytes());
        if let Some((topic, payload)) = self.will {
            if self.version == 5 {
                body.push(0);
            }
            text(&mut body, topic.as_bytes());
            text(&mut body, payload.as_bytes());
        }
        if let Some(user) = self.user {
            text(&mut body, user.as_bytes());
            text(&mut body, self.password.as_bytes());
        }
        packet(0x10, &body)
    }
}

impl Raw {
    /// Sends CONNECT and returns the CONNACK's code.
    pub async fn try_connect(port: u16, hello: &Hello<'_>) -> (Self, Option<u8>) {
        let mut tcp = TcpStream::connect(here(port)).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        tcp.write_all(&hello.bytes()).await.unwrap();
        let mut raw = Self { tcp, version: hello.version };
        let code = raw.next().await.map(|(head, body)| {
            assert_eq!(head, 0x20);
            body[1]
        });
        (raw, code)
    }

    pub async fn connect(port: u16, hello: &Hello<'_>) -> Self {
        let (raw, code) = Self::try_connect(port, hello).await;
        assert_eq!(code, Some(0), "CONNACK");
        raw
    }

    pub async fn dock(port: u16, version: u8, sn: &str) -> Self {
        Self::connect(port, &Hello::new(version, sn, &format!("secret-{sn}"))).await
    }

    /// The next packet, or `None` at the end of the connection.
    pub async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        soon("a packet", async {
            let head = self.tcp.read_u8().await.ok()?;
            let mut length = 0_usize;
            let mut shift = 0;
            loop {
                let byte = self.tcp.read_u8().await.ok()?;
                length |= usize::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            let mut body = vec![0; length];
            self.tcp.read_exact(&mut body).await.ok()?;
            Some((head, body))
        })
        .await
    }

    /// The next PUBLISH as (head, `topic payload`, packet id). Acknowledges nothing.
    pub async fn next_publish(&mut self) -> (u8, String, u16) {
        loop {
            let (head, body) = self.next().await.unwrap();
            if head >> 4 != 3 {
                continue;
            }
            let topic_end = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
            let mut rest = topic_end;
            let mut id = 0;
            if head & 0x06 != 0 {
                id = u16::from_be_bytes([body[rest], body[rest + 1]]);
                rest += 2;
            }
            if self.version == 5 {
                rest += 1 + usize::from(body[rest]);
            }
            let text = format!(
                "{} {}",
                String::from_utf8_lossy(&body[2..topic_end]),
                String::from_utf8_lossy(&body[rest..])
            );
            return (head, text, id);
        }
    }

    pub async fn puback(&mut self, id: u16) {
        self.write(&packet(0x40, &id.to_be_bytes())).await;
    }

    /// Subscribes with QoS 1 and returns the SUBACK's code.
    pub async fn subscribe(&mut self, filter: &str) -> u8 {
        let mut body = vec![0, 7];
        if self.version == 5 {
            body.push(0);
        }
        text(&mut body, filter.as_bytes());
        body.push(1);
        self.write(&packet(0x82, &body)).await;
        loop {
            let (head, body) = self.next().await.unwrap();
            if head == 0x90 {
                return *body.last().unwrap();
            }
        }
    }

    /// Publishes with QoS 1 and returns the PUBACK's code (0 where there is none).
    pub async fn publish(&mut self, head: u8, topic: &str, payload: &[u8]) -> Option<u8> {
        let mut body = Vec::new();
        text(&mut body, topic.as_bytes());
        body.extend_from_slice(&[0, 9]);
        if self.version == 5 {
            body.push(0);
        }
        body.extend_from_slice(payload);
        self.write(&packet(head, &body)).await;
        loop {
            let (head, body) = self.next().await?;
            if head == 0x40 {
                return Some(body.get(2).copied().unwrap_or(0));
            }
        }
    }

    pub async fn ping(&mut self) {
        self.write(&[0xc0, 0]).await;
        loop {
            let (head, _) = self.next().await.unwrap();
            if head == 0xd0 {
                return;
            }
        }
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        drop(self.tcp.write_all(bytes).await);
    }

    pub async fn disconnect(mut self) {
        self.write(&[0xe0, 0]).await;
        while self.next().await.is_some() {}
    }
}
