//! The one way in which a client of ours opens a connection.
//!
//! Certificates, users and passwords have their place here and nowhere else. A password comes from a file, never from
//! an argument that everyone on the machine can read; `Debug` of anything secret prints its kind only.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::failure::Failure;

/// How long the other side may take to accept.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Which brokers, and as whom.
#[derive(Args, Clone, Debug)]
pub struct Reach {
    /// Broker to ask first; several are separated by commas and tried in turn
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:9092"
    )]
    pub bootstrap: String,
    /// How long to try again when a broker does not answer or a partition has no leader, in seconds
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub timeout: u32,
    /// Certificates that sign the broker's
    #[arg(long, global = true, value_name = "FILE", hide = true)]
    pub ca: Option<PathBuf>,
    /// Our certificate and key
    #[arg(long, global = true, value_name = "FILE", hide = true)]
    pub certificate: Option<PathBuf>,
    /// Who we are
    #[arg(long, global = true, value_name = "NAME", hide = true)]
    pub user: Option<String>,
    /// File with the password
    #[arg(long, global = true, value_name = "FILE", hide = true)]
    pub password_file: Option<PathBuf>,
}

impl Reach {
    /// Addresses to try first, in order.
    pub(crate) fn addresses(&self) -> Result<Vec<String>, Failure> {
        let addresses: Vec<String> = self
            .bootstrap
            .split(',')
            .map(str::trim)
            .filter(|address| !address.is_empty())
            .map(str::to_owned)
            .collect();
        if addresses.is_empty() {
            return Err(Failure::Usage(
                "--bootstrap names no broker; write HOST:PORT".to_owned(),
            ));
        }
        for address in &addresses {
            let port = address
                .rsplit_once(':')
                .and_then(|(host, port)| (!host.is_empty()).then_some(port));
            if port.is_none_or(|port| port.parse::<u16>().is_err()) {
                return Err(Failure::Usage(format!(
                    "--bootstrap {address}: not HOST:PORT"
                )));
            }
        }
        Ok(addresses)
    }

    /// How long to try.
    pub(crate) fn patience(&self) -> Duration {
        Duration::from_secs(self.timeout.into())
    }

    /// Opens a connection to one broker.
    pub(crate) fn connect(&self, address: &str) -> Result<TcpStream, Failure> {
        self.refuse_unbuilt()?;
        let unreachable = |error| Failure::Unreachable {
            address: address.to_owned(),
            error,
        };
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for resolved in address.to_socket_addrs().map_err(unreachable)? {
            match TcpStream::connect_timeout(&resolved, CONNECT_TIMEOUT) {
                Ok(stream) => {
                    // A request is written whole; waiting for more to send with it only adds delay.
                    stream.set_nodelay(true).map_err(unreachable)?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(unreachable(last))
    }

    /// TLS and SASL have their place; saying so beats talking in clear to someone who asked for more.
    fn refuse_unbuilt(&self) -> Result<(), Failure> {
        let asked = [
            ("--ca", self.ca.is_some()),
            ("--certificate", self.certificate.is_some()),
            ("--user", self.user.is_some()),
            ("--password-file", self.password_file.is_some()),
        ];
        match asked.iter().find(|(_, asked)| *asked) {
            Some((flag, _)) => Err(Failure::Usage(format!(
                "{flag} is not built yet: this release speaks neither TLS nor SASL"
            ))),
            None => Ok(()),
        }
    }
}
