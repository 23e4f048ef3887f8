//! Who speaks on a connection, and what they may do.
//!
//! Until listeners have `auth`, every connection is `User:ANONYMOUS` and may do everything; the call that will decide
//! otherwise already stands in front of every effect.

use std::net::IpAddr;
use std::rc::Rc;

/// A connection's identity, built at accept and passed to every handler.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    /// `User:NAME` as Kafka writes principals; at most 255 bytes.
    pub(crate) principal: Rc<str>,
    /// Where the peer connects from.
    pub(crate) host: IpAddr,
    /// Not asked for rights at all.
    pub(crate) superuser: bool,
}

impl Context {
    /// The identity of a connection on a listener without `auth`.
    pub(crate) fn anonymous(host: IpAddr) -> Self {
        Self {
            principal: Rc::from("User:ANONYMOUS"),
            host,
            superuser: true,
        }
    }
}
