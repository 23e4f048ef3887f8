//! `howdah run`: from a site file to a serving node, and back in order.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use sd_notify::NotifyState;
use site::{Door, DoorKind, Site};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout;

use crate::core::{Core, Ended, Start};
use crate::http::HttpDoor;
use crate::spindle::open;
use crate::stream::Stream;
use crate::{RunArgs, conn, exit, handover, limits, listener, logs};

/// All of an orderly stop: systemd and an updater wait no longer.
const STOP_MAX: Duration = Duration::from_secs(5);

/// Why the node does not serve, with the exit code that says so.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) code: u8,
    pub(crate) why: String,
}

pub(crate) fn refusal(code: u8, why: impl ToString) -> Refusal {
    Refusal {
        code,
        why: why.to_string(),
    }
}

/// Serves until SIGTERM, SIGINT, or the loss of the meta disk.
pub(crate) fn run(args: &RunArgs) -> ExitCode {
    logs::start();
    match serve(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Refusal { code, why }) => {
            eprintln!("howdah run: {why}");
            exit::code(code)
        }
    }
}

fn serve(args: &RunArgs) -> Result<(), Refusal> {
    let site = match &args.site {
        Some(path) if path.as_os_str() == "-" => handover::read_site(std::io::stdin())?,
        Some(path) => site::load(path).map_err(|fault| refusal(exit::USAGE, fault))?,
        None => site::laptop(),
    };
    let node = choose(&site, args.own.node.as_deref())?;
    if site.nodes.len() > 1 || site.witness.is_some() {
        return Err(refusal(
            exit::USAGE,
            "sites of several nodes are not built yet: this release serves sites of one",
        ));
    }
    let doors = doors(&site, node, args)?;
    let hard = limits::raise_descriptors();
    if let Some(why) = site::plan(&site, node).and_then(|plan| plan.descriptors.refusal(hard)) {
        return Err(refusal(exit::USAGE, why));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| refusal(exit::FAULT, format!("the reactor: {error}")))?;
    // Before a disk is touched: an address that is taken is said at once, and nothing was formatted for it.
    let bound = runtime.block_on(bind(doors))?;
    let found = open::places(&site.nodes[node], &args.own.data, &args.disk);
    let disks = found.and_then(|found| open::open_all(&site, node, found));
    let opened = disks.map_err(|fault| {
        refusal(
            if fault.protects() {
                exit::REFUSED
            } else {
                exit::FAULT
            },
            fault,
        )
    })?;
    let (disks, away) = opened;
    let start = Start {
        site,
        node,
        disks,
        away,
    };
    LocalSet::new().block_on(&runtime, live(start, bound, &args.own.data))
}

async fn bind(doors: Vec<Door>) -> Result<Vec<(Door, TcpListener)>, Refusal> {
    let mut bound = Vec::with_capacity(doors.len());
    for door in doors {
        let listener = listener::bind(door.address)
            .await
            .map_err(|error| refusal(exit::FAULT, error))?;
        if let Some(warning) = door.warning() {
            tracing::warn!("{warning}");
        }
        bound.push((door, listener));
    }
    Ok(bound)
}

pub(crate) fn choose(site: &Site, name: Option<&str>) -> Result<usize, Refusal> {
    match name {
        Some(name) => site.node(name).map(|(at, _)| at).ok_or_else(|| {
            let known: Vec<&str> = site.nodes.iter().map(|node| node.name.as_str()).collect();
            refusal(
                exit::USAGE,
                format!(
                    "site {} has no node '{name}', only {}",
                    site.name,
                    known.join(", ")
                ),
            )
        }),
        None if site.nodes.len() == 1 => Ok(0),
        None => Err(refusal(
            exit::USAGE,
            format!(
                "site {} has several nodes: say which with --node",
                site.name
            ),
        )),
    }
}

/// The node's doors, with the command line's addresses in place of the first of each kind.
fn doors(site: &Site, node: usize, args: &RunArgs) -> Result<Vec<Door>, Refusal> {
    let mut doors = site.doors(node);
    for (kind, wanted) in [(DoorKind::Kafka, args.kafka), (DoorKind::Http, args.http)] {
        let (Some(address), Some(door)) = (wanted, doors.iter_mut().find(|door| door.kind == kind))
        else {
            continue;
        };
        (door.address, door.advertised) = (address, address);
        if door.off_loopback() && !door.open {
            return Err(refusal(
                exit::USAGE,
                format!(
                    "--{} {address} is reached by other machines, which the site file must allow: a listener with `open = true`",
                    kind.name()
                ),
            ));
        }
    }
    Ok(doors)
}

async fn live(start: Start, bound: Vec<(Door, TcpListener)>, data: &Path) -> Result<(), Refusal> {
    let core = Core::start(start).map_err(|error| refusal(exit::FAULT, error))?;
    let http = Rc::new(HttpDoor::new());
    let mut kafka = Vec::new();
    for (door, listener) in bound {
        let address = listener
            .local_addr()
            .map_err(|error| refusal(exit::FAULT, error))?;
        match door.kind {
            DoorKind::Http => serve_http(&core, &http, listener, address),
            DoorKind::Kafka => {
                core.advertise(SocketAddr::new(door.advertised.ip(), address.port()));
                kafka.push((listener, address));
            }
        }
    }
    let ended = core.clone();
    tokio::select! {
        () = core.ready() => {}
        end = ended.ended() => return finish(&end),
        () = stop_asked() => return stop(&core).await,
    }
    for (listener, address) in kafka {
        announce(&core, address, data);
        let core = core.clone();
        let census = core.census.clone();
        spawn_local(listener::accept(listener, census, move |socket, peer| {
            conn::serve(core.clone(), Stream::new(socket, peer.ip()))
        }));
    }
    notify(&[NotifyState::Ready]);
    spawn_local(watchdog(core.clone()));
    tokio::select! {
        end = core.ended() => finish(&end),
        () = stop_asked() => stop(&core).await,
    }
}

fn serve_http(core: &Rc<Core>, http: &Rc<HttpDoor>, listener: TcpListener, address: SocketAddr) {
    core.http_at(address);
    let (core, http) = (core.clone(), http.clone());
    let census = Rc::new(listener::Census::default());
    spawn_local(listener::accept(listener, census, move |socket, peer| {
        let (core, http) = (core.clone(), http.clone());
        async move { http.serve(core, socket, peer).await }
    }));
}

/// The first line on stdout: what it is, where, and how to try it.
fn announce(core: &Core, address: SocketAddr, data: &Path) {
    let status = core
        .http_address()
        .map_or(String::new(), |http| format!(", status http://{http}"));
    println!(
        "howdah {}: site {}, node {}, Kafka at {address}{status}, data in {}. Try: howdah produce hello --bootstrap {address}",
        env!("CARGO_PKG_VERSION"),
        core.site().name,
        core.node_name(),
        data.display(),
    );
}

async fn stop_asked() {
    match (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) {
        (Ok(mut term), Ok(mut int)) => {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
        }
        // Without handlers the signals end the process, which recovery is made for.
        _ => std::future::pending().await,
    }
}

async fn stop(core: &Rc<Core>) -> Result<(), Refusal> {
    notify(&[NotifyState::Stopping]);
    tracing::info!("stopping");
    timeout(STOP_MAX, core.stop()).await.map_err(|_| {
        refusal(
            exit::FAULT,
            "a disk did not finish within 5 s; the next start replays its journal",
        )
    })
}

fn finish(end: &Ended) -> Result<(), Refusal> {
    notify(&[NotifyState::Stopping]);
    Err(refusal(exit::META_DISK, end))
}

/// Feeds systemd's watchdog while the core thread's loop turns: a disk that stalls is no reason to be killed.
async fn watchdog(core: Rc<Core>) {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return;
    };
    while !core.stopping() {
        // What board resets a machine for; systemd passes it over (sd_notify(3): unknown names are ignored).
        let busy = format!("X_HOWDAH_META_BUSY_MS={}", core.meta_busy().as_millis());
        notify(&[NotifyState::Watchdog, NotifyState::Custom(&busy)]);
        tokio::time::sleep(limit / 3).await;
    }
}

fn notify(states: &[NotifyState<'_>]) {
    // Without a supervisor there is nobody to tell.
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "sd_notify");
    }
}
