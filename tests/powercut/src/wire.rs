//! A blocking Kafka connection, just enough for the writer: one request out, one answer in, in order.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};

/// A broker that says nothing for so long is treated as dead.
const SILENCE: Duration = Duration::from_secs(40);
const FRAME_BYTES_MAX: usize = 16 << 20;

#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    correlation: i32,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        Ok(Self {
            stream,
            correlation: 0,
        })
    }

    /// Sends a request and does not wait; its correlation id.
    pub(crate) fn send<R>(&mut self, api: ApiKey, version: i16, request: &R) -> io::Result<i32>
    where
        R: Encodable + HeaderVersion,
    {
        self.correlation += 1;
        let header = RequestHeader::default()
            .with_request_api_key(api as i16)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(StrBytes::from_static_str("powercut")));
        let mut frame = BytesMut::from(&[0; 4][..]);
        header
            .encode(&mut frame, R::header_version(version))
            .map_err(io::Error::other)?;
        request
            .encode(&mut frame, version)
            .map_err(io::Error::other)?;
        let length = (frame.len() - 4) as u32;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&frame)?;
        Ok(self.correlation)
    }

    /// The next answer, which must be the one to `correlation`.
    pub(crate) fn receive<R>(&mut self, correlation: i32, version: i16) -> io::Result<R>
    where
        R: Decodable + HeaderVersion,
    {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(io::Error::other(format!("an answer claims {length} B")));
        }
        let mut frame = vec![0; length];
        self.stream.read_exact(&mut frame)?;
        let mut frame = Bytes::from(frame);
        let header = ResponseHeader::decode(&mut frame, R::header_version(version))
            .map_err(io::Error::other)?;
        if header.correlation_id != correlation {
            let got = header.correlation_id;
            return Err(io::Error::other(format!(
                "answer {got} where {correlation} was due"
            )));
        }
        R::decode(&mut frame, version).map_err(io::Error::other)
    }

    pub(crate) fn ask<Q, R>(&mut self, api: ApiKey, version: i16, request: &Q) -> io::Result<R>
    where
        Q: Encodable + HeaderVersion,
        R: Decodable + HeaderVersion,
    {
        let correlation = self.send(api, version, request)?;
        self.receive(correlation, version)
    }
}
