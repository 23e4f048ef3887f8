//! Every site of `config/sites` is legal, and comes back from its blob as it went in.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

#[test]
fn every_example_is_legal_and_survives_its_blob() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("sites");
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let site = site::load(&path).unwrap_or_else(|fault| panic!("{fault}"));
        assert_eq!(site::Site::from_blob(&site.to_blob()), Ok(site.clone()));
        let report = site::check::check_file(&path, false);
        assert!(report.legal);
        println!("{}", report.text);
        names.push(site.name);
    }
    names.sort();
    assert_eq!(
        names,
        [
            "laptop",
            "plant-one",
            "plant-three",
            "three-on-one-machine",
            "two-with-witness"
        ]
    );
}
