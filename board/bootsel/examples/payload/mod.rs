//! What the payloads of the loader's test share: they say what the loader told them, and how they end.

use slots::{LOADER_VARIABLE, LOADER_VENDOR, Start};
use uefi::runtime::{ResetType, VariableVendor};
use uefi::{CString16, Guid, Status, println, runtime};

/// The loader's word, for the console.
pub fn say(what: &str) {
    let name = CString16::try_from(LOADER_VARIABLE).expect("plain letters");
    let vendor = VariableVendor(Guid::parse_or_panic(LOADER_VENDOR));
    let told = runtime::get_variable_boxed(&name, &vendor);
    match told.ok().and_then(|(bytes, _)| Start::from_bytes(&bytes)) {
        Some(Start { slot, trial, tries }) => {
            println!("payload: {what} in {slot}, trial={trial}, tries={tries}")
        }
        None => println!("payload: {what}, told nothing"),
    }
}

/// Off or again.
#[allow(dead_code, reason = "one of the payloads hangs")]
pub fn end(how: ResetType) -> ! {
    runtime::reset(how, Status::SUCCESS, None)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    println!("payload: {info}");
    end(ResetType::SHUTDOWN)
}
