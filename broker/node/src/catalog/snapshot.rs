//! The catalog at rest, in the site log's snapshot.
//!
//! ```text
//! format u16 LE = 1 · postcard { site uuid?, site version u16, nodes [(id, row)], topics [(id, row)], next pid i64,
//!            moving [(topic, partition, from and to)], voters? }
//! ```
//! A release may add fields at the end, as one did with `moving` and one with `voters`; one that can't be read without
//! them gets another format. The store keeps it under a checksum, so what does not decode was written by another
//! release.

use std::collections::BTreeMap;

use model::{NodeId, ProducerId, SiteUuid, TopicId, TopicPartition};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Catalog, NodeRow, Rules, TopicRow, placed};
use crate::sitelog::{Moving, Voters};

const FORMAT: u16 = 1;

/// Bytes that are no catalog of this release.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SnapshotFault {
    /// Another format.
    #[error(
        "the site log's snapshot has format {0}, this release reads {FORMAT}: start the newer release again"
    )]
    Format(u16),
    /// Not the fields of the format, or not as entries can leave them.
    #[error("the site log's snapshot: {0}")]
    Malformed(&'static str),
}

#[derive(Serialize)]
struct Written<'a> {
    site: Option<SiteUuid>,
    site_version: u16,
    nodes: Vec<(NodeId, &'a NodeRow)>,
    topics: Vec<(TopicId, &'a TopicRow)>,
    next_pid: ProducerId,
    moving: Vec<(TopicPartition, &'a Moving)>,
    voters: Option<&'a Voters>,
}

#[derive(Deserialize)]
struct Read {
    site: Option<SiteUuid>,
    site_version: u16,
    nodes: Vec<(NodeId, NodeRow)>,
    topics: Vec<(TopicId, TopicRow)>,
    next_pid: ProducerId,
}

impl Catalog {
    /// Its bytes.
    ///
    /// # Panics
    /// Never: nothing in it has no bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let written = Written {
            site: self.site,
            site_version: self.site_version,
            nodes: self.nodes().collect(),
            topics: self.topics().collect(),
            next_pid: self.next_pid,
            moving: self.moving().collect(),
            voters: self.voters(),
        };
        let format = FORMAT.to_le_bytes().to_vec();
        postcard::to_extend(&written, format).expect("lengths are known, and a vector grows")
    }

    /// Reads what [`Catalog::encode`] of this or an older release wrote, as node `me` sees it.
    pub fn decode(bytes: &[u8], me: NodeId, rules: Rules) -> Result<Self, SnapshotFault> {
        let (format, body) = bytes
            .split_first_chunk()
            .ok_or(SnapshotFault::Malformed("two bytes are missing"))?;
        match u16::from_le_bytes(*format) {
            FORMAT => {}
            other => return Err(SnapshotFault::Format(other)),
        }
        let malformed = |_| SnapshotFault::Malformed("not the fields of its format");
        let (read, later): (Read, _) = postcard::take_from_bytes(body).map_err(malformed)?;
        let (moving, later): (Vec<(TopicPartition, Moving)>, _) = match later {
            // Written before partitions could move.
            [] => (Vec::new(), later),
            later => postcard::take_from_bytes(later).map_err(malformed)?,
        };
        let voters: Option<Voters> = match later {
            // Written by a release for sites of one.
            [] => None,
            later => postcard::take_from_bytes(later).map_err(malformed)?.0,
        };
        if voters.as_ref().is_some_and(|voters| !voters.is_sound()) {
            return Err(SnapshotFault::Malformed(
                "voters beyond their bound, or one twice",
            ));
        }
        let topics: BTreeMap<TopicId, TopicRow> = read.topics.into_iter().collect();
        let names: BTreeMap<String, TopicId> = topics
            .iter()
            .map(|(id, topic)| (topic.name.clone(), *id))
            .collect();
        if names.len() != topics.len() {
            return Err(SnapshotFault::Malformed("two topics have one name"));
        }
        for partition in topics.values().flat_map(|topic| &topic.partitions) {
            if !placed(&partition.replicas)
                || partition
                    .isr
                    .iter()
                    .any(|at| usize::from(*at) >= partition.replicas.len())
            {
                return Err(SnapshotFault::Malformed("a partition's replicas are none"));
            }
        }
        Ok(Self {
            me,
            rules,
            site: read.site,
            site_version: read.site_version,
            nodes: read.nodes.into_iter().collect(),
            topics,
            names,
            moving: moving.into_iter().collect(),
            next_pid: read.next_pid,
            voters,
        })
    }
}
