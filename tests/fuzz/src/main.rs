//! One fuzzer for all targets: `FUZZ_TARGET` names the target, `FUZZ_SEEDS` a directory for its first inputs, and libFuzzer
//! has the arguments. `scripts/fuzz` is the door.
#![no_main]

mod seeds;
mod targets;

use std::sync::OnceLock;

static TARGET: OnceLock<targets::Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(init: choose(), |data: &[u8]| TARGET.get().expect("chosen before")(data));

fn choose() {
    let named = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let Some((name, target)) = targets::ALL.iter().find(|(name, _)| *name == named) else {
        let names: Vec<_> = targets::ALL.iter().map(|(name, _)| *name).collect();
        eprintln!("no such target '{named}': {}", names.join(" "));
        std::process::exit(2);
    };
    let _ = TARGET.set(*target);
    if let Some(folder) = std::env::var_os("FUZZ_SEEDS") {
        seeds::write(name, folder.as_ref());
    }
}
