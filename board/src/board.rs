//! The loop: facts from the other threads in, effects of the supervisor out.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::net::{TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, SystemTime};

use rustix::process::Signal;
use site::Site;
use slots::Start;

use crate::boot::{self, BootDisk};
use crate::broker::{self, Notice, Orders, Process};
use crate::clock::Standing;
use crate::console::{self, Console, HELP, Order, Terminal};
use crate::disks::{drives, prepare};
use crate::start::{self, Told};
use crate::supervise::{Effect, Ending, Input, Supervisor};
use crate::watchdog::{Life, Watchdog};
use crate::{button, log, mounts, reasons, say, time};

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(200);
/// Facts on their way; whoever tells more waits, or drops a ping that the next one replaces.
const EVENTS_MAX: usize = 256;
/// Until the site says otherwise.
const WATCHDOG_DEFAULT: Duration = Duration::from_secs(30);
/// Unmounting and syncing; then the watchdog ends it.
const END_MAX: Duration = Duration::from_secs(60);
/// Lines that the console's `log` shows.
const LOG_LINES: usize = 40;

/// A fact.
enum Event {
    Told(Told),
    Notice(Notice),
    Line(String),
    /// The power button went down.
    Button,
    Tested(Result<(), String>),
}

struct Board {
    life: Arc<Life>,
    watchdog: Option<Watchdog>,
    tell: SyncSender<Event>,
    supervisor: Supervisor,
    process: Option<Process>,
    console: Console,
    terminal: Option<Terminal>,
    /// What the loader started.
    started: Option<Start>,
    boot_disk: Option<BootDisk>,
    by_watchdog: bool,
    site: Option<(Box<Site>, usize)>,
    network: String,
    clock: Standing,
    orders: Option<Box<Orders>>,
    status: String,
    /// What is erased once the broker is gone.
    erase: Vec<Order>,
}

/// All of the machine's life.
pub(crate) fn run() -> ExitCode {
    say!("board {}", env!("CARGO_PKG_VERSION"));
    mounts::take_ctrl_alt_del();
    if let Err(error) = broker::raise_limits() {
        say!("limits: {error}");
    }
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        if let Err(error) = signal_hook::flag::register(signal, asked.clone()) {
            say!("signal {signal}: {error}");
        }
    }
    let loader = start::load_modules();
    mounts::mount_efi_variables();
    let life = Arc::new(Life::default());
    let (watchdog, by_watchdog) = match Watchdog::take(WATCHDOG_DEFAULT, life.clone()) {
        Ok((watchdog, by_watchdog)) => (Some(watchdog), by_watchdog),
        Err(error) => {
            say!("watchdog: none ({error}); a hang of this machine is not noticed");
            (None, false)
        }
    };
    let (tell, facts) = mpsc::sync_channel(EVENTS_MAX);
    let lines = tell.clone();
    // Typed lines are few; a full channel means a hung loop, which the watchdog ends.
    let terminal = console::open(move |line| drop(lines.try_send(Event::Line(line))));
    let terminal = match terminal {
        Ok(terminal) => Some(terminal),
        Err(error) => {
            say!("console: {error}");
            None
        }
    };
    let pressed = tell.clone();
    if let Err(error) = button::listen(move || drop(pressed.try_send(Event::Button))) {
        say!("power button: {error}");
    }
    let notices = tell.clone();
    if let Err(error) = broker::listen(move |it| drop(notices.try_send(Event::Notice(it)))) {
        say!("the notify socket: {error}");
    }
    let started = boot::started();
    match started {
        Some(it) => say!(
            "slot {}{}",
            it.slot,
            if it.trial { ", on trial" } else { "" }
        ),
        None => say!("started without the loader: there is no slot to mark good"),
    }
    let told = tell.clone();
    // The loop takes what it is told, so a full channel only makes the starter wait.
    let starter = move |it| drop(told.send(Event::Told(it)));
    thread::spawn(move || start::run(loader, &starter));
    let mut board = Board {
        life,
        watchdog,
        tell,
        supervisor: Supervisor::new(started.is_some_and(|it| it.trial)),
        process: None,
        console: Console::default(),
        terminal,
        started,
        boot_disk: None,
        by_watchdog,
        site: None,
        network: "not up yet".to_owned(),
        clock: Standing::default(),
        orders: None,
        status: String::new(),
        erase: Vec::new(),
    };
    loop {
        board.life.turn();
        match facts.recv_timeout(TICK) {
            Ok(event) => board.take(event),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => unreachable!("the loop holds a sender itself"),
        }
        if asked.swap(false, Ordering::Relaxed) {
            board.step(Input::End(Ending::Reboot));
        }
        if let Some(exit) = board.process.as_mut().and_then(Process::ended) {
            board.process = None;
            board.step(Input::Exited(exit));
        }
        board.step(Input::Tick);
    }
}

impl Board {
    fn take(&mut self, event: Event) {
        match event {
            Event::Told(told) => self.told(told),
            Event::Notice(notice) => {
                if let Some(status) = notice.status {
                    self.status = status;
                }
                if notice.ready {
                    self.step(Input::Ready);
                }
                if let Some(meta_busy) = notice.ping {
                    self.step(Input::Ping { meta_busy });
                }
            }
            Event::Button => self.step(Input::End(Ending::PowerOff)),
            Event::Tested(outcome) => self.step(Input::Tested(outcome)),
            Event::Line(line) => {
                let node = self
                    .site
                    .as_ref()
                    .map(|(site, node)| site.nodes[*node].name.as_str());
                if let Some(order) = self.console.line(time::since_boot(), &line, node) {
                    self.order(order);
                }
            }
        }
    }

    fn told(&mut self, told: Told) {
        match told {
            Told::Boot(Ok(disk)) => {
                self.boot_disk = disk;
                self.say_reasons();
            }
            Told::Boot(Err(why)) => say!("boot disk: {why}"),
            Told::Site(site, node) => {
                let timeout = site.appliance.as_ref().map(|it| it.watchdog_ms);
                if let (Some(watchdog), Some(ms)) = (&self.watchdog, timeout)
                    && let Err(error) = watchdog.set(Duration::from_millis(ms.into()))
                {
                    say!("watchdog: {error}");
                }
                self.site = Some((site, node));
            }
            Told::Network(Ok(network)) => self.network = network,
            Told::Network(Err(why)) => {
                say!("network: {why}");
                self.network = format!("FAULT: {why}");
            }
            Told::Clock(clock) => self.clock = clock,
            Told::Prepared(outcome) => {
                let outcome = outcome.and_then(|orders| {
                    let able = orders.check();
                    self.orders = Some(orders);
                    able
                });
                self.step(Input::Prepared(outcome));
            }
        }
    }

    /// What the last start left, and that there is a new one.
    fn say_reasons(&self) {
        let Some(disk) = &self.boot_disk else {
            if self.by_watchdog {
                say!("the watchdog reset the machine");
            }
            return;
        };
        let (state, by_watchdog) = (disk.state.clone(), self.by_watchdog);
        // The boot disk may be slow, or dead.
        thread::spawn(move || {
            let last = reasons::read(&state).unwrap_or_default();
            match last.first() {
                Some(reason) if reason.text != STARTED => say!("the last end: {}", reason.text),
                Some(_) if by_watchdog => say!("the last end: the watchdog reset the machine"),
                Some(_) => say!("the last end: power was cut, or the kernel stopped"),
                None => say!("the first start from this boot disk"),
            }
            if let Err(error) = reasons::keep(&state, STARTED, unix_ms()) {
                say!("reasons: {error}");
            }
        });
    }

    /// Takes a fact to the supervisor and performs what it says, and what follows from that.
    fn step(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let mut effects = Vec::new();
            self.supervisor
                .step(time::since_boot(), input, &mut effects);
            for effect in effects {
                inputs.extend(self.perform(effect));
            }
        }
    }

    fn perform(&mut self, effect: Effect) -> Option<Input> {
        match effect {
            Effect::Start => {
                let orders = self.orders.as_ref()?;
                self.status.clear();
                match Process::start(orders) {
                    Ok(process) => {
                        self.process = Some(process);
                        return Some(Input::Started);
                    }
                    Err(error) => return Some(Input::NotStarted(error.to_string())),
                }
            }
            Effect::Terminate => self.signal(Signal::TERM),
            Effect::Kill => self.signal(Signal::KILL),
            Effect::SelfTest => {
                let door = self.site.as_ref();
                let door = door.and_then(|(site, node)| broker::status_door(site, *node));
                let tell = self.tell.clone();
                thread::spawn(move || drop(tell.send(Event::Tested(broker::test(door)))));
            }
            Effect::Bless => self.bless(),
            Effect::Say(text) => say!("{text}"),
            Effect::End(ending, why) => self.end(ending, &why),
            Effect::Reset(why) => self.reset(&why),
        }
        None
    }

    fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            process.signal(signal);
        }
    }

    fn bless(&self) {
        let (Some(disk), Some(start)) = (self.boot_disk.clone(), self.started) else {
            say!("there is no boot disk to mark the slot good on");
            return;
        };
        thread::spawn(move || match disk.bless(start) {
            Ok(true) => say!("slot {} is good", start.slot),
            Ok(false) => say!("slot {} was known to be good", start.slot),
            Err(error) => say!("slot {} can't be marked good: {error}", start.slot),
        });
    }

    /// Everything is let go in order. It is done by a thread, so that a disk that hangs ends in a reset.
    fn end(&mut self, ending: Ending, why: &str) {
        let verb = match ending {
            Ending::Reboot => "restarting",
            Ending::PowerOff => "off",
        };
        say!("{verb}: {why}");
        let disks = self.orders.as_ref().map(|it| it.disks.clone());
        let (disk, erase, why) = (self.boot_disk.clone(), self.erase.clone(), why.to_owned());
        let node = self
            .site
            .as_ref()
            .map(|(site, node)| site.nodes[*node].clone());
        let done = thread::spawn(move || {
            prepare::release(&disks.unwrap_or_default());
            for order in erase {
                match (order, &disk, &node) {
                    (Order::EraseData, _, Some(node)) => {
                        prepare::erase(node).iter().for_each(|said| say!("{said}"));
                    }
                    (Order::ForgetConfig, Some(disk), _) => match disk.forget_config() {
                        Ok(()) => say!("site and keys are forgotten"),
                        Err(error) => say!("partition config: {error}"),
                    },
                    _ => say!("there is nothing to erase"),
                }
            }
            keep_reason(disk.as_ref(), &why);
            rustix::fs::sync();
        });
        self.wait_for(&done, END_MAX);
        if ending == Ending::PowerOff
            && let Some(watchdog) = &self.watchdog
        {
            watchdog.disarm();
        }
        match done.is_finished() {
            true => mounts::end(ending),
            false => mounts::reset(),
        }
    }

    fn reset(&mut self, why: &str) {
        say!("RESET: {why}");
        let (disk, why) = (self.boot_disk.clone(), why.to_owned());
        let done = thread::spawn(move || keep_reason(disk.as_ref(), &why));
        self.wait_for(&done, Duration::from_secs(5));
        self.life.condemn();
        mounts::reset()
    }

    /// Waits for a thread that may never end; the loop counts as turning meanwhile.
    fn wait_for(&self, done: &thread::JoinHandle<()>, most: Duration) {
        let until = time::since_boot() + most;
        while !done.is_finished() && time::since_boot() < until {
            self.life.turn();
            thread::sleep(TICK / 4);
        }
    }

    fn order(&mut self, order: Order) {
        let answer = match order {
            Order::Help => HELP.to_owned(),
            Order::Say(text) => text,
            Order::Status => self.describe(),
            Order::Log => log::last(LOG_LINES).join("\n"),
            Order::ConfigShow => match &self.site {
                Some((site, _)) => site::check::plan_text(site, &site::check::notes(site)),
                None => "there is no site".to_owned(),
            },
            Order::Disks => {
                return self.answer_later({
                    let (orders, site) = (self.orders.clone(), self.site.clone());
                    move || describe_disks(orders.as_deref(), site.as_ref().map(|it| &*it.0))
                });
            }
            Order::Slots => {
                let (disk, started) = (self.boot_disk.clone(), self.started);
                return self.answer_later(move || describe_slots(disk.as_ref(), started));
            }
            Order::NetTest { host, port } => {
                return self.answer_later(move || net_test(&host, port));
            }
            Order::Reboot => {
                self.step(Input::End(Ending::Reboot));
                return;
            }
            Order::PowerOff => {
                self.step(Input::End(Ending::PowerOff));
                return;
            }
            Order::ForgetConfig | Order::EraseData => {
                say!("from the console: {order:?}");
                self.erase.push(order);
                self.step(Input::End(Ending::Reboot));
                return;
            }
        };
        if let Some(terminal) = &self.terminal {
            terminal.print(&answer);
        }
    }

    /// What may wait is answered by a thread.
    fn answer_later(&self, ask: impl FnOnce() -> String + Send + 'static) {
        if let Some(terminal) = self.terminal.clone() {
            thread::spawn(move || terminal.print(&ask()));
        }
    }

    fn describe(&self) -> String {
        let mut text = String::new();
        if let Some((site, node)) = &self.site {
            let _ = writeln!(text, "site {}, node {}", site.name, site.nodes[*node].name);
        }
        let _ = writeln!(text, "broker: {}", self.supervisor.describe());
        if self.supervisor.serves() && !self.status.is_empty() {
            let _ = writeln!(text, "  it says: {}", self.status);
        }
        let _ = writeln!(text, "network: {}", self.network);
        let synced = if self.clock.synced {
            "synced"
        } else {
            "unsynced"
        };
        let _ = writeln!(
            text,
            "clock: {synced}, last offset {} ms",
            self.clock.offset / 1_000
        );
        for (at, standing) in self
            .orders
            .iter()
            .flat_map(|it| it.disks.iter().enumerate())
        {
            let _ = writeln!(text, "disk {at}: {standing}");
        }
        let _ = writeln!(text, "up {} s", time::since_boot().as_secs());
        text
    }
}

/// The reason of a start, which an end of any kind should follow.
const STARTED: &str = "started";

fn keep_reason(disk: Option<&BootDisk>, why: &str) {
    if let Some(disk) = disk
        && let Err(error) = reasons::keep(&disk.state, why, unix_ms())
    {
        say!("reasons: {error}");
    }
}

fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}

fn describe_disks(orders: Option<&Orders>, site: Option<&Site>) -> String {
    let mut text = String::new();
    for drive in drives::all().unwrap_or_default() {
        let said = |it: &Option<String>| it.clone().unwrap_or_else(|| "none".to_owned());
        let _ = writeln!(
            text,
            "{}: {} GB, serial {}, wwn {}",
            drive.name,
            drive.bytes / 1_000_000_000,
            said(&drive.serial),
            said(&drive.wwn)
        );
    }
    match (orders, site) {
        (Some(orders), _) => {
            let disks = orders.site.nodes[orders.node]
                .disks
                .iter()
                .zip(&orders.disks);
            for (at, (disk, standing)) in disks.enumerate() {
                let _ = writeln!(text, "disk {at}, {}: {standing}", disk.place);
            }
        }
        (None, Some(_)) => text.push_str("the site's disks are being prepared"),
        (None, None) => text.push_str("there is no site"),
    }
    text
}

fn describe_slots(disk: Option<&BootDisk>, started: Option<Start>) -> String {
    let mut text = match started {
        Some(it) if it.trial => {
            format!("slot {} runs, on trial, {} tries left\n", it.slot, it.tries)
        }
        Some(it) => format!("slot {} runs\n", it.slot),
        None => "started without the loader\n".to_owned(),
    };
    let Some(disk) = disk else {
        text.push_str("there is no boot disk");
        return text;
    };
    match disk.record() {
        Ok(Some((record, _))) => {
            let _ = writeln!(text, "slot {} is the good one", record.active);
            if let Some(trial) = record.trial {
                let _ = writeln!(
                    text,
                    "slot {trial} is on trial, {} tries left",
                    record.tries
                );
            }
        }
        Ok(None) => text.push_str("no boot record can be read: slot A starts\n"),
        Err(error) => drop(writeln!(text, "the boot record: {error}")),
    }
    for reason in reasons::read(&disk.state)
        .unwrap_or_default()
        .iter()
        .take(5)
    {
        let _ = writeln!(text, "  at {} s: {}", reason.unix_ms / 1_000, reason.text);
    }
    text
}

fn net_test(host: &str, port: u16) -> String {
    const CONNECT_MAX: Duration = Duration::from_secs(5);
    let addresses = match (host, port).to_socket_addrs() {
        Ok(addresses) => addresses,
        Err(error) => return format!("{host}: {error}"),
    };
    let mut text = String::new();
    for address in addresses.take(4) {
        let _ = match TcpStream::connect_timeout(&address, CONNECT_MAX) {
            Ok(_) => writeln!(text, "{address}: connected"),
            Err(error) => writeln!(text, "{address}: {error}"),
        };
    }
    text
}
