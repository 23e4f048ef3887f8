//! The scenarios of `supervise.txt`: a case begins a machine with `blessed` or `trial`, or goes on with the last.
//!
//! `UPDATE=1 cargo test -p board` writes what is said now; read the difference before it is committed.

use std::fmt::Write as _;
use std::path::Path;

use super::*;

fn seconds(word: &str) -> Duration {
    Duration::from_secs(word.trim_end_matches('s').parse().unwrap())
}

fn input(words: &[&str]) -> Input {
    match words {
        ["tick"] => Input::Tick,
        ["prepared"] => Input::Prepared(Ok(())),
        ["unprepared", why @ ..] => Input::Prepared(Err(why.join(" "))),
        ["started"] => Input::Started,
        ["not-started", why @ ..] => Input::NotStarted(why.join(" ")),
        ["ready"] => Input::Ready,
        ["ping"] => Input::Ping {
            meta_busy: Duration::ZERO,
        },
        ["ping", busy] => Input::Ping {
            meta_busy: seconds(busy.strip_prefix("meta=").unwrap()),
        },
        ["exit", status] => Input::Exited(Exit::Status(status.parse().unwrap())),
        ["signal", signal] => Input::Exited(Exit::Signal(signal.parse().unwrap())),
        ["tested", "ok"] => Input::Tested(Ok(())),
        ["tested", why @ ..] => Input::Tested(Err(why.join(" "))),
        ["reboot"] => Input::End(Ending::Reboot),
        ["poweroff"] => Input::End(Ending::PowerOff),
        other => panic!("no such input: {other:?}"),
    }
}

fn show(effect: &Effect) -> String {
    match effect {
        Effect::Start => "start".to_owned(),
        Effect::Terminate => "terminate".to_owned(),
        Effect::Kill => "kill".to_owned(),
        Effect::SelfTest => "self-test".to_owned(),
        Effect::Bless => "BLESS".to_owned(),
        Effect::End(ending, why) => format!("END {ending:?}: {why}"),
        Effect::Reset(why) => format!("RESET: {why}"),
        Effect::Say(text) => format!("say {text}"),
    }
}

#[test]
fn scenarios() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/supervise/supervise.txt");
    let golden = std::fs::read_to_string(&path).unwrap();
    let mut machine = Supervisor::new(false);
    let mut said = String::new();
    for case in golden.split("====\n") {
        let (text, _) = case.split_once("----\n").unwrap();
        if !said.is_empty() {
            said.push_str("====\n");
        }
        writeln!(said, "{text}----").unwrap();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["blessed"] => machine = Supervisor::new(false),
                ["trial"] => machine = Supervisor::new(true),
                ["at", time, ref rest @ ..] => step(&mut machine, seconds(time), rest, &mut said),
                // Pings and ticks as in an ordinary life, every 5 s up to and including the end.
                ["lives", from, "to", to] => {
                    let (from, to) = (seconds(from).as_secs(), seconds(to).as_secs());
                    for at in (from..=to).step_by(5) {
                        let now = Duration::from_secs(at);
                        step(&mut machine, now, &["ping"], &mut said);
                        step(&mut machine, now, &["tick"], &mut said);
                    }
                }
                _ => panic!("no such line: {line}"),
            }
        }
        writeln!(said, "  {}", machine.describe()).unwrap();
    }
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, said).unwrap();
    } else {
        assert_eq!(said, golden);
    }
}

fn step(machine: &mut Supervisor, now: Now, words: &[&str], said: &mut String) {
    let mut out = Vec::new();
    machine.step(now, input(words), &mut out);
    for effect in &out {
        writeln!(said, "{}s {}", now.as_secs(), show(effect)).unwrap();
    }
    assert!(
        out.iter()
            .filter(|it| matches!(it, Effect::End(..) | Effect::Reset(_)))
            .count()
            <= 1,
        "the machine ends once"
    );
}
