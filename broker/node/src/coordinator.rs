//! The coordinator: groups of the internal partitions that this node leads.

use model::Instant;

use crate::Outbox;
use crate::group::{GroupError, GroupReply};

mod hash;
mod types;

pub use hash::partition_of;
pub use types::{AppendFailure, AppendId, Effect, GROUP_PARTITIONS, Input, Record, Settings};

/// Most bytes of keys and values of one append: Kafka's own bound of a batch, `message.max.bytes`.
pub const APPEND_BYTES_MAX: usize = 1024 * 1024;

/// The machine.
#[derive(Debug)]
pub struct Coordinator {
    settings: Settings,
}

impl Coordinator {
    /// One that leads nothing yet.
    #[must_use]
    pub const fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// Takes one fact at `now` and says what must happen next. Never waits, never fails.
    pub fn step(&mut self, _now: Instant, input: Input, out: &mut Outbox<Effect>) {
        match input {
            Input::Request { ticket, .. } => {
                out.push(Effect::Reply {
                    ticket,
                    reply: GroupReply::Refused(GroupError::NotCoordinator),
                });
            }
            Input::Settings(settings) => self.settings = settings,
            _ => {}
        }
    }

    /// When [`Input::Tick`] is due at the latest; `None` while nothing waits for time.
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        None
    }
}
