//! The node's life as the outside sees it: where it listens, whether it is ready, how it ends.

use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::Core;
use crate::spindle::{Condition, Spindle};

/// A group takes about this long; then there is room again.
const CROWDED_PAUSE: Duration = Duration::from_millis(5);

/// Why a node ends without being asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The site log can't be written any more: a restart replays the disk.
    MetaDisk(String),
    /// The site log can't go on here: an entry that this release does not know and must, or another node's word.
    SiteLog(String),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MetaDisk(error) => write!(f, "the meta disk failed: {error}"),
            Self::SiteLog(fault) => write!(f, "{fault}"),
        }
    }
}

impl Core {
    /// Clients reach the first Kafka listener here.
    pub(crate) fn advertise(&self, address: SocketAddr) {
        if self.advertised.get().is_none() {
            self.advertised.set(Some((address.ip(), address.port())));
        }
    }

    /// The HTTP door is open here.
    pub(crate) fn http_at(&self, address: SocketAddr) {
        self.http.set(Some(address));
    }

    /// Where the HTTP door is open.
    pub(crate) fn http_address(&self) -> Option<SocketAddr> {
        self.http.get()
    }

    /// Why the node does not serve everything that it should; empty when it does.
    pub(crate) fn not_ready(&self) -> Vec<String> {
        let inner = self.inner.borrow();
        let mut reasons = Vec::new();
        if inner.stopping {
            reasons.push("stopping".to_owned());
        }
        if !inner.broker.sitelog().is_controller() {
            reasons.push("the site log has no controller yet".to_owned());
        } else if !inner.broker.founded() {
            reasons.push("the site's topics are being prepared".to_owned());
        }
        for place in &self.away {
            reasons.push(format!("disk {place} is away"));
        }
        for spindle in &inner.spindles {
            match spindle.condition() {
                Condition::Serving if spindle.stalled() => reasons.push(format!(
                    "disk {} has not answered for {} s",
                    spindle.path.display(),
                    spindle.busy_for().as_secs()
                )),
                Condition::Serving => {}
                Condition::Failed => reasons.push(format!(
                    "disk {} failed and is tried again",
                    spindle.path.display()
                )),
                Condition::Out => reasons.push(format!(
                    "disk {} failed and stays out",
                    spindle.path.display()
                )),
            }
        }
        let waiting = inner
            .replicas
            .iter()
            .filter(|(at, replica)| {
                !inner.leads(*at)
                    && !inner.broker.has_hole(*at)
                    && inner.spindles[replica.disk].condition() == Condition::Serving
            })
            .count();
        if waiting > 0 {
            reasons.push(format!("{waiting} partitions are not led yet"));
        }
        let holes = inner
            .replicas
            .iter()
            .filter(|(at, _)| inner.broker.has_hole(*at))
            .count();
        if holes > 0 {
            reasons.push(format!(
                "{holes} partitions lost part of their log with a journal: see `howdah recover`"
            ));
        }
        reasons
    }

    /// How long the write to the meta disk that is under way has taken.
    pub(crate) fn meta_busy(&self) -> std::time::Duration {
        self.inner.borrow().spindles[0].busy_for()
    }

    /// Returns when the node serves what its disks hold. A disk that failed does not keep the others waiting.
    pub(crate) async fn ready(&self) {
        let progress = self.inner.borrow().progress.clone();
        loop {
            let moved = progress.notified();
            if self.serving() {
                return;
            }
            moved.await;
        }
    }

    fn serving(&self) -> bool {
        let inner = self.inner.borrow();
        inner.broker.founded()
            && inner.replicas.iter().all(|(at, replica)| {
                inner.leads(at)
                    || inner.broker.has_hole(at)
                    || inner.spindles[replica.disk].condition() != Condition::Serving
            })
    }

    /// The node ends: whoever waits in [`Core::ended`] learns why.
    pub(super) fn end(&self, why: Ended) {
        self.end.borrow_mut().get_or_insert(why);
        self.end_told.notify_waiters();
    }

    /// Returns when the node can't go on, with the reason.
    pub(crate) async fn ended(&self) -> Ended {
        loop {
            let told = self.end_told.notified();
            if let Some(why) = self.end.borrow().clone() {
                return why;
            }
            told.await;
        }
    }

    fn stopped(&self) -> bool {
        let inner = self.inner.borrow();
        inner.stopped == inner.spindles.len()
    }

    /// Waits while a disk has so much before it that clients must not be read further.
    pub(crate) async fn room(&self) {
        while self.inner.borrow().spindles.iter().any(Spindle::crowded) {
            tokio::time::sleep(CROWDED_PAUSE).await;
        }
    }

    /// Whether the node stops in order.
    pub(crate) fn stopping(&self) -> bool {
        self.inner.borrow().stopping
    }

    /// Stops in order: nothing new is taken, what was taken is written, each disk gets its clean mark.
    pub(crate) async fn stop(self: &Rc<Self>) {
        let progress = self.inner.borrow().progress.clone();
        self.with(|inner| {
            inner.stopping = true;
            for spindle in &inner.spindles {
                spindle.stop();
            }
        });
        loop {
            let moved = progress.notified();
            if self.stopped() {
                return;
            }
            moved.await;
        }
    }
}
