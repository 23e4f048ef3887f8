//! Accepts clients on one address, and counts them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

/// Connections of one door, all addresses together; the descriptor sum of the site's check counts them.
pub(crate) const CONNECTIONS_MAX: usize = 8192;
/// After a failed accept (descriptors gone, memory gone) others need time to close something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How many connections each address holds.
#[derive(Default)]
pub(crate) struct Census {
    by_address: RefCell<BTreeMap<IpAddr, usize>>,
}

/// One connection's entry in the census; leaves it when dropped.
pub(crate) struct Counted {
    census: Rc<Census>,
    address: IpAddr,
}

impl Census {
    /// Connections open now.
    pub(crate) fn total(&self) -> usize {
        self.by_address.borrow().values().sum()
    }

    fn enter(self: &Rc<Self>, address: IpAddr) -> Option<Counted> {
        if self.total() >= CONNECTIONS_MAX {
            return None;
        }
        *self.by_address.borrow_mut().entry(address).or_default() += 1;
        Some(Counted {
            census: self.clone(),
            address,
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut by_address = self.census.by_address.borrow_mut();
        let count = by_address
            .get_mut(&self.address)
            .expect("counted when it entered");
        *count -= 1;
        if *count == 0 {
            by_address.remove(&self.address);
        }
    }
}

/// Accepts for ever, one local task a connection.
pub(crate) async fn accept<F>(
    listener: TcpListener,
    census: Rc<Census>,
    serve: impl Fn(TcpStream, SocketAddr) -> F,
) where
    F: Future<Output = ()> + 'static,
{
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => {
                let Some(counted) = census.enter(peer.ip()) else {
                    // Closed at once: the client sees a reset and tries again later.
                    drop(socket);
                    continue;
                };
                let served = serve(socket, peer);
                spawn_local(async move {
                    served.await;
                    drop(counted);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Binds `address`, with a message that names it.
pub(crate) async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
    })
}
