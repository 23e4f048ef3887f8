//! The first answer of every connection: which APIs, which versions, which features.
//!
//! Features are a table of their own. It is empty: a feature named here changes what Java clients send (with
//! `transaction.version` they take up the new transaction protocol), and a tag written needlessly breaks librdkafka
//! up to 2.1.0.

use bytes::Bytes;
use kafka_protocol::messages::ApiVersionsResponse;
use kafka_protocol::messages::api_versions_response::{
    ApiVersion, FinalizedFeatureKey, SupportedFeatureKey,
};
use kafka_protocol::protocol::StrBytes;

use crate::cold::{Response, encode};
use crate::error::ErrorCode;
use crate::{Api, Call};

/// The features of the site (KIP-584) that clients may rely on: name, highest version, level in force (at least 1).
const FEATURES: &[(&str, i16, i16)] = &[];

/// Epoch of the finalised features; written only together with a feature, as clients take −1 for "none".
const FEATURES_EPOCH: i64 = 0;

/// The answer to any ApiVersions the broker can decode. `software` is the client's name and version, which from
/// version 3 on must be of letters, digits, dots and dashes: else INVALID_REQUEST, and librdkafka asks again in v0.
#[must_use]
pub fn answer(
    request: &kafka_protocol::messages::ApiVersionsRequest,
    call: Call,
) -> ApiVersionsResponse {
    let named = call.version >= 3;
    if named
        && !(software(&request.client_software_name) && software(&request.client_software_version))
    {
        return ApiVersionsResponse::default().with_error_code(ErrorCode::InvalidRequest.code());
    }
    table()
}

/// The answer to an ApiVersions of a version nobody knows: in v0, UNSUPPORTED_VERSION, and the whole table, from which
/// Java and librdkafka take the version to ask again in (KIP-511). Size first.
#[must_use]
pub fn fallback(correlation_id: i32) -> Bytes {
    let call = Call {
        api: Api::ApiVersions,
        version: 0,
        correlation_id,
    };
    let answer = table().with_error_code(ErrorCode::UnsupportedVersion.code());
    encode(call, Response::ApiVersions(answer)).expect("the table is short and encodes in v0")
}

fn table() -> ApiVersionsResponse {
    let keys = Api::ALL.iter().map(|api| {
        let (min, max) = api.advertised();
        ApiVersion::default()
            .with_api_key(api.key())
            .with_min_version(min)
            .with_max_version(max)
    });
    let answer = ApiVersionsResponse::default().with_api_keys(keys.collect());
    if FEATURES.is_empty() {
        return answer;
    }
    let supported = FEATURES.iter().map(|(name, version_max, _)| {
        SupportedFeatureKey::default()
            .with_name(StrBytes::from_static_str(name))
            .with_max_version(*version_max)
    });
    let finalized = FEATURES.iter().map(|(name, _, level)| {
        FinalizedFeatureKey::default()
            .with_name(StrBytes::from_static_str(name))
            .with_max_version_level(*level)
            .with_min_version_level(*level)
    });
    answer
        .with_supported_features(supported.collect())
        .with_finalized_features_epoch(FEATURES_EPOCH)
        .with_finalized_features(finalized.collect())
}

/// `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?`, as Kafka's ApiVersionsRequest checks it.
fn software(name: &str) -> bool {
    let bytes = name.as_bytes();
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    bytes.iter().all(inner)
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
}
