//! From a mounted `/proc` to what a broker needs: site, node, network, clock, disks.
//!
//! Runs in a thread of its own, once. The main loop turns meanwhile, so that the watchdog is fed and the console answers
//! however long a disk takes.

use std::fs;
use std::path::Path;
use std::sync::mpsc::{self, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use site::{Node, Site};

use crate::boot::BootDisk;
use crate::broker::Orders;
use crate::clock::{self, Keeper, Standing};
use crate::disks::{self, drives, prepare};
use crate::identity::{self, Machine};
use crate::modules::Loader;
use crate::{broker, net, say, sysctl};

/// Spinning drives and USB bridges take so long until they are there.
const DRIVES_MAX: Duration = Duration::from_secs(30);
/// A switch takes so long until it carries frames.
const CARRIER_MAX: Duration = Duration::from_secs(10);
/// Links of cards that were just brought up.
const LINKS_MAX: Duration = Duration::from_secs(5);
/// The clock's step comes before the broker, if the servers answer by then.
const CLOCK_MAX: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The site from the machine's emulator; one image serves all tests.
const FROM_EMULATOR: &str = "/sys/firmware/qemu_fw_cfg/by_name/opt/howdah/site/raw";
/// File systems and devices that no modalias names, or that must be there before something asks for them.
const BY_NAME: [&str; 14] = [
    "ext4",
    "efivarfs",
    "crc32c_intel",
    "crc32c_generic",
    "crc32_pclmul",
    "bonding",
    "8021q",
    "qemu_fw_cfg",
    "i6300esb",
    "iTCO_wdt",
    "wdat_wdt",
    "sd_mod",
    "button",
    "evdev",
];

/// What the rest of the program is told.
#[derive(Debug)]
pub(crate) enum Told {
    /// The boot disk, or why there is none that can be used.
    Boot(Result<Option<BootDisk>, String>),
    /// The site and this node's place in it.
    Site(Box<Site>, usize),
    /// The network is up, or what is wrong with it.
    Network(Result<String, String>),
    /// How the clock stands.
    Clock(Standing),
    /// A broker can be started, or why not.
    Prepared(Result<Box<Orders>, String>),
}

/// Loads what the hardware calls for.
pub(crate) fn load_modules() -> Loader {
    let mut loader = Loader::new();
    loader.coldplug();
    for name in BY_NAME {
        loader.load(name);
    }
    // What those brought, such as the partitions of a controller.
    loader.coldplug();
    say!("{} modules", loader.count());
    loader
}

/// All of it; `tell` hears each step.
pub(crate) fn run(loader: Loader, tell: &(impl Fn(Told) + Clone + Send + 'static)) {
    let prepared = prepare_all(loader, tell).map(Box::new);
    tell(Told::Prepared(prepared));
}

fn prepare_all(
    mut loader: Loader,
    tell: &(impl Fn(Told) + Clone + Send + 'static),
) -> Result<Orders, String> {
    let boot = await_boot_disk(&mut loader);
    tell(Told::Boot(boot.clone()));
    let site = read_site(boot.as_ref().ok().and_then(Option::as_ref))?;
    say!("site {}, digest {}", site.name, site.digest_hex());
    let cards = net::cards().map_err(|error| format!("/sys/class/net: {error}"))?;
    let machine = Machine::read(cards.iter().map(|card| card.mac.clone()).collect());
    let node = identity::choose(&site, &machine).map_err(|unknown| unknown.to_string())?;
    let own = site.nodes[node].clone();
    say!("this is node {}", own.name);
    tell(Told::Site(Box::new(site.clone()), node));
    // Without a network the node still keeps its disks in order, and says so on its console.
    let network = bring_up_network(&site, &own);
    tell(Told::Network(network));
    let appliance = site.appliance.clone();
    let appliance = appliance.ok_or("the site has no [appliance]")?;
    keep_clock(&appliance.network.ntp, tell)?;
    sysctl::apply();
    await_drives(&own, &mut loader);
    sysctl::close_modules();
    let standings = prepare::prepare(&own, appliance.provision);
    for (disk, standing) in own.disks.iter().zip(&standings) {
        say!("disk {}: {standing}", disk.place);
    }
    if !broker::is_there() {
        return Err("this image has no broker".to_owned());
    }
    let orders = Orders {
        site,
        node,
        disks: standings,
    };
    Ok(orders)
}

/// The boot disk appears with its controller; a machine without our loader has none to wait for.
fn await_boot_disk(loader: &mut Loader) -> Result<Option<BootDisk>, String> {
    let deadline = Instant::now() + DRIVES_MAX;
    let expected = crate::boot::started().is_some();
    loop {
        let found = BootDisk::find()?;
        if found.is_some() || !expected || Instant::now() > deadline {
            return Ok(found);
        }
        thread::sleep(LOOK_EVERY);
        loader.coldplug();
    }
}

/// From the emulator if there is one, else from the boot disk.
fn read_site(boot: Option<&BootDisk>) -> Result<Site, String> {
    let bytes = if Path::new(FROM_EMULATOR).exists() {
        fs::read(FROM_EMULATOR).map_err(|error| format!("{FROM_EMULATOR}: {error}"))?
    } else {
        let boot =
            boot.ok_or("there is no site: no boot disk with a partition \"config\" was found")?;
        let bytes = boot
            .site()
            .map_err(|error| format!("partition config: {error}"))?;
        bytes.ok_or(
            "there is no site: both its copies in the partition \"config\" are unreadable or blank",
        )?
    };
    Site::from_blob(&bytes).map_err(|fault| fault.to_string())
}

fn bring_up_network(site: &Site, node: &Node) -> Result<String, String> {
    let appliance = site
        .appliance
        .as_ref()
        .ok_or("the site has no [appliance]")?;
    let network = &appliance.network;
    net::write_resolver(network).map_err(|error| format!("/etc/resolv.conf: {error}"))?;
    let mut cards = net::cards().map_err(|error| format!("/sys/class/net: {error}"))?;
    if cards.len() > 1 && network.bond.is_none() && node.identity.mac.is_none() {
        // Which one has a link is known only while it is up.
        net::lift(&cards).map_err(|error| format!("netlink: {error}"))?;
        wait(LINKS_MAX, || {
            net::cards().is_ok_and(|it| it.iter().any(|card| card.carrier == Some(true)))
        });
        cards = net::cards().map_err(|error| format!("/sys/class/net: {error}"))?;
    }
    let plan = net::plan(&cards, node, network).map_err(|fault| fault.to_string())?;
    net::apply(&plan)?;
    let link = match wait(CARRIER_MAX, || net::has_carrier(&plan.link)) {
        true => "",
        false => ", which has no link yet",
    };
    let done = format!(
        "{}/{} on {} of {}{link}",
        node.address,
        network.prefix_of(node.address),
        plan.interface,
        net::list(&net::cards().unwrap_or(cards))
    );
    say!("network: {done}");
    Ok(done)
}

/// Starts keeping the clock, and waits a moment for its first step.
fn keep_clock(
    servers: &[std::net::IpAddr],
    tell: &(impl Fn(Told) + Clone + Send + 'static),
) -> Result<(), String> {
    let mut keeper = Keeper::new(servers);
    if servers.is_empty() {
        say!("clock: the site names no time server; nothing expires by time");
        return Ok(());
    }
    let (first, done): (SyncSender<()>, _) = mpsc::sync_channel(1);
    let tell = tell.clone();
    thread::Builder::new()
        .name("clock".to_owned())
        .spawn(move || {
            loop {
                let standing = keeper.turn();
                tell(Told::Clock(standing));
                if standing.synced {
                    // Nobody listens after the first time.
                    let _ = first.try_send(());
                }
                thread::sleep(match standing.synced {
                    true => clock::ASK_EVERY,
                    false => clock::ASK_SOON.min(CLOCK_MAX / 4),
                });
            }
        })
        .map_err(|error| error.to_string())?;
    if done.recv_timeout(CLOCK_MAX).is_err() {
        say!("clock: no time server answered yet; nothing expires by time until one does");
    }
    Ok(())
}

fn await_drives(node: &Node, loader: &mut Loader) {
    let all_there = || {
        drives::all().is_ok_and(|drives| {
            let there = |place| disks::find(&drives, place).is_ok();
            node.disks
                .iter()
                .all(|disk| there(&disk.place) && disk.journal.place.as_ref().is_none_or(&there))
        })
    };
    wait(DRIVES_MAX, || {
        let there = all_there();
        if !there {
            loader.coldplug();
        }
        there
    });
}

/// Looks until it is so, at most for `most`; says whether it was.
fn wait(most: Duration, mut so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + most;
    loop {
        if so() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(LOOK_EVERY);
    }
}
