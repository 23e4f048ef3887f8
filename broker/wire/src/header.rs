//! The front of every request and of every answer.
//!
//! ```text
//! request v1   size i32 · api_key i16 · api_version i16 · correlation_id i32 · client_id nullable string (i16 length)
//! request v2   the same · tags                        client_id keeps its i16 length (KIP-482)
//! answer v0    size i32 · correlation_id i32
//! answer v1    the same · tags
//! ```
//!
//! Positions count from the API key: the shell takes the size off. Nothing is copied.

use thiserror::Error;

use crate::api::Api;
use crate::reader::{DecodeError, Reader};

/// Tags in a request's header: Kafka defines none.
const TAGS_MAX: u32 = 16;

/// What an answer must know of its request. It is small and copied into parked requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// The API asked for.
    pub api: Api,
    pub(crate) version: i16,
    /// The client's number of the request, repeated in the answer.
    pub correlation_id: i32,
}

/// A request's header; the client's id still lies in the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader<'a> {
    /// API, version and number of the request.
    pub call: Call,
    /// The name the client gave itself, for logs and for member ids.
    pub client_id: Option<&'a str>,
    pub(crate) body_at: usize,
}

/// Why a frame's front can't be taken as a request the broker decodes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// The client is newer than the broker and asks what it speaks: answer with `api_versions::fallback`, keep the
    /// connection (KIP-511).
    #[error("ApiVersions v{version} is not known; answered in v0")]
    ApiVersionsTooNew {
        /// Number to repeat in the answer.
        correlation_id: i32,
        /// The version asked for.
        version: i16,
    },
    /// Not in the table. Kafka closes the connection, and so does the caller.
    #[error("API key {key} version {version} is not supported")]
    Unsupported {
        /// The key asked for.
        key: i16,
        /// Its version.
        version: i16,
    },
    /// Not even a header: close the connection.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
}

impl<'a> RequestHeader<'a> {
    /// Reads the header at the front of `frame`, which begins with the API key.
    pub fn read(frame: &'a [u8]) -> Result<Self, HeaderError> {
        let mut reader = Reader::new(frame, 0, false, 0);
        let key = reader.i16("api_key")?;
        let version = reader.i16("api_version")?;
        let correlation_id = reader.i32("correlation_id")?;
        let api = match Api::from_key(key) {
            Some(api) if api.decodes(version) => api,
            Some(Api::ApiVersions) => {
                return Err(HeaderError::ApiVersionsTooNew {
                    correlation_id,
                    version,
                });
            }
            _ => return Err(HeaderError::Unsupported { key, version }),
        };
        let client_id = reader.nullable_string("client_id")?;
        let mut reader = Reader::new(frame, reader.at(), api.flexible(version), TAGS_MAX);
        reader.skip_tags()?;
        Ok(Self {
            call: Call {
                api,
                version,
                correlation_id,
            },
            client_id,
            body_at: reader.at(),
        })
    }
}

/// What the version of a call means to those who decide; nobody else compares versions.
impl Call {
    /// The version, for logs only.
    #[must_use]
    pub const fn version(self) -> i16 {
        self.version
    }

    /// Whether a joining member without an id may be sent away with one (MEMBER_ID_REQUIRED, KIP-394). Older clients
    /// would come back without it for ever.
    #[must_use]
    pub const fn knows_member_id_required(self) -> bool {
        matches!(self.api, Api::JoinGroup) && self.version >= 4
    }

    /// Whether a joining leader heeds `skip_assignment` (KIP-814).
    #[must_use]
    pub const fn knows_skip_assignment(self) -> bool {
        matches!(self.api, Api::JoinGroup) && self.version >= 9
    }

    /// Whether a SyncGroup must name its group's protocol and the type of it (KIP-559).
    #[must_use]
    pub const fn must_name_protocol(self) -> bool {
        matches!(self.api, Api::SyncGroup) && self.version >= 5
    }

    /// Whether a Produce may carry zstd (KIP-110): consumers as old as its sender could not read it.
    #[must_use]
    pub const fn allows_zstd(self) -> bool {
        matches!(self.api, Api::Produce) && self.version >= 7
    }

    /// Whether ListOffsets may ask for the offset of the largest timestamp (−3, KIP-734).
    #[must_use]
    pub const fn allows_max_timestamp(self) -> bool {
        matches!(self.api, Api::ListOffsets) && self.version >= 7
    }

    /// Whether a Fetch names topics by id (KIP-516).
    #[must_use]
    pub const fn fetches_by_id(self) -> bool {
        matches!(self.api, Api::Fetch) && self.version >= crate::fetch::TOPIC_IDS_FROM
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::RequestHeader as Theirs;
    use kafka_protocol::protocol::{Encodable, StrBytes};

    #[test]
    fn every_advertised_header_is_read() {
        for api in Api::ALL {
            let (min, max) = api.advertised();
            for version in min..=max {
                if !api.decodes(version) {
                    continue;
                }
                for name in [None, Some(""), Some("rdkafka")] {
                    let mut frame = Vec::new();
                    Theirs::default()
                        .with_request_api_key(api.key())
                        .with_request_api_version(version)
                        .with_correlation_id(-7)
                        .with_client_id(name.map(StrBytes::from_static_str))
                        .encode(&mut frame, if api.flexible(version) { 2 } else { 1 })
                        .expect("encodes");
                    let end = frame.len();
                    frame.push(9);
                    let header = RequestHeader::read(&frame).expect("reads");
                    assert_eq!(header.call.api, *api);
                    assert_eq!(header.call.version(), version);
                    assert_eq!(header.call.correlation_id, -7);
                    assert_eq!(header.client_id, name);
                    assert_eq!(header.body_at, end);
                    for cut in 0..end {
                        let error = RequestHeader::read(&frame[..cut]).expect_err("cut");
                        assert!(matches!(error, HeaderError::Malformed(_)), "{cut}: {error}");
                    }
                }
            }
        }
    }

    /// Behaviour 2: only ApiVersions has an answer to a version nobody knows.
    #[test]
    fn unknown_versions_are_told_apart() {
        assert_eq!(
            RequestHeader::read(&[0, 18, 0, 99, 0, 0, 0, 5]),
            Err(HeaderError::ApiVersionsTooNew {
                correlation_id: 5,
                version: 99
            })
        );
        for frame in [
            [0, 0, 0, 2, 0, 0, 0, 5],
            [0, 1, 0, 18, 0, 0, 0, 5],
            [3, 0, 0, 0, 0, 0, 0, 5],
        ] {
            assert!(matches!(
                RequestHeader::read(&frame),
                Err(HeaderError::Unsupported { .. })
            ));
        }
    }
}
