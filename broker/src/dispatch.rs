//! Where frames become decisions: the only file family that knows both `wire` and `node`.
//!
//! A handler answers at once, or keeps its [`Reply`] until what it waits for has happened. Malformed frames end the
//! connection, as in Kafka: whoever wrote them can't be trusted to frame the next one.

use std::rc::Rc;

use bytes::Bytes;
use model::Instant;
use wire::fetch_answer::{FetchAnswer, Segment};
use wire::{Api, Call, HeaderError, Request, RequestHeader, Response, api_versions};

use crate::authorise::authorise;
use crate::clock;
use crate::context::Context;
use crate::core::Core;
use crate::replies::{Answer, Owed, Piece};
use crate::spindle::FileRange;

mod admin;
mod cluster;
mod configs;
pub(crate) mod errors;
mod fetch;
mod groups;
mod offsets;
pub(crate) mod produce;

/// The duty to answer one request of a known API and version.
pub(crate) struct Reply {
    core: Rc<Core>,
    call: Call,
    owed: Owed,
    started: Instant,
}

impl Reply {
    /// Answers with a message.
    pub(crate) fn send(self, response: Response) {
        let answer = match wire::encode(self.call, response) {
            Ok(bytes) => Answer::Bytes(bytes),
            Err(error) => {
                // A bug of ours; the client at least learns that nothing will come.
                tracing::error!(%error, "answer not encoded");
                Answer::Close
            }
        };
        self.answer(answer);
    }

    /// Answers a fetch: framing, and ranges of files between.
    pub(crate) fn send_fetched(self, answer: FetchAnswer<FileRange>) {
        let pieces = wire::fetch_answer::encode(self.call, answer)
            .into_iter()
            .map(|segment| match segment {
                Segment::Bytes(bytes) => Piece::Bytes(bytes),
                Segment::Range(range) => Piece::File(range),
            })
            .collect();
        self.answer(Answer::Pieces(pieces));
    }

    /// Answers a produce with acks=0 that went well: with nothing.
    pub(crate) fn silence(self) {
        self.answer(Answer::Silence);
    }

    /// Closes the connection instead of answering.
    pub(crate) fn close(self) {
        self.answer(Answer::Close);
    }

    /// So many partitions of the answer hold an error.
    pub(crate) fn errors(&self, count: u64) {
        self.core
            .counters
            .api(self.call.api.key())
            .errors
            .add(count);
    }

    /// The call to answer.
    pub(crate) fn call(&self) -> Call {
        self.call
    }

    fn answer(self, answer: Answer) {
        self.core
            .counters
            .answered(self.call.api.key(), clock::now().since(self.started));
        self.owed.answer(answer);
    }
}

/// Handles one frame, which begins with the API key.
pub(crate) fn dispatch(core: &Rc<Core>, context: &Context, frame: Bytes, owed: Owed) {
    let header = match RequestHeader::read(&frame) {
        Ok(header) => header,
        Err(HeaderError::ApiVersionsTooNew { correlation_id, .. }) => {
            return owed.answer(Answer::Bytes(api_versions::fallback(correlation_id)));
        }
        Err(error) => return refuse(core, context, &error, owed),
    };
    let call = header.call;
    let request = match wire::decode(&frame, &header) {
        Ok(request) => request,
        Err(error) => return refuse(core, context, &error, owed),
    };
    let reply = Reply {
        core: core.clone(),
        call,
        owed,
        started: clock::now(),
    };
    if authorise(context, call.api).is_err() {
        // No listener asks who a peer is yet, so nobody gets here; per-resource refusals come with them.
        return reply.close();
    }
    let client_id = header.client_id.unwrap_or_default();
    handle(core, context, client_id, request, reply);
}

fn handle(core: &Rc<Core>, context: &Context, client_id: &str, request: Request, reply: Reply) {
    match request {
        Request::Produce(request) => produce::handle(core, &request, reply),
        Request::Fetch(request) => fetch::handle(core, request, reply),
        Request::ApiVersions(request) => {
            let answer = api_versions::answer(&request, reply.call());
            reply.send(Response::ApiVersions(answer));
        }
        Request::Metadata(request) => cluster::metadata(core, context, request, reply),
        Request::DescribeCluster(request) => cluster::describe(core, &request, reply),
        Request::DescribeLogDirs(request) => cluster::log_dirs(core, &request, reply),
        Request::DescribeAcls(_) => cluster::acls(reply),
        Request::ElectLeaders(request) => cluster::elect_leaders(core, request, reply),
        Request::AlterPartitionReassignments(request) => cluster::reassign(core, request, reply),
        Request::ListPartitionReassignments(request) => {
            cluster::reassignments(core, &request, reply)
        }
        Request::ListOffsets(request) => offsets::list(core, request, reply),
        Request::OffsetForLeaderEpoch(request) => offsets::for_leader_epoch(core, request, reply),
        Request::DeleteRecords(request) => offsets::delete_records(core, request, reply),
        Request::DescribeProducers(request) => offsets::producers(core, request, reply),
        Request::CreateTopics(request) => admin::create_topics(core, context, request, reply),
        Request::DeleteTopics(request) => admin::delete_topics(core, context, request, reply),
        Request::CreatePartitions(request) => {
            admin::create_partitions(core, context, request, reply)
        }
        Request::InitProducerId(request) => admin::init_producer_id(core, &request, reply),
        Request::DescribeConfigs(request) => configs::describe(core, request, reply),
        Request::AlterConfigs(request) => configs::alter(core, context, request, reply),
        Request::IncrementalAlterConfigs(request) => {
            configs::alter_incrementally(core, context, request, reply)
        }
        Request::FindCoordinator(request) => groups::find_coordinator(core, request, reply),
        Request::JoinGroup(request) => groups::join(core, context, client_id, request, reply),
        Request::SyncGroup(request) => groups::sync(core, request, reply),
        Request::Heartbeat(request) => groups::heartbeat(core, request, reply),
        Request::LeaveGroup(request) => groups::leave(core, request, reply),
        Request::OffsetCommit(request) => groups::commit(core, request, reply),
        Request::OffsetFetch(request) => groups::fetch_offsets(core, request, reply),
        Request::DescribeGroups(request) => groups::describe(core, request, reply),
        Request::ListGroups(request) => groups::list(core, request, reply),
        Request::DeleteGroups(request) => groups::delete(core, request, reply),
        Request::OffsetDelete(request) => groups::delete_offsets(core, request, reply),
    }
}

fn refuse(core: &Core, context: &Context, error: &dyn std::error::Error, owed: Owed) {
    core.counters.frames_refused.add(1);
    tracing::debug!(host = %context.host, %error, "frame refused");
    owed.answer(Answer::Close);
}

/// Whether requests of this key wait side by side on one connection: only produce requests do.
pub(crate) fn pipelined(key: i16) -> bool {
    Api::from_key(key) == Some(Api::Produce)
}
