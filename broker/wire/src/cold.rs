//! Requests and answers as values: every API of the table but the bytes of Produce and Fetch, which are read and
//! written by hand, goes through kafka-protocol's schemas here.
//!
//! A request has passed the walk of `schema` before kafka-protocol sees it, and leaves in the newest version's form
//! (`older`). An answer comes in the newest version's form, is folded for the version asked (`older`), and leaves as a
//! frame. Strings and bytes of a request are slices of its frame: copy what outlives it.

use bytes::Bytes;
use kafka_protocol::messages as m;
use kafka_protocol::protocol::{Decodable, Encodable};
use thiserror::Error;

use crate::fetch::FetchRequest;
use crate::fetch_answer::{FetchAnswer, NoRange, Segment};
use crate::produce::{ProduceAnswer, ProduceRequest};
use crate::reader::{DecodeError, Fault, Reader};
use crate::writer::Writer;
use crate::{Api, Call, RequestHeader, older, schema};

macro_rules! cold {
    ($($api:ident: $request:ident, $response:ident, $schema:ident;)*) => {
        /// A request of any API the broker answers, in the form of its newest version.
        #[derive(Clone, Debug)]
        pub enum Request {
            /// Batches to append.
            Produce(ProduceRequest),
            /// Partitions to read.
            Fetch(FetchRequest),
            $(
                #[doc = concat!("See `", stringify!($request), "` in Kafka's schemas.")]
                $api(m::$request),
            )*
        }

        /// An answer to any request, in the form of its API's newest version.
        #[derive(Clone, Debug)]
        pub enum Response {
            /// What became of the batches.
            Produce(ProduceAnswer),
            /// A refusal; answers with records go through `fetch_answer::encode`.
            Fetch(FetchAnswer<NoRange>),
            $(
                #[doc = concat!("See `", stringify!($response), "` in Kafka's schemas.")]
                $api(m::$response),
            )*
        }

        impl Request {
            /// The API this is a request of.
            #[must_use]
            pub const fn api(&self) -> Api {
                match self {
                    Self::Produce(_) => Api::Produce,
                    Self::Fetch(_) => Api::Fetch,
                    $(Self::$api(_) => Api::$api,)*
                }
            }
        }

        impl Response {
            /// The API this is an answer of.
            #[must_use]
            pub const fn api(&self) -> Api {
                match self {
                    Self::Produce(_) => Api::Produce,
                    Self::Fetch(_) => Api::Fetch,
                    $(Self::$api(_) => Api::$api,)*
                }
            }
        }

        /// Reads the body behind `header` in `frame`, which begins with the API key. Bytes behind the body are
        /// ignored, as Kafka does.
        pub fn decode(frame: &Bytes, header: &RequestHeader<'_>) -> Result<Request, DecodeError> {
            let request = match header.call.api {
                Api::Produce => Request::Produce(ProduceRequest::decode(frame, header)?),
                Api::Fetch => Request::Fetch(FetchRequest::decode(frame, header)?),
                $(Api::$api => Request::$api(decode_body(frame, header, schema::requests::$schema)?),)*
            };
            Ok(older::lift(request, header.call.version))
        }

        /// The shape of an API's request body; none for those read by hand.
        #[cfg(test)]
        pub(crate) fn fields(api: Api) -> Option<&'static [schema::Field]> {
            match api {
                Api::Produce | Api::Fetch => None,
                $(Api::$api => Some(schema::requests::$schema),)*
            }
        }

        fn put(response: Response, version: i16, out: &mut Writer) -> Result<(), String> {
            match response {
                Response::Produce(_) | Response::Fetch(_) => unreachable!("encoded by hand in `encode`"),
                $(Response::$api(body) => {
                    body.encode(out.body(), version).map_err(|error| error.to_string())
                })*
            }
        }
    };
}

cold! {
    ListOffsets: ListOffsetsRequest, ListOffsetsResponse, LIST_OFFSETS;
    Metadata: MetadataRequest, MetadataResponse, METADATA;
    OffsetCommit: OffsetCommitRequest, OffsetCommitResponse, OFFSET_COMMIT;
    OffsetFetch: OffsetFetchRequest, OffsetFetchResponse, OFFSET_FETCH;
    FindCoordinator: FindCoordinatorRequest, FindCoordinatorResponse, FIND_COORDINATOR;
    JoinGroup: JoinGroupRequest, JoinGroupResponse, JOIN_GROUP;
    Heartbeat: HeartbeatRequest, HeartbeatResponse, HEARTBEAT;
    LeaveGroup: LeaveGroupRequest, LeaveGroupResponse, LEAVE_GROUP;
    SyncGroup: SyncGroupRequest, SyncGroupResponse, SYNC_GROUP;
    DescribeGroups: DescribeGroupsRequest, DescribeGroupsResponse, DESCRIBE_GROUPS;
    ListGroups: ListGroupsRequest, ListGroupsResponse, LIST_GROUPS;
    ApiVersions: ApiVersionsRequest, ApiVersionsResponse, API_VERSIONS;
    CreateTopics: CreateTopicsRequest, CreateTopicsResponse, CREATE_TOPICS;
    DeleteTopics: DeleteTopicsRequest, DeleteTopicsResponse, DELETE_TOPICS;
    DeleteRecords: DeleteRecordsRequest, DeleteRecordsResponse, DELETE_RECORDS;
    InitProducerId: InitProducerIdRequest, InitProducerIdResponse, INIT_PRODUCER_ID;
    OffsetForLeaderEpoch: OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, OFFSET_FOR_LEADER_EPOCH;
    DescribeAcls: DescribeAclsRequest, DescribeAclsResponse, DESCRIBE_ACLS;
    DescribeConfigs: DescribeConfigsRequest, DescribeConfigsResponse, DESCRIBE_CONFIGS;
    AlterConfigs: AlterConfigsRequest, AlterConfigsResponse, ALTER_CONFIGS;
    DescribeLogDirs: DescribeLogDirsRequest, DescribeLogDirsResponse, DESCRIBE_LOG_DIRS;
    CreatePartitions: CreatePartitionsRequest, CreatePartitionsResponse, CREATE_PARTITIONS;
    DeleteGroups: DeleteGroupsRequest, DeleteGroupsResponse, DELETE_GROUPS;
    ElectLeaders: ElectLeadersRequest, ElectLeadersResponse, ELECT_LEADERS;
    IncrementalAlterConfigs: IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse, INCREMENTAL_ALTER_CONFIGS;
    AlterPartitionReassignments: AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ALTER_PARTITION_REASSIGNMENTS;
    ListPartitionReassignments: ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse, LIST_PARTITION_REASSIGNMENTS;
    OffsetDelete: OffsetDeleteRequest, OffsetDeleteResponse, OFFSET_DELETE;
    DescribeCluster: DescribeClusterRequest, DescribeClusterResponse, DESCRIBE_CLUSTER;
    DescribeProducers: DescribeProducersRequest, DescribeProducersResponse, DESCRIBE_PRODUCERS;
}

/// An answer that its version can't carry: a bug of the broker, met before a byte is sent.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{api} v{version} can't carry the answer: {reason}")]
pub struct EncodeError {
    /// The API of the call.
    pub api: Api,
    /// Its version.
    pub version: i16,
    /// What the schema said.
    pub reason: String,
}

fn decode_body<T: Decodable>(
    frame: &Bytes,
    header: &RequestHeader<'_>,
    fields: &'static [schema::Field],
) -> Result<T, DecodeError> {
    let Call { api, version, .. } = header.call;
    let mut reader = Reader::of_body(frame, header.call, header.body_at);
    schema::walk(fields, version, &mut reader)?;
    let mut body = frame.slice(header.body_at..reader.at());
    let request = T::decode(&mut body, version)
        .map_err(|error| reader.fault(api.name(), Fault::Schema(error.to_string())))?;
    // Else the walk and the decoder disagree about the shape, and the walk guards nothing.
    debug_assert!(
        body.is_empty(),
        "{api} v{version} leaves {} bytes",
        body.len()
    );
    Ok(request)
}

/// Encodes the answer to `call`, size first.
///
/// # Panics
/// If `response` is of another API than `call`.
pub fn encode(call: Call, response: Response) -> Result<Bytes, EncodeError> {
    assert_eq!(
        call.api,
        response.api(),
        "the answer belongs to another call"
    );
    match older::fold(response, call.version) {
        Response::Produce(answer) => Ok(answer.encode(call)),
        Response::Fetch(answer) => {
            let mut segments = crate::fetch_answer::encode(call, answer);
            match (segments.pop(), segments.is_empty()) {
                (Some(Segment::Bytes(bytes)), true) => Ok(bytes),
                _ => unreachable!("an answer without ranges is one piece"),
            }
        }
        response => {
            let mut out = Writer::answer(call, 256);
            put(response, call.version, &mut out).map_err(|reason| EncodeError {
                api: call.api,
                version: call.version,
                reason,
            })?;
            Ok(out.finish(0))
        }
    }
}
