//! The site's secret: 32 random bytes in a file beside the site file, which the operator keeps and no slot ever holds.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use site::Site;
use slots::config::{Keys, SECRETS_MAX, Secret};

use crate::fault::{At, Fault};

const SECRET_BYTES: usize = 32;

/// Reads the files that the site names, relative to the site's own; `None` if it names none. A file that is missing is
/// made, and `say` is told.
pub fn load(
    site: &Site,
    site_file: &Path,
    mut say: impl FnMut(&str),
) -> Result<Option<Keys>, Fault> {
    if site.secret.is_empty() {
        return Ok(None);
    }
    let mut keys = Keys::default();
    assert!(
        site.secret.len() <= SECRETS_MAX,
        "the site's check allows two"
    );
    for (place, secret) in keys.secrets.iter_mut().zip(&site.secret) {
        let path = site_file
            .parent()
            .unwrap_or(Path::new(""))
            .join(&secret.file);
        let bytes = if path.exists() {
            read(&path)?
        } else {
            make(&path, &mut say)?
        };
        *place = Some(Secret {
            id: secret.id,
            bytes,
        });
    }
    Ok(Some(keys))
}

fn read(path: &Path) -> Result<[u8; SECRET_BYTES], Fault> {
    let mode = fs::metadata(path).at("read", path)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(Fault::Refused(format!(
            "{} holds the site's secret and others may read it: chmod 600 {0}",
            path.display()
        )));
    }
    let bytes = fs::read(path).at("read", path)?;
    let count = bytes.len();
    bytes.try_into().map_err(|_| {
        Fault::Other(format!(
            "{} has {count} bytes, a secret has {SECRET_BYTES}",
            path.display()
        ))
    })
}

fn make(path: &PathBuf, say: &mut impl FnMut(&str)) -> Result<[u8; SECRET_BYTES], Fault> {
    let mut bytes = [0; SECRET_BYTES];
    let mut filled = 0;
    while filled < SECRET_BYTES {
        let got =
            rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty());
        filled += got.map_err(|error| Fault::Other(format!("no random bytes: {error}")))?;
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .at("make", path)?;
    file.write_all(&bytes)
        .and_then(|()| file.sync_all())
        .at("write", path)?;
    say(&format!(
        "made {}: the site's secret. Keep it; every image of this site needs it.",
        path.display()
    ));
    Ok(bytes)
}
