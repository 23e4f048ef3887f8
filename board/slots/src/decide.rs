//! Which slot is started, and how the boot record changes: by the loader at a start and at a slot that can't be
//! loaded, by PID 1 at an installation and at a blessing.
//!
//! ```text
//!            install(s, tries)                bless(s)
//!   settled ──────────────────▶ trial s ──────────────────▶ settled on s
//!      ▲                        │  │  ▲
//!      │   unloadable(s), or    │  └──┘ start: tries − 1, written before the slot is touched
//!      └── start with tries = 0 ┘  s has failed, its hash is kept
//! ```
//! Every function is pure. Whoever writes what it returns raises `seq` by the copy's rule in `state.rs`; the functions
//! here do that for it.

use crate::{BootState, Slot};

/// A slot to start, and what its system must know of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Which one.
    pub slot: Slot,
    /// It is not the active one: a healthy system blesses it, an unhealthy one reboots.
    pub trial: bool,
    /// Starts left for it after this one.
    pub tries: u8,
}

impl Start {
    /// As the loader's EFI variable has it: slot, trial, tries.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 3] {
        [self.slot.number(), self.trial as u8, self.tries]
    }

    /// Reads the loader's EFI variable, without the four bytes of attributes that efivarfs puts in front.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let [slot, trial, tries] = *bytes else {
            return None;
        };
        Some(Self {
            slot: Slot::from_number(slot)?,
            trial: trial != 0,
            tries,
        })
    }
}

/// A payload that PID 1 has written into a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Install {
    /// Where.
    pub slot: Slot,
    /// Its SHA-256, as the slot's header has it.
    pub sha256: [u8; 32],
    /// How often it may be started without being blessed, at least 1.
    pub tries: u8,
    /// Take it although it failed before: a person has said so.
    pub again: bool,
}

/// Why a payload is not put on trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The slot is the active one: there would be nothing to fall back to.
    Active,
    /// It was tried and failed. Without this a site that offers an update each hour would reboot each hour.
    FailedBefore,
    /// No tries: it would never be started.
    NoTries,
}

impl BootState {
    /// What to start now, and the record to write *before* the slot is touched; `None` if it stays as it is.
    ///
    /// If that write fails a trial must not be started, since its tries would never end: start [`Self::fallback`].
    #[must_use]
    pub fn start(&self) -> (Start, Option<Self>) {
        match self.trial {
            Some(slot) if self.tries > 0 => {
                let tries = self.tries - 1;
                let next = Self {
                    tries,
                    ..self.next()
                };
                (self.starting(slot, tries), Some(next))
            }
            Some(slot) => (self.fallback(), Some(self.failing(slot))),
            None => (self.fallback(), None),
        }
    }

    /// The active slot, whatever is on trial.
    #[must_use]
    pub const fn fallback(&self) -> Start {
        Start {
            slot: self.active,
            trial: false,
            tries: 0,
        }
    }

    /// The slot that is left when `slot` can't be loaded, and the record that says so.
    ///
    /// The active slot stays active when it is the one that can't: the other one runs as on trial, and is blessed by
    /// its system if that is healthy. A read error that passes therefore changes nothing for good.
    #[must_use]
    pub fn unloadable(&self, slot: Slot) -> (Start, Self) {
        let next = self.failing(slot);
        (next.starting(slot.other(), 0), next)
    }

    /// The record that puts a payload on trial.
    pub fn install(&self, install: Install) -> Result<Self, Refused> {
        if install.slot == self.active {
            return Err(Refused::Active);
        }
        if install.tries == 0 {
            return Err(Refused::NoTries);
        }
        if install.sha256 == self.failed_sha256 && !install.again {
            return Err(Refused::FailedBefore);
        }
        Ok(Self {
            trial: Some(install.slot),
            tries: install.tries,
            failed: self.failed & !install.slot.bit(),
            trial_sha256: install.sha256,
            ..self.next()
        })
    }

    /// The record after the system in `slot` was found healthy; `None` if that is known already.
    #[must_use]
    pub fn bless(&self, slot: Slot) -> Option<Self> {
        if self.active == slot && self.trial != Some(slot) && !self.has_failed(slot) {
            return None;
        }
        let mut next = self.next();
        next.active = slot;
        next.failed &= !slot.bit();
        // A trial of the other slot that was installed meanwhile keeps its tries.
        if self.trial == Some(slot) {
            next.end_trial();
        }
        Some(next)
    }

    fn next(&self) -> Self {
        Self {
            seq: self.seq.saturating_add(1),
            ..*self
        }
    }

    fn starting(&self, slot: Slot, tries: u8) -> Start {
        Start {
            slot,
            trial: slot != self.active,
            tries,
        }
    }

    fn failing(&self, slot: Slot) -> Self {
        let mut next = self.next();
        next.failed |= slot.bit();
        if self.trial == Some(slot) {
            next.failed_sha256 = self.trial_sha256;
            next.end_trial();
        }
        next
    }

    fn end_trial(&mut self) {
        self.trial = None;
        self.tries = 0;
        self.trial_sha256 = [0; 32];
    }
}
