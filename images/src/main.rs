//! `images`: makes, changes, boots and writes disk images.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use images::build::Build;
use images::config;
use images::fault::Fault;
use images::flash::{self, Flash};
use images::lock;
use images::qemu::Boot;
use indicatif::{ProgressBar, ProgressStyle};

/// Makes, changes, boots and writes disk images of a site
#[derive(Parser)]
#[command(name = "images", version)]
struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Makes an image and the list of what is in it
    Build(Box<Build>),
    /// Starts a node of a site as a virtual machine, from an image
    Boot(Box<Boot>),
    /// Writes an image to a disk, after showing which one it is, and reads it back
    Flash(Flash),
    /// Pins the packages that this machine's apt offers today: an update of the kernel, to be read before it is committed
    Lock {
        /// The lock file
        #[arg(default_value = "images/inputs.toml")]
        file: PathBuf,
    },
    /// Shows or changes the site on an image or a boot disk, without a rebuild
    #[command(subcommand)]
    Config(ConfigVerb),
}

#[derive(Subcommand)]
enum ConfigVerb {
    /// Makes a site file the configuration; a cut half way leaves the one before
    Set {
        /// A raw image, or a boot disk's device
        image: PathBuf,
        /// The site file
        site: PathBuf,
    },
    /// Shows what the configuration says, without its secrets
    Show {
        /// A raw image, or a boot disk's device
        image: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Command::parse().verb) {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(fault) => {
            eprintln!("images: {fault}");
            fault.exit_code()
        }
    }
}

fn run(verb: Verb) -> Result<String, Fault> {
    match verb {
        Verb::Build(build) => {
            let steps = Steps::new();
            let done = build.run(|step| steps.next(step));
            steps.bar.finish_and_clear();
            done
        }
        Verb::Boot(boot) => boot.run(),
        Verb::Lock { file } => {
            let (text, changes) = lock::renewed()?;
            if changes.is_empty() {
                return Ok("the lock file pins what apt offers".to_owned());
            }
            std::fs::write(&file, text).map_err(|error| {
                Fault::Other(format!("can't write {}: {error}", file.display()))
            })?;
            Ok(changes.join("\n"))
        }
        Verb::Flash(flash) => {
            let bar = ProgressBar::new(0);
            let style = ProgressStyle::with_template(
                "{msg:14} {bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
            );
            bar.set_style(style.map_err(Fault::other)?);
            let done = flash.run(flash::ask, |doing, done, all| {
                if bar.message() != doing {
                    bar.set_message(doing.to_owned());
                    bar.set_length(all);
                }
                bar.set_position(done);
            });
            bar.finish_and_clear();
            done
        }
        Verb::Config(ConfigVerb::Set { image, site }) => {
            config::set(&image, &site, |said| eprintln!("images: {said}"))
        }
        Verb::Config(ConfigVerb::Show { image }) => config::show(&image),
    }
}

/// What is being done: a line that turns where a person looks, a line each otherwise.
struct Steps {
    bar: ProgressBar,
    person: bool,
}

impl Steps {
    fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(Duration::from_millis(120));
        Self {
            bar,
            person: std::io::stderr().is_terminal(),
        }
    }

    fn next(&self, step: &str) {
        if self.person {
            self.bar.set_message(step.to_owned());
        } else {
            eprintln!("images: {step}");
        }
    }
}
