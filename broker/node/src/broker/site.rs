//! The site log and whoever is in office: entries committed, leases, and what this node tells its controller.

use core::time::Duration;

use model::{Instant, LeaderEpoch, NodeId, Term, TopicPartition};

use super::{
    Ask, Broker, Effect, End, Event, OWN, PROPOSED, Proposal, Say, Todo, controller, coordinator,
    partition, sitelog,
};
use crate::controller::{NodeBeat, Resigned};
use crate::peer::AlterIsr;
use crate::{Outbox, Ticket};

/// The controller hears so often how this node does.
const REPORT_AGAIN: Duration = Duration::from_millis(100);

impl Broker {
    pub(super) fn step_sitelog(
        &mut self,
        now: Instant,
        input: sitelog::Input,
        out: &mut Outbox<Effect>,
    ) {
        let mut effects = std::mem::take(&mut self.outs.sitelog);
        self.sitelog.step(now, input, &mut effects);
        for effect in effects.drain() {
            self.sitelog_effect(now, effect, out);
        }
        self.outs.sitelog = effects;
        let until = self.sitelog.office(now).map(|office| office.until);
        if let Some(until) = until.filter(|until| self.office_until != Some(*until)) {
            self.office_until = Some(until);
            self.govern(controller::Input::Lease { until });
        }
    }

    fn govern(&mut self, input: controller::Input) {
        self.todo.push_back(Todo::Controller(input));
    }

    fn sitelog_effect(&mut self, now: Instant, effect: sitelog::Effect, out: &mut Outbox<Effect>) {
        match effect {
            sitelog::Effect::Apply {
                index,
                bytes,
                ticket,
                ..
            } => {
                self.apply(&bytes, out);
                self.duties_due = true;
                let proposal = ticket
                    .filter(|ticket| ticket.0 & PROPOSED != 0)
                    .map(|ticket| Proposal(ticket.0 & !(OWN | PROPOSED)));
                self.govern(controller::Input::Applied { index, proposal });
            }
            sitelog::Effect::Refuse { ticket, .. } => {
                self.govern(controller::Input::NotTaken(Proposal(
                    ticket.0 & !(OWN | PROPOSED),
                )));
            }
            sitelog::Effect::Snapshot { index, term } => out.push(Effect::Snapshot {
                index,
                term,
                bytes: self.catalog.encode(),
            }),
            sitelog::Effect::Encode { index } => {
                let bytes = self.catalog.encode();
                self.todo
                    .push_back(Todo::SiteLog(sitelog::Input::Encoded { index, bytes }));
            }
            sitelog::Effect::Install { index, term, bytes } => match self.install(&bytes, out) {
                Ok(()) => out.push(Effect::Snapshot { index, term, bytes }),
                Err(fault) => out.push(Effect::End(End::SiteLog(fault.to_string()))),
            },
            sitelog::Effect::Controller { term, moves_from } => {
                self.take_office(now, term, moves_from);
            }
            sitelog::Effect::Resigned { .. } => {
                self.office_until = None;
                self.govern(controller::Input::Deposed);
            }
            sitelog::Effect::LeaseUntil { until } => {
                self.lease_until = until;
                let all: Vec<_> = self.replicas.iter().map(|(at, _)| at).collect();
                for at in all {
                    self.tell(at, partition::Input::Lease { until });
                }
                self.coordinate(coordinator::Input::Lease { until });
            }
            sitelog::Effect::Halt(why) => out.push(Effect::End(End::Halt(why))),
            effect @ (sitelog::Effect::HardState(_)
            | sitelog::Effect::Append(_)
            | sitelog::Effect::Send { .. }
            | sitelog::Effect::Orders(_)) => out.push(Effect::SiteLog(effect)),
        }
    }
}

impl Broker {
    /// L1.4: it decides from here on.
    fn take_office(&mut self, now: Instant, term: Term, moves_from: Instant) {
        let until = self.sitelog.office(now).map_or(now, |office| office.until);
        self.office_until = Some(until);
        self.govern(controller::Input::Office {
            term,
            since: now,
            until,
            index: self.sitelog.applied(),
            moves_from,
            wanted: self.settings.wanted.clone(),
            site: self.settings.site,
        });
        self.duties_due = true;
    }

    pub(super) fn step_controller(
        &mut self,
        now: Instant,
        input: controller::Input,
        out: &mut Outbox<Effect>,
    ) {
        let mut effects = std::mem::take(&mut self.outs.controller);
        self.controller
            .step(now, &self.catalog, input, &mut effects);
        for effect in effects.drain() {
            self.controller_effect(effect, out);
        }
        self.outs.controller = effects;
    }

    fn controller_effect(&mut self, effect: controller::Effect, out: &mut Outbox<Effect>) {
        match effect {
            controller::Effect::Propose { proposal, bytes } => {
                let ticket = Ticket(OWN | PROPOSED | proposal.0);
                self.todo
                    .push_back(Todo::SiteLog(sitelog::Input::Propose { ticket, bytes }));
            }
            controller::Effect::HandOver { node, partitions } => {
                self.say(node, Say::HandOver(partitions), out);
            }
            controller::Effect::AlterIsr { ticket, rows } => {
                // Named by the node that asked.
                let node =
                    NodeId(u32::try_from(ticket.0 & !OWN).expect("drawn from a node's number"));
                self.say(node, Say::IsrOutcomes(rows), out);
            }
            controller::Effect::Answer { ticket, answer } => {
                out.push(Effect::Answer { ticket, answer });
            }
            controller::Effect::MayFree { node } => self.say(node, Say::Current, out),
            controller::Effect::Event(event) => {
                out.push(Effect::Event(Event::Controller(event)));
            }
        }
    }
}

/// What nodes and their controller say to each other.
impl Broker {
    /// A node says something to the controller, which this node is or has been a moment ago.
    pub(super) fn asked(&mut self, from: NodeId, ask: Ask) {
        self.govern(match ask {
            Ask::Report(beat) => {
                let seen = self.sitelog.nodes().find(|seen| seen.node == from);
                controller::Input::Beat {
                    beat,
                    dead_from: seen.map_or(Instant(0), |seen| seen.dead_from),
                }
            }
            Ask::Register(node) => controller::Input::Register(node),
            Ask::Resign(partitions) => controller::Input::Resign {
                node: from,
                partitions,
            },
            Ask::AlterIsr(rows) => controller::Input::AlterIsr {
                ticket: Ticket(OWN | u64::from(from.0)),
                node: from,
                rows,
            },
        });
    }

    /// The controller says something to this node.
    pub(super) fn told(&mut self, say: Say, out: &mut Outbox<Effect>) {
        match say {
            Say::Current => self.becomes_current(out),
            Say::HandOver(partitions) => {
                for (id, epoch, to) in partitions {
                    let leads = |at: &_| {
                        let machine = self.partition(*at).expect("listed");
                        machine.leading_since().is_some() && machine.epoch() == epoch
                    };
                    if let Some(at) = self.replicas.of(id).filter(leads) {
                        self.tell(at, partition::Input::HandOver { to });
                    }
                }
            }
            Say::IsrOutcomes(rows) => {
                for (id, epoch, part_ver, outcome) in rows {
                    if let Some(at) = self.replicas.of(id) {
                        let input = partition::Input::IsrOutcome {
                            epoch,
                            part_ver,
                            outcome,
                        };
                        self.tell(at, input);
                    }
                }
            }
        }
    }

    fn say(&mut self, node: NodeId, say: Say, out: &mut Outbox<Effect>) {
        if node == self.me {
            self.told(say, out);
        } else {
            out.push(Effect::Say { node, say });
        }
    }

    /// Goes to the controller, or nowhere while none is known: all of it is said again.
    fn ask(&mut self, ask: Ask, out: &mut Outbox<Effect>) {
        match self.sitelog.leader() {
            Some(node) if node == self.me => self.asked(node, ask),
            Some(node) => out.push(Effect::Ask { node, ask }),
            None => {}
        }
    }

    /// Leaders' proposals of one step travel together.
    pub(super) fn ask_isr(&mut self, out: &mut Outbox<Effect>) {
        if !self.isr_asks.is_empty() {
            let rows = std::mem::take(&mut self.isr_asks);
            self.ask(Ask::AlterIsr(rows), out);
        }
    }

    pub(super) fn wants_isr(&mut self, ask: AlterIsr) {
        self.isr_asks.push(ask);
    }

    /// Tells the controller how this node does.
    pub(super) fn report(&mut self, now: Instant, out: &mut Outbox<Effect>) {
        self.duties_at = now + REPORT_AGAIN;
        let Some(node) = self.sitelog.leader() else {
            return;
        };
        let beat = NodeBeat {
            node: self.me,
            incarnation: self.settings.sitelog.incarnation,
            boot: self.settings.boot,
            disks: self.disk_states(),
            applied: self.sitelog.applied(),
            blessed: self.settings.controller.version,
            digest: self.settings.controller.digest,
            clock_trusted: self.clock_trusted(),
        };
        if node == self.me {
            let dead_from = self.office_until.unwrap_or(now);
            self.govern(controller::Input::Beat { beat, dead_from });
        } else {
            let ask = Ask::Report(beat);
            out.push(Effect::Ask { node, ask });
        }
    }

    /// Tells the controller what it must know, and does not as far as the site log shows.
    pub(super) fn remind(&mut self, out: &mut Outbox<Effect>) {
        if let Some(entry) = self.registration() {
            self.ask(Ask::Register(entry), out);
        }
        let resigned = self.resigned();
        if !resigned.is_empty() {
            self.ask(Ask::Resign(resigned), out);
        }
    }

    /// This node as it is, where the catalog knows it otherwise.
    fn registration(&self) -> Option<sitelog::Node> {
        let incarnation = self.settings.sitelog.incarnation;
        match self.catalog.register(incarnation, &self.disks())? {
            sitelog::Entry::Node(node) => Some(node),
            _ => None,
        }
    }

    /// R2: epochs that the log names for this node and that it can't lead: they began before it started, or before their
    /// disk came back; and what it was asked to hand over and has made level.
    fn resigned(&mut self) -> Vec<(TopicPartition, LeaderEpoch, Resigned)> {
        let mut resigned = std::mem::take(&mut self.level);
        if !self.current {
            return resigned;
        }
        for (id, row) in self.catalog.partitions() {
            if row.leader != Some(self.me) {
                continue;
            }
            let leads = self
                .replicas
                .of(id)
                .and_then(|at| self.replicas.get(at))
                .is_some_and(|it| it.machine.epoch() == row.epoch && !it.machine.follows());
            if !leads {
                resigned.push((id, row.epoch, Resigned::Epoch));
            }
        }
        resigned
    }
}
