//! `cargo run -p site --example blob SITE.toml SITE.blob`: what an image would carry of a site file.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(from), Some(to)) = (arguments.next(), arguments.next()) else {
        eprintln!("blob SITE.toml SITE.blob");
        return ExitCode::from(2);
    };
    let written = site::load(from.as_ref())
        .map_err(|fault| fault.to_string())
        .and_then(|site| std::fs::write(to, site.to_blob()).map_err(|error| error.to_string()));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}
