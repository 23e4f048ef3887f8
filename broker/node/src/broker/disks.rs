//! The disks of this node as its decisions see them: in service or not, and what they came back with.

use model::DiskUuid;

use super::apply::nothing;
use super::{
    Broker, DiskFound, DiskIx, DiskStart, Effect, End, Event, ReplicaFound, ReplicaIx, partition,
};
use crate::Outbox;
use crate::sitelog;
use crate::sitelog::DiskState;

/// One of them.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) disk: sitelog::Disk,
    state: DiskState,
    /// Replicas that it lacks may have been lost with its journal.
    suspect: bool,
}

/// What recovery found and no entry has named yet.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) disk: DiskIx,
    pub(super) replica: ReplicaFound,
}

impl Disk {
    pub(super) fn serves(&self) -> bool {
        matches!(self.state, DiskState::Clean | DiskState::Stalled)
    }
}

impl Broker {
    pub(super) fn open(&mut self, start: DiskStart) {
        let disk = DiskIx(u8::try_from(self.disks.len()).expect("a node has at most twelve disks"));
        self.disks.push(Disk {
            disk: start.disk,
            state: if start.out {
                DiskState::Failed
            } else {
                DiskState::Clean
            },
            suspect: start.found.suspect,
        });
        for replica in start.found.replicas {
            self.found.insert(replica.id, Found { disk, replica });
        }
    }

    pub(super) fn disk_of(&self, uuid: DiskUuid) -> Option<DiskIx> {
        let at = self.disks.iter().position(|it| it.disk.uuid == uuid)?;
        u8::try_from(at).ok().map(DiskIx)
    }

    /// Whether a replica that the disk lacks at the start may have been lost with its journal.
    pub(super) fn lost_some(&self, disk: DiskIx) -> bool {
        self.disks[usize::from(disk.0)].suspect && !self.settled
    }

    fn on(&self, disk: DiskIx) -> Vec<ReplicaIx> {
        let there = self.replicas.iter().filter(|(_, it)| it.disk == disk);
        there.map(|(at, _)| at).collect()
    }

    pub(super) fn disk_failed(&mut self, disk: DiskIx, out: &mut Outbox<Effect>) {
        self.disks[usize::from(disk.0)].state = DiskState::Failed;
        self.duties_due = true;
        for at in self.on(disk) {
            self.tell(at, partition::Input::DiskFailed);
        }
        // The site log lies there: without it this node knows nothing for sure.
        if disk == DiskIx(0) {
            out.push(Effect::End(End::MetaDisk));
        }
    }

    pub(super) fn disk_back(&mut self, disk: DiskIx, found: DiskFound, out: &mut Outbox<Effect>) {
        self.disks[usize::from(disk.0)].state = DiskState::Clean;
        self.duties_due = true;
        let mut missing = self.on(disk);
        for replica in found.replicas {
            let id = replica.id;
            let there = self
                .replicas
                .of(id)
                .and_then(|at| Some((at, self.replicas.get_mut(at)?)));
            let Some((at, held)) = there.filter(|(_, held)| held.disk == disk) else {
                // Deleted while the disk was away: its PART_DEL never got there.
                out.push(Effect::Forget { disk, id });
                continue;
            };
            missing.retain(|it| *it != at);
            if held.hole {
                continue;
            }
            if replica.hole {
                held.hole = true;
                out.push(Effect::Event(Event::Hole { id, disk }));
                continue;
            }
            // What was encoded for this decodes.
            self.windows
                .decode(
                    at.window(),
                    replica.recovered.high_watermark,
                    &replica.windows,
                )
                .expect("windows that were just encoded");
            self.returns(at, replica.recovered, out);
        }
        for at in missing {
            self.make_anew(at, disk, found.suspect, out);
        }
    }

    /// A replica that the disk came back without: its PART_NEW never got there, or part of the journal is lost.
    fn make_anew(&mut self, at: ReplicaIx, disk: DiskIx, suspect: bool, out: &mut Outbox<Effect>) {
        let Some(held) = self.replicas.get_mut(at) else {
            return;
        };
        let id = held.id;
        // One that is on its way out has nothing to come back to.
        if held.hole || self.replicas.of(id) != Some(at) {
            return;
        }
        if suspect {
            self.replicas.get_mut(at).expect("seen above").hole = true;
            return out.push(Effect::Event(Event::Hole { id, disk }));
        }
        // What was ever durable of it would have come back.
        self.windows.remove(at.window());
        out.push(Effect::Hold {
            replica: at,
            id,
            disk,
            new: true,
        });
        self.returns(at, nothing(), out);
    }

    /// The disk was opened anew and has forgotten what the replica may keep.
    fn returns(&mut self, at: ReplicaIx, held: partition::Recovered, out: &mut Outbox<Effect>) {
        let topic = self.replicas.get(at).map(|replica| replica.id.topic);
        if let Some(settings) = topic.and_then(|topic| self.catalog.settings(topic)) {
            out.push(Effect::Configure {
                replica: at,
                settings,
            });
        }
        self.tell(at, partition::Input::DiskBack(Box::new(held)));
    }

    /// The disk found no room for what the replica appended: it is out of service by itself, the disk is not.
    pub(super) fn no_room(&mut self, at: ReplicaIx) {
        self.tell(at, partition::Input::DiskFailed);
    }

    /// It comes back with what was durable.
    pub(super) fn room(&mut self, at: ReplicaIx) {
        let Some(replica) = self.replicas.get(at) else {
            return;
        };
        let held = replica.machine.held();
        self.windows.truncate(at.window(), held.end);
        self.tell(at, partition::Input::DiskBack(Box::new(held)));
    }

    /// The disks with which this node is registered: all it started with, in service or not (R9).
    pub(super) fn disks(&self) -> Vec<sitelog::Disk> {
        self.disks.iter().map(|it| it.disk).collect()
    }

    /// As reports say it. A disk that came back from a rotten journal may lack what was acknowledged.
    pub(super) fn disk_states(&self) -> Vec<(DiskUuid, DiskState)> {
        let state = |it: &Disk| match (it.suspect, it.state) {
            (true, DiskState::Clean) if self.alone() => DiskState::Clean,
            (true, DiskState::Clean) => DiskState::Suspect,
            (_, state) => state,
        };
        let states = self.disks.iter().map(|it| (it.disk.uuid, state(it)));
        states.collect()
    }

    /// Nobody else holds copies: what a rotten journal left is all there is, and replicas with a hole wait by themselves.
    fn alone(&self) -> bool {
        self.settings.sitelog.peers.len() == 1
    }

    pub(super) fn disk_stalled(&mut self, disk: DiskIx, stalled: bool) {
        let disk = &mut self.disks[usize::from(disk.0)];
        if disk.serves() {
            disk.state = match stalled {
                true => DiskState::Stalled,
                false => DiskState::Clean,
            };
            self.duties_due = true;
        }
    }
}
