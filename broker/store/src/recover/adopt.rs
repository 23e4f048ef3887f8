//! What a person decides about a stopped disk: that what a rotten ring lost is lost, and that a disk with replicas on it
//! belongs to a node that has a new meta disk.

use model::{Incarnation, NodeId, SiteUuid};

use super::{OpenError, Recovered, read_superblock, say};
use crate::Config;
use crate::disk::{Disk, DiskError};
use crate::format::superblock::{DiskState, Superblock};
use crate::io::{Io, Mode, Name};
use crate::ops::{Op, Queue};

/// Steps of background work within which a checkpoint must be made: far more than a full ring's bursts.
const STEPS_MAX: u32 = 1_000_000;

/// Opens a disk whose ring is rotten, accepts what is lost as lost, makes that durable in a checkpoint, and stops the disk
/// in order. `config` is used with `alone` and `accept_holes` set. What it says is the state after that.
pub fn accept<I: Io>(io: I, config: Config) -> Result<Recovered, OpenError> {
    let config = Config {
        alone: true,
        accept_holes: true,
        ..config
    };
    let (mut disk, recovered) = Disk::open(io, config)?;
    let failed = |error: DiskError| OpenError::Io {
        what: "making the acceptance durable",
        source: std::io::Error::other(error),
    };
    // The holes are closed in memory only: the ring still holds what does not connect, until a checkpoint passes it.
    let mut steps = 0;
    while disk.stats().checkpoints == 0 {
        let work = disk.work(false, None).map_err(failed)?;
        steps += 1;
        if !(work.did || work.again) || steps > STEPS_MAX {
            return Err(OpenError::Config(
                "no checkpoint could be made: nothing was accepted".into(),
            ));
        }
    }
    if disk.superblock().state == DiskState::Suspect {
        let site = disk.superblock().site;
        disk.set_identity(site, DiskState::Member).map_err(failed)?;
    }
    let mut queue = Queue::default();
    queue.push(Op::Clean, ());
    let mut done = Vec::new();
    while !queue.is_empty() {
        let committed = disk.commit(&mut queue, None, &mut done).map_err(failed)?;
        if committed.held {
            disk.work(true, None).map_err(failed)?;
        }
    }
    Ok(recovered)
}

/// Whose a disk becomes: see [`adopt`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adoption {
    /// The site of the new meta disk.
    pub site: SiteUuid,
    /// The node's number.
    pub node: NodeId,
    /// The node's incarnation, as the new meta disk has it.
    pub incarnation: Incarnation,
}

/// Takes a stopped data disk over with all that it holds: its superblock names another site, node and incarnation, its
/// identity as a disk stays. Durable when it returns; cut meanwhile, the disk is the one it was or the one it becomes.
pub fn adopt<I: Io>(io: &I, adoption: Adoption) -> Result<Superblock, OpenError> {
    let (mut superblock, at) = read_superblock(io)?;
    if superblock.meta {
        return Err(OpenError::Config(
            "this is a meta disk: it has a site log and an identity of its own, which adopting would lose".into(),
        ));
    }
    if matches!(superblock.state, DiskState::Suspect | DiskState::Failed) {
        return Err(OpenError::Config(format!(
            "the disk is {:?}: recover it first",
            superblock.state
        )));
    }
    superblock.site = adoption.site;
    superblock.node = adoption.node;
    superblock.incarnation = adoption.incarnation;
    superblock.state = DiskState::Member;
    superblock.sb_seq += 1;
    let file = say(
        "the superblock",
        io.open(Name::Super(at.other()), Mode::Write),
    )?;
    let written = io.pwrite(&file, &superblock.encode(), 0);
    say(
        "the superblock's write",
        written.and_then(|()| io.fsync(&file)),
    )?;
    Ok(superblock)
}
