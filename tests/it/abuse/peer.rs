//! A peer that speaks HTTP/2 frame by frame (RFC 9113), and so can say what no client would.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::PATIENCE;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// Of a SETTINGS or a PING: the answer to one.
pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const MAX_CONCURRENT_STREAMS: u16 = 3;
pub const INITIAL_WINDOW_SIZE: u16 = 4;
pub const MAX_HEADER_LIST_SIZE: u16 = 6;

pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// A message of gRPC's with nothing in it.
pub const EMPTY_MESSAGE: [u8; 5] = [0; 5];

pub struct Peer {
    pub socket: TcpStream,
}

#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The code of a RST_STREAM or a GOAWAY, which is at the end of what is read here.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes"))
    }

    /// The values of a SETTINGS.
    pub fn settings(&self) -> Vec<(u16, u32)> {
        let settings = self.payload.chunks_exact(6).map(|setting| {
            let (name, value) = setting.split_at(2);
            let name = u16::from_be_bytes(name.try_into().expect("two bytes"));
            (name, u32::from_be_bytes(value.try_into().expect("four bytes")))
        });
        settings.collect()
    }
}

/// A frame as it is sent.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The headers of a call, with a token if there is one, in the plainest form of HPACK (RFC 7541 section 6.2.2).
pub fn headers(path: &str, token: Option<&str>) -> Vec<u8> {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let mut block = Vec::new();
    let fixed = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "test"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ];
    let bearer = bearer.as_deref().map(|bearer| ("authorization", bearer));
    for (name, value) in fixed.into_iter().chain(bearer) {
        literal(&mut block, name, value);
    }
    block
}

/// A header that is not to be remembered.
pub fn literal(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0);
    for text in [name, value] {
        // A number with a prefix of seven bits (RFC 7541 section 5.1).
        match text.len().checked_sub(127) {
            None => block.push(u8::try_from(text.len()).expect("below 127")),
            Some(mut rest) => {
                block.push(127);
                while rest >= 128 {
                    block.push(u8::try_from(rest % 128).expect("seven bits") | 128);
                    rest /= 128;
                }
                block.push(u8::try_from(rest).expect("seven bits"));
            }
        }
        block.extend(text.as_bytes());
    }
}

/// The path of a call of the contract's.
pub fn approvals(call: &str) -> String {
    format!("/approvals.v1.ApprovalService/{call}")
}

/// The token of one of the tests' subjects.
pub fn token(subject: &str) -> String {
    format!("{subject}-token-for-tests")
}

impl Peer {
    /// One that has said how it begins, with these settings.
    pub async fn new(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut peer = Self { socket: TcpStream::connect(address).await.expect("accepted") };
        let mut payload = Vec::new();
        for (name, value) in settings {
            payload.extend(name.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        peer.send(PREFACE).await.expect("sent");
        peer.send(&frame(SETTINGS, 0, 0, &payload)).await.expect("sent");
        peer
    }

    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes).await
    }

    /// Begins a call; what it asks is still to come.
    pub async fn begin(&mut self, stream: u32, call: &str, subject: &str) {
        let block = headers(&approvals(call), Some(&token(subject)));
        self.send(&frame(HEADERS, END_HEADERS, stream, &block)).await.expect("sent");
    }

    /// Makes a call that asks for nothing in particular.
    pub async fn call(&mut self, stream: u32, call: &str, subject: &str) {
        self.begin(stream, call, subject).await;
        self.send(&frame(DATA, END_STREAM, stream, &EMPTY_MESSAGE)).await.expect("sent");
    }

    /// Takes a call back.
    pub async fn take_back(&mut self, stream: u32) {
        self.send(&frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())).await.expect("sent");
    }

    /// The next frame; none once the connection has ended. Pings are answered, so that nobody takes the peer for gone.
    pub async fn read(&mut self) -> Option<Frame> {
        let frame = self.read_silently().await?;
        if frame.kind == PING && frame.flags & ACK == 0 {
            // If it cannot be sent, the next read tells.
            let _ = self.send(&self::frame(PING, ACK, 0, &frame.payload)).await;
        }
        Some(frame)
    }

    /// The next frame, without a sign of life.
    pub async fn read_silently(&mut self) -> Option<Frame> {
        let read = timeout(PATIENCE, async {
            let mut head = [0; 9];
            self.socket.read_exact(&mut head).await?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let mut payload = vec![0; length as usize];
            self.socket.read_exact(&mut payload).await?;
            io::Result::Ok(Frame { kind: head[3], flags: head[4], stream, payload })
        });
        read.await.expect("a frame or an end").ok()
    }

    /// Reads up to a frame of a kind; none if the connection ends before.
    pub async fn read_to(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.read().await?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }

    /// Reads until the connection is closed.
    pub async fn read_to_the_end(&mut self) {
        let read = timeout(PATIENCE, async { while self.read().await.is_some() {} });
        read.await.expect("the connection is closed");
    }
}
