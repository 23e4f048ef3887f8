//! One connection to one broker: frames out, frames in, versions agreed by ApiVersions.
//!
//! Requests may be sent before earlier answers came; answers come in the order of the requests. An answer is
//! bounded, and no count or length in it is believed before `wire` has held it against the bytes that came.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{
    Decodable, Encodable, HeaderVersion, Request, StrBytes, VersionRange,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use wire::Api;

use crate::connect::Reach;
use crate::failure::Failure;

/// An answer's bytes: as much as Kafka's own clients take (`socket.request.max.bytes`).
const ANSWER_BYTES_MAX: usize = 100 << 20;
/// How we are called in the broker's logs.
const CLIENT_ID: &str = "howdah";
/// UNSUPPORTED_VERSION: the answer to ApiVersions then has version 0.
const UNSUPPORTED_VERSION: i16 = 35;

/// See the module.
pub(crate) struct Connection {
    address: String,
    stream: TcpStream,
    /// What the broker offers, by API key.
    offered: BTreeMap<i16, VersionRange>,
    next: i32,
    /// Requests whose answers are due: correlation id, API key, version.
    due: VecDeque<(i32, i16, i16)>,
    frame: BytesMut,
}

impl Connection {
    /// Connects and asks which versions the broker speaks. An answer may take up to `patience`.
    pub(crate) fn open(reach: &Reach, address: &str, patience: Duration) -> Result<Self, Failure> {
        let stream = reach.connect(address)?;
        let mut connection = Self {
            address: address.to_owned(),
            stream,
            offered: BTreeMap::new(),
            next: 0,
            due: VecDeque::new(),
            frame: BytesMut::new(),
        };
        connection.set_patience(patience)?;
        connection.negotiate()?;
        Ok(connection)
    }

    /// HOST:PORT.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// How long an answer may take.
    pub(crate) fn set_patience(&mut self, patience: Duration) -> Result<(), Failure> {
        let set = self
            .stream
            .set_read_timeout(Some(patience))
            .and_then(|()| self.stream.set_write_timeout(Some(patience)));
        set.map_err(|error| self.broken(error))
    }

    fn negotiate(&mut self) -> Result<(), Failure> {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str(CLIENT_ID))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        // Version 3 as librdkafka does; a broker that does not know it answers in version 0 with what it does know.
        self.send_as(&request, 3)?;
        let (mut frame, key, version) = self.read_answer()?;
        let refused = frame
            .get(4..6)
            .map(|code| i16::from_be_bytes([code[0], code[1]]))
            == Some(UNSUPPORTED_VERSION);
        let version = if refused { 0 } else { version };
        let answer: kafka_protocol::messages::ApiVersionsResponse =
            self.decode(&mut frame, key, version)?;
        if !refused {
            Failure::check(
                || format!("ApiVersions at {}", self.address),
                answer.error_code,
                None,
            )?;
        }
        self.offered = answer
            .api_keys
            .iter()
            .map(|api| {
                (
                    api.api_key,
                    VersionRange {
                        min: api.min_version,
                        max: api.max_version,
                    },
                )
            })
            .collect();
        Ok(())
    }

    /// The highest version of a request that both sides speak, at most `most`.
    pub(crate) fn version<R: Request>(&self, most: i16) -> Result<i16, Failure> {
        let name =
            ApiKey::try_from(R::KEY).map_or_else(|()| R::KEY.to_string(), |key| format!("{key:?}"));
        let Some(offered) = self.offered.get(&R::KEY) else {
            return Err(Failure::Fault(format!(
                "{} does not speak {name}",
                self.address
            )));
        };
        let ours = VersionRange {
            min: R::VERSIONS.min,
            max: R::VERSIONS.max.min(most),
        };
        let both = offered.intersect(&ours);
        if both.is_empty() {
            return Err(Failure::Fault(format!(
                "{} speaks {name} in versions {offered}, we in {ours}",
                self.address
            )));
        }
        Ok(both.max)
    }

    /// Sends a request and waits for its answer, in the highest version that both speak, at most `most`.
    pub(crate) fn call<R: Request>(
        &mut self,
        request: &R,
        most: i16,
    ) -> Result<R::Response, Failure> {
        let version = self.version::<R>(most)?;
        self.send_as(request, version)?;
        self.receive::<R>()
    }

    /// Sends a request in this version and does not wait.
    pub(crate) fn send_as<R: Request>(&mut self, request: &R, version: i16) -> Result<(), Failure> {
        self.next = self.next.wrapping_add(1);
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.next)
            .with_client_id(Some(StrBytes::from_static_str(CLIENT_ID)));
        self.frame.clear();
        self.frame.extend_from_slice(&[0; 4]);
        let encoded = header
            .encode(&mut self.frame, R::header_version(version))
            .and_then(|()| request.encode(&mut self.frame, version));
        encoded.map_err(|error| {
            Failure::Fault(format!(
                "this request can't be written in version {version}: {error}"
            ))
        })?;
        let length = i32::try_from(self.frame.len() - 4)
            .map_err(|_| Failure::Usage("a request beyond 2 GiB".to_owned()))?;
        self.frame[..4].copy_from_slice(&length.to_be_bytes());
        let written = self.stream.write_all(&self.frame);
        written.map_err(|error| self.broken(error))?;
        self.due.push_back((self.next, R::KEY, version));
        Ok(())
    }

    /// Forgets the request sent last: nobody answers a produce with acks=0.
    pub(crate) fn forget_last(&mut self) {
        self.due.pop_back();
    }

    /// Whether an answer begins to come within this time.
    pub(crate) fn answers_within(&self, wait: Duration) -> Result<bool, Failure> {
        let mut sockets = [PollFd::new(&self.stream, PollFlags::IN)];
        let wait = Timespec::try_from(wait).ok();
        match poll(&mut sockets, wait.as_ref()) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(self.broken(error.into())),
        }
    }

    /// Waits for the oldest answer that is due, which must be one to an `R`.
    pub(crate) fn receive<R: Request>(&mut self) -> Result<R::Response, Failure> {
        let (mut frame, key, version) = self.read_answer()?;
        assert_eq!(
            key,
            R::KEY,
            "answers are received in the order of the requests"
        );
        self.decode(&mut frame, key, version)
    }

    /// The answer to the oldest request, with that one's API key and version. Whatever does not begin with its
    /// correlation id is no broker's answer and goes no further.
    fn read_answer(&mut self) -> Result<(Bytes, i16, i16), Failure> {
        let frame = self.read_frame()?;
        let Some((correlation, key, version)) = self.due.pop_front() else {
            return Err(Failure::Fault("no request is due".to_owned()));
        };
        let claimed = frame.first_chunk().map(|four| i32::from_be_bytes(*four));
        if claimed != Some(correlation) {
            return Err(Failure::Fault(format!(
                "{} answered request {}, {correlation} was due; is this a Kafka listener?",
                self.address,
                claimed.unwrap_or_default()
            )));
        }
        Ok((frame, key, version))
    }

    fn decode<A: Decodable + HeaderVersion>(
        &self,
        frame: &mut Bytes,
        key: i16,
        version: i16,
    ) -> Result<A, Failure> {
        let name =
            ApiKey::try_from(key).map_or_else(|()| key.to_string(), |key| format!("{key:?}"));
        let malformed = |why: String| {
            Failure::Fault(format!(
                "{} answered {name} version {version} with bytes that are none: {why}",
                self.address
            ))
        };
        let header = ResponseHeader::decode(frame, A::header_version(version));
        header.map_err(|error| malformed(error.to_string()))?;
        let api = Api::from_key(key).ok_or_else(|| malformed("no API of ours".to_owned()))?;
        let body = wire::check_answer(api, version, frame);
        let body = body.map_err(|error| malformed(error.to_string()))?;
        if body != frame.len() {
            return Err(malformed(format!("{} bytes too many", frame.len() - body)));
        }
        A::decode(frame, version).map_err(|error| malformed(error.to_string()))
    }

    fn read_frame(&mut self) -> Result<Bytes, Failure> {
        let mut head = [0; 4];
        let read = self.stream.read_exact(&mut head);
        read.map_err(|error| self.broken(error))?;
        let length = usize::try_from(i32::from_be_bytes(head)).unwrap_or(usize::MAX);
        if !(4..=ANSWER_BYTES_MAX).contains(&length) {
            return Err(Failure::Fault(format!(
                "{} announces an answer of {length} bytes; is this a Kafka listener without TLS?",
                self.address
            )));
        }
        let mut frame = Vec::new();
        // Grows as bytes come, not by what was announced.
        let read = (&mut self.stream)
            .take(length as u64)
            .read_to_end(&mut frame);
        match read {
            Ok(read) if read == length => Ok(Bytes::from(frame)),
            Ok(_) => Err(self.broken(io::ErrorKind::UnexpectedEof.into())),
            Err(error) => Err(self.broken(error)),
        }
    }

    fn broken(&self, error: io::Error) -> Failure {
        let error = match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                io::Error::new(io::ErrorKind::TimedOut, "no answer in time")
            }
            io::ErrorKind::UnexpectedEof => io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the broker closed the connection",
            ),
            _ => error,
        };
        Failure::Unreachable {
            address: self.address.clone(),
            error,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use clap::Parser;

    use super::*;
    use crate::failure::exit;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        reach: Reach,
    }

    /// Connects to a listener that reads one request and says `answer`.
    fn meet(answer: &'static [u8]) -> Failure {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let peer = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = [0; 4];
            stream.read_exact(&mut head).unwrap();
            let mut request = vec![0; i32::from_be_bytes(head) as usize];
            stream.read_exact(&mut request).unwrap();
            stream.write_all(answer).unwrap();
        });
        let reach = Line::parse_from(["test"]).reach;
        let failure = Connection::open(&reach, &address, Duration::from_secs(5))
            .err()
            .unwrap();
        peer.join().unwrap();
        let text = failure.to_string();
        assert!(text.contains(&address), "{text} names {address}");
        failure
    }

    #[test]
    fn whoever_is_no_broker_is_told_from_one() {
        for (answer, why, code) in [
            (
                &b""[..],
                "the broker closed the connection",
                exit::UNREACHABLE,
            ),
            (
                b"\0\0\0\x0a\0\0\0\x01",
                "the broker closed the connection",
                exit::UNREACHABLE,
            ),
            (
                b"HTTP/1.1 400 Bad Request",
                "is this a Kafka listener without TLS?",
                exit::FAULT,
            ),
            (
                b"\x15\x03\x01\0\x02\x02\x46",
                "is this a Kafka listener without TLS?",
                exit::FAULT,
            ),
            (
                b"\0\0\0\x04\0\0\0\x09",
                "answered request 9, 1 was due",
                exit::FAULT,
            ),
            // Version 3 with some 200 million APIs, and with one byte behind the body.
            (
                b"\0\0\0\x0a\0\0\0\x01\0\0\xff\xff\xff\x5f",
                "api_keys",
                exit::FAULT,
            ),
            (
                b"\0\0\0\x0d\0\0\0\x01\0\0\x01\0\0\0\0\0\x07",
                "1 bytes too many",
                exit::FAULT,
            ),
        ] {
            let failure = meet(answer);
            assert!(
                failure.to_string().contains(why),
                "{failure} for {answer:?}"
            );
            assert_eq!(failure.exit(), code, "{failure}");
        }
    }
}
