//! Why a command did not do what it was asked, and the exit code that says so to scripts.

use std::io;
use std::process::ExitCode;

use thiserror::Error;
use wire::ErrorCode;

/// Exit codes, the same for every command.
pub mod exit {
    /// Done.
    pub const DONE: u8 = 0;
    /// A fault was found, or the broker answered with an error.
    pub const FAULT: u8 = 1;
    /// Wrong usage.
    pub const USAGE: u8 = 2;
    /// Refused to protect data.
    pub const REFUSED: u8 = 3;
    /// No broker answers.
    pub const UNREACHABLE: u8 = 4;
}

/// What went wrong; the text is the message on stderr.
#[derive(Debug, Error)]
pub enum Failure {
    /// No connection, or it broke.
    #[error("can't reach {address}: {error}")]
    Unreachable {
        /// HOST:PORT.
        address: String,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// An error code of the protocol.
    #[error("{}", kafka_text(what, *code, message.as_deref()))]
    Kafka {
        /// What was asked, naming topic and partition or group.
        what: String,
        /// As answered.
        code: i16,
        /// What the broker says beside it.
        message: Option<String>,
    },
    /// What was asked makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Something else is wrong, with the broker's answer or the data.
    #[error("{0}")]
    Fault(String),
    /// A local file or stream.
    #[error("{what}: {error}")]
    Local {
        /// Which.
        what: String,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// Whoever read our output went away: not an error of ours.
    #[error("the reader of our output went away")]
    OutputClosed,
}

fn kafka_text(what: &str, code: i16, message: Option<&str>) -> String {
    let (name, meaning) = match ErrorCode::from_code(code) {
        Some(known) => (known.name().to_owned(), known.message()),
        None => (format!("error {code}"), "this release does not know it"),
    };
    match message.filter(|message| !message.is_empty() && *message != meaning) {
        Some(message) => format!("{what}: {name}: {message}"),
        None => format!("{what}: {name}: {meaning}"),
    }
}

impl Failure {
    /// An error code about `what`; `Ok` for 0.
    pub(crate) fn check(
        what: impl FnOnce() -> String,
        code: i16,
        message: Option<&str>,
    ) -> Result<(), Self> {
        if code == 0 {
            return Ok(());
        }
        Err(Self::Kafka {
            what: what(),
            code,
            message: message.map(str::to_owned),
        })
    }

    /// Whether the same request may succeed a little later, or at another broker.
    pub(crate) fn retriable(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Kafka { code, .. } => {
                ErrorCode::from_code(*code).is_some_and(ErrorCode::retriable)
            }
            _ => false,
        }
    }

    /// Writing our answer failed; a reader that has seen enough is no error.
    pub(crate) fn output(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Local {
                what: "writing to stdout".to_owned(),
                error,
            },
        }
    }

    /// The exit code.
    #[must_use]
    pub fn exit(&self) -> u8 {
        match self {
            Self::Unreachable { .. } => exit::UNREACHABLE,
            Self::Usage(_) => exit::USAGE,
            Self::Fault(_) | Self::Local { .. } => exit::FAULT,
            Self::OutputClosed => exit::DONE,
            Self::Kafka { code, .. } => match ErrorCode::from_code(*code) {
                // The broker can't keep what was asked for, or would lose something that someone relies on.
                Some(
                    ErrorCode::PolicyViolation
                    | ErrorCode::NotEnoughReplicas
                    | ErrorCode::NotEnoughReplicasAfterAppend
                    | ErrorCode::NonEmptyGroup
                    | ErrorCode::GroupSubscribedToTopic
                    | ErrorCode::KafkaStorageError,
                ) => exit::REFUSED,
                Some(
                    ErrorCode::InvalidTopicException
                    | ErrorCode::InvalidPartitions
                    | ErrorCode::InvalidReplicationFactor
                    | ErrorCode::InvalidReplicaAssignment
                    | ErrorCode::InvalidConfig
                    | ErrorCode::InvalidRequest
                    | ErrorCode::InvalidGroupId
                    | ErrorCode::TopicAlreadyExists,
                ) => exit::USAGE,
                _ => exit::FAULT,
            },
        }
    }

    /// Says it on stderr and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        if !matches!(self, Self::OutputClosed) {
            eprintln!("howdah: {self}");
        }
        ExitCode::from(self.exit())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_what_and_kafkas_word_for_it() {
        let fault = |code, message: Option<&str>| {
            Failure::check(|| "topic \"t\" partition 3".to_owned(), code, message).unwrap_err()
        };
        assert_eq!(
            fault(6, None).to_string(),
            "topic \"t\" partition 3: NOT_LEADER_OR_FOLLOWER: This broker is not the partition's leader, or has no replica of it."
        );
        let policy = fault(44, Some("needed 10 GiB, left 3 GiB"));
        assert_eq!(
            policy.to_string(),
            "topic \"t\" partition 3: POLICY_VIOLATION: needed 10 GiB, left 3 GiB"
        );
        assert_eq!(policy.exit(), exit::REFUSED);
        assert_eq!(
            fault(9_999, None).to_string(),
            "topic \"t\" partition 3: error 9999: this release does not know it"
        );
        assert_eq!(fault(17, None).exit(), exit::USAGE);
        assert!(fault(6, None).retriable() && !policy.retriable());
    }
}
