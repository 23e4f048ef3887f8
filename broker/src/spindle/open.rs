//! Finds a node's disks, makes the blank ones, and refuses what would found a new site beside old data.
//!
//! A node is empty only if every disk it can see is blank or FRESH (L1.8). A blank data disk beside a meta disk that
//! holds a site is a replacement; a blank meta disk beside disks that hold data founds nothing: the node stops, names
//! the disks and says how to go on.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::{Incarnation, NodeId, SiteUuid};
use site::{Node, Place, Site};
use store::{Config, Disk, DiskState, FormatConfig, LinuxIo, OpenError, Superblock};
use thiserror::Error;

use crate::handover::HandedDisk;
use crate::lock::DiskLock;
use crate::mutation::{Mutation, is};

mod look;
mod machine;

pub(crate) use look::{Held, fresh, look};
pub(crate) use machine::journal_on_disk;
use machine::{fs_bytes, memory_bytes, timed_write_back, turns};

/// All disks together may hold this part of memory in batches that are not written out yet.
const DIRTY_PART: u64 = 4;

/// One disk of the node's, opened: its ring is replayed.
pub(crate) struct Opened {
    pub(crate) place: DiskPlace,
    /// None: it is out of service until a person has looked at it, and `recovered` says only what it is.
    pub(crate) disk: Option<Disk<LinuxIo>>,
    pub(crate) recovered: store::Recovered,
    /// Bytes of it that are ours.
    pub(crate) use_bytes: u64,
}

/// Where a disk lies and how it is used; enough to open it again.
#[derive(Clone, Debug)]
pub(crate) struct DiskPlace {
    /// Its place among the node's disks in the site file, from 0.
    pub(crate) at: usize,
    pub(crate) path: PathBuf,
    pub(crate) journal: Option<PathBuf>,
    pub(crate) journal_bytes: u64,
    pub(crate) config: Config,
    /// Taken when the disk is opened; every copy of the place holds it.
    pub(crate) lock: Option<Arc<DiskLock>>,
}

/// Where a node's disks lie.
#[derive(Debug)]
pub(crate) struct Places {
    /// Those that are there, in the order of the site file.
    pub(crate) here: Vec<DiskPlace>,
    /// What the site file calls the others.
    pub(crate) away: Vec<String>,
}

/// Why the node's disks can't be used.
#[derive(Debug, Error)]
pub(crate) enum Fault {
    /// Named by what only the appliance can look up.
    #[error("{0}: on a Linux host a disk is named by its directory (`path = ...`)")]
    NotAPath(String),
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}: {source}")]
    Disk { path: PathBuf, source: OpenError },
    /// The meta disk's ring may have lost part of the site log.
    #[error(
        "{path}: {source}. The sectors may read again after a power cycle: try that first. \
         `howdah recover {path}` lists what is missing, and with --accept the node starts without it"
    )]
    RingHole { path: PathBuf, source: OpenError },
    /// It holds something that is not a disk of ours.
    #[error(
        "{path} holds {found}, which is no disk of Howdah's: choose an empty directory, or `howdah format --erase` it"
    )]
    Foreign { path: PathBuf, found: String },
    #[error("{path} is in use by another howdah that runs")]
    InUse { path: PathBuf },
    #[error("{path} is a disk of node {found}, this is node {wanted}")]
    OtherNode {
        path: PathBuf,
        found: u32,
        wanted: u32,
    },
    #[error(
        "{path} belongs to another life of this node than {meta}: it was moved here, or the meta disk was replaced"
    )]
    OtherIncarnation { path: PathBuf, meta: PathBuf },
    #[error("{first} and {second} both say that they are the meta disk")]
    TwoMetaDisks { first: PathBuf, second: PathBuf },
    /// Nobody knows whether it holds a site: to found another one beside it would lose it.
    #[error(
        "the meta disk, {meta}, is not there: the node waits for it. If it is lost, put a blank one in its place in the site file"
    )]
    MetaAway { meta: String },
    /// L1.8.
    #[error(
        "the meta disk {meta} is blank, but {holding} hold data: starting would found a new site beside it. \
         Bring the old meta disk back, or take the data over with `howdah adopt {holding}`"
    )]
    MetaLost { meta: PathBuf, holding: String },
}

impl Fault {
    /// Refused to protect data, rather than a fault of the machine or of the site file.
    pub(crate) const fn protects(&self) -> bool {
        matches!(
            self,
            Self::Foreign { .. }
                | Self::InUse { .. }
                | Self::OtherNode { .. }
                | Self::OtherIncarnation { .. }
                | Self::TwoMetaDisks { .. }
                | Self::MetaAway { .. }
                | Self::MetaLost { .. }
                | Self::RingHole { .. }
        )
    }
}

/// Where each disk of `node` lies, in the order of the site file; the first is the meta disk. On an appliance that is what
/// board hands over, and what it does not is away.
pub(crate) fn places(node: &Node, data: &Path, handed: &[HandedDisk]) -> Result<Places, Fault> {
    let path_of = |place: &Place| match place {
        Place::Path(path) => Ok(data.join(path)),
        named => Err(Fault::NotAPath(named.to_string())),
    };
    let mut places = Places {
        here: Vec::with_capacity(node.disks.len()),
        away: Vec::new(),
    };
    for (at, disk) in node.disks.iter().enumerate() {
        let (path, journal) = match handed.iter().find(|it| it.at == at) {
            Some(handed) => (handed.root.clone(), Some(handed.ring.clone())),
            None if !handed.is_empty() => {
                places.away.push(disk.place.to_string());
                continue;
            }
            None => (
                path_of(&disk.place)?,
                disk.journal.place.as_ref().map(path_of).transpose()?,
            ),
        };
        places.here.push(DiskPlace {
            at,
            path,
            journal,
            journal_bytes: disk.journal.bytes,
            config: Config {
                preallocate: disk.ahead(),
                ..Config::default()
            },
            lock: None,
        });
    }
    Ok(places)
}

/// Opens every disk of the site's `node` that is there, meta disk first, making those that are blank. Says what is away.
pub(crate) fn open_all(
    site: &Site,
    node: usize,
    places: Places,
) -> Result<(Vec<Opened>, Vec<String>), Fault> {
    let own = &site.nodes[node];
    let Places {
        here: mut places,
        away,
    } = places;
    let id = NodeId(own.id);
    let mut held = places.iter().map(look).collect::<Result<Vec<_>, _>>()?;
    let holds = |held: &Held| matches!(held, Held::Formatted(superblock) if !fresh(superblock));
    if !held.iter().any(holds) {
        // Empty (L1.8): what an earlier first start made and never used is made anew, all of one incarnation.
        held.iter_mut().for_each(|held| *held = Held::Blank);
    }
    let is_meta = |held: &Held| matches!(held, Held::Formatted(it) if it.meta && !fresh(it));
    if places.first().is_none_or(|first| first.at != 0) && !held.iter().any(is_meta) {
        return Err(Fault::MetaAway {
            meta: own.disks[0].place.to_string(),
        });
    }
    for place in &away {
        tracing::error!("the disk with {place} is away; the others serve without it");
    }
    let meta = found_meta(&places, &held, id)?;
    let dirty_bytes_max = memory_bytes() / DIRTY_PART / places.len() as u64;
    let mut opened = Vec::with_capacity(places.len());
    // The meta disk first: what is made beside it belongs to its incarnation.
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by_key(|at| *at != meta);
    let mut identity: Option<(Incarnation, SiteUuid)> = None;
    for at in order {
        let place = &mut places[at];
        let io = open_io(place)?;
        place.lock = Some(lock(&place.path)?);
        let superblock = match &held[at] {
            Held::Formatted(superblock) => (**superblock).clone(),
            Held::Blank => make(place, &io, id, at == meta, identity)?,
        };
        if let Some((incarnation, _)) =
            identity.filter(|(incarnation, _)| *incarnation != superblock.incarnation)
        {
            tracing::debug!(?incarnation, found = ?superblock.incarnation, "another incarnation");
            return Err(Fault::OtherIncarnation {
                path: place.path.clone(),
                meta: opened_path(&opened),
            });
        }
        identity = identity.or(Some((superblock.incarnation, superblock.site)));
        let usage = &own.disks[place.at].usage;
        let disk_free = fs_bytes(&place.path, usage)?;
        let use_bytes = usage.resolve(disk_free.free, disk_free.held);
        // What others hold just now is not held for ever: it bounds what is promised from now on, and the file system
        // itself says when it is full. What extents may take in the end must not stay small until the next start.
        let most_bytes = usage.resolve(disk_free.all, 0).max(use_bytes);
        place.config.use_bytes =
            site::quota::DiskSpace::of(most_bytes, journal_on_disk(place)).extent_bytes();
        place.config.dirty_bytes_max = dirty_bytes_max;
        let path = place.path.clone();
        let (disk, recovered) = match Disk::open(io, place.config) {
            Ok((mut disk, mut recovered)) => {
                join(&mut disk, &mut recovered, &mut identity).map_err(|source| Fault::Io {
                    path,
                    source: io::Error::other(source.to_string()),
                })?;
                (Some(disk), recovered)
            }
            Err(source @ OpenError::RingHole { .. }) if at == meta => {
                return Err(Fault::RingHole { path, source });
            }
            // The other disks go on without it.
            Err(source @ OpenError::RingHole { .. }) => {
                let fault = Fault::RingHole { path, source };
                tracing::error!(%fault, "a disk stays out of service");
                (None, store::Recovered::nothing(superblock))
            }
            Err(source) => return Err(Fault::Disk { path, source }),
        };
        opened.push(Opened {
            place: place.clone(),
            disk,
            recovered,
            use_bytes,
        });
    }
    if opened.iter().any(|it| turns(&it.place.path)) && timed_write_back() {
        tracing::info!(
            "the kernel writes dirty pages back by a timer, and on a disk that turns acknowledgements wait for that, up to a \
             second every half minute: set vm.dirty_writeback_centisecs=0 and vm.dirty_expire_centisecs=360000"
        );
    }
    Ok((opened, away))
}

/// A blank disk becomes the site's: the meta disk of an empty node draws the site's identity, the others take it from
/// there, meta disk first, so that a cut in between leaves a FRESH disk beside a meta disk and not the reverse.
fn join(
    disk: &mut Disk<LinuxIo>,
    recovered: &mut store::Recovered,
    identity: &mut Option<(Incarnation, SiteUuid)>,
) -> Result<(), store::DiskError> {
    if !matches!(
        recovered.superblock.state,
        DiskState::Fresh | DiskState::Replacement
    ) {
        return Ok(());
    }
    let drawn = identity.map_or(SiteUuid::default(), |(_, site)| site);
    let site = if drawn == SiteUuid::default() {
        SiteUuid(crate::random::uuid())
    } else {
        drawn
    };
    // On a site of one nobody holds a copy to catch up from: a replacement counts at once.
    disk.set_identity(site, DiskState::Member)?;
    recovered.superblock = disk.superblock().clone();
    *identity = Some((recovered.superblock.incarnation, site));
    Ok(())
}

fn opened_path(opened: &[Opened]) -> PathBuf {
    opened
        .first()
        .map(|meta| meta.place.path.clone())
        .unwrap_or_default()
}

/// The file-level door to a disk.
pub(crate) fn open_io(place: &DiskPlace) -> Result<LinuxIo, Fault> {
    fs::create_dir_all(&place.path)
        .and_then(|()| LinuxIo::new(&place.path, place.journal.clone()))
        .map_err(|source| Fault::Io {
            path: place.path.clone(),
            source,
        })
}

fn lock(path: &Path) -> Result<Arc<DiskLock>, Fault> {
    DiskLock::take(path)
        .map(Arc::new)
        .map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => Fault::InUse {
                path: path.to_owned(),
            },
            _ => Fault::Io {
                path: path.to_owned(),
                source,
            },
        })
}

/// Which place holds the meta disk, or shall.
pub(crate) fn found_meta(
    places: &[DiskPlace],
    held: &[Held],
    node: NodeId,
) -> Result<usize, Fault> {
    let mut meta = None;
    for (at, held) in held.iter().enumerate() {
        let Held::Formatted(superblock) = held else {
            continue;
        };
        if superblock.node != node {
            let path = places[at].path.clone();
            return Err(Fault::OtherNode {
                path,
                found: superblock.node.0,
                wanted: node.0,
            });
        }
        if superblock.meta
            && !fresh(superblock)
            && let Some(first) = meta.replace(at)
        {
            let path = |at: usize| places[at].path.clone();
            return Err(Fault::TwoMetaDisks {
                first: path(first),
                second: path(at),
            });
        }
    }
    if let Some(meta) = meta {
        return Ok(meta);
    }
    let holding: Vec<String> = places
        .iter()
        .zip(held)
        .filter(|(_, held)| matches!(held, Held::Formatted(superblock) if !fresh(superblock)))
        .map(|(place, _)| place.path.display().to_string())
        .collect();
    if holding.is_empty() || is(Mutation::BlankMetaTaken) {
        return Ok(0);
    }
    Err(Fault::MetaLost {
        meta: places[0].path.clone(),
        holding: holding.join(" "),
    })
}

pub(crate) fn make(
    place: &DiskPlace,
    io: &LinuxIo,
    node: NodeId,
    meta: bool,
    identity: Option<(Incarnation, SiteUuid)>,
) -> Result<Superblock, Fault> {
    let site = identity.map_or(SiteUuid::default(), |(_, site)| site);
    let config = FormatConfig {
        node,
        incarnation: identity.map(|(incarnation, _)| incarnation),
        site,
        meta,
        replacement: site != SiteUuid::default(),
        journal_bytes: place.journal_bytes,
        journal_apart: place.journal.is_some(),
    };
    tracing::info!(disk = %place.path.display(), journal_bytes = place.journal_bytes, "formatting");
    Disk::format(io, &config).map_err(|source| Fault::Disk {
        path: place.path.clone(),
        source,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
