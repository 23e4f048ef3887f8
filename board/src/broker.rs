//! The broker's process, and what it says over the notify socket.
//!
//! The whole contract between the two, who never link each other:
//! - `howdah run --site - --node NAME --data /disk --disk N=ROOT,RING …`: the site's blob on standard input; for each disk
//!   of the site file that is there its number from 0, its mounted root and its ring's device. One without is away.
//! - It runs as uid and gid 100 without a capability, may gain none, and finds both owned by itself.
//! - `NOTIFY_SOCKET` names a datagram socket that takes sd_notify(3)'s `READY=1`, `WATCHDOG=1` and `STATUS=…`;
//!   `WATCHDOG_USEC` says how often it must ping. Beside `WATCHDOG=1` stands `X_HOWDAH_META_BUSY_MS=…`: how long the meta
//!   disk's write under way has taken.
//! - The kernel's clock state says whether the time is trusted (`clock.rs`).
//! - SIGTERM asks for an orderly end. Its exit status says what an end means (`supervise.rs`).

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use rustix::fs::MemfdFlags;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, setrlimit};
use site::{DoorKind, Site};

use crate::disks::Standing;
use crate::disks::prepare::ROOT;
use crate::say;
use crate::supervise::{Exit, PING_MAX};

/// The broker's uid and gid; nobody else has them.
pub(crate) const USER: u32 = 100;
const PROGRAM: &str = "/howdah";
const NOTIFY: &str = "/run/notify";
/// Connections, extents and disks at their limits need a third of it.
const DESCRIPTORS: u64 = 1 << 20;
/// A line of the broker's log.
const LINE_BYTES_MAX: u64 = 4096;
/// What an answer of its status door may take.
const TEST_MAX: Duration = Duration::from_secs(5);

/// What one datagram says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) ready: bool,
    /// A ping, with what the meta disk is at.
    pub(crate) ping: Option<Duration>,
    pub(crate) status: Option<String>,
}

impl Notice {
    /// Reads a datagram: lines of `NAME=value`; what is not known is passed over.
    pub(crate) fn parse(datagram: &[u8]) -> Self {
        let mut notice = Self::default();
        let mut busy = Duration::ZERO;
        let mut alive = false;
        for line in String::from_utf8_lossy(datagram).lines() {
            match line.split_once('=') {
                Some(("READY", "1")) => notice.ready = true,
                Some(("WATCHDOG", "1")) => alive = true,
                Some(("STATUS", text)) => notice.status = Some(text.to_owned()),
                Some(("X_HOWDAH_META_BUSY_MS", ms)) => {
                    busy = Duration::from_millis(ms.parse().unwrap_or(0));
                }
                _ => {}
            }
        }
        notice.ping = alive.then_some(busy);
        notice
    }
}

/// Opens the notify socket and hands `tell` what comes, for ever. Only the broker's user can write to it.
pub(crate) fn listen(tell: impl Fn(Notice) + Send + 'static) -> io::Result<()> {
    let socket = UnixDatagram::bind(NOTIFY)?;
    chown(NOTIFY, None, Some(USER))?;
    fs::set_permissions(NOTIFY, fs::Permissions::from_mode(0o620))?;
    thread::Builder::new()
        .name("notify".to_owned())
        .spawn(move || {
            let mut datagram = [0; 4096];
            loop {
                match socket.recv(&mut datagram) {
                    Ok(length) => tell(Notice::parse(&datagram[..length])),
                    Err(error) => say!("the notify socket: {error}"),
                }
            }
        })?;
    Ok(())
}

/// What the broker is started with.
#[derive(Clone, Debug)]
pub(crate) struct Orders {
    pub(crate) site: Site,
    pub(crate) node: usize,
    pub(crate) disks: Vec<Standing>,
}

impl Orders {
    /// Its arguments.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let node = self.site.nodes[self.node].name.clone();
        let mut arguments: Vec<String> = ["run", "--site", "-", "--node", &node, "--data", ROOT]
            .map(str::to_owned)
            .into();
        for (at, standing) in self.disks.iter().enumerate() {
            if let Standing::Ready { root, ring } = standing {
                arguments.push("--disk".to_owned());
                arguments.push(format!("{at}={},{}", root.display(), ring.display()));
            }
        }
        arguments
    }

    /// Whether the node can do anything at all.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self.disks.first() {
            Some(Standing::Ready { .. }) => Ok(()),
            Some(Standing::Away(why)) => Err(format!("the meta disk is away: {why}")),
            None => Err("the site gives this node no disk".to_owned()),
        }
    }
}

/// A running broker.
#[derive(Debug)]
pub(crate) struct Process(Child);

impl Process {
    /// Starts it.
    pub(crate) fn start(orders: &Orders) -> io::Result<Self> {
        let blob = rustix::fs::memfd_create("site", MemfdFlags::CLOEXEC)?;
        let mut blob = fs::File::from(blob);
        blob.write_all(&orders.site.to_blob())?;
        io::Seek::rewind(&mut blob)?;
        let mut command = Command::new(PROGRAM);
        command
            .args(orders.arguments())
            .env_clear()
            .env("NOTIFY_SOCKET", NOTIFY)
            .env("WATCHDOG_USEC", PING_MAX.as_micros().to_string())
            .current_dir("/")
            .stdin(blob)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .uid(USER)
            .gid(USER);
        // SAFETY: between fork and exec only system calls are made, and nothing is allocated.
        unsafe { command.pre_exec(confine) };
        let mut child = command.spawn()?;
        if let Some(out) = child.stdout.take() {
            relay(out)?;
        }
        if let Some(err) = child.stderr.take() {
            relay(err)?;
        }
        Ok(Self(child))
    }

    /// Whether it is gone, and how.
    pub(crate) fn ended(&mut self) -> Option<Exit> {
        match self.0.try_wait() {
            Ok(status) => status.map(exit),
            // ECHILD: somebody else has waited for it. It is gone.
            Err(_) => Some(Exit::Status(-1)),
        }
    }

    /// Sends it a signal; one that is gone already hears nothing.
    pub(crate) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        if let Some(id) = id {
            let _ = kill_process(id, signal);
        }
    }
}

fn exit(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Status(code),
        (None, signal) => Exit::Signal(signal.unwrap_or(0)),
    }
}

/// In the child, after its uid was set by the parent's order and before exec.
fn confine() -> io::Result<()> {
    let all = |most| Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    setrlimit(Resource::Core, all(0))?;
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}

/// Raises what the broker may raise its own limits to; a child inherits them. Done once, by PID 1 as root.
pub(crate) fn raise_limits() -> io::Result<()> {
    let most = |most| Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    let free = Rlimit {
        current: None,
        maximum: None,
    };
    setrlimit(Resource::Nofile, most(DESCRIPTORS))?;
    setrlimit(Resource::Memlock, free)?;
    // One priority: above everything else, below the kernel's own threads.
    setrlimit(Resource::Rtprio, most(1))?;
    Ok(())
}

/// Its lines go where the board's own go.
fn relay(stream: impl Read + Send + 'static) -> io::Result<()> {
    let mut lines = BufReader::new(stream);
    thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || {
            let mut line = Vec::new();
            loop {
                line.clear();
                match lines
                    .by_ref()
                    .take(LINE_BYTES_MAX)
                    .read_until(b'\n', &mut line)
                {
                    Ok(0) | Err(_) => return,
                    Ok(_) => say!("howdah: {}", String::from_utf8_lossy(&line).trim_end()),
                }
            }
        })?;
    Ok(())
}

/// Where the status door answers, from this machine.
pub(crate) fn status_door(site: &Site, node: usize) -> Option<SocketAddr> {
    let doors = site.doors(node);
    let door = doors.iter().find(|door| door.kind == DoorKind::Http)?;
    let mut address = door.address;
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
            SocketAddr::V6(_) => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
        });
    }
    Some(address)
}

/// Whether a reason of `/health` is a fault of the data or a drive: it was there under the slot before as well, and a
/// rollback cures none of it.
fn of_the_data(reason: &str) -> bool {
    reason.starts_with("disk ") || reason.contains(" lost part of their log ")
}

/// Asks the broker whether it is healthy; a broker without a status door is known by its pings alone.
pub(crate) fn test(door: Option<SocketAddr>) -> Result<(), String> {
    let Some(door) = door else { return Ok(()) };
    let answer = get(door, "/health").map_err(|error| format!("{door}: {error}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split_whitespace().nth(1) {
        Some("200") => Ok(()),
        Some("503")
            if body
                .trim()
                .strip_prefix("not ready: ")
                .is_some_and(|reasons| reasons.split("; ").all(of_the_data)) =>
        {
            Ok(())
        }
        status => Err(format!(
            "{door}/health answered {}: {}",
            status.unwrap_or("nothing"),
            body.lines().next().unwrap_or("")
        )),
    }
}

/// One HTTP/1.0 request; the answer whole, at most 64 KiB of it.
pub(crate) fn get(door: SocketAddr, path: &str) -> io::Result<String> {
    let mut socket = TcpStream::connect_timeout(&door, TEST_MAX)?;
    socket.set_read_timeout(Some(TEST_MAX))?;
    socket.set_write_timeout(Some(TEST_MAX))?;
    // In one piece: `write!` makes a packet of each part.
    let request = format!("GET {path} HTTP/1.1\r\nHost: {door}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    socket.take(64 << 10).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Whether the image has a broker.
pub(crate) fn is_there() -> bool {
    Path::new(PROGRAM).exists()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_of_the_notify_socket() {
        let ready = Notice::parse(b"READY=1");
        assert!(ready.ready && ready.ping.is_none());
        let ping = Notice::parse(b"WATCHDOG=1\nX_HOWDAH_META_BUSY_MS=61000\n");
        assert_eq!(ping.ping, Some(Duration::from_secs(61)));
        assert_eq!(Notice::parse(b"WATCHDOG=1").ping, Some(Duration::ZERO));
        let text = Notice::parse("STATUS=läuft\nREADY=1".as_bytes());
        assert_eq!((text.ready, text.status.as_deref()), (true, Some("läuft")));
        for nothing in [
            &b""[..],
            b"READY=0",
            b"READY",
            b"WATCHDOG=trigger",
            b"\xff\xfe=1",
            b"X_HOWDAH_META_BUSY_MS=9",
        ] {
            assert_eq!(Notice::parse(nothing), Notice::default());
        }
    }

    #[test]
    fn the_broker_gets_the_disks_that_are_there() {
        let text = "[site]\nname = \"x\"\nsecret = { file = \"x.key\" }\n[[node]]\nname = \"a\"\naddress = \"192.0.2.11\"\n\
            disk = [{ serial = \"S1\" }, { serial = \"S2\" }]\n[appliance]\n";
        let ready = |root: &str, ring: &str| Standing::Ready {
            root: root.into(),
            ring: ring.into(),
        };
        let away = Standing::Away("not there".to_owned());
        let orders = |disks| Orders {
            site: site::parse(text, "s.toml").unwrap(),
            node: 0,
            disks,
        };
        let one = orders(vec![ready("/disk/0", "/dev/sda1"), away.clone()]);
        assert_eq!(
            one.arguments().join(" "),
            "run --site - --node a --data /disk --disk 0=/disk/0,/dev/sda1"
        );
        assert_eq!(one.check(), Ok(()));
        let none = orders(vec![away, ready("/disk/1", "/dev/sdb1")]);
        assert!(
            none.check()
                .unwrap_err()
                .contains("meta disk is away: not there")
        );
    }

    #[test]
    fn health_decides_the_self_test() {
        let serve = |answer: &'static str| {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let door = listener.local_addr().unwrap();
            let server = thread::spawn(move || {
                let (mut socket, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    socket.read_exact(&mut byte).unwrap();
                    request.extend(byte);
                }
                assert!(request.starts_with(b"GET /health HTTP/1.1\r\n"));
                socket.write_all(answer.as_bytes()).unwrap();
            });
            let outcome = test(Some(door));
            server.join().unwrap();
            outcome
        };
        assert_eq!(serve("HTTP/1.1 200 OK\r\n\r\nok\n"), Ok(()));
        let data = "HTTP/1.1 503 Service Unavailable\r\n\r\nnot ready: disk serial S2 is away; 2 partitions lost part of their log with a journal: see `howdah recover`\n";
        assert_eq!(serve(data), Ok(()), "no rollback cures that");
        let sick = serve(
            "HTTP/1.1 503 Service Unavailable\r\n\r\nnot ready: disk serial S2 is away; 3 partitions are not led yet\n",
        );
        assert!(sick.unwrap_err().contains("3 partitions are not led yet"));
        assert!(serve("").unwrap_err().contains("answered nothing"));
        assert_eq!(test(None), Ok(()));
    }
}
